"""The figures of a benchmark that are about all but latency: memory, nodes, clocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Final

from bnfold.records import BenchReport, DeviceState, RunGraph, Start
from bnfold.report import canvas, words
from bnfold.report.bench_plots import colours, short
from bnfold.report.blocks import Figure as Shown
from bnfold.report.canvas import INK, bare

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST: Final = 10
_MB: Final = 1e6
_STARTS_NOTE: Final = "The median of fresh processes; shorter is better."


def starts(report: BenchReport) -> tuple[Shown, ...]:
    """Session creation, first call, memory and file size, a bar for each arm."""
    first = _first_starts(report.starts)
    order = [arm.name for arm in report.arms]
    sizes = {arm.name: arm.size_bytes / _MB for arm in report.arms}
    read: Mapping[str, Callable[[Start], float | None]] = {
        "Creating the session, ms": lambda one: one.session_ms,
        "First call, ms": lambda one: one.first_run_ms,
        "Memory added by the model, MB": lambda one: _megabytes(one.added_host_bytes),
        "Device memory, MB": lambda one: _megabytes(one.device_bytes),
    }
    found = {title: dict(_medians(first, order, tell)) for title, tell in read.items()}
    found["Size of the file, MB"] = sizes
    return tuple(
        Shown(_bars(report, bars, title, f"bars-{index}"), title, _STARTS_NOTE)
        for index, (title, bars) in enumerate(found.items())
        if bars
    )


def _medians(
    found: Sequence[Start], order: Sequence[str], tell: Callable[[Start], float | None]
) -> Iterator[tuple[str, float]]:
    """What is typical of every arm, in the order of the arms."""
    for arm in order:
        told = [value for one in found if one.arm == arm and (value := tell(one)) is not None]
        if told:
            yield arm, median(told)


def _first_starts(found: Sequence[Start]) -> list[Start]:
    """Those of the first batch size."""
    return [one for one in found if one.batch == found[0].batch] if found else []


def _megabytes(count: int | None) -> float | None:
    return None if count is None else count / _MB


def _bars(report: BenchReport, bars: Mapping[str, float], title: str, key: str) -> str:
    places = colours(report)
    kept = {arm: size for arm, size in bars.items() if math.isfinite(size)}

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        _plain_bars(axes, kept, [canvas.ARMS[places.get(arm, 3)] for arm in kept])

    told = "; ".join(f"{arm} {words.digits(size)}" for arm, size in bars.items())
    return canvas.drawn(0.2 + 0.29 * max(len(kept), 1), f"{title}: {told}", key, draw)


def _plain_bars(axes: Axes, bars: Mapping[str, float], shades: Sequence[str]) -> None:
    axes.grid(visible=False)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0, labelbottom=False)
    axes.barh(range(len(bars)), list(bars.values()), color=shades, height=0.62)
    top = max(bars.values(), default=0) or 1
    for y, size in enumerate(bars.values()):
        axes.text(size + 0.015 * top, y, words.digits(size), va="center", color=INK)
    axes.set_yticks(range(len(bars)), [short(arm, 16) for arm in bars])
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_xlim(0, 1.2 * top)


def node_times(report: BenchReport) -> Shown | None:
    """Time by operator, the largest ones and the rest, a bar for each arm."""
    graphs = [one for one in report.graphs if one.node_time_ms and not _is_null(report, one)]
    if not graphs:
        return None
    names, rows = _largest(graphs)
    places = colours(report)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        bare(axes)
        height = 0.8 / len(graphs)
        for index, graph in enumerate(graphs):
            at = [y + (index - (len(graphs) - 1) / 2) * height for y in range(len(names))]
            colour = canvas.ARMS[places.get(graph.arm, 3)]
            axes.barh(at, rows[index], height * 0.9, color=colour, label=short(graph.arm, 16))
        axes.set_yticks(
            range(len(names)), [short(name.rpartition(":")[2], 24) for name in names]
        )
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlabel("time in one call, ms")
        handles, arms = axes.get_legend_handles_labels()
        figure.legend(
            handles,
            arms,
            loc="outside upper left",
            ncols=len(graphs),
            handlelength=1.2,
        )

    height = 0.85 + len(names) * (0.1 + 0.115 * len(graphs))
    svg = canvas.drawn(height, f"Time by operator: {', '.join(names)}", "node-times", draw)
    return Shown(
        svg,
        "Where the time goes",
        "Time by operator in one call, as the runtime's own profiler has it. Profiling costs"
        " time itself, so compare the bars with each other and not with the latencies.",
    )


def _is_null(report: BenchReport, graph: RunGraph) -> bool:
    return any(arm.null and arm.name == graph.arm for arm in report.arms)


def _largest(graphs: Sequence[RunGraph]) -> tuple[list[str], list[list[float]]]:
    """Names of the operators that take most, and the times of every arm; the rest in one."""
    most: dict[str, float] = {}
    for graph in graphs:
        for kind, took in graph.node_time_ms.items():
            if math.isfinite(took):
                most[kind] = max(most.get(kind, 0.0), took)
    names = sorted(most, key=lambda kind: -most[kind])
    named, rest = names[:_MOST], names[_MOST:]
    rows = [[graph.node_time_ms.get(kind, 0.0) for kind in named] for graph in graphs]
    if rest:
        for row, graph in zip(rows, graphs, strict=True):
            row.append(sum(graph.node_time_ms.get(kind, 0.0) for kind in rest))
        named = [*named, f"{len(rest)} others"]
    return named, rows


_READINGS: Final[Mapping[str, Callable[[DeviceState], float | None]]] = {
    "clock, MHz": lambda one: one.sm_clock_mhz,
    "temperature, °C": lambda one: one.temperature_c,
    "power, W": lambda one: one.power_w,
}


def readings(report: BenchReport) -> Shown | None:
    """Clock, temperature and power of the GPU over the benchmark."""
    states = report.machine.readings
    panels = {
        name: points
        for name, tell in _READINGS.items()
        if (
            points := [
                (one.when_s, value) for one in states if (value := tell(one)) is not None
            ]
        )
    }
    if not panels:
        return None
    held = [one for one in states if one.throttled]

    def draw(figure: Figure) -> None:
        below = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (name, points) in zip(below, panels.items(), strict=True):
            bare(axes, "y")
            for one in held:
                axes.axvline(one.when_s, color=canvas.BAD, alpha=0.25, linewidth=4)
            axes.plot(*zip(*points, strict=True), color=canvas.ARMS[0], linewidth=1.5)
            axes.set_title(name, loc="left", color=INK)
        below[-1].set_xlabel("seconds since the benchmark began")

    told = ", ".join(panels)
    svg = canvas.drawn(
        0.5 + 1.05 * len(panels), f"The GPU over time: {told}", "readings", draw
    )
    why = sorted({reason for one in held for reason in one.throttled})
    note = f" Red: the driver held the clocks back ({', '.join(why)})." if held else ""
    return Shown(svg, "The GPU meanwhile", f"As its driver told.{note}")
