"""Conv: scales go into output or input channels of W, shifts into B (Conv-1 to Conv-22)."""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.model.attributes import int_attr
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import AUTO_PADS, Edit, Maps, Rule, Taken, name_of, together, wrong_axis
from bnfold.rules.weights import (
    Weight,
    bias_after,
    bias_plus,
    only_map,
    read_weight,
    refuse_scaled_inputs,
)
from bnfold.rules.windows import reads_padding

_BIAS: Final = 2
_CHANNEL_AXIS: Final = 1


class Conv(Rule):
    """W [M, C/group, k…], B [M]; the channel axis of input and output is 1."""

    words = AUTO_PADS

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``s · conv(x) + t``: ``W[o] · s[o]``, ``B[o] · s[o] + t[o]``."""
        affine = maps[0]
        weight = read_weight(node, 1, facts)
        if isinstance(weight, Refusal):
            return weight
        channels = weight.shape[0]
        if affine.axis not in (None, _CHANNEL_AXIS) or affine.channels not in (None, channels):
            return wrong_axis(node, affine, f"its weight has {channels} outputs on axis 1")
        scale, _ = affine.entries(channels)
        bias = bias_after(node, _BIAS, affine, weight, channels, facts)
        alike = channels // int_attr(node, "group", 1)
        return together(weight.times(scale, 0, alike=alike), bias)

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``conv(s · x + t)``: ``W[:, i] · s[i]``, ``B[o] + Σ W[o, i, k] · t[i]``.

        The sum is the same everywhere only if no window reads zeros of the padding.
        """
        affine = only_map(node, maps, 0, "weight or bias")
        weight = read_weight(node, 1, facts)
        if isinstance(affine, Refusal):
            return affine
        if isinstance(weight, Refusal):
            return weight
        groups = int_attr(node, "group", 1)
        channels = weight.shape[1] * groups
        if affine.axis not in (None, _CHANNEL_AXIS) or affine.channels not in (None, channels):
            return wrong_axis(node, affine, f"its weight has {channels} inputs on axis 1")
        if affine.has_shift and reads_padding(node, weight.shape[2:], facts):
            why = "zeros are padded after the shift; a folded bias would shift them too"
            remedy = "the scale alone can be folded"
            return Refusal(Code.SHIFT_MEETS_PADDING, name_of(node), why, remedy)
        return _take_inputs(node, affine, weight, groups, facts)


def _take_inputs(
    node: ir.Node, affine: Affine, weight: Weight, groups: int, facts: Facts
) -> Taken | Refusal:
    """Lay the input channels of each group over the outputs of that group."""
    outputs, per_group = weight.shape[:2]
    scale, shift = affine.entries(per_group * groups)
    scale_rows, shift_rows = (
        part.reshape(groups, per_group).repeat(outputs // groups, axis=0)
        for part in (scale, shift)
    )
    bias: tuple[Edit, ...] | Refusal = ()
    if affine.has_shift:
        taps = weight.constant.expression.summed(2)
        bias = bias_plus(node, _BIAS, (taps * shift_rows).sum(axis=1), weight, facts)
    blocked = refuse_scaled_inputs(node, _BIAS, affine, facts)
    return blocked or together(
        weight.times(scale_rows, 0, 1, channels=0, alike=outputs // groups), bias
    )
