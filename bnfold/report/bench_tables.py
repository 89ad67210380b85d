"""The tables of a benchmark, for terminal, page and pull request alike."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from bnfold.records import BenchReport, Case, Comparison, Latency, RunGraph, Speed, Start
from bnfold.report import words
from bnfold.report.blocks import Cell, Entry, Table


def batch_name(case: Case) -> str:
    """Name a batch size in a heading."""
    return words.at_batch(case.batch) or "the only batch size"


def arms_table(report: BenchReport) -> Table:
    """What was timed: which file, how it was run."""
    rows = [
        (
            Cell(arm.name + (" (base)" if arm is report.base else "")),
            arm.label,
            arm.model,
            arm.level
            + (
                f", without {', '.join(arm.disabled_optimizers)}"
                if arm.disabled_optimizers
                else ""
            ),
            _provider(arm.provider, arm.provider_options),
        )
        for arm in report.arms
    ]
    head = ("arm", "what it is", "model", "optimisation", "provider")
    return Table("What was timed", head, tuple(rows))


def _provider(name: str, options: Mapping[str, str]) -> str:
    told = ", ".join(f"{key}={value}" for key, value in options.items())
    return f"{name} ({told})" if told else name


def summary_table(report: BenchReport) -> Table:
    """The arm that the reader came for, against the base, at every batch size."""
    name = words.main_arm(report)
    rows = [_summary_row(report, case, name) for case in report.cases]
    head = (
        "batch",
        "answer",
        "#times as fast",
        _interval_head(report),
        f"#{report.base.name}, ms",
        f"#{name}, ms",
    )
    note = (
        "Times are medians of all calls. The ratio compares each turn with the one next to it,"
        " so it holds where the machine was busy at times, and the medians alone would not."
    )
    return Table(f"{name} against {report.base.name}", head, tuple(rows), note)


def _interval_head(report: BenchReport) -> str:
    return f"#ratio of times, {100 * report.settings.confidence:g} % interval"


def _summary_row(report: BenchReport, case: Case, name: str) -> tuple[Entry, ...]:
    times = {one.arm: one.p50_ms for one in case.latencies}
    found = _comparison(case, name)
    return (
        "" if case.batch is None else str(case.batch),
        _answer(report, found),
        words.NOTHING if found is None else words.speedup(found.ratio),
        _ratio(found),
        *(_ms(times.get(arm)) for arm in (report.base.name, name)),
    )


def _answer(report: BenchReport, found: Comparison | None) -> Cell:
    """The verdict; in colour only for the arm that the reader came for, or where it is odd."""
    verdict = Speed.NOT_MEASURED if found is None else found.verdict
    is_asked = found is None or found.arm == words.main_arm(report)
    is_odd = verdict is Speed.NOT_MEASURED
    return Cell(words.SPEED[verdict], words.TONE[verdict] if is_asked or is_odd else "quiet")


def _ratio(found: Comparison | None) -> str:
    """The ratio with its interval in brackets."""
    if found is None or not math.isfinite(found.ratio):
        return words.NOTHING
    return f"{found.ratio:.3f} ({words.interval(found)})"


def case_table(report: BenchReport, case: Case) -> Table:
    """Every arm at one batch size."""
    times = {one.arm: one for one in case.latencies}
    rows = [
        (arm.name, *_time_cells(times.get(arm.name)), *_against(report, case, arm.name))
        for arm in report.arms
    ]
    head = (
        "arm",
        "#p50, ms",
        "#p90, ms",
        "#p99, ms",
        "#items/s",
        _interval_head(report),
        "answer",
        "#would be found",
    )
    return Table(f"All arms, {batch_name(case)}", head, tuple(rows), _samples_said(case))


def _time_cells(found: Latency | None) -> tuple[str, ...]:
    if found is None:
        return (words.NOTHING,) * 4
    return (
        *(_ms(one) for one in (found.p50_ms, found.p90_ms, found.p99_ms)),
        words.digits(found.items_per_s),
    )


def _against(report: BenchReport, case: Case, arm: str) -> tuple[Entry, ...]:
    if arm == report.base.name:
        return ("1", Cell("base", "quiet"), words.NOTHING)
    found = _comparison(case, arm)
    detectable = words.NOTHING if found is None else words.percent(found.detectable)
    return (_ratio(found), _answer(report, found), detectable)


def _samples_said(case: Case) -> str:
    processes = {one.process for one in case.series}
    calls = max((one.calls for one in case.latencies), default=0)
    shapes = ", ".join(
        f"{name} {'×'.join(map(str, shape))}" for name, shape in case.shapes.items()
    )
    told = [
        f"{calls} timed calls for each arm in"
        f" {words.counted(len(processes), 'process', 'processes')}",
        words.ENDING[case.ending],
    ]
    told += [f"{arm} could not be run: {why}" for arm, why in case.failures.items()]
    unsettled = sorted({one.arm for one in case.series if not one.settled})
    if unsettled:
        told.append(f"not settled before it was timed: {', '.join(unsettled)}")
    return f"{shapes}; {'; '.join(told)}." if shapes else f"{'; '.join(told)}."


def differences_table(report: BenchReport) -> Table:
    """How far the outputs of the arms are from the base's, a column for each batch size."""
    arms = [arm.name for arm in report.arms[1:]]
    cases = [case for case in report.cases if case.outputs_differ]
    rows = [
        (arm, *(_far(case.outputs_differ.get(arm)) for case in cases))
        for arm in arms
        if any(arm in case.outputs_differ for case in cases)
    ]
    head = ("arm", *(f"#{words.at_batch(case.batch) or 'difference'}" for case in cases))
    note = "Root mean square of the difference over that of the base's outputs."
    return Table(f"Outputs against those of {report.base.name}", head, tuple(rows), note)


def _far(far: float | None) -> str:
    return words.NOTHING if far is None else words.digits(far, 2)


def starts_table(report: BenchReport) -> Table:
    """Session creation, first call, memory and file size."""
    sizes = {arm.name: arm.size_bytes for arm in report.arms}
    on_device = any(one.device_bytes is not None for one in report.starts)
    rows = [_start_row(one, sizes, on_device) for one in report.starts]
    head = ("arm", "batch", "#session, ms", "#first call, ms", "#memory added", "#peak memory")
    device = ("#device memory",) if on_device else ()
    return Table("Getting going", (*head, *device, "#file"), tuple(rows))


def _start_row(one: Start, sizes: Mapping[str, int], on_device: bool) -> tuple[Entry, ...]:  # noqa: FBT001  a fact, not a choice
    batch = "" if one.batch is None else str(one.batch)
    times = (_ms(one.session_ms), _ms(one.first_run_ms))
    memory = (words.size(one.added_host_bytes), words.size(one.peak_host_bytes))
    device = (words.size(one.device_bytes),) if on_device else ()
    return (one.arm, batch, *times, *memory, *device, words.size(sizes.get(one.arm)))


def graphs_table(report: BenchReport) -> Table:
    """How many nodes each file has, how many ran, and how many of them are affine."""
    rows = [
        (
            graph.arm,
            str(sum(graph.file_nodes.values())),
            str(sum(graph.nodes.values())),
            Cell(str(len(graph.affine)), "good" if not graph.affine else ""),
            _affine_share(graph),
            words.digits(sum(graph.node_time_ms.values()))
            if graph.node_time_ms
            else words.NOTHING,
            str(len(graph.elsewhere)),
        )
        for graph in report.graphs
    ]
    head = (
        "arm",
        "#nodes in the file",
        "#nodes that ran",
        "#affine nodes left",
        "#their share of the time",
        "#time of nodes, ms",
        "#on another provider",
    )
    return Table("What ran", head, tuple(rows))


def _affine_share(graph: RunGraph) -> str:
    shares = [one.share for one in graph.affine if one.share is not None]
    return words.percent(sum(shares)) if shares else words.NOTHING


def operators_table(graphs: Iterable[RunGraph]) -> Table:
    """Operators that ran in different numbers in the arms."""
    kept = tuple(graphs)
    kinds = sorted({kind for one in kept for kind in one.nodes})
    rows = [
        (kind, *(str(one.nodes.get(kind, 0)) for one in kept))
        for kind in kinds
        if len({one.nodes.get(kind, 0) for one in kept}) > 1
    ]
    head = ("operator", *(f"#{one.arm}" for one in kept))
    return Table("Operators that ran in different numbers", head, tuple(rows))


def affine_table(graphs: Iterable[RunGraph]) -> Table:
    """Affine nodes that the runtime still runs."""
    rows = [
        (
            graph.arm,
            one.name,
            one.kind,
            f"one number for each {one.along}" if one.along == "channel" else "one number",
            words.NOTHING if one.share is None else words.percent(one.share),
        )
        for graph in graphs
        for one in graph.affine
    ]
    head = ("arm", "node", "operator", "constant", "#share of the time")
    return Table("Affine nodes that still run", head, tuple(rows))


def elsewhere_table(graphs: Iterable[RunGraph]) -> Table:
    """Nodes that another provider ran than the one that was asked for."""
    rows = [(graph.arm, one) for graph in graphs for one in graph.elsewhere]
    return Table("Nodes that another provider ran", ("arm", "node"), tuple(rows))


def machine_table(report: BenchReport) -> Table:
    """Where it was measured."""
    machine = report.machine
    load = [
        words.NOTHING if one is None else f"{one:.2f}"
        for one in (machine.load_before, machine.load_after)
    ]
    stolen = words.NOTHING if machine.stolen is None else words.percent(machine.stolen)
    rows = [
        ("system", machine.system),
        ("processor", f"{machine.processor}, {words.counted(machine.cores, 'core')} to use"),
        ("memory", words.size(machine.memory_bytes)),
        ("GPU", machine.device or "none"),
        *((f"version of {name}", said) for name, said in machine.versions.items()),
        ("load before and after", " and ".join(load)),
        ("CPU time taken by the host", stolen),
    ]
    return Table("Where", ("what", "is"), tuple(rows))


def settings_table(report: BenchReport) -> Table:
    """How it was measured."""
    chosen = report.settings
    rows = [
        ("threads in an operator", str(chosen.threads or "the runtime's own choice")),
        ("number type", "as in the model" if chosen.dtype == "model" else chosen.dtype),
        ("CUDA graph", "captured and replayed" if chosen.cuda_graph else "no"),
        ("ends when half the interval is", f"{words.percent(chosen.precision)} or less"),
        ("ends anyway after", words.seconds(chosen.max_time_s)),
        ("confidence of intervals", f"{100 * chosen.confidence:g} %"),
        ("seed", str(chosen.seed)),
        ("took", words.seconds(report.elapsed_s)),
    ]
    return Table("How", ("what", "is"), tuple(rows))


def _comparison(case: Case, arm: str) -> Comparison | None:
    found = [one for one in case.comparisons if one.arm == arm]
    return found[0] if found else None


def _ms(ms: float | None) -> str:
    return words.NOTHING if ms is None else words.digits(ms)
