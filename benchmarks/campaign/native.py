"""A second opinion: both models in the graph's own types, by ``onnx.reference``.

Coarse, as it rounds like a runtime does, but written by others: it shares no kernel with
`truth`, and evaluates every constant as the graph says.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from benchmarks.campaign.truth import Feeds, largest

LIMITS: Final[Mapping[str, float]] = {"fp32": 2e-3, "fp64": 1e-6, "fp16": 0.1}
"""Of the largest number of an output; what rounds more coarsely is not compared."""
FIRST_RIGHT: Final = 14
"""Operator set from which on ``onnx.reference`` reads BatchNormalization at inference."""


def opinion(
    original: onnx.ModelProto, folded: onnx.ModelProto, kind: str, feeds: Feeds
) -> str:
    """Return ``agrees``, ``contradicts``, or why nothing was compared."""
    why = _not_fit(original, kind)
    if why:
        return why
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            wanted, found = (
                ReferenceEvaluator(one).run(None, feeds) for one in (original, folded)
            )
    except Exception:  # noqa: BLE001 — it knows fewer operators than the campaign
        return "onnx.reference cannot run it"
    return "agrees" if _same(wanted, found, LIMITS[kind]) else "contradicts"


def _not_fit(model: onnx.ModelProto, kind: str) -> str:
    """Return why ``onnx.reference`` is not asked: it is known to be wrong, or it rounds."""
    nodes = list(_nodes(model.graph.node))
    nodes += [node for one in model.functions for node in _nodes(one.node)]
    kinds = {node.op_type for node in nodes}
    versions = {one.domain: one.version for one in model.opset_import}
    names = {a.name for node in nodes for a in node.attribute if a.i}
    groups = [a.i for node in nodes for a in node.attribute if a.name == "group"]
    if kind not in LIMITS:
        return "another type"
    if "BatchNormalization" in kinds and versions.get("", FIRST_RIGHT) < FIRST_RIGHT:
        return "an old BatchNormalization"
    if "ConvTranspose" in kinds and max(groups, default=1) > 1:
        return "a grouped ConvTranspose"
    if "ceil_mode" in names:
        return "a pool that rounds up"
    return "it quantises" if kinds & {"QuantizeLinear", "DynamicQuantizeLinear"} else ""


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield nodes and those of their subgraphs."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from _nodes(attribute.g.node)


def _same(wanted: list[np.ndarray], found: list[np.ndarray], limit: float) -> bool:
    for one, other in zip(wanted, found, strict=True):
        before, after = (np.asarray(part).astype(np.float64) for part in (one, other))
        finite = before[np.isfinite(before)]
        room = limit * float(np.max(np.abs(finite), initial=1e-6))
        if largest(before, after) > room:
            return False
    return True
