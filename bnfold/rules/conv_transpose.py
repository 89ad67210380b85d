"""ConvTranspose: W [C, M/group, k…]; scales go along its output or input channels."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.affine import Affine
from bnfold.model.attributes import int_attr, ints_attr, string_attr
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
_SAME: Final = ("SAME_UPPER", "SAME_LOWER")


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
        """``f(s · x + t)``: row i times s[i]; the shift if it is one number at all places."""
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
    """Add to the bias what a shift makes, if it is the same number at every place."""
    remedy = "the scale alone can be folded"
    steps = _steps_inside(node, weight.shape[2:])
    if steps is None:
        why = "its outputs see different numbers of taps, so a shift is no constant behind it"
        return Refusal(Code.SHIFT_NOT_CONSTANT, name_of(node), why, remedy)
    groups = int_attr(node, "group", 1)
    rows, columns = weight.shape[:2]
    _, shift = affine.entries(rows)
    taps = weight.constant.wide().reshape(groups, rows // groups, columns, *weight.shape[2:])
    along = shift.reshape(groups, -1, *[1] * (taps.ndim - 2))
    # Summed in one order at all taps: what is equal there stays equal.
    images = _by_phase((taps * along).sum(axis=1), steps, ints_attr(node, "dilations"))
    first = images[..., :1]
    if (images != first).any():
        why = (
            "a shift in front of it is another number at each place behind it: its taps differ"
        )
        return Refusal(Code.SHIFT_NOT_CONSTANT, name_of(node), why, remedy)
    return bias_plus(node, _BIAS, first.reshape(-1), weight, facts)


def _steps_inside(node: ir.Node, kernel: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the strides, if no output stands at a border: in each phase all see all its taps.

    Before it is cropped, place q sees the taps k with ``q = stride · i + dilation · k`` for an
    i from 0 to n - 1. Those of all of its phase, q modulo the stride, are there from
    ``q = reach - stride`` on, up to ``stride · n - 1``: what lies beyond must be cropped.
    """
    rank = len(kernel)
    strides = ints_attr(node, "strides", (1,) * rank)
    dilations = ints_attr(node, "dilations", (1,) * rank)
    pads = ints_attr(node, "pads", (0,) * 2 * rank)
    more = ints_attr(node, "output_padding", (0,) * rank)
    auto_pad = string_attr(node, "auto_pad", "NOTSET")
    lists = ((strides, rank), (dilations, rank), (pads, 2 * rank), (more, rank))
    if "output_shape" in node.attributes or any(len(one) != size for one, size in lists):
        return None
    if auto_pad != "NOTSET":
        pads = (0,) * 2 * rank
    over = [d * (k - 1) + 1 - s for d, k, s in zip(dilations, kernel, strides, strict=True)]
    if auto_pad in _SAME and (any(over) or any(more)):
        return None  # then it crops, how is another story
    ends = zip(pads[:rank], pads[rank:], over, more, strict=True)
    inside = all(front >= out and behind >= out + extra for front, behind, out, extra in ends)
    return strides if inside else None


def _by_phase(
    images: NDArray[np.float64], steps: tuple[int, ...], dilations: tuple[int, ...]
) -> NDArray[np.float64]:
    """Sum over the taps of every phase: [groups, columns, phases]; a phase may have none."""
    for place, step in enumerate(steps):
        dilation = dilations[place] if dilations else 1
        taps = np.moveaxis(images, place + 2, -1)
        phases = np.zeros((*taps.shape[:-1], step))
        for tap in range(taps.shape[-1]):
            phases[..., dilation * tap % step] += taps[..., tap]
        images = np.moveaxis(phases, -1, place + 2)
    return images.reshape(*images.shape[:2], -1)
