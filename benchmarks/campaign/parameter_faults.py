"""Faults in what a folder reads: the fold of another original."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.campaign.number_faults import Maker, channel_by
from benchmarks.campaign.sketch import Array
from benchmarks.campaign.subject import Mutant, Subject, in_half_ulps
from benchmarks.campaign.truth import HALF_ULP
from bnfold.errors import BnfoldError
from bnfold.folding.api import fold_unchecked


def _parameter(subject: Subject) -> Mutant | None:
    """Fold another original: one parameter that the fold read is another there."""
    kept = {one.name for one in subject.folded.graph.initializer}
    gone = [
        one.name
        for one in subject.original.graph.initializer
        if one.data_type in HALF_ULP and (one.name not in kept or one.name in subject.written)
    ]
    name = subject.any_of(gone)
    if name is None:
        return None
    other = onnx.ModelProto()
    other.CopyFrom(subject.original)
    place = [one.name for one in other.graph.initializer].index(name)
    array = numpy_helper.to_array(other.graph.initializer[place])
    kind, change = PARAMETERS[int(subject.rng.integers(len(PARAMETERS)))]
    wide = np.asarray(change(array.astype(np.float64), subject.rng))
    other.graph.initializer[place].CopyFrom(
        numpy_helper.from_array(wide.astype(array.dtype), name)
    )
    return _as_mutant(subject, kind, _folded(other))


PARAMETERS: Final[tuple[tuple[str, Callable[[Array, np.random.Generator], Array]], ...]] = (
    ("parameter times three", lambda a, _: 3 * a),
    ("parameter with the wrong sign", lambda a, _: -a),
    ("parameter forgotten", lambda a, _: np.ones_like(a)),
    ("channel of a parameter by 1 %", channel_by(1.01)),
    ("channel of a parameter negated", channel_by(-1.0)),
)


def _epsilon(subject: Subject) -> Mutant | None:
    kept = {node.name for node in subject.folded.graph.node}
    other = onnx.ModelProto()
    other.CopyFrom(subject.original)
    norms = [
        n for n in other.graph.node if n.op_type == "BatchNormalization" and n.name not in kept
    ]
    node = subject.any_of(norms)
    if node is None:
        return None
    for attribute in node.attribute:
        if attribute.name == "epsilon":
            attribute.f = 0.0
    return _as_mutant(subject, "epsilon forgotten", _folded(other))


def _folded(other: onnx.ModelProto) -> onnx.ModelProto | None:
    try:
        return fold_unchecked(other).to_proto()
    except BnfoldError:
        return None  # a variance below zero


def _as_mutant(subject: Subject, kind: str, model: onnx.ModelProto | None) -> Mutant | None:
    """Return another fold as a mutant, if only numbers differ."""
    if model is None:
        return None
    nodes = [n.SerializeToString(deterministic=True) for n in model.graph.node]
    if nodes != [n.SerializeToString(deterministic=True) for n in subject.folded.graph.node]:
        return None
    found = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    wrong, size = [], 0.0
    for one in subject.folded.graph.initializer:
        kept, other = numpy_helper.to_array(one), found.get(one.name)
        if other is None or other.shape != kept.shape:
            return None
        if other.tobytes() != kept.tobytes():
            wrong.append(one.name)
            size = max(size, in_half_ulps(kept, other, one.data_type))
    readers = dict.fromkeys(node for name in wrong for node in subject.readers(name))
    return Mutant(model, kind, tuple(readers), tuple(wrong), size) if wrong else None


READ: Final[dict[str, Maker]] = {
    "parameter": _parameter,
    "parameter again": _parameter,
    "epsilon": _epsilon,
}
