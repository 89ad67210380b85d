"""Pad: the padded constant is mapped; reflect, edge and wrap copy elements of a channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.expression import Expression
from bnfold.model.attributes import float_attr, ints_attr, string_attr
from bnfold.model.constants import FLOATS
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import (
    Edit,
    Maps,
    Rule,
    SetConstant,
    Taken,
    computed,
    name_of,
    wrong_axis,
)
from bnfold.rules.float_attributes import set_float
from bnfold.rules.passing import (
    Indices,
    channels_of,
    onward,
    pick_after,
    pick_before,
    refuse_vast_axis,
    scatter,
    unknown_shape,
)
from bnfold.rules.weights import has_input, only_map

_PADS_ARE_INPUTS_SINCE: Final = 11
_VALUE: Final = 2
_AXES: Final = 3
_NEW: Final = -1


@dataclass(frozen=True, slots=True)
class _Padding:
    """What a Pad does: pads by axis (in front, behind), and the constant it pads with."""

    mode: str
    by_axis: dict[int, tuple[int, int]]
    value: float

    def grows_other_than(self, axis: int | None) -> bool:
        """Return whether elements of the constant stand beside those of a channel."""
        return any(max(pads) > 0 for place, pads in self.by_axis.items() if place != axis)

    def widened(self, axis: int, channels: int) -> int:
        """Return how many channels the result has."""
        front, behind = self.by_axis.get(axis, (0, 0))
        return channels + max(front, 0) + max(behind, 0)

    def sources(self, axis: int, channels: int) -> Indices:
        """Return which channel each channel of the result is; −1 for one that is new."""
        front, behind = self.by_axis.get(axis, (0, 0))
        kept = np.arange(max(-front, 0), channels - max(-behind, 0))
        width = (max(front, 0), max(behind, 0))
        if self.mode == "constant":
            return np.pad(kept, width, constant_values=_NEW)
        return np.asarray(np.pad(kept, width, mode=self.mode))  # type: ignore[call-overload]  # any mode


class Pad(Rule):
    """Pad-2: attributes; Pad-11 and later: inputs. The modes are those of numpy."""

    words: ClassVar = {"mode": frozenset({"constant", "reflect", "edge", "wrap"})}

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``s · pad(x, v) + t = pad(s · x + t, s · v + t)``, one number for all channels."""
        affine = maps[0]
        padding = _padding(node, facts)
        if isinstance(padding, Refusal):
            return padding
        if affine.axis is None or affine.axis not in padding.by_axis:
            return _with_value(node, padding, affine, affine, facts)
        channels = channels_of(node.inputs[0], affine.axis, facts)
        if channels is None:
            return unknown_shape(node, "how many channels its input has")
        if vast := refuse_vast_axis(node, padding.widened(affine.axis, channels)):
            return vast
        sources = padding.sources(affine.axis, channels)
        if padding.mode != "constant":
            return pick_after(node, affine, sources, channels)
        return _around_new(node, padding, affine, sources, channels)

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``pad(s · x + t, v) = s · pad(x, (v − t) / s) + t``."""
        affine = only_map(node, maps, 0, "pads or value")
        padding = _padding(node, facts)
        if isinstance(affine, Refusal):
            return affine
        if isinstance(padding, Refusal):
            return padding
        if affine.axis is None or affine.axis not in padding.by_axis:
            return _before_others(node, padding, affine, facts)
        if vast := refuse_vast_axis(node, padding.widened(affine.axis, affine.scale.size)):
            return vast
        sources = padding.sources(affine.axis, affine.scale.size)
        if padding.mode != "constant":
            return pick_before(node, affine, sources, affine.scale.size)
        if padding.grows_other_than(affine.axis):
            return wrong_axis(node, affine, "it pads that axis and others")
        scale = np.where(sources == _NEW, 1.0, affine.scale[sources])
        shift = np.where(sources == _NEW, 0.0, affine.shift[sources])
        return onward({0: Affine.per_channel(affine.axis, scale, shift)})


def _before_others(
    node: ir.Node, padding: _Padding, affine: Affine, facts: Facts
) -> Taken | Refusal:
    """Pass a map along an axis that is not padded; the constant takes its inverse."""
    keeps_zero = not affine.has_shift and padding.value == 0.0
    if padding.mode != "constant" or keeps_zero or not padding.grows_other_than(None):
        return Taken(onward={0: affine})
    if not affine.is_invertible:
        why = "no padded value gives, times a scale of zero, what it pads with now"
        return Refusal(Code.PAD_VALUE, name_of(node), why)
    return _with_value(node, padding, affine, affine.inverse(), facts)


def _with_value(
    node: ir.Node, padding: _Padding, affine: Affine, of_value: Affine, facts: Facts
) -> Taken | Refusal:
    """Pass ``affine`` on; the padded constant becomes ``of_value`` of what it was."""
    if padding.mode != "constant" or not padding.grows_other_than(None):
        return Taken(onward={0: affine})
    mapped = of_value.scale * padding.value + of_value.shift
    if not (mapped == mapped[0]).all():
        why = f"the {padding.value:g} that it pads would differ from channel to channel"
        return Refusal(Code.PAD_VALUE, name_of(node), why, "the scale alone can be folded")
    if mapped[0] == padding.value:
        return Taken(onward={0: affine})
    edit = _edit(node, float(mapped[0]), facts)
    return edit if isinstance(edit, Refusal) else Taken((edit,), {0: affine})


def _around_new(
    node: ir.Node, padding: _Padding, affine: Affine, sources: Indices, channels: int
) -> Taken | Refusal:
    """Pass up a map along a padded axis, if it leaves the padded channels as they are."""
    new = sources == _NEW
    if new.size != affine.channels or padding.grows_other_than(affine.axis):
        return wrong_axis(node, affine, "it pads that axis and others")
    mapped = affine.scale[new] * padding.value + affine.shift[new]
    if not (mapped == padding.value).all():
        why = "the map changes the channels that it pads"
        return Refusal(Code.PAD_VALUE, name_of(node), why)
    old = Affine(affine.scale[~new], affine.shift[~new], affine.axis)
    moved = scatter(old, sources[~new], channels)
    return wrong_axis(node, affine, "channels repeat") if moved is None else onward({0: moved})


def _edit(node: ir.Node, value: float, facts: Facts) -> Edit | Refusal:
    if facts.opset() < _PADS_ARE_INPUTS_SINCE:
        edits = set_float(node, "value", value, facts)
        return edits if isinstance(edits, Refusal) else edits[0]
    dtype = None if node.inputs[0] is None else facts.dtype(node.inputs[0])
    if dtype is None or dtype not in FLOATS:
        return Refusal(Code.NOT_FLOAT, name_of(node), "the type of its input is unknown")
    return SetConstant(node, _VALUE, Expression.of(np.array(value)), dtype, None)


def _padding(node: ir.Node, facts: Facts) -> _Padding | Refusal:
    mode = string_attr(node, "mode", "constant")
    if facts.opset() < _PADS_ARE_INPUTS_SINCE:
        pads, value = ints_attr(node, "pads"), float_attr(node, "value", 0.0)
        return _Padding(mode, _by_axis(pads, range(len(pads) // 2)), value)
    pads_input = facts.constant(node.inputs[1])
    if isinstance(pads_input, Refusal):
        return computed(node, pads_input, "its pads are computed")
    pads = tuple(int(entry) for entry in pads_input.stored().reshape(-1))
    constant = _value(node, facts)
    axes = _axes(node, len(pads) // 2, facts)
    if isinstance(constant, Refusal):
        return constant
    if isinstance(axes, Refusal):
        return axes
    return _Padding(mode, _by_axis(pads, axes), constant)


def _by_axis(
    pads: tuple[int, ...], axes: range | tuple[int, ...]
) -> dict[int, tuple[int, int]]:
    count = len(pads) // 2
    pairs = zip(axes, pads[:count], pads[count:], strict=True)
    return {axis: (front, behind) for axis, front, behind in pairs if front or behind}


def _value(node: ir.Node, facts: Facts) -> float | Refusal:
    if not has_input(node, _VALUE):
        return 0.0
    constant = facts.constant(node.inputs[_VALUE])
    if isinstance(constant, Refusal):
        why = "the value that it pads is computed"
        if constant.code is Code.OVERRIDABLE:
            return Refusal(constant.code, name_of(node), why)
        return computed(node, constant, why)
    return float(constant.stored().reshape(-1)[0])


def _axes(node: ir.Node, count: int, facts: Facts) -> tuple[int, ...] | Refusal:
    if not has_input(node, _AXES):
        return tuple(range(count))
    constant = facts.constant(node.inputs[_AXES])
    rank = None if node.inputs[0] is None else facts.rank(node.inputs[0])
    if isinstance(constant, Refusal) or rank is None:
        return Refusal(Code.DYNAMIC_CONSTANT, name_of(node), "its axes are unknown")
    return tuple(int(axis) % rank for axis in constant.stored().reshape(-1))
