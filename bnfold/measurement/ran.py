"""What the runtime really ran in an arm, and what that says about the figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError

from bnfold.measurement.graphs import read_graph
from bnfold.measurement.lab import ArmPlan, CasePlan, Lab
from bnfold.measurement.profile import NodeTime, read_profile
from bnfold.records import AffineNode, RunGraph

_OUTSIDE: Final = {
    "session.optimized_model_external_initializers_file_name": "ran.data",
    "session.optimized_model_external_initializers_min_size_in_bytes": "4096",
}
"""Weights beside the graph, so that it can be of any size."""


def look(lab: Lab, one: ArmPlan, case: CasePlan, timeout_s: float) -> RunGraph | None:
    """Have the runtime write the graph of an arm, and profile it; None if interrupted."""
    name = one.arm.name
    stem = f"ran{next(lab.numbers)}"  # names of arms may be paths
    ran = lab.folder / f"{stem}.onnx"
    plan = replace(
        one.plan,
        optimized_path=str(ran),
        profile_prefix=str(lab.folder / stem),
        provider_options=_without_graphs(one.plan.provider_options),
        config={**one.plan.config, **_OUTSIDE},
    )
    told = lab.ask("look", {name: plan}, timeout_s, inputs=str(case.inputs))
    if told.interrupted:
        return None
    profiles = [Path(line["profile"]) for line in told.lines if "looked" in line]
    times = read_profile(profiles[0]) if profiles else ()
    in_file = read_graph(Path(one.plan.model)).kinds
    try:
        found = read_graph(ran)
    except (OSError, DecodeError):
        return RunGraph(name, in_file, {}, (), _by_kind(times), _elsewhere(times, one))
    shares = _shares(times)
    affine = tuple(
        AffineNode(node.name, node.kind, node.along, shares.get(node.name))
        for node in found.affine
    )
    return RunGraph(
        name, in_file, found.kinds, affine, _by_kind(times), _elsewhere(times, one)
    )


def _without_graphs(options: Mapping[str, str]) -> dict[str, str]:
    """A replayed CUDA graph has no nodes to time."""
    switches = {"enable_cuda_graph", "trt_cuda_graph_enable"}
    return {key: value for key, value in options.items() if key not in switches}


def _by_kind(times: Sequence[NodeTime]) -> dict[str, float]:
    found: Counter[str] = Counter()
    for one in times:
        found[one.kind] += one.ms  # type: ignore[assignment]  # a Counter adds any numbers
    return dict(found.most_common())


def _shares(times: Sequence[NodeTime]) -> dict[str, float]:
    """The share of the time of all nodes, by name; names that occur twice are no names."""
    total = sum(one.ms for one in times)
    counts = Counter(one.name for one in times)
    return {one.name: one.ms / total for one in times if counts[one.name] == 1 and total > 0}


def _elsewhere(times: Sequence[NodeTime], one: ArmPlan) -> tuple[str, ...]:
    """Nodes that another provider ran than the one that was asked for."""
    return tuple(
        f"{time.name} ({time.kind}) on {time.provider}"
        for time in times
        if time.provider and time.provider != one.arm.provider
    )
