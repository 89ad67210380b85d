"""Weights stored as integers: scales take the magnitudes of a map, integers its signs.

``W = (Q − z) · d`` (DequantizeLinear-10 to -25). A map ``s`` makes d into ``d · |s|`` and,
where s < 0, Q into ``2 · z − Q``. Both are exact, and the weight stays as small as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.blocks import Stored
from bnfold.expression import Expression, Held
from bnfold.model.attributes import ints_attr
from bnfold.model.constants import Constant
from bnfold.model.facts import Facts
from bnfold.model.quantized import laid, limits, scale_axis
from bnfold.records import Code, Refusal
from bnfold.rules.base import SetConstant, SetQuantized, dynamic_weight, name_of

_INTEGERS, _SCALE, _ZERO = range(3)
_AXIS_SINCE: Final = 13
_Wide = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class _Mirrored:
    """Integers, with the sign of their distance to the zero point changed by ``signs``."""

    integers: Stored
    zero: NDArray[np.int64]
    signs: NDArray[np.int64]

    def numpy(self) -> NDArray[np.generic]:
        """Return the integers in their own type."""
        stored = np.asarray(self.integers.numpy())
        moved = self.zero + self.signs * (stored.astype(np.int64) - self.zero)
        return moved.astype(stored.dtype)


@dataclass(frozen=True, slots=True, eq=False)
class Integers:
    """What a weight is dequantised from.

    Attributes:
        source: The DequantizeLinear.
        perm: Axis j of the weight, as it is read, is axis ``perm[j]`` of the integers.
        integers: Q.
        scale: d.
        zero: z, if it is there.
        axis: The axis of the integers that the scales run along; None for one scale.
        may_widen: Whether one scale may become one for each channel.
        beside_activations: Whether the model quantises activations too.
    """

    source: ir.Node
    perm: tuple[int, ...]
    integers: Constant
    scale: Constant
    zero: Constant | None
    axis: int | None
    may_widen: bool
    beside_activations: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions of the integers."""
        return self.integers.shape

    def zeros(self) -> NDArray[np.int64]:
        """Return the zero points in a shape that broadcasts to the integers."""
        if self.zero is None:
            return np.zeros((), np.int64)
        points = self.zero.stored().astype(np.float64).reshape(-1)
        axis = self.axis if points.size > 1 else None
        return laid(points, axis, len(self.shape)).astype(np.int64)


def read_integers(node: ir.Node, index: int, facts: Facts) -> Integers | Refusal | None:
    """Return what an input is dequantised from; None where it is not stored as integers.

    Only Identity and Transpose may stand between: other ways from integers are refused, for
    they would have to be stored as floats.
    """
    value = node.inputs[index]
    perm: tuple[int, ...] | None = None
    producer = None if value is None else value.producer()
    while producer is not None and producer.op_type in ("Identity", "Transpose"):
        if producer.op_type == "Transpose":
            constant = facts.constant(producer.inputs[0])
            rank = 0 if isinstance(constant, Refusal) else len(constant.shape)
            step = ints_attr(producer, "perm") or tuple(reversed(range(rank)))
            perm = step if perm is None else tuple(step[axis] for axis in perm)
        producer = None if producer.inputs[0] is None else producer.inputs[0].producer()
    if producer is None:
        return None
    if producer.op_type == "DequantizeLinear" and facts.is_standard(producer):
        return _integers_of(producer, perm, facts)
    if hangs_on_integers(producer):
        why = f"its weight is dequantised and then changed by {producer.op_type}"
        return Refusal(Code.NOT_FLOAT, name_of(node), why)
    return None


def _integers_of(
    source: ir.Node, perm: tuple[int, ...] | None, facts: Facts
) -> Integers | Refusal:
    found = [facts.constant(value) for value in source.inputs if value is not None]
    held: list[Constant] = []
    for entry in found:
        if isinstance(entry, Refusal):
            return entry
        held.append(entry)
    rank = len(held[_INTEGERS].shape)
    return Integers(
        source,
        perm or tuple(range(rank)),
        held[_INTEGERS],
        held[_SCALE],
        held[_ZERO] if len(held) > _ZERO else None,
        scale_axis(source, held[_SCALE], rank),
        facts.opset() >= _AXIS_SINCE,
        facts.quantizes_activations(),
    )


def unreadable(node: ir.Node, value: ir.Value | None, facts: Facts) -> Refusal | None:
    """Say why ``node`` cannot read a dequantised constant whose parts can be read."""
    source = None if value is None else value.producer()
    if source is None or source.op_type != "DequantizeLinear" or not facts.is_standard(source):
        return None
    parts = [facts.constant(v) for v in source.inputs if v is not None]
    missing = [part for part in parts if isinstance(part, Refusal)]
    if missing:
        held = [part for part in missing if part.code is Code.OVERRIDABLE]
        return dynamic_weight(node, held[0]) if held else None
    why = "its weight is quantised in blocks, or to a type that is no integer"
    return Refusal(Code.NOT_FLOAT, name_of(node), why, "fold before quantising")


def hangs_on_integers(node: ir.Node) -> bool:
    """Return whether a node computes from something that is dequantised."""
    pending, seen = [node], {node}
    while pending:
        current = pending.pop()
        if current.op_type == "DequantizeLinear":
            return True
        producers = (value.producer() for value in current.inputs if value is not None)
        fresh = {producer for producer in producers if producer is not None} - seen
        seen |= fresh
        pending.extend(fresh)
    return False


def scaled(stored: Integers, weight: SetConstant, factor: _Wide) -> SetQuantized | Refusal:
    """Return the edit that multiplies a weight stored as integers.

    Args:
        stored: What the weight is dequantised from.
        weight: The input, with what the node will read there.
        factor: The map, in a shape that broadcasts to the weight as it is read.
    """
    factor = factor.transpose(np.argsort(stored.perm)) if factor.ndim else factor
    sizes = np.abs(factor)
    # A channel that is scaled by zero keeps its scale: its integers become the zero point.
    sizes = np.where(sizes == 0.0, sizes.max() or 1.0, sizes)
    axes = [a for a in range(sizes.ndim) if (sizes != sizes.take([0], axis=a)).any()]
    blocked = _refuse_axes(stored, weight, axes)
    if blocked is not None:
        return blocked
    axis = axes[0] if axes else None
    steps = _scales(stored, sizes, axis)
    flipped = _signed(stored, weight, np.sign(factor).astype(np.int64))
    if isinstance(flipped, Refusal):
        return flipped
    widened = axis is not None and stored.axis is None
    parts = (*flipped, steps, *(_zeros(stored, steps.expression.shape) if widened else ()))
    return SetQuantized(weight, stored.source, parts, axis if widened else None)


def _refuse_axes(stored: Integers, weight: SetConstant, axes: list[int]) -> Refusal | None:
    """Refuse magnitudes that the scales cannot run along."""
    name = name_of(weight.node)
    if len(axes) > 1:
        why = "its scales would have to differ along several axes of its weight"
        return Refusal(Code.WRONG_AXIS, name, why)
    if not axes or stored.axis == axes[0]:
        return None
    if stored.axis is not None:
        why = f"the scales of its weight run along axis {stored.axis}, the map along {axes[0]}"
        return Refusal(Code.WRONG_AXIS, name, why, "fold before quantising")
    if not stored.may_widen:
        why = "before opset 13 a weight stored as integers has one scale only"
        remedy = "convert the model: onnx.version_converter.convert_version(model, 13)"
        return Refusal(Code.WRONG_AXIS, name, why, remedy)
    if stored.beside_activations and stored.perm.index(axes[0]) != weight.channels:
        # ONNX Runtime 1.32 reads such scales as those of the outputs, and computes nonsense.
        why = "runtimes that multiply integers take scales for outputs, not for inputs"
        return Refusal(Code.WRONG_AXIS, name, why, "fold before quantising")
    return None


def _scales(stored: Integers, sizes: _Wide, axis: int | None) -> SetConstant:
    held = stored.scale
    if axis is None:
        by = sizes.reshape(-1)[:1].reshape([1] * len(held.shape))
        expression = Expression(Held(held.wide()), held.shape, (by,))
    else:
        along = np.moveaxis(sizes, axis, 0).reshape(sizes.shape[axis], -1)[:, 0]
        old = np.broadcast_to(held.wide().reshape(-1), along.shape)
        expression = Expression(Held(old), along.shape, (along,))
    return SetConstant(stored.source, _SCALE, expression, held.dtype, 0)


def _zeros(stored: Integers, shape: tuple[int, ...]) -> tuple[SetConstant, ...]:
    """Return the edit that repeats one zero point for every channel."""
    held = stored.zero
    if held is None:
        return ()
    points = np.broadcast_to(held.stored().reshape(-1), shape)
    return (SetConstant(stored.source, _ZERO, Expression.of(points), held.dtype, None),)


def _signed(
    stored: Integers, weight: SetConstant, signs: NDArray[np.int64]
) -> tuple[SetConstant, ...] | Refusal:
    """Return the edit of the integers, if there is any: signs, or that nodes computed them."""
    held, zero = stored.integers, stored.zeros()
    if (signs == 1).all():
        return _as_they_are(stored)
    whole = held.stored().astype(np.int64)
    moved = zero + signs * (whole - zero)
    low, high = limits(held.dtype)
    beyond = (moved < low) | (moved > high)
    if beyond.any():
        worst = int(whole[beyond].flat[0])
        point = int(np.broadcast_to(zero, whole.shape)[beyond].flat[0])
        why = (
            f"a negative scale turns its weight {worst} around the zero point {point},"
            f" out of {held.dtype.name}"
        )
        remedy = f"quantise without {worst}: its mirror image has no place in the type"
        return Refusal(Code.OUT_OF_RANGE, name_of(weight.node), why, remedy)
    expression = Expression(_Mirrored(held.expression.base, zero, signs), held.shape)
    return (SetConstant(stored.source, _INTEGERS, expression, held.dtype, None),)


def _as_they_are(stored: Integers) -> tuple[SetConstant, ...]:
    """Store integers that a QuantizeLinear computed, so that its scale no longer matters."""
    value, held = stored.source.inputs[_INTEGERS], stored.integers
    producer = None if value is None else value.producer()
    if producer is None or producer.op_type == "Constant":
        return ()
    expression = Expression(held.expression.base, held.shape)
    return (SetConstant(stored.source, _INTEGERS, expression, held.dtype, None),)


def requantized(stored: Integers, bias: SetConstant, factor: _Wide) -> SetQuantized | Refusal:
    """Return the edit that rounds a new bias to integers, with its scales times ``|factor|``.

    Args:
        stored: What the bias is dequantised from.
        bias: The input, with what the node should read there.
        factor: The scale of the map [channels]; the shift is in ``bias`` already.
    """
    sizes = np.abs(factor)
    sizes = np.where(sizes == 0.0, sizes.max() or 1.0, sizes)
    axis = 0 if (sizes != sizes[0]).any() else None
    blocked = _refuse_axes(stored, bias, [] if axis is None else [axis])
    if blocked is not None:
        return blocked
    steps = _scales(stored, sizes, axis)
    held, wanted = stored.integers, bias.expression.evaluate()
    size = steps.expression.evaluate()
    with np.errstate(all="ignore"):
        whole = np.rint(wanted / size) + stored.zeros()
    low, high = limits(held.dtype)
    if not ((whole >= low) & (whole <= high)).all():
        why = f"its new bias does not fit into {held.dtype.name} in steps of {size.min():.3g}"
        return Refusal(Code.OUT_OF_RANGE, name_of(bias.node), why, "fold before quantising")
    rounding = float(np.abs((whole - stored.zeros()) * size - wanted).max())
    chosen = Expression.of(whole.astype(held.dtype.numpy()))
    widened = axis is not None and stored.axis is None
    parts = (
        SetConstant(stored.source, _INTEGERS, chosen, held.dtype, None),
        steps,
        *(_zeros(stored, steps.expression.shape) if widened else ()),
    )
    return SetQuantized(bias, stored.source, parts, axis if widened else None, rounding)
