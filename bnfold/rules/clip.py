"""Clip: the bounds are mapped, so a map passes that is one number at every bound."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.expression import Expression
from bnfold.model.attributes import float_attr
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import (
    DropInput,
    Edit,
    Maps,
    Rule,
    SetAttribute,
    SetConstant,
    Taken,
    name_of,
    together,
)
from bnfold.rules.float_attributes import set_float
from bnfold.rules.passing import refuse_negative, turns_around
from bnfold.rules.weights import has_input, only_map, read_weight

_BOUNDS_ARE_INPUTS_SINCE: Final = 11
_NAMES: Final = ("min", "max")
_LARGEST: Final = float(np.finfo(np.float32).max)
_OTHER: Final = 3
"""Place of one bound and that of the other, together."""
_UNBOUND: Final = (-math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class _Bound:
    """One bound: where it stands, its value, and its type (None: an attribute)."""

    index: int
    value: float
    dtype: ir.DataType | None


class Clip(Rule):
    """``y = min(max(x, low), high)`` (Clip-6: attributes, Clip-11 and later: inputs)."""

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``s · clip(x; a, b) + t = clip(s · x + t; s · a + t, s · b + t)``; s < 0 swaps."""
        return _pass(node, maps[0], maps[0], facts)

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``clip(s · x + t; a, b) = s · clip(x; (a − t) / s, (b − t) / s) + t``."""
        affine = only_map(node, maps, 0, "bounds")
        if isinstance(affine, Refusal):
            return affine
        if not affine.is_invertible:
            why = "a scale of zero leaves nothing of its bounds"
            return Refusal(Code.NEGATIVE_SCALE, name_of(node), why)
        return _pass(node, affine, affine.inverse(), facts)


def _pass(node: ir.Node, affine: Affine, of_bounds: Affine, facts: Facts) -> Taken | Refusal:
    """Pass ``affine`` on; the bounds become ``of_bounds`` of what they were."""
    turned = turns_around(affine)
    negative = None if turned else refuse_negative(node, affine)
    bounds = _bounds(node, facts)
    if negative is not None:
        return negative
    if isinstance(bounds, Refusal):
        return bounds
    if turned and not _are_in_order(bounds):
        why = "its minimum is above its maximum, which wins: turned around, the other would"
        return Refusal(Code.NEGATIVE_SCALE, name_of(node), why)
    edits = together(*(_mapped(node, one, of_bounds, facts, turned=turned) for one in bounds))
    if isinstance(edits, Refusal) or not turned:
        return edits if isinstance(edits, Refusal) else Taken(edits.edits, {0: affine})
    unbound = sorted({1, 2} - {_OTHER - one.index for one in bounds})
    gone = (edit for index in unbound for edit in _without(node, index, facts))
    return Taken((*edits.edits, *gone), {0: affine})


def _mapped(
    node: ir.Node, bound: _Bound, of_bounds: Affine, facts: Facts, *, turned: bool
) -> tuple[Edit, ...] | Refusal:
    """Return the edit of one bound; turned around, the lower one is the upper one."""
    mapped = of_bounds.scale * bound.value + of_bounds.shift
    if not (mapped == mapped[0]).all():
        why = f"its bound {bound.value:g} would differ from channel to channel"
        return Refusal(Code.SHIFT_NOT_CONSTANT, name_of(node), why)
    if turned:
        moved = replace(bound, index=_OTHER - bound.index)
        return _edit(node, moved, float(mapped[0]), facts)
    return () if mapped[0] == bound.value else _edit(node, bound, float(mapped[0]), facts)


def _without(node: ir.Node, index: int, facts: Facts) -> list[Edit]:
    """Return the edit after which a bound does not bind."""
    if facts.opset() >= _BOUNDS_ARE_INPUTS_SINCE:
        return [DropInput(node, index)] if has_input(node, index) else []
    name = _NAMES[index - 1]
    if name not in node.attributes:
        return []
    return [SetAttribute(node, ir.AttrFloat32(name, -_LARGEST if index == 1 else _LARGEST))]


def _edit(
    node: ir.Node, bound: _Bound, value: float, facts: Facts
) -> tuple[Edit, ...] | Refusal:
    if bound.dtype is not None:
        expression = Expression.of(np.array(value))
        return (SetConstant(node, bound.index, expression, bound.dtype, None),)
    if abs(value) >= _LARGEST:
        why = f"its bound would become {value:.3g}, out of range"
        return Refusal(Code.OUT_OF_RANGE, name_of(node), why)
    return set_float(node, _NAMES[bound.index - 1], value, facts)


def _are_in_order(bounds: list[_Bound]) -> bool:
    """Return whether the lower bound is not above the upper one."""
    ends = dict(zip((1, 2), _UNBOUND, strict=True)) | {b.index: b.value for b in bounds}
    return ends[1] <= ends[2]


def _bounds(node: ir.Node, facts: Facts) -> list[_Bound] | Refusal:
    """Return the bounds that are there, but for the largest number of the type.

    Those that bind nothing are left alone: absent, or beyond every number of the type.
    """
    found: list[_Bound] = []
    for index, name in enumerate(_NAMES, start=1):
        if facts.opset() < _BOUNDS_ARE_INPUTS_SINCE:
            value = float_attr(node, name, _UNBOUND[index - 1])
            if _binds(index, value, _LARGEST):
                found.append(_Bound(index, value, None))
        elif has_input(node, index):
            weight = read_weight(node, index, facts)
            if isinstance(weight, Refusal):
                return weight
            value = float(weight.constant.wide().reshape(-1)[0])
            if _binds(index, value, _largest(weight.constant.dtype)):
                found.append(_Bound(index, value, weight.constant.dtype))
    return found


def _binds(index: int, value: float, largest: float) -> bool:
    """Return whether a bound cuts anything off the numbers of a type; NaN is no number."""
    return not (value <= -largest if index == 1 else value >= largest)


def _largest(dtype: ir.DataType) -> float:
    """Return the largest number of a floating type."""
    if dtype is ir.DataType.DOUBLE:
        return float(np.finfo(np.float64).max)
    return _LARGEST if dtype is not ir.DataType.FLOAT16 else float(np.finfo(np.float16).max)
