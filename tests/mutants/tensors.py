"""Faults in what a folder writes: the right parameters, put into the tensors wrongly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx

from tests.mutants.subject import Array, Mutant, Subject, readers

_LINEAR: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True, slots=True)
class Slot:
    """A tensor that the fold wrote, and what is known of it.

    Attributes:
        subject: The fold.
        name: Its name.
        node: The first node that reads it.
        place: At which input.
        truth: Its unrounded elements.
        old: What that node read in its place before; None if nothing.
        rng: Chooses channels and elements.
    """

    subject: Subject
    name: str
    node: onnx.NodeProto
    place: int
    truth: Array
    old: Array | None
    rng: np.random.Generator

    @property
    def is_weight(self) -> bool:
        """Whether it is the weight of a linear operator."""
        return self.node.op_type in _LINEAR and self.place < 2 and self.truth.ndim > 1

    @property
    def groups(self) -> int:
        """The groups of a convolution."""
        return next((a.i for a in self.node.attribute if a.name == "group"), 1)

    @property
    def output_axis(self) -> int | None:
        """The axis of a weight or bias that output channels run along."""
        if not self.is_weight:
            return None if self.truth.ndim != 1 else 0
        turned = any(a.name == "transB" and a.i for a in self.node.attribute)
        if self.node.op_type == "Conv" or turned:
            return 0
        if self.node.op_type == "ConvTranspose":
            return 1 if self.groups == 1 else None
        return 1 if self.place == 1 else 0

    def ratio(self) -> Array | None:
        """Return by what the old weight was multiplied, if by something."""
        if self.old is None or self.old.shape != self.truth.shape or not self.is_weight:
            return None
        wide = self.old.astype(np.float64)
        return None if (wide == 0).any() else self.truth / wide

    def spoiled(self, kind: str, array: Array, channel: int | None = None) -> Mutant:
        """Return the mutant with other numbers in this tensor; the rest stays as it is."""
        stored = self.subject.after[self.name]
        if array.dtype == np.float64:
            array = np.where(array == self.truth, stored, array.astype(stored.dtype))
        return self.subject.with_tensors(kind, {self.name: array}, channel)


def tensor_faults(subject: Subject, rng: np.random.Generator) -> Iterator[Mutant]:
    """Yield a mutant for every fault of every tensor that the fold wrote."""
    for name in subject.written():
        truth, found = subject.truth.get(name), readers(subject.folded, name)
        if truth is None or not found or not truth.size:
            continue
        node, place = found[0]
        slot = Slot(subject, name, node, place, truth, subject.predecessor(name), rng)
        for fault in _FAULTS:
            yield from fault(slot)


def _axis(slot: Slot) -> Iterator[Mutant]:
    """The scale runs along the input channels instead of the outputs, or the reverse."""
    ratio = slot.ratio()
    if ratio is None or slot.groups > 1 or slot.truth.shape[0] != slot.truth.shape[1]:
        return
    yield slot.spoiled("axis", slot.old.astype(np.float64) * np.swapaxes(ratio, 0, 1))


def _group_order(slot: Slot) -> Iterator[Mutant]:
    """Every group gets the scale, or the bias, of the next one."""
    groups, rows = slot.groups, slot.truth.shape[0] if slot.truth.ndim else 0
    if groups < 2 or rows % groups:
        return
    if not slot.is_weight:
        yield slot.spoiled("group order", np.roll(slot.truth, rows // groups, 0))
        return
    ratio = slot.ratio()
    if ratio is not None:
        wrong = slot.old.astype(np.float64) * np.roll(ratio, rows // groups, 0)
        yield slot.spoiled("group order", wrong)


def _stale(slot: Slot) -> Iterator[Mutant]:
    """The tensor is what it was before, though the others of the node are new."""
    if slot.old is not None and slot.old.shape == slot.truth.shape:
        yield slot.spoiled("stale weight" if slot.is_weight else "stale bias", slot.old)
    elif slot.old is None and slot.place == 2:
        yield slot.spoiled("bias forgotten", np.zeros_like(slot.truth))


def _bias_scale(slot: Slot) -> Iterator[Mutant]:
    """b + t instead of s·b + t."""
    if slot.place != 2 or slot.old is None or slot.old.shape != slot.truth.shape:
        return
    scale = _scale_beside(slot)
    if scale is not None:
        bias = slot.old.astype(np.float64)
        yield slot.spoiled("bias scale forgotten", slot.truth - scale * bias + bias)


def _scale_beside(slot: Slot) -> Array | None:
    """Return the scale of every output, as the weight of the same node took it."""
    name = slot.node.input[1]
    truth, old = slot.subject.truth.get(name), slot.subject.predecessor(name)
    if truth is None or name not in slot.subject.written():
        return None
    weight = Slot(slot.subject, name, slot.node, 1, truth, old, slot.rng)
    ratio, axis = weight.ratio(), weight.output_axis
    if ratio is None or axis is None:
        return None
    rows = np.moveaxis(ratio, axis, 0).reshape(ratio.shape[axis], -1)
    return rows[:, 0] if np.allclose(rows, rows[:, :1], rtol=1e-9) else None


def _rounded_twice(slot: Slot) -> Iterator[Mutant]:
    """The scale is rounded to the type of storage before it multiplies."""
    ratio, stored = slot.ratio(), slot.subject.after[slot.name]
    if ratio is None:
        return
    wrong = slot.old.astype(np.float64) * ratio.astype(stored.dtype).astype(np.float64)
    if (wrong.astype(stored.dtype) != slot.truth.astype(stored.dtype)).any():
        yield slot.spoiled("rounded twice", wrong)


def _beta(slot: Slot) -> Iterator[Mutant]:
    """alpha or beta of the original's Gemm is forgotten."""
    nodes = slot.subject.original.graph.node
    old = next((node for node in nodes if node.name == slot.node.name), None)
    if old is None or old.op_type != "Gemm" or slot.node.op_type != "Gemm":
        return
    role = "alpha" if slot.is_weight else "beta"
    for attribute in old.attribute:
        if attribute.name != role or attribute.f in (0.0, 1.0):
            continue
        scale = _scale_beside(slot) if role == "beta" else None
        if role == "alpha":
            yield slot.spoiled("alpha forgotten", slot.truth / attribute.f)
        elif scale is not None and slot.old is not None:
            alpha = next((a.f for a in old.attribute if a.name == "alpha"), 1.0)
            bias = scale / alpha * slot.old.astype(np.float64)
            yield slot.spoiled("beta forgotten", slot.truth + (1 - attribute.f) * bias)


def _channel(slot: Slot) -> Iterator[Mutant]:
    """One output channel is off by a factor."""
    axis = slot.output_axis
    if axis is None:
        return
    for kind, factor in (("channel by 1 %", 1.01), ("channel by 0.1 %", 1.001)):
        channel = int(slot.rng.integers(slot.truth.shape[axis]))
        wrong = slot.truth.copy()
        np.moveaxis(wrong, axis, 0)[channel] *= factor
        yield slot.spoiled(kind, wrong, channel)


def _swapped(slot: Slot) -> Iterator[Mutant]:
    axis = slot.output_axis
    if axis is None or slot.truth.shape[axis] < 2:
        return
    one, two = slot.rng.permutation(slot.truth.shape[axis])[:2]
    order = np.arange(slot.truth.shape[axis])
    order[[one, two]] = two, one
    yield slot.spoiled("channels swapped", np.take(slot.truth, order, axis))


def _element(slot: Slot) -> Iterator[Mutant]:
    """One element is off by two or three units in the last place."""
    stored = slot.subject.after[slot.name]
    flat = stored.reshape(-1).copy()
    place = int(slot.rng.integers(flat.size))
    for _ in range(int(slot.rng.integers(2, 4))):
        flat[place] = np.nextafter(flat[place], flat.dtype.type(np.inf))
    axis = slot.output_axis
    channel = None if axis is None else int(np.unravel_index(place, stored.shape)[axis])
    yield slot.spoiled("element by 2 ulp", flat.reshape(stored.shape), channel)


_FAULTS: Final[tuple[Callable[[Slot], Iterator[Mutant]], ...]] = (
    *(_axis, _group_order, _stale, _bias_scale, _rounded_twice, _beta),
    *(_channel, _swapped, _element),
)
