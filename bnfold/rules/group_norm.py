"""InstanceNormalization and GroupNormalization: axis 1, or groups of it, kept apart."""

from __future__ import annotations

from typing import ClassVar, Final

import numpy as np
import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.model.attributes import int_attr
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import name_of, wrong_axis
from bnfold.rules.norms import SCALE, Normalization, mixed
from bnfold.rules.passing import channels_of, unknown_shape
from bnfold.rules.weights import read_weight

_BATCH_AXIS: Final = 0
_CHANNEL_AXIS: Final = 1
_PER_CHANNEL_SINCE: Final = 21


class InstanceNormalization(Normalization):
    """Scale and B hold one entry per channel; each is normalised alone (-1 to -22)."""

    def on_scale(self, node: ir.Node, affine: Affine, facts: Facts) -> Affine | Refusal:
        """The channels of Y are the entries of scale."""
        if affine.axis is None:
            return affine
        scale = read_weight(node, SCALE, facts)
        if isinstance(scale, Refusal):
            return scale
        if affine.axis != _CHANNEL_AXIS or scale.shape != (affine.channels,):
            why = f"its scale has {scale.shape[0]} entries along axis 1"
            return wrong_axis(node, affine, why)
        return affine.on_axis(0)

    def on_result(self, node: ir.Node, affine: Affine, facts: Facts) -> Affine | Refusal:  # noqa: ARG002  contract
        """The entries of scale are the channels of Y."""
        return affine.on_axis(_CHANNEL_AXIS)

    def refuse_mixed(self, node: ir.Node, affine: Affine, facts: Facts) -> Refusal | None:  # noqa: ARG002  contract
        """A map may differ along the batch and the channels."""
        if affine.axis in (None, _BATCH_AXIS, _CHANNEL_AXIS):
            return None
        return mixed(node, affine, "the elements of the axes from 2 on")


class GroupNormalization(InstanceNormalization):
    """Scale and bias hold one entry per group (-18) or per channel (since -21)."""

    stashes_since: ClassVar[int | None] = _PER_CHANNEL_SINCE

    def on_scale(self, node: ir.Node, affine: Affine, facts: Facts) -> Affine | Refusal:
        """Version 18 can hold a map of the channels only if each group agrees on it."""
        if affine.axis != _CHANNEL_AXIS or is_per_channel(facts):
            return super().on_scale(node, affine, facts)
        groups = groups_of(node)
        if affine.scale.size % groups:
            return wrong_axis(node, affine, f"it has {groups} groups of channels")
        if not _agrees_in_groups(affine, groups):
            why = (
                f"its scale and bias hold one entry for each of {groups} groups (version 18),"
                " and the map differs inside of a group"
            )
            remedy = "convert the model to opset 21: onnx.version_converter.convert_version"
            return Refusal(Code.MAPS_DIFFER, name_of(node), why, remedy)
        first = affine.take(range(0, affine.scale.size, affine.scale.size // groups))
        return super().on_scale(node, first, facts)

    def on_result(self, node: ir.Node, affine: Affine, facts: Facts) -> Affine | Refusal:
        """An entry of version 18 stands for all channels of its group."""
        if is_per_channel(facts) or affine.axis is None:
            return super().on_result(node, affine, facts)
        channels = channels_of(node.inputs[0], _CHANNEL_AXIS, facts)
        if channels is None:
            return unknown_shape(node, "the number of its channels")
        each = channels // groups_of(node)
        return super().on_result(node, affine.repeat(inner=each), facts)

    def refuse_mixed(self, node: ir.Node, affine: Affine, facts: Facts) -> Refusal | None:
        """A map may differ along the batch, and from group to group."""
        if affine.axis == _CHANNEL_AXIS:
            groups = groups_of(node)
            if affine.scale.size % groups or not _agrees_in_groups(affine, groups):
                each = affine.scale.size // groups
                return mixed(node, affine, f"the {each} channels of a group")
        return super().refuse_mixed(node, affine, facts)


def groups_of(node: ir.Node) -> int:
    """Return the number of groups; the attribute is required."""
    return max(int_attr(node, "num_groups", 1), 1)


def is_per_channel(facts: Facts) -> bool:
    """Return whether scale and bias of GroupNormalization hold one entry per channel."""
    return facts.opset() >= _PER_CHANNEL_SINCE


def _agrees_in_groups(affine: Affine, groups: int) -> bool:
    parts = np.stack([affine.scale, affine.shift]).reshape(2, groups, -1)
    return bool((parts == parts[:, :, :1]).all())
