"""Weights and biases of linear operators: read them, scale them, add to them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.affine import Affine
from bnfold.expression import Expression
from bnfold.model.constants import FLOATS, Constant
from bnfold.model.facts import Facts
from bnfold.model.sources import why_too_large
from bnfold.records import Code, Refusal
from bnfold.rules.base import (
    Edit,
    Maps,
    SetConstant,
    dynamic_weight,
    name_of,
)
from bnfold.rules.quantized import Integers, read_integers, requantized, scaled, unreadable
from bnfold.rules.vast import refuse_to_change

_Wide = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """The constant that input ``index`` of ``node`` reads, and the integers behind it."""

    node: ir.Node
    index: int
    constant: Constant
    stored: Integers | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions of the weight."""
        return self.constant.shape

    def times(
        self, factor: _Wide, *axes: int, channels: int | None = None, alike: int = 1
    ) -> tuple[Edit, ...] | Refusal:
        """Return the edit that multiplies the weight by ``factor`` along ``axes``; none for 1.

        What is stored as integers stays so, or refuses.

        ``channels`` is the axis of the weight whose slices are output channels; ``alike``
        of these in a row read the same numbers.
        """
        if (factor == 1.0).all():
            return ()
        expression = self.constant.expression.times(np.asarray(factor), axes)
        checked = axes[-1] if channels is None and axes else channels or 0
        edit = SetConstant(
            self.node, self.index, expression, self.constant.dtype, checked, alike
        )
        if self.stored is None:
            return (edit,)
        laid = Expression(expression.base, self.shape).times(np.asarray(factor), axes)
        quantized = scaled(self.stored, edit, laid.factors[0])
        return quantized if isinstance(quantized, Refusal) else (quantized,)


def read_weight(node: ir.Node, index: int, facts: Facts) -> Weight | Refusal:
    """Return a weight that may be rewritten, or why not."""
    value = node.inputs[index] if index < len(node.inputs) else None
    constant = facts.constant(value)
    if isinstance(constant, Refusal):
        return unreadable(node, value, facts) or dynamic_weight(node, constant)
    if constant.dtype not in FLOATS:
        why = f"its weight is stored as {constant.dtype.name}"
        return Refusal(Code.NOT_FLOAT, name_of(node), why)
    stored = read_integers(node, index, facts)
    if isinstance(stored, Refusal):
        return stored
    if stored is None and value is not None:
        blocked = _refuse_growth(node, value, constant)
        if blocked is not None:
            return blocked
    return Weight(node, index, constant, stored)


def _refuse_growth(node: ir.Node, value: ir.Value, constant: Constant) -> Refusal | None:
    """Refuse a weight that is stored in less than it would be written out in."""
    size_bytes = math.prod(constant.shape) * constant.dtype.bitwidth // 8
    why = why_too_large(value, constant.dtype, size_bytes)
    if not why:
        return None
    remedy = f"allow it with --max-growth {size_bytes // 1000 + 1}kB"
    return Refusal(Code.TOO_LARGE, name_of(node), f"its weight would grow: {why}", remedy)


def read_float_weight(node: ir.Node, index: int, facts: Facts) -> Weight | Refusal:
    """Return a weight that may be replaced by any other; one stored as integers may not."""
    weight = read_weight(node, index, facts)
    if isinstance(weight, Refusal) or weight.stored is None:
        return weight
    why = "its weight is stored as integers, which cannot take any other value"
    return Refusal(Code.NOT_FLOAT, name_of(node), why)


def has_input(node: ir.Node, index: int) -> bool:
    """Return whether an optional input is there; an empty name counts as absent."""
    return index < len(node.inputs) and node.inputs[index] is not None


def bias_after(
    node: ir.Node, index: int, affine: Affine, weight: Weight, channels: int, facts: Facts
) -> tuple[Edit, ...] | Refusal:
    """Return the edit after which the bias [channels] is ``scale · bias + shift``."""
    scale, shift = affine.entries(channels)
    if not has_input(node, index):
        if not shift.any():
            return ()
        return (bias_edit(node, index, np.array(shift), weight.constant.dtype),)
    if affine.is_identity:
        return ()
    bias = read_weight(node, index, facts)
    if isinstance(bias, Refusal):
        return bias
    if bias.shape != (channels,):
        why = f"its bias has the shape {list(bias.shape)}, [{channels}] is required"
        return Refusal(Code.WRONG_SHAPE, name_of(node), why, "export the model again")
    if bias.stored is not None:
        return integer_addend(bias, bias.stored, affine, facts)
    held, dtype = bias.constant.wide(), bias.constant.dtype
    vast = refuse_to_change(node, held, dtype, scale, shift)
    return vast or (bias_edit(node, index, held * scale + shift, dtype),)


def integer_addend(
    bias: Weight, stored: Integers, affine: Affine, facts: Facts
) -> tuple[Edit, ...] | Refusal:
    """Return the edit that maps a bias stored as integers: exact for a scale alone."""
    scale, shift = affine.entries(bias.shape[0])
    if not affine.has_shift:
        return bias.times(scale, 0)
    if not facts.permissions.requantized_bias:
        why = "its bias is stored as integers, a shift would have to be rounded to them"
        remedy = "allow that with --requantize-bias, or fold before quantising"
        return Refusal(Code.NOT_FLOAT, name_of(bias.node), why, remedy)
    wanted = bias.constant.wide() * scale + shift
    edit = bias_edit(bias.node, bias.index, wanted, bias.constant.dtype)
    quantized = requantized(stored, replace(edit, channels=0), scale)
    return quantized if isinstance(quantized, Refusal) else (quantized,)


def refuse_scaled_inputs(
    node: ir.Node, index: int, affine: Affine, facts: Facts
) -> Refusal | None:
    """Refuse a scale in front of an operator whose bias and inputs are integers.

    Runtimes that multiply integers take the scale of a bias to be that of the inputs times
    that of the weight, whatever it is (ONNX Runtime 1.32 does so for Gemm).
    """
    if not affine.has_scale or not has_input(node, index) or not facts.quantizes_activations():
        return None
    bias = read_weight(node, index, facts)
    if isinstance(bias, Refusal) or bias.stored is None:
        return None
    why = "the scale of its integer bias would no longer be that of its inputs and weight"
    return Refusal(Code.NOT_FLOAT, name_of(node), why, "fold before quantising")


def bias_plus(
    node: ir.Node, index: int, added: _Wide, weight: Weight, facts: Facts
) -> tuple[Edit, ...] | Refusal:
    """Return the edit that adds ``added`` [channels] to the bias."""
    affine = Affine.per_channel(0, 1.0, added)
    return bias_after(node, index, affine, weight, added.size, facts)


def bias_edit(node: ir.Node, index: int, elements: _Wide, dtype: ir.DataType) -> SetConstant:
    """Return the edit that makes input ``index`` the addend ``elements``."""
    return SetConstant(node, index, Expression.of(elements), dtype, None)


def only_map(node: ir.Node, maps: Maps, index: int, what: str) -> Affine | Refusal:
    """Return the one map that arrives at ``index``; refuse maps that arrive elsewhere."""
    if set(maps) == {index}:
        return maps[index]
    why = f"the map reaches its {what}, which is computed at run time"
    return Refusal(Code.DYNAMIC_WEIGHT, name_of(node), why)
