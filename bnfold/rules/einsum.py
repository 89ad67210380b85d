"""Einsum of a value and a constant: a product of matrices, its axes named by letters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import Maps, Rule, Taken, name_of, together, wrong_axis
from bnfold.rules.equation import read_equation
from bnfold.rules.passing import along_one_axis, channels_of, onward
from bnfold.rules.weights import Weight, only_map, read_weight

_PAIR: Final = 2


@dataclass(frozen=True, slots=True, eq=False)
class _Terms:
    """The letters of the data, of the weight and of the result."""

    weight: Weight
    data: str
    inner: str
    result: str

    @property
    def index(self) -> int:
        """Which operand the data is."""
        return 1 - self.weight.index


class Einsum(Rule):
    """``Y[…] = Σ X[…] · W[…]`` over the letters that Y has not (Einsum-12); or a Transpose."""

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``s · y``: the weight times s, or x where the weight has no such axis."""
        affine, perm = maps[0], _permutation(node, facts)
        if perm is not None:
            on = affine if affine.axis is None else affine.on_axis(perm[affine.axis])
            return Taken(onward={0: on})
        terms = _terms(node, facts)
        if isinstance(terms, Refusal):
            return terms
        if affine.has_shift:
            why = "an Einsum has no addend that could take the shift"
            return Refusal(Code.NEEDS_SCALE_ONLY, name_of(node), why)
        if affine.axis is None:
            return together(terms.weight.times(affine.scale))
        letter = terms.result[affine.axis]
        inner = _inner_axis(terms, letter, affine)
        if inner is not None:
            return together(terms.weight.times(affine.scale, inner))
        data = node.inputs[terms.index]
        axis = terms.data.find(letter)
        if axis < 0 or channels_of(data, axis, facts) != affine.channels:
            return wrong_axis(node, affine, f"no operand has that size at {letter!r}")
        return onward({terms.index: affine.on_axis(axis)})

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``(s · x + t) · W``: the weight times s, or y; the image of t goes on behind it."""
        perm = _permutation(node, facts)
        if perm is not None:
            return Taken(onward={0: maps[0].permute(perm)})
        terms = _terms(node, facts)
        if isinstance(terms, Refusal):
            return terms
        affine = only_map(node, maps, terms.index, "weight")
        if isinstance(affine, Refusal):
            return affine
        image = _image(node, affine, terms, facts)
        if isinstance(image, Refusal):
            return image
        letter = None if affine.axis is None else terms.data[affine.axis]
        inner = None if letter is None else _inner_axis(terms, letter, affine)
        if letter is None or inner is not None:
            outer = _outer_axis(terms)
            axes = () if inner is None else (inner,)
            taken = together(terms.weight.times(affine.scale, *axes, channels=outer))
            return taken if isinstance(taken, Refusal) else Taken(taken.edits, image)
        axis = terms.result.find(letter)
        if axis < 0:
            return wrong_axis(node, affine, f"it sums over {letter!r} of its data")
        whole = affine.scale_only().on_axis(axis)
        shift = image.get(0, Affine.uniform())
        if not whole.composes_with(shift):
            return wrong_axis(node, affine, "the shift behind it runs along another axis")
        return onward({0: whole.then(shift)})


def _permutation(node: ir.Node, facts: Facts) -> tuple[int, ...] | None:
    """Return which axis of its only operand each axis of the result is, if it has one."""
    equation = read_equation(node, facts)
    if isinstance(equation, Refusal) or not equation.is_permutation:
        return None
    return tuple(equation.operands[0].index(letter) for letter in equation.result)


def _terms(node: ir.Node, facts: Facts) -> _Terms | Refusal:
    """Read the equation: two operands, one of them constant, a letter for every axis."""
    equation = read_equation(node, facts)
    if isinstance(equation, Refusal):
        return equation
    operands, result = equation.operands, equation.result
    if len(operands) != _PAIR:
        what = "sums over axes" if len(operands) == 1 else f"has {len(operands)} operands"
        why = f"it {what}; handled are two operands, or one whose axes change places"
        return Refusal(Code.UNKNOWN_OPERATOR, name_of(node), why)
    weights = [read_weight(node, index, facts) for index in (1, 0)]
    found = next((w for w in weights if isinstance(w, Weight)), weights[0])
    if isinstance(found, Refusal):
        return found
    if len(operands[found.index]) != len(found.shape):
        named = len(operands[found.index])
        why = f"its weight has {len(found.shape)} axes, its equation names {named}"
        return Refusal(Code.WRONG_SHAPE, name_of(node), why)
    return _Terms(found, operands[1 - found.index], operands[found.index], result)


def _inner_axis(terms: _Terms, letter: str, affine: Affine) -> int | None:
    """Return the axis of the weight with that letter, if it has it at full size."""
    axis = terms.inner.find(letter)
    return axis if axis >= 0 and terms.weight.shape[axis] == affine.channels else None


def _outer_axis(terms: _Terms) -> int | None:
    """Return the axis of the weight that only results run along, if there is one."""
    own = [axis for axis, c in enumerate(terms.inner) if c not in terms.data]
    return own[0] if own else None


def _image(node: ir.Node, affine: Affine, terms: _Terms, facts: Facts) -> Maps | Refusal:
    """Return the shift behind the node that a shift in front of it makes."""
    if not affine.has_shift:
        return {}
    along = "" if affine.axis is None else terms.data[affine.axis]
    count = _repeats(node, along, terms, facts)
    if isinstance(count, Refusal):
        return count
    kept = "".join(c for c in terms.result if c in terms.inner + along)
    shift = affine.shift if along else affine.shift[0]
    equation = f"{along},{terms.inner}->{kept}"
    image = np.einsum(equation, shift, terms.weight.constant.wide()) * count
    if image.size == 0 or (image == image.flat[0]).all():
        return onward({0: Affine.uniform(shift=float(image.flat[0]))}).onward
    found = along_one_axis([image])
    if found is None:
        why = "the shift behind it would vary along several axes"
        return Refusal(Code.SHIFT_NOT_CONSTANT, name_of(node), why)
    axis, (vector,) = found
    return {0: Affine.per_channel(terms.result.index(kept[axis]), 1.0, vector)}


def _repeats(node: ir.Node, along: str, terms: _Terms, facts: Facts) -> int | Refusal:
    """Return how many elements of the data are summed that neither weight nor map tells."""
    data = node.inputs[terms.index]
    sizes: list[int] = []
    for axis, letter in enumerate(terms.data):
        inner = terms.inner.find(letter)
        if letter in terms.result or letter == along:
            continue
        if inner >= 0 and terms.weight.shape[inner] > 1:
            continue
        size = channels_of(data, axis, facts)
        if size is None:
            why = "it is not known how many elements it sums, so neither is the sum's shift"
            return Refusal(Code.SHIFT_NOT_CONSTANT, name_of(node), why)
        sizes.append(size)
    return math.prod(sizes)
