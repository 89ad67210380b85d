"""What explains the figures of a benchmark, and what makes them doubtful, in sentences."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from bnfold.measurement.arms import BASE, NULL
from bnfold.records import (
    AffineNode,
    Arm,
    BenchSettings,
    Case,
    Ending,
    Machine,
    RunGraph,
    Speed,
)

_BN: Final = "BatchNormalization"
_AS_CONV: Final = "depthwise Conv"
_BUSY: Final = 0.5
_STOLEN: Final = 0.02
_FAR: Final = 0.01
_UNSETTLED: Final = 0.3
_NAMED: Final = 3
_FOLDED: Final = "folded"
_UNFUSED: Final = "unfused"


def explain(graphs: Sequence[RunGraph]) -> tuple[str, ...]:
    """Say what the runtime folds itself, what only the fold removed, and what that cost."""
    by_arm = {graph.arm: graph for graph in graphs if graph.nodes}
    original, folded = by_arm.get(BASE), by_arm.get(_FOLDED)
    if original is None:
        return ()
    found = [*_by_itself(original)]
    if folded is not None:
        found += _only_here(original, folded)
        found += _what_runs(original, folded)
    if _UNFUSED in by_arm:
        found += _without_fusions(original, by_arm[_UNFUSED])
    return tuple(found)


def _by_itself(original: RunGraph) -> Iterator[str]:
    there, left = original.file_nodes.get(_BN, 0), len(_norms(original))
    if there and left < there:
        all_of = "all" if left == 0 else f"{there - left} of the"
        yield (
            f"The runtime folds {all_of} {there} {_BN} nodes of the original itself while it"
            " loads the model."
        )
    elif there:
        yield f"The runtime folds none of the {there} {_BN} nodes of the original itself."


def _norms(graph: RunGraph) -> list[AffineNode]:
    """BatchNormalizations that still run, those that became a depthwise Conv included."""
    found = [one for one in graph.affine if one.kind in (_BN, _AS_CONV)]
    return found[: graph.file_nodes.get(_BN, 0)]


def _only_here(original: RunGraph, folded: RunGraph) -> Iterator[str]:
    """Affine nodes that the runtime left, and that are gone from the folded model."""
    before, after = _kinds(original.affine), _kinds(folded.affine)
    gone, new = before - after, after - before
    if gone.total() <= new.total():
        return
    instead = f"; {_listed(new)} came in their place" if new else ""
    cost = _cost_of_gone(original, folded, gone.total())
    yield (
        f"Only the fold removed {_listed(gone)}, which the runtime leaves in place"
        f"{instead}{cost}."
    )


def _kinds(nodes: Sequence[AffineNode]) -> Counter[str]:
    return Counter(one.kind for one in nodes)


def _listed(kinds: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())


def _cost_of_gone(original: RunGraph, folded: RunGraph, count: int) -> str:
    """What the removed nodes took, where names and the profiler tell which those are."""
    kept = {one.name for one in folded.affine}
    shares = [one.share for one in original.affine if one.name not in kept]
    told = [share for share in shares if share is not None]
    if not len(told) == len(shares) == count:
        return ""
    were = "it was" if count == 1 else "they were"
    return f"; {were} {sum(told):.1%} of the time of the original's nodes"


def _what_runs(original: RunGraph, folded: RunGraph) -> Iterator[str]:
    before, after = sum(original.nodes.values()), sum(folded.nodes.values())
    if original.nodes == folded.nodes:
        yield (
            f"Of both models the runtime runs the same {before} operators, so no steady-state"
            " speedup over its default is to be expected; what a fold saves here is work while"
            " loading."
        )
        return
    yield f"The runtime runs {before} operators of the original, {after} of the folded model."
    yield from _where_time_went(original.node_time_ms, folded.node_time_ms)


def _where_time_went(before: Mapping[str, float], after: Mapping[str, float]) -> Iterator[str]:
    """The operators whose time changed most, by the runtime's own profiler."""
    if not before or not after:
        return
    changes = {
        kind: after.get(kind, 0.0) - before.get(kind, 0.0) for kind in {*before, *after}
    }
    most = sorted(changes, key=lambda kind: -abs(changes[kind]))[:_NAMED]
    floor = 0.01 * sum(before.values())
    words = [
        f"{kind} {before.get(kind, 0.0):.3g} → {after.get(kind, 0.0):.3g} ms"
        for kind in most
        if abs(changes[kind]) > floor
    ]
    if words:
        yield f"By the runtime's profiler, time in nodes changes most in: {', '.join(words)}."


def _without_fusions(original: RunGraph, unfused: RunGraph) -> Iterator[str]:
    """BatchNormalization may stay itself, or become another operator (Conv in NCHWc, say)."""
    there = original.file_nodes.get(_BN, 0)
    if not there:
        return
    if original.nodes == unfused.nodes:
        yield "Switching the runtime's own BatchNorm fusions off changes nothing here."
        return
    left = _norms(unfused)
    shares = [one.share for one in left if one.share is not None]
    cost = f", {sum(shares):.1%} of the time of all nodes" if left and shares else ""
    kept = f", {len(left)} of them {_BN}{cost}" if left else ""
    before, after = sum(original.nodes.values()), sum(unfused.nodes.values())
    yield f"With its own fusions off it runs {after} operators instead of {before}{kept}."


def doubts(
    arms: Sequence[Arm],
    cases: Sequence[Case],
    graphs: Sequence[RunGraph],
    machine: Machine,
    settings: BenchSettings,
) -> tuple[str, ...]:
    """Say what the reader should know before believing the figures, each with a remedy."""
    by_words: dict[str, list[Case]] = {}
    for case in cases:
        for said in _of_case(case, settings):
            by_words.setdefault(said, []).append(case)
    found = [_where(those) + said for said, those in by_words.items()]
    found += _of_graphs(graphs)
    found += _of_machine(machine)
    provider = arms[0].provider if arms else ""
    if settings.dtype == "float16" and provider.startswith("CPU"):
        found.append("the CPU provider computes float16 in float32, with casts: time a GPU")
    return tuple(found)


def _where(cases: Sequence[Case]) -> str:
    """The batch sizes of which the same is to be said."""
    sizes = [str(case.batch) for case in cases if case.batch is not None]
    more = len(sizes) - _NAMED
    named = ", ".join(sizes[:_NAMED]) + (f" and {more} more" if more > 0 else "")
    return f"batch {named}: " if sizes else ""


def _of_case(case: Case, settings: BenchSettings) -> Iterator[str]:
    for name, why in case.failures.items():
        what = "did not come to its end" if name.startswith("process ") else "could not be run"
        yield f"{name} {what}: {why}"
    yield from _of_ending(case, settings)
    for one in case.comparisons:
        shown = one.verdict in (Speed.FASTER, Speed.SLOWER)
        if one.arm == NULL and shown and abs(one.ratio - 1) > settings.precision:
            yield (
                f"the null run differs from its own copy by {abs(one.ratio - 1):.1%}:"
                " something disturbs this machine; repeat on a quiet one"
            )
    for name, far in case.outputs_differ.items():
        if far == math.inf:
            yield (
                f"outputs of {name} cannot be compared with the original's: another shape, or"
                " NaN or infinite where those are not; judge them with bnfold verify"
            )
        elif far > _FAR:
            yield (
                f"outputs of {name} are {far:.2g} of their size away from the original's:"
                " judge them with bnfold verify"
            )
    calm = [one.settled for one in case.series]
    if calm and calm.count(False) / len(calm) > _UNSETTLED:
        yield (
            f"{calm.count(False)} of {len(calm)} warm-ups did not settle: the machine is busy,"
            " or --max-time is short"
        )


def _of_ending(case: Case, settings: BenchSettings) -> Iterator[str]:
    if case.ending is Ending.INTERRUPTED:
        yield "interrupted: these figures are what there was by then"
    elif any(one.verdict is Speed.NOT_MEASURED for one in case.comparisons):
        yield "the time was too short for an interval: give more --max-time"
    elif case.ending is Ending.OUT_OF_TIME and case.comparisons:
        yield (
            f"stopped by time, before the interval was within ±{settings.precision:.2g}:"
            " more --max-time narrows it"
        )


def _of_graphs(graphs: Sequence[RunGraph]) -> Iterator[str]:
    for graph in graphs:
        if graph.elsewhere:
            named = ", ".join(graph.elsewhere[:_NAMED])
            more = len(graph.elsewhere) - _NAMED
            yield (
                f"{graph.arm}: {len(graph.elsewhere)} nodes ran on another provider: {named}"
                + (f" and {more} more" if more > 0 else "")
            )


def _of_machine(machine: Machine) -> Iterator[str]:
    load = machine.load_before
    if load is not None and load > _BUSY * machine.cores:
        yield f"the machine was busy before (load {load:.1f} on {machine.cores} cores)"
    if machine.stolen is not None and machine.stolen > _STOLEN:
        yield f"the host took away {machine.stolen:.0%} of the CPU time meanwhile"
    reasons = {reason for reading in machine.readings for reason in reading.throttled}
    if reasons:
        yield f"the GPU held its clocks back: {', '.join(sorted(reasons))}"
    others = {one for reading in machine.readings[:1] for one in reading.processes}
    if others:
        yield f"other processes compute on the GPU: {', '.join(sorted(others))}"
