"""ReduceMax, ReduceMin, ReduceMean, ReduceSum over axes that the map does not run along."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Final

import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.model.attributes import int_attr, ints_attr
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import Maps, Rule, SetOperator, Taken, computed, name_of, wrong_axis
from bnfold.rules.passing import channels_of, refuse_negative, turns_around, unknown_shape
from bnfold.rules.weights import only_map

_AXES_ARE_INPUTS_SINCE: Final = {
    "ReduceSum": 13,
    "ReduceMean": 18,
    "ReduceMax": 18,
    "ReduceMin": 18,
}
_OPPOSITE: Final = {"ReduceMax": "ReduceMin", "ReduceMin": "ReduceMax"}


@dataclass(frozen=True, slots=True)
class _Axes:
    """The axes of the input that are reduced, and those that are kept, in the output."""

    reduced: tuple[int, ...]
    kept: tuple[int | None, ...]


class _Reduce(Rule):
    """A reduction that a map of the values passes as a map of the result."""

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """The map of the result becomes that of the values."""
        affine = maps[0]
        axes = _axes(node, facts)
        if isinstance(axes, Refusal):
            return axes
        if affine.axis is not None:
            place = axes.kept[affine.axis]
            if place is None:
                return wrong_axis(node, affine, "that axis is reduced")
            affine = affine.on_axis(place)
        return self._passed(node, affine, axes, facts, up=True)

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """The map of the values becomes that of the result."""
        affine = only_map(node, maps, 0, "axes")
        axes = _axes(node, facts)
        if isinstance(affine, Refusal):
            return affine
        if isinstance(axes, Refusal):
            return axes
        if affine.axis is not None:
            if affine.axis not in axes.kept:
                return wrong_axis(node, affine, "that axis is reduced")
            affine = affine.on_axis(axes.kept.index(affine.axis))
        return self._passed(node, affine, axes, facts, up=False)

    @abstractmethod
    def _passed(
        self, node: ir.Node, affine: Affine, axes: _Axes, facts: Facts, *, up: bool
    ) -> Taken | Refusal:
        """Return what becomes of a map that runs along a kept axis."""


class ReduceMax(_Reduce):
    """``max(s · x + t) = s · max(x) + t`` for s ≥ 0; for s < 0 it is ``s · min(x) + t``."""

    def _passed(
        self,
        node: ir.Node,
        affine: Affine,
        axes: _Axes,  # noqa: ARG002  contract
        facts: Facts,  # noqa: ARG002  contract
        *,
        up: bool,  # noqa: ARG002  contract
    ) -> Taken | Refusal:
        if turns_around(affine):
            return Taken((SetOperator(node, _OPPOSITE[node.op_type]),), {0: affine})
        return refuse_negative(node, affine) or Taken(onward={0: affine})


class ReduceMean(_Reduce):
    """``mean(s · x + t) = s · mean(x) + t``."""

    def _passed(
        self,
        node: ir.Node,  # noqa: ARG002  contract
        affine: Affine,
        axes: _Axes,  # noqa: ARG002  contract
        facts: Facts,  # noqa: ARG002  contract
        *,
        up: bool,  # noqa: ARG002  contract
    ) -> Taken | Refusal:
        return Taken(onward={0: affine})


class ReduceSum(_Reduce):
    """``Σ (s · x + t) = s · Σ x + n · t`` over n elements."""

    def _passed(
        self, node: ir.Node, affine: Affine, axes: _Axes, facts: Facts, *, up: bool
    ) -> Taken | Refusal:
        if not affine.has_shift:
            return Taken(onward={0: affine})
        sizes = [channels_of(node.inputs[0], axis, facts) for axis in axes.reduced]
        count = math.prod(size or 0 for size in sizes)
        if not count:
            why = "it is not known how many elements it sums, so neither is the sum's shift"
            return Refusal(Code.SHIFT_NOT_CONSTANT, name_of(node), why)
        shift = affine.shift / count if up else affine.shift * count
        return Taken(onward={0: Affine.per_channel(affine.axis, affine.scale, shift)})


def _axes(node: ir.Node, facts: Facts) -> _Axes | Refusal:
    """Return which axes are reduced; all when none are named (unless noop says none)."""
    rank = None if node.inputs[0] is None else facts.rank(node.inputs[0])
    if rank is None:
        return unknown_shape(node, "the rank of its input")
    named = _named_axes(node, facts)
    if isinstance(named, Refusal):
        return named
    if not named and not int_attr(node, "noop_with_empty_axes", 0):
        named = tuple(range(rank))
    reduced = {axis % rank for axis in named if rank}
    if int_attr(node, "keepdims", 1):
        kept = tuple(None if axis in reduced else axis for axis in range(rank))
    else:
        kept = tuple(axis for axis in range(rank) if axis not in reduced)
    return _Axes(tuple(sorted(reduced)), kept)


def _named_axes(node: ir.Node, facts: Facts) -> tuple[int, ...] | Refusal:
    if facts.opset() < _AXES_ARE_INPUTS_SINCE[node.op_type]:
        return ints_attr(node, "axes")
    if len(node.inputs) < 2 or node.inputs[1] is None:
        return ()
    constant = facts.constant(node.inputs[1])
    if isinstance(constant, Refusal):
        return computed(node, constant, "its axes are computed")
    return tuple(int(axis) for axis in constant.stored().reshape(-1))
