"""LayerNormalization, RMSNormalization: the axes from ``axis`` on are normalised together."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.model.attributes import int_attr
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import Maps, Taken, name_of, wrong_axis
from bnfold.rules.norms import SCALE, Normalization, mixed
from bnfold.rules.passing import unknown_shape
from bnfold.rules.weights import read_weight


class LayerNormalization(Normalization):
    """Scale and B broadcast to X, mostly of its shape from ``axis`` on (version 17)."""

    stashes_since: ClassVar[int | None] = 0

    def on_scale(self, node: ir.Node, affine: Affine, facts: Facts) -> Affine | Refusal:
        """Scale is aligned with the last axes of X."""
        if affine.axis is None:
            return affine
        rank, scale = rank_of(node, facts), read_weight(node, SCALE, facts)
        if rank is None:
            return unknown_shape(node, "the rank of its input")
        if isinstance(scale, Refusal):
            return scale
        axis = affine.axis - (rank - len(scale.shape))
        if axis < 0 or scale.shape[axis] != affine.channels:
            why = f"its scale of shape {list(scale.shape)} does not run along that axis"
            return wrong_axis(node, affine, why)
        return affine.on_axis(axis)

    def on_result(self, node: ir.Node, affine: Affine, facts: Facts) -> Affine | Refusal:
        """Scale is aligned with the last axes of X."""
        if affine.axis is None:
            return affine
        rank, scale = rank_of(node, facts), read_weight(node, SCALE, facts)
        if rank is None:
            return unknown_shape(node, "the rank of its input")
        if isinstance(scale, Refusal):
            return scale
        return affine.on_axis(affine.axis + rank - len(scale.shape))

    def refuse_mixed(self, node: ir.Node, affine: Affine, facts: Facts) -> Refusal | None:
        """A map may differ along the axes in front of ``axis`` only."""
        if affine.axis is None:
            return None
        first = first_axis(node, facts)
        if first is None:
            return unknown_shape(node, "the rank of its input")
        if affine.axis < first:
            return None
        return mixed(node, affine, f"the elements of the axes from {first} on")


class RMSNormalization(LayerNormalization):
    """``scale · x / √(mean(x²) + epsilon)``: it has no bias and takes no mean away (-23)."""

    takes_bias: ClassVar[bool] = False

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``s · rms(x)``: scale becomes ``s · scale``; there is no bias for a shift."""
        return super().take_after(node, maps, facts)

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``rms(s · x)``: sign(s) goes into scale, epsilon is divided by s²; no shift."""
        return super().take_before(node, maps, facts)

    def refuse_mixed(self, node: ir.Node, affine: Affine, facts: Facts) -> Refusal | None:
        """No shift cancels."""
        if affine.has_shift:
            why = "RMSNormalization subtracts no mean, so it does not cancel a shift"
            return Refusal(Code.NEEDS_SCALE_ONLY, name_of(node), why)
        return super().refuse_mixed(node, affine, facts)


def rank_of(node: ir.Node, facts: Facts) -> int | None:
    """Return the rank of X, if known."""
    return None if node.inputs[0] is None else facts.rank(node.inputs[0])


def first_axis(node: ir.Node, facts: Facts) -> int | None:
    """Return the first axis that is normalised, counted from the front; None if unknown."""
    axis, rank = int_attr(node, "axis", -1), rank_of(node, facts)
    if axis >= 0:
        return axis
    return None if rank is None else axis + rank
