"""What carriers share: signs, channels that are read elsewhere, constants that are mapped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.affine import Affine
from bnfold.expression import Expression
from bnfold.limits import FREE_ELEMENTS
from bnfold.model.constants import Constant
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import Maps, SetConstant, Taken, dynamic_weight, name_of, wrong_axis
from bnfold.rules.vast import ADDING, refuse_to_change
from bnfold.storable import shrinks

Indices = NDArray[np.intp]
_VAST: Final = 2.0**10
"""Shifts of normalisations lie below; penalties of masks, from −10000 on, lie above."""

_MAY_GROW_TO: Final = 1 << 16
"""A constant may become this many elements, where the map broadcasts it."""


def refuse_negative(node: ir.Node, affine: Affine) -> Refusal | None:
    """Refuse a map that turns the order of values around."""
    count = int((affine.scale < 0).sum())
    if not count:
        return None
    size = affine.scale.size
    why = f"{node.op_type} keeps no negative scale, {count} of {size} scales are negative"
    return Refusal(Code.NEGATIVE_SCALE, name_of(node), why)


def refuse_vast(node: ir.Node, affine: Affine) -> Refusal | None:
    """Refuse a shift that would leave what it cancels with, if it is vast.

    ``(1 − mask) · −3.4e38`` is zero or a penalty, exactly; its shift alone is −3.4e38. Taken
    away behind the sum with the scores (a Softmax does not see it), the penalty of what is
    *not* masked stays: exact in real numbers, but every score is lost beside it in floating
    point. The bound leaves float32 an absolute error of 2⁻¹⁴ beside such a shift.
    """
    largest = float(np.abs(affine.shift).max(initial=0.0))
    if largest <= _VAST:
        return None
    why = (
        f"a shift of {largest:.3g} may cancel with what stays: parted from it, the sum would"
        " lose all smaller numbers to rounding"
    )
    return Refusal(Code.OUT_OF_RANGE, name_of(node), why)


def turns_around(affine: Affine) -> bool:
    """Return whether a map turns the order of values around, in every channel."""
    return bool((affine.scale < 0).all())


def unknown_shape(node: ir.Node, what: str) -> Refusal:
    """Refuse because a shape that decides is not known."""
    remedy = "run onnx.shape_inference on the model first, or export it with shapes"
    return Refusal(Code.UNKNOWN_SHAPE, name_of(node), f"{what} is unknown", remedy)


def maps_differ(node: ir.Node, why: str) -> Refusal:
    """Refuse because several maps would have to be one."""
    return Refusal(Code.MAPS_DIFFER, name_of(node), why)


def onward(maps: Maps) -> Taken:
    """Let maps go on, except those that change nothing."""
    return Taken(onward={place: m for place, m in maps.items() if not m.is_identity})


def is_constant(node: ir.Node, index: int, facts: Facts) -> bool:
    """Return whether an input holds a constant that may be rewritten."""
    return not isinstance(facts.constant(node.inputs[index]), Refusal)


def channels_of(value: ir.Value | None, axis: int, facts: Facts) -> int | None:
    """Return the size of a value along ``axis`` if it is a known number that maps can have."""
    size = None if value is None else facts.dim(value, axis)
    return size if isinstance(size, int) and size <= FREE_ELEMENTS else None


def refuse_vast_axis(node: ir.Node, channels: int) -> Refusal | None:
    """Refuse a map of more channels than any layer has, before one is made.

    A few bytes can tile, pad or regroup four channels into billions.
    """
    if channels <= FREE_ELEMENTS:
        return None
    why = f"the map would have {channels} entries, {FREE_ELEMENTS} are the most"
    return Refusal(Code.TOO_LARGE, name_of(node), why)


def scatter(affine: Affine, sources: Indices, channels: int) -> Affine | None:
    """Return the map of x whose channels ``sources`` carry ``affine``; None if they disagree.

    This undoes ``take(sources)``. Channels that nobody reads get the identity.
    """
    if affine.axis is None:
        return affine
    scale, shift = np.ones(channels), np.zeros(channels)
    scale[sources], shift[sources] = affine.scale, affine.shift
    same = (scale[sources] == affine.scale) & (shift[sources] == affine.shift)
    return Affine.per_channel(affine.axis, scale, shift) if bool(same.all()) else None


def pick_after(
    node: ir.Node, affine: Affine, sources: Indices, channels: int
) -> Taken | Refusal:
    """Pass up a map through an operator whose channel j is channel ``sources[j]`` of x."""
    if sources.size != affine.channels:
        return wrong_axis(node, affine, f"it writes {sources.size} channels there")
    moved = scatter(affine, sources, channels)
    if moved is None:
        return maps_differ(node, "a channel is read several times, with different maps")
    return onward({0: moved})


def whole_or_part(affine: Affine, axis: int, sources: Indices, channels: int) -> Taken:
    """Pass up a uniform map of the channels ``sources`` of x: to all of x, or to these alone.

    Where other readers of x read its other channels, only the second way is open.
    """
    whole = Taken(onward={0: affine})
    scale, shift = np.ones(channels), np.zeros(channels)
    scale[sources], shift[sources] = affine.scale[0], affine.shift[0]
    part = Affine.per_channel(axis, scale, shift)
    if part.axis is None:
        return whole
    return replace(whole, otherwise=(Taken(onward={0: part}),))


def pick_before(
    node: ir.Node, affine: Affine, sources: Indices, channels: int
) -> Taken | Refusal:
    """Pass down a map through an operator whose channel j is channel ``sources[j]`` of x."""
    if channels != affine.channels:
        return wrong_axis(node, affine, f"it reads {channels} channels there")
    return onward({0: affine.take(sources)})


def mapped_constant(
    node: ir.Node, index: int, affine: Affine, rank: int | None, facts: Facts
) -> SetConstant | Refusal:
    """Return the edit after which a constant operand is ``affine`` of what it was.

    Args:
        node: The node that reads the constant.
        index: Which of its inputs; it broadcasts to the result.
        affine: The map, on an axis of the result.
        rank: The number of dimensions of the result; only a map along an axis needs it.
        facts: The model.
    """
    constant = facts.constant(node.inputs[index])
    if isinstance(constant, Refusal):
        return dynamic_weight(node, constant)
    if node.op_type in ADDING:
        args = (constant.wide(), constant.dtype, affine.scale, affine.shift)
        if vast := refuse_to_change(node, *args):
            return vast
    # a factor must not vanish; beside an addend, what vanishes is small
    channels = None if affine.has_shift or node.op_type in ADDING else 0
    if affine.axis is None:
        mapped = constant.expression.mapped(affine.scale[0], affine.shift[0])
        return _kept(node, index, mapped, constant, channels)
    if rank is None:
        return unknown_shape(node, "the rank of its result")
    along = (affine.scale.size, *[1] * (rank - affine.axis - 1))
    shape = np.broadcast_shapes(constant.shape, along)
    if math.prod(shape) > max(math.prod(constant.shape), _MAY_GROW_TO):
        why = f"its constant would grow from {list(constant.shape)} to {list(shape)}"
        return Refusal(Code.NO_GAIN, name_of(node), why)
    scale, shift = affine.scale.reshape(along), affine.shift.reshape(along)
    mapped = constant.expression.mapped(scale, shift)
    return _kept(node, index, mapped, constant, channels)


def _kept(
    node: ir.Node, index: int, mapped: Expression, constant: Constant, channels: int | None
) -> SetConstant | Refusal:
    """Return the edit, unless all of a factor would be subnormal, or vanish."""
    if channels is not None and shrinks(mapped, constant.expression, constant.dtype.numpy()):
        why = f"its constant would shrink below the normal range of {constant.dtype.name}"
        return Refusal(Code.OUT_OF_RANGE, name_of(node), why)
    return SetConstant(node, index, mapped, constant.dtype, channels)


def all_equal(maps: Iterable[Affine]) -> bool:
    """Return whether all maps are the same."""
    first, *rest = maps
    return all(first.equals(other) for other in rest)


def along_one_axis(
    arrays: Sequence[NDArray[np.float64]],
) -> tuple[int, list[NDArray[np.float64]]] | None:
    """Return the one axis that arrays of a shape vary along, and their entries along it."""
    shape = arrays[0].shape
    axes = [axis for axis in range(len(shape)) if any(_varies(a, axis) for a in arrays)]
    if len(axes) != 1:
        return None
    axis = axes[0]
    along = tuple(slice(None) if place == axis else 0 for place in range(len(shape)))
    return axis, [a[along] for a in arrays]


def _varies(array: NDArray[np.float64], axis: int) -> bool:
    if array.shape[axis] <= 1:
        return False
    first = array[
        tuple(slice(0, 1) if place == axis else slice(None) for place in range(array.ndim))
    ]
    return not bool((array == first).all())
