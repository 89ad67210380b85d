"""Weights and biases of linear operators: read them, scale them, add to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.affine import Affine
from bnfold.expression import Expression
from bnfold.model.constants import FLOATS, Constant
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import (
    Edit,
    Maps,
    SetConstant,
    dynamic_weight,
    name_of,
)

_Wide = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """The constant that input ``index`` of ``node`` reads."""

    node: ir.Node
    index: int
    constant: Constant

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions of the weight."""
        return self.constant.shape

    def times(
        self, factor: _Wide, *axes: int, channels: int | None = None
    ) -> tuple[Edit, ...]:
        """Return the edit that multiplies the weight by ``factor`` along ``axes``; none for 1.

        ``channels`` is the axis of the weight whose slices are output channels.
        """
        if (factor == 1.0).all():
            return ()
        expression = self.constant.expression.times(np.asarray(factor), axes)
        checked = axes[-1] if channels is None and axes else channels or 0
        return (SetConstant(self.node, self.index, expression, self.constant.dtype, checked),)


def read_weight(node: ir.Node, index: int, facts: Facts) -> Weight | Refusal:
    """Return a weight that may be rewritten, or why not."""
    value = node.inputs[index] if index < len(node.inputs) else None
    constant = facts.constant(value)
    if isinstance(constant, Refusal):
        return dynamic_weight(node, constant)
    if constant.dtype not in FLOATS:
        why = f"its weight is stored as {constant.dtype.name}"
        return Refusal(Code.NOT_FLOAT, name_of(node), why)
    return Weight(node, index, constant)


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
    return (bias_edit(node, index, bias.constant.wide() * scale + shift, bias.constant.dtype),)


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
