"""DepthToSpace and SpaceToDepth: channels become places, the map follows the channels."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.model.attributes import int_attr, string_attr
from bnfold.model.facts import Facts
from bnfold.records import Refusal
from bnfold.rules.base import Maps, Rule, Taken, wrong_axis
from bnfold.rules.passing import Indices, pick_after, pick_before, refuse_vast_axis

_CHANNEL_AXIS: Final = 1
_MODES: Final = {"mode": frozenset({"DCR", "CRD"})}


class DepthToSpace(Rule):
    """b² channels make a block of b × b places (DepthToSpace-1 to -28).

    DCR: channel ``(i · b + j) · C + c`` holds place (i, j) of channel c; CRD: ``c · b² + …``.
    """

    words = _MODES

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:  # noqa: ARG002  contract
        """All b² channels of a result channel take its entry."""
        return _pass(node, maps[0], up=True)

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:  # noqa: ARG002  contract
        """The b² channels of a result channel must agree."""
        return _pass(node, maps[0], up=False)


class SpaceToDepth(Rule):
    """A block of b × b places becomes b² channels, in these orders (SpaceToDepth-1 to -28)."""

    words = _MODES

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:  # noqa: ARG002  contract
        """The b² channels that one channel becomes must agree."""
        return _pass(node, maps[0], up=False)

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:  # noqa: ARG002  contract
        """All b² channels that one channel becomes take its entry."""
        return _pass(node, maps[0], up=True)


def _pass(node: ir.Node, affine: Affine, *, up: bool) -> Taken | Refusal:
    """Move a map between the deep side and the wide one; ``up`` goes to the deep side."""
    if affine.axis is None:
        return Taken(onward={0: affine})
    block = int_attr(node, "blocksize", 1) ** 2
    channels = affine.scale.size if up else affine.scale.size // max(block, 1)
    if affine.axis > _CHANNEL_AXIS or (not up and affine.scale.size % max(block, 1)):
        return wrong_axis(node, affine, "it regroups axes 1, 2 and 3")
    if affine.axis < _CHANNEL_AXIS:
        return Taken(onward={0: affine})
    if vast := refuse_vast_axis(node, channels * block):
        return vast
    shallow = _shallow_channels(node, channels, block)
    if up:
        return pick_before(node, affine, shallow, channels)
    return pick_after(node, affine, shallow, channels)


def _shallow_channels(node: ir.Node, channels: int, block: int) -> Indices:
    """Return the channel of the wide side that each deep channel belongs to."""
    by_column = string_attr(node, "mode", "DCR") == "CRD"
    numbers = np.arange(channels)
    return np.repeat(numbers, block) if by_column else np.tile(numbers, block)
