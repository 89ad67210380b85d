"""Faults in what a folder reads: a parameter forgotten, negated, inverted or misplaced.

A folder that forgets the mean writes what an honest one writes for a mean of zero. So each
fault here is the honest fold of an original that was spoiled first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import onnx
from onnx import numpy_helper

from tests.mutants.subject import (
    Array,
    Mutant,
    Subject,
    floats_of,
    fold_of,
    same_bytes,
    skeleton,
)


@dataclass(frozen=True, slots=True)
class Norm:
    """Parameters of a BatchNormalization in float64, and two channels to be spoiled."""

    scale: Array
    shift: Array
    mean: Array
    variance: Array
    epsilon: float
    pair: tuple[int, int]

    def negated(self, array: Array) -> Array:
        """Return an array with one channel negated."""
        return np.where(np.arange(array.size) == self.pair[0], -array, array)

    def swapped(self, array: Array) -> Array:
        """Return an array with two channels swapped."""
        order = np.arange(array.size)
        order[list(self.pair)] = self.pair[::-1]
        return array[order]


Fault = Callable[[Norm], Norm]

NORM_FAULTS: Final[Mapping[str, Fault]] = {
    "epsilon forgotten": lambda n: replace(n, epsilon=0.0),
    "epsilon 1e-3": lambda n: replace(n, epsilon=1e-3 if n.epsilon < 1e-4 else 1e-5),
    "variance forgotten": lambda n: replace(n, variance=np.ones_like(n.mean), epsilon=0.0),
    "root forgotten": lambda n: replace(
        n, variance=(n.variance + n.epsilon) ** 2, epsilon=0.0
    ),
    "mean forgotten": lambda n: replace(n, mean=0 * n.mean),
    "mean with the wrong sign": lambda n: replace(n, mean=-n.mean),
    "shift forgotten": lambda n: replace(n, shift=0 * n.shift),
    "shift with the wrong sign": lambda n: replace(n, shift=-n.shift),
    "scale forgotten": lambda n: replace(n, scale=np.ones_like(n.scale)),
    "sign of one channel": lambda n: replace(n, scale=n.negated(n.scale)),
    "scales of two channels swapped": lambda n: replace(n, scale=n.swapped(n.scale)),
    "means of two channels swapped": lambda n: replace(n, mean=n.swapped(n.mean)),
}
ONE_CHANNEL: Final = "sign of one channel"


def parameter_faults(subject: Subject, rng: np.random.Generator) -> Iterator[Mutant]:
    """Yield a mutant for every fault of every map that was folded."""
    kept = {node.name for node in subject.folded.graph.node}
    for node in subject.original.graph.node:
        if node.name in kept:
            continue
        if node.op_type == "BatchNormalization":
            yield from _norm_faults(subject, node, rng)
        elif node.op_type in ("Mul", "Div", "Add", "Sub"):
            yield from _map_faults(subject, node)


def _norm_faults(
    subject: Subject, node: onnx.NodeProto, rng: np.random.Generator
) -> Iterator[Mutant]:
    names = list(node.input[1:5])
    arrays = [subject.before[name].astype(np.float64) for name in names]
    epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
    one, two = (int(i) for i in rng.permutation(arrays[0].size)[:2])
    norm = Norm(*arrays, epsilon, (one, two))
    for kind, fault in NORM_FAULTS.items():
        bad = fault(norm)
        spoiled = (bad.scale, bad.shift, bad.mean, bad.variance)
        tensors = dict(zip(names, spoiled, strict=True))
        channel = one if kind == ONE_CHANNEL else None
        yield from _refolded(subject, kind, node.name, tensors, bad.epsilon, channel)


def _map_faults(subject: Subject, node: onnx.NodeProto) -> Iterator[Mutant]:
    name = next((name for name in node.input if name in subject.before), None)
    if name is None:
        return
    array = subject.before[name].astype(np.float64)
    faults = {
        "Mul": {"scale forgotten": np.ones_like(array), "scale inverted": 1 / array},
        "Div": {"scale forgotten": np.ones_like(array), "scale inverted": 1 / array},
        "Add": {"shift forgotten": 0 * array, "shift with the wrong sign": -array},
        "Sub": {"shift forgotten": 0 * array, "shift with the wrong sign": -array},
    }
    for kind, spoiled in faults[node.op_type].items():
        yield from _refolded(subject, kind, node.name, {name: spoiled}, None, None)


def _refolded(
    subject: Subject,
    kind: str,
    node: str,
    tensors: Mapping[str, Array],
    epsilon: float | None,
    channel: int | None,
) -> Iterator[Mutant]:
    """Yield what a folder makes of spoiled parameters, if it has the same structure."""
    spoiled = onnx.ModelProto()
    spoiled.CopyFrom(subject.original)
    for place, stored in enumerate(spoiled.graph.initializer):
        if stored.name in tensors:
            array = tensors[stored.name].astype(subject.before[stored.name].dtype)
            fresh = numpy_helper.from_array(array, stored.name)
            spoiled.graph.initializer[place].CopyFrom(fresh)
    if epsilon is not None:
        _set_epsilon(spoiled, node, epsilon)
    folded = fold_of(spoiled)
    if skeleton(folded) != skeleton(subject.folded):
        return
    wrong = {
        name: array
        for name, array in floats_of(folded)
        if not same_bytes(array, subject.after[name])
    }
    sizes = {subject.before[name].size for name in tensors}
    if channel is not None and any(not sizes & set(one.shape) for one in wrong.values()):
        channel = None  # the map ran across a Concat: channels have other numbers there
    if wrong:
        yield subject.with_tensors(kind, wrong, channel)


def _set_epsilon(model: onnx.ModelProto, name: str, epsilon: float) -> None:
    node = next(node for node in model.graph.node if node.name == name)
    for place, attribute in enumerate(node.attribute):
        if attribute.name == "epsilon":
            node.attribute[place].CopyFrom(onnx.helper.make_attribute("epsilon", epsilon))
