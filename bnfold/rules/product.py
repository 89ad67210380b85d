"""Products of two computed matrices: a scale of one factor is a scale of the product."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import Maps, Taken, either, name_of, wrong_axis
from bnfold.rules.meet import TAKE_SCALES, by_promise
from bnfold.rules.passing import channels_of, is_constant, maps_differ, onward

_COLUMNS: Final = 1
_ROWS: Final = 2
_SUMMED: Final = {0: _COLUMNS, 1: _ROWS}
"""The axis that is summed over, counted from the back, of each factor."""


def matrix_product_after(node: ir.Node, affine: Affine, facts: Facts) -> Taken | Refusal:
    """``s · (A · B) = (s · A) · B``: rows into A, columns into B, one number into either."""
    if affine.has_shift:
        why = "a product of two values has no place for a shift"
        return Refusal(Code.NEEDS_SCALE_ONLY, name_of(node), why)
    places = dict(_places_after(node, affine, facts))
    if not places:
        return wrong_axis(node, affine, "no computed factor has that axis at full size")
    order = by_promise(node, places, TAKE_SCALES, facts)
    return either([Taken(onward={index: places[index]}) for index in order])


def matrix_product_before(node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
    """``(s · A) · B = s · (A · B)``, unless s runs along the axis that is summed over."""
    whole = Affine.uniform()
    for index, affine in maps.items():
        if affine.has_shift:
            why = "a shift in front of a product of two values becomes no map behind it"
            return Refusal(Code.NEEDS_SCALE_ONLY, name_of(node), why)
        moved = _moved_before(node, index, affine, facts)
        if isinstance(moved, Refusal):
            return moved
        if not whole.composes_with(moved):
            return maps_differ(node, "its factors have maps along different axes")
        whole = whole.then(moved)
    return onward({0: whole})


def _ranks(node: ir.Node, facts: Facts) -> tuple[int, int, int] | None:
    """Return the ranks of A, B and Y, if all are known and none is a vector."""
    values = (*node.inputs[:2], node.outputs[0])
    first, second, result = (None if v is None else facts.rank(v) for v in values)
    if first is None or second is None or result is None or min(first, second) < _ROWS:
        return None
    return first, second, result


def _places_after(node: ir.Node, affine: Affine, facts: Facts) -> Iterator[tuple[int, Affine]]:
    """Yield the factors that a scale of the product can go into, and the scale there."""
    ranks = _ranks(node, facts)
    for index, summed in _SUMMED.items():
        if is_constant(node, index, facts):
            continue
        if affine.axis is None:
            yield index, affine
        elif ranks is not None:
            from_back = ranks[2] - affine.axis
            axis = ranks[index] - from_back
            full = axis >= 0 and channels_of(node.inputs[index], axis, facts)
            if from_back != summed and full == affine.channels:
                yield index, affine.on_axis(axis)


def _moved_before(node: ir.Node, index: int, affine: Affine, facts: Facts) -> Affine | Refusal:
    if affine.axis is None:
        return affine
    ranks = _ranks(node, facts)
    if ranks is None:
        return wrong_axis(node, affine, "the ranks of its factors are unknown, or vectors")
    from_back = ranks[index] - affine.axis
    if from_back == _SUMMED[index]:
        return wrong_axis(node, affine, "it sums over that axis")
    return affine.on_axis(ranks[2] - from_back)
