"""ConvTranspose: W [C, M/group, k…]; scales go along its output or input channels."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.model.attributes import int_attr, ints_attr
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

_BIAS: Final = 2
_CHANNEL_AXIS: Final = 1


class ConvTranspose(Rule):
    """Output channel o of group g is column ``o mod (M/group)`` of the rows of group g."""

    words = AUTO_PADS

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``s · f(x) + t``: the group's rows of column j times s, ``B[o] · s[o] + t[o]``."""
        affine = maps[0]
        weight = read_weight(node, 1, facts)
        if isinstance(weight, Refusal):
            return weight
        groups = int_attr(node, "group", 1)
        rows, columns = weight.shape[:2]
        channels = columns * groups
        if affine.axis not in (None, _CHANNEL_AXIS) or affine.channels not in (None, channels):
            return wrong_axis(node, affine, f"its weight has {channels} outputs on axis 1")
        scale, _ = affine.entries(channels)
        bias = bias_after(node, _BIAS, affine, weight, channels, facts)
        alike = columns if groups == 1 else 1  # a column is a channel of every group
        factor = scale.reshape(groups, columns).repeat(rows // groups, axis=0)
        return together(weight.times(factor, 0, 1, channels=1, alike=alike), bias)

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``f(s · x + t)``: row i times s[i]; the shift only if every output sees one tap."""
        affine = only_map(node, maps, 0, "weight or bias")
        weight = read_weight(node, 1, facts)
        if isinstance(affine, Refusal):
            return affine
        if isinstance(weight, Refusal):
            return weight
        channels = weight.shape[0]
        if affine.axis not in (None, _CHANNEL_AXIS) or affine.channels not in (None, channels):
            return wrong_axis(node, affine, f"its weight has {channels} inputs on axis 1")
        scale, _ = affine.entries(channels)
        bias: tuple[Edit, ...] | Refusal = ()
        if affine.has_shift:
            bias = _shift_into_bias(node, affine, weight, facts)
        blocked = refuse_scaled_inputs(node, _BIAS, affine, facts)
        alike = weight.shape[1] if int_attr(node, "group", 1) == 1 else 1
        return blocked or together(weight.times(scale, 0, channels=1, alike=alike), bias)


def _shift_into_bias(
    node: ir.Node, affine: Affine, weight: Weight, facts: Facts
) -> tuple[Edit, ...] | Refusal:
    if not _is_pointwise(node, weight.shape[2:]):
        why = "its outputs see different numbers of taps, so a shift is no constant behind it"
        remedy = "the scale alone can be folded"
        return Refusal(Code.SHIFT_NOT_CONSTANT, name_of(node), why, remedy)
    groups = int_attr(node, "group", 1)
    rows, columns = weight.shape[:2]
    _, shift = affine.entries(rows)
    taps = weight.constant.wide().reshape(groups, rows // groups, columns)
    added = np.einsum("gij,gi->gj", taps, shift.reshape(groups, -1)).reshape(-1)
    return bias_plus(node, _BIAS, added, weight, facts)


def _is_pointwise(node: ir.Node, kernel: tuple[int, ...]) -> bool:
    """Return whether each output element reads exactly one input position."""
    return (
        all(size == 1 for size in kernel)
        and all(step == 1 for step in ints_attr(node, "strides", (1,)))
        and not any(ints_attr(node, "pads"))
        and not any(ints_attr(node, "output_padding"))
        and "output_shape" not in node.attributes
    )
