"""The figures of a benchmark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from bnfold.records import BenchReport, Case, Comparison, Series
from bnfold.report import canvas, words
from bnfold.report.blocks import Figure as Shown
from bnfold.report.canvas import INK, bare

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS: Final = ("o", "D", "s", "^", "v", "P")
_BINS: Final = 56
_ROW: Final = 0.27


def colours(report: BenchReport) -> Mapping[str, int]:
    """Give each arm its place among the colours: base, folded and null run always the same."""
    free = [2, 4, 5]
    found: dict[str, int] = {}
    for arm in report.arms:
        if arm is report.base:
            found[arm.name] = 0
        elif arm.null:
            found[arm.name] = 3
        elif 1 not in found.values():
            found[arm.name] = 1
        else:
            found[arm.name] = free.pop(0) if len(free) > 1 else free[0]
    return found


def forest(report: BenchReport) -> Shown | None:
    """Ratio and interval of every arm at every batch size, the null run among them."""
    rows = [
        (case, one)
        for case in report.cases
        for one in case.comparisons
        if math.isfinite(one.ratio)
    ]
    if not rows:
        return None
    places = colours(report)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        bare(axes)
        axes.axvline(1, color=INK, linewidth=1.2)
        for y, (_, one) in enumerate(rows):
            _whisker(axes, y, one, places.get(one.arm, 3))
        _row_names(axes, [_row_name(*row) for row in rows])
        _batch_lines(axes, [case.batch for case, _ in rows])
        axes.set_xlabel(f"time relative to {report.base.name} (left of 1: faster)")
        _leave_room(axes, [one for _, one in rows])

    told = "; ".join(f"{_row_name(case, one)}: {one.ratio:.3f}" for case, one in rows)
    svg = canvas.drawn(0.75 + _ROW * len(rows), f"Ratios of times: {told}", "forest", draw)
    base, share = report.base.name, f"{100 * report.settings.confidence:g} %"
    return Shown(
        svg,
        f"Time relative to {base}",
        f"Point: ratio of times; line: {share} interval. The line at 1 is {base} itself; the"
        " grey, hollow points are the null run, which must lie on it. Where an interval stays"
        " clear of the line there is a difference.",
    )


def _whisker(axes: Axes, y: int, one: Comparison, place: int) -> None:
    colour = canvas.ARMS[place]
    if math.isfinite(one.low) and math.isfinite(one.high) and one.low > 0:
        axes.plot([one.low, one.high], [y, y], color=colour, linewidth=2.2)
    hollow = "none" if place == 3 else colour
    axes.plot([one.ratio], [y], _MARKERS[place], color=colour, markersize=6.5, mfc=hollow)


def _row_name(case: Case, one: Comparison) -> str:
    return one.arm if case.batch is None else f"{one.arm}, batch {case.batch}"


def _row_names(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [short(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)


def short(name: str, most: int = 26) -> str:
    """Cut a long name, so that it leaves room for the drawing."""
    return name if len(name) <= most else f"{name[: most - 9]}…{name[-8:]}"


def _batch_lines(axes: Axes, batches: Sequence[int | None]) -> None:
    for y in range(1, len(batches)):
        if batches[y] != batches[y - 1]:
            axes.axhline(y - 0.5, color=canvas.LINE, linewidth=0.8)


def _leave_room(axes: Axes, rows: Sequence[Comparison]) -> None:
    """Show every interval that has ends, but none that would press the others flat."""
    ends = [1.0, *(one.ratio for one in rows)]
    spread = max(abs(one - 1) for one in ends) or 0.01
    ends += [end for one in rows for end in (one.low, one.high) if abs(end - 1) < 3 * spread]
    low, high = min(ends), max(ends)
    margin = max(0.06 * (high - low), 0.004)
    axes.set_xlim(low - margin, high + margin)


def calls_ms(case: Case, arm: str) -> NDArray[np.float64]:
    """Every timed call of one arm, in milliseconds."""
    found = [turn.calls_ns for one in case.series if one.arm == arm for turn in one.turns]
    return np.array([call for calls in found for call in calls], dtype=np.float64) / 1e6


def distributions(report: BenchReport, case: Case, key: str) -> Shown | None:
    """How the times of single calls are spread, one hill for each arm."""
    samples = {arm.name: calls_ms(case, arm.name) for arm in report.arms}
    samples = {arm: calls for arm, calls in samples.items() if calls.size}
    if not samples:
        return None
    everything = np.concatenate(list(samples.values()))
    low, high = _shown_range(list(samples.values()))
    beyond = int((everything > high).sum())
    places = colours(report)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        bare(axes)
        for row, (arm, calls) in enumerate(samples.items()):
            _hill(axes, row, calls, (low, high), canvas.ARMS[places[arm]])
        axes.set_yticks(range(len(samples)), [short(arm, 16) for arm in samples])
        axes.set_ylim(len(samples) - 0.8, -1.0)
        axes.set_xlim(low, high)
        axes.set_xlabel("time of a call, ms")

    medians = "; ".join(f"{arm} {np.median(calls):.3g} ms" for arm, calls in samples.items())
    where = f" at {words.at_batch(case.batch)}" if case.batch is not None else ""
    svg = canvas.drawn(0.75 + 0.5 * len(samples), f"Medians{where}: {medians}", key, draw)
    outside = f" {words.counted(beyond, 'call')} took longer than is shown." if beyond else ""
    return Shown(
        svg,
        f"Times of single calls{where}",
        f"Long line: median; dashes: 90th and, where it is near, 99th percentile.{outside}",
    )


def _shown_range(samples: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """From the fastest call to the slowest arm's tail, unless that is far away."""
    low = min(float(calls.min()) for calls in samples)
    tails = [np.quantile(calls, (0.5, 0.9, 0.99)) for calls in samples]
    high = max(float(min(late, middle + 6 * (most - middle))) for middle, most, late in tails)
    room = max(0.05 * (high - low), 1e-3 * high)
    return low - room, high + room


def _hill(
    axes: Axes, row: int, calls: NDArray[np.float64], ends: tuple[float, float], colour: str
) -> None:
    counts, edges = np.histogram(calls, bins=_BINS, range=ends)
    top = counts.max() or 1
    heights = np.append(counts, 0) / top * 0.82
    axes.fill_between(
        edges, row, row - heights, step="post", color=colour, alpha=0.3, linewidth=0
    )
    axes.step(edges, row - heights, where="post", color=colour, linewidth=1)
    marks = zip((0.5, 0.9, 0.99), (0.9, 0.45, 0.3), ("-", "--", "--"), strict=True)
    for share, height, style in marks:
        at = float(np.quantile(calls, share))
        if at > ends[1]:
            continue
        width = 1.8 if share == 0.5 else 1.2
        axes.plot([at, at], [row, row - height], style, color=INK, linewidth=width)


def processes(report: BenchReport, case: Case, key: str) -> Shown | None:
    """The ratio that every process found: whether they agree."""
    bases = {one.process: one for one in case.series if one.arm == report.base.name}
    ratios = {
        arm.name: [
            (one.process + 1, ratio)
            for one in case.series
            if one.arm == arm.name and one.process in bases
            for ratio in _ratio_of(one, bases[one.process])
        ]
        for arm in report.arms[1:]
    }
    ratios = {arm: found for arm, found in ratios.items() if found}
    numbers = sorted({process for found in ratios.values() for process, _ in found})
    if len(numbers) < 2:
        return None
    places = colours(report)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        bare(axes, "y")
        axes.axhline(1, color=INK, linewidth=1.2)
        for arm, found in ratios.items():
            _line(axes, found, arm, places[arm])
        axes.set_xlabel("process")
        axes.set_ylabel(f"time relative to {short(report.base.name, 16)}")
        axes.set_xticks(numbers[:: len(numbers) // 12 + 1])
        _legend(figure, axes)

    where = f" at {words.at_batch(case.batch)}" if case.batch is not None else ""
    title = f"What every process found{where}"
    return Shown(
        canvas.drawn(2.6, title, key, draw),
        title,
        "The ratio of times, turn by turn, in each process. Level lines: the processes agree."
        " Lines that go up and down: they do not, and the interval is wide.",
    )


def _ratio_of(arm: Series, base: Series) -> tuple[float, ...]:
    """The median over paired turns of the ratio of their medians; nothing without a pair."""
    theirs = {turn.turn: float(np.median(turn.calls_ns)) for turn in base.turns}
    found = [
        float(np.median(turn.calls_ns)) / theirs[turn.turn]
        for turn in arm.turns
        if theirs.get(turn.turn, 0.0) > 0
    ]
    return (float(np.median(found)),) if found else ()


def _line(axes: Axes, points: Sequence[tuple[float, float]], arm: str, place: int) -> None:
    style = ":" if place == 3 else "-"
    hollow = "none" if place == 3 else canvas.ARMS[place]
    axes.plot(
        *zip(*points, strict=True),
        label=short(arm, 16),
        color=canvas.ARMS[place],
        linestyle=style,
        marker=_MARKERS[place],
        markersize=4.5,
        mfc=hollow,
        linewidth=1.4,
    )


def _legend(figure: Figure, axes: Axes) -> None:
    """Name the lines above the drawing, where they never cover one."""
    handles, names = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        names,
        loc="outside upper left",
        ncols=2 if len(names) > 3 else len(names),
        columnspacing=1.4,
        handlelength=1.8,
        borderpad=0.1,
    )


def curves(report: BenchReport) -> tuple[Shown, ...]:
    """Throughput and latency over batch sizes, where there are several."""
    cases = [case for case in report.cases if case.batch is not None]
    if len({case.batch for case in cases}) < 2:
        return ()
    rate = _points(report, cases, "items_per_s")
    middle = _points(report, cases, "p50_ms")
    return (
        Shown(
            _curve(report, rate, ("items per second", "throughput"), "linear"),
            "Throughput over batch sizes",
            "Higher is better.",
        ),
        Shown(
            _curve(report, middle, ("median of a call, ms", "latency"), "log"),
            "Latency over batch sizes",
            "Lower is better; both axes are logarithmic.",
        ),
    )


def _points(
    report: BenchReport, cases: Sequence[Case], field: str
) -> Mapping[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for arm in report.arms:
        found[arm.name] = [
            (float(case.batch or 0), float(getattr(one, field)))
            for case in cases
            for one in case.latencies
            if one.arm == arm.name and math.isfinite(getattr(one, field))
        ]
    return {arm: points for arm, points in found.items() if points}


def _curve(
    report: BenchReport,
    lines: Mapping[str, list[tuple[float, float]]],
    named: tuple[str, str],
    scale: str,
) -> str:
    places = colours(report)
    batches = sorted({x for points in lines.values() for x, _ in points})

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        bare(axes, "y")
        for arm, points in lines.items():
            _line(axes, points, arm, places[arm])
        axes.set_xscale("log", base=2)
        axes.set_xticks(batches, [f"{one:g}" for one in batches], minor=False)
        axes.set_xticks([], minor=True)
        axes.set_yscale(scale)
        if scale == "linear":
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}".replace(",", " "))
        else:
            canvas.round_ticks(axes.yaxis, axes.get_ylim())
        axes.set_xlabel("batch size")
        axes.set_ylabel(named[0])
        _legend(figure, axes)

    return canvas.drawn(2.7, f"{named[1]} over batch sizes", f"curve-{named[1]}", draw)
