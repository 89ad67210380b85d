"""Expand and Tile: copies carry the map of what they are copied from."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import Maps, Rule, Taken, name_of, wrong_axis
from bnfold.rules.passing import (
    channels_of,
    pick_after,
    pick_before,
    refuse_vast_axis,
    unknown_shape,
)
from bnfold.rules.weights import only_map


class Expand(Rule):
    """Numpy broadcasting to a shape (Expand-8, -13): new axes stand in front."""

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """A map along an axis that is not expanded passes."""
        affine = maps[0]
        if affine.axis is None:
            return Taken(onward={0: affine})
        new = _new_axes(node, facts)
        if isinstance(new, Refusal):
            return new
        axis = affine.axis - new
        if axis < 0 or channels_of(node.inputs[0], axis, facts) != affine.channels:
            return wrong_axis(node, affine, "it expands that axis, or may do so")
        return Taken(onward={0: affine.on_axis(axis)})

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """An axis of several channels is not expanded: its map passes."""
        affine = only_map(node, maps, 0, "shape")
        if isinstance(affine, Refusal) or affine.axis is None:
            return affine if isinstance(affine, Refusal) else Taken(onward={0: affine})
        new = _new_axes(node, facts)
        if isinstance(new, Refusal):
            return new
        return Taken(onward={0: affine.on_axis(affine.axis + new)})


class Tile(Rule):
    """``y = tile(x, repeats)`` (Tile-6, -13)."""

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """All copies of a channel must agree."""
        return _tile(node, maps[0], facts, up=True)

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """The map is repeated like the channels."""
        affine = only_map(node, maps, 0, "repeats")
        return affine if isinstance(affine, Refusal) else _tile(node, affine, facts, up=False)


def _new_axes(node: ir.Node, facts: Facts) -> int | Refusal:
    rank = None if node.inputs[0] is None else facts.rank(node.inputs[0])
    out_rank = facts.rank(node.outputs[0])
    if rank is None or out_rank is None:
        return unknown_shape(node, "the rank of its input or output")
    return out_rank - rank


def _tile(node: ir.Node, affine: Affine, facts: Facts, *, up: bool) -> Taken | Refusal:
    if affine.axis is None:
        return Taken(onward={0: affine})
    repeats = facts.constant(node.inputs[1])
    if isinstance(repeats, Refusal):
        why = "how often it repeats the channels is computed"
        return Refusal(Code.DYNAMIC_CONSTANT, name_of(node), why)
    times = int(repeats.stored().reshape(-1)[affine.axis])
    size = affine.scale.size
    if times < 1 or (up and size % times):
        return wrong_axis(node, affine, f"it repeats that axis {times} times")
    channels = size // times if up else size
    if vast := refuse_vast_axis(node, channels * times):
        return vast
    sources = np.tile(np.arange(channels), times)
    pick = pick_after if up else pick_before
    return pick(node, affine, sources, channels)
