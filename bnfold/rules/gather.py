"""Slice and Gather: channels are chosen, the map with them; an embedding table absorbs it."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.model.attributes import int_attr, ints_attr
from bnfold.model.constants import FLOATS
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import (
    Maps,
    Rule,
    SetConstant,
    Taken,
    computed,
    name_of,
    together,
    wrong_axis,
)
from bnfold.rules.passing import (
    Indices,
    channels_of,
    pick_after,
    pick_before,
    unknown_shape,
    whole_or_part,
)
from bnfold.rules.weights import only_map, read_weight

_RANGES_ARE_INPUTS_SINCE: Final = 10


class Slice(Rule):
    """``y = x[start:end:step]`` along some axes (Slice-1: attributes, -10 to -13: inputs)."""

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """Channels that the slice drops may have any map: they get the identity."""
        return _slice(node, maps[0], facts, up=True)

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """The map is sliced like the value."""
        affine = only_map(node, maps, 0, "ranges")
        return affine if isinstance(affine, Refusal) else _slice(node, affine, facts, up=False)


class Gather(Rule):
    """``y = take(x, indices, axis)`` (Gather-1 to -13)."""

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """A table takes the map into its rows; otherwise the source channels do."""
        affine = maps[0]
        place = _Place.of(node, facts)
        if isinstance(place, Refusal):
            return Taken(onward={0: affine}) if _is_free(node, affine, facts) else place
        table = _into_table(node, affine, place, facts)
        if table is not None:
            return table
        if affine.axis is None:
            return _uniform_after(node, affine, place, facts)
        if not place.axis <= affine.axis < place.axis + place.width:
            return Taken(onward={0: affine.on_axis(place.source_of(affine.axis))})
        indices = place.indices(node, facts)
        channels = channels_of(node.inputs[0], place.axis, facts)
        if isinstance(indices, Refusal):
            return indices
        if channels is None or place.width != 1:
            return wrong_axis(node, affine, "its indices make that axis")
        return pick_after(node, affine, indices % channels, channels)

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """The entries of the map are gathered like the channels."""
        affine = only_map(node, maps, 0, "indices")
        if isinstance(affine, Refusal) or affine.axis is None:
            return affine if isinstance(affine, Refusal) else Taken(onward={0: affine})
        place = _Place.of(node, facts)
        if isinstance(place, Refusal):
            return place
        if affine.axis != place.axis:
            return Taken(onward={0: affine.on_axis(place.result_of(affine.axis))})
        indices = place.indices(node, facts)
        if isinstance(indices, Refusal):
            return indices
        taken = affine.take(indices % affine.scale.size)
        if place.width > 1 and taken.axis is not None:
            return wrong_axis(node, affine, "its indices spread it over several axes")
        return Taken(onward={} if taken.is_identity else {0: taken})


class _Place:
    """Where the gathered axis stands, and how many axes the indices put in its place."""

    __slots__ = ("axis", "width")

    def __init__(self, axis: int, width: int) -> None:
        self.axis, self.width = axis, width

    @classmethod
    def of(cls, node: ir.Node, facts: Facts) -> _Place | Refusal:
        data, indices = node.inputs[:2]
        width = None if indices is None else facts.rank(indices)
        axis = int_attr(node, "axis", 0)
        rank = None if data is None else facts.rank(data)
        if width is None or (axis < 0 and rank is None):
            return unknown_shape(node, "the rank of its inputs")
        return cls(axis if rank is None else axis % rank, width)

    def source_of(self, axis: int) -> int:
        """Return the axis of the data that an axis of the result comes from."""
        return axis if axis < self.axis else axis - self.width + 1

    def result_of(self, axis: int) -> int:
        """Return the axis of the result that an axis of the data becomes."""
        return axis if axis < self.axis else axis + self.width - 1

    def indices(self, node: ir.Node, facts: Facts) -> Indices | Refusal:
        constant = facts.constant(node.inputs[1])
        if isinstance(constant, Refusal):
            why = "the map runs along the axis that it gathers by computed indices"
            return computed(node, constant, why)
        return constant.stored().astype(np.intp).reshape(-1)


def _is_free(node: ir.Node, affine: Affine, facts: Facts) -> bool:
    """Return whether a uniform map passes data that is no table."""
    return affine.axis is None and isinstance(facts.constant(node.inputs[0]), Refusal)


def _into_table(
    node: ir.Node, affine: Affine, place: _Place, facts: Facts
) -> Taken | Refusal | None:
    """Map the rows of a constant table; None if the data is none."""
    table = facts.constant(node.inputs[0])
    if isinstance(table, Refusal) or table.dtype not in FLOATS:
        return None
    axis = None
    if affine.axis is not None:
        if place.axis <= affine.axis < place.axis + place.width:
            return wrong_axis(node, affine, "that axis runs over the looked-up rows")
        axis = place.source_of(affine.axis)
    weight = read_weight(node, 0, facts)
    if isinstance(weight, Refusal):
        return weight
    if not affine.has_shift:
        return together(weight.times(affine.scale, *(() if axis is None else (axis,))))
    if weight.stored is not None:
        why = "its table is stored as integers, which have no place for a shift"
        return Refusal(Code.NEEDS_SCALE_ONLY, name_of(node), why)
    along = [-1 if place == axis else 1 for place in range(len(table.shape))]
    scale, shift = (part.reshape(along) for part in (affine.scale, affine.shift))
    expression = table.expression.mapped(scale, shift)
    return Taken((SetConstant(node, 0, expression, table.dtype, None),))


def _uniform_after(
    node: ir.Node, affine: Affine, place: _Place, facts: Facts
) -> Taken | Refusal:
    """Map all of the data, or only the entries that are read."""
    indices = place.indices(node, facts)
    channels = channels_of(node.inputs[0], place.axis, facts)
    if isinstance(indices, Refusal) or channels is None:
        return Taken(onward={0: affine})
    return whole_or_part(affine, place.axis, indices % channels, channels)


def _slice(node: ir.Node, affine: Affine, facts: Facts, *, up: bool) -> Taken | Refusal:
    ranges = _ranges(node, facts)
    if affine.axis is None:
        known = {} if isinstance(ranges, Refusal) or not up else ranges
        return _uniform_slice(node, affine, known, facts)
    if isinstance(ranges, Refusal):
        return ranges
    if affine.axis not in ranges:
        return Taken(onward={0: affine})
    channels = channels_of(node.inputs[0], affine.axis, facts) if up else affine.channels
    if channels is None:
        return unknown_shape(node, "how many channels its input has")
    chosen = np.arange(channels)[ranges[affine.axis]]
    pick = pick_after if up else pick_before
    return pick(node, affine, chosen, channels)


def _uniform_slice(
    node: ir.Node, affine: Affine, ranges: dict[int, slice], facts: Facts
) -> Taken:
    """Map all of the value, or only what the slice along one of its axes keeps."""
    ways = [Taken(onward={0: affine})]
    for axis, kept in ranges.items():
        channels = channels_of(node.inputs[0], axis, facts)
        if channels is not None:
            chosen = np.arange(channels)[kept]
            ways.extend(whole_or_part(affine, axis, chosen, channels).otherwise)
    return replace(ways[0], otherwise=tuple(ways[1:]))


def _ranges(node: ir.Node, facts: Facts) -> dict[int, slice] | Refusal:
    """Return the range taken of each axis that is sliced."""
    rank = None if node.inputs[0] is None else facts.rank(node.inputs[0])
    if rank is None:
        return unknown_shape(node, "the rank of its input")
    parts: list[tuple[int, ...]] = []
    for index, name in enumerate(("starts", "ends", "axes", "steps"), start=1):
        part = _integers(node, index, name, facts)
        if isinstance(part, Refusal):
            return part
        parts.append(part)
    starts, ends, axes, steps = parts
    axes = axes or tuple(range(len(starts)))
    steps = steps or (1,) * len(starts)
    return {
        axis % rank: slice(start, end, step)
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True)
    }


def _integers(node: ir.Node, index: int, name: str, facts: Facts) -> tuple[int, ...] | Refusal:
    if facts.opset() < _RANGES_ARE_INPUTS_SINCE:
        return ints_attr(node, name)
    if index >= len(node.inputs) or node.inputs[index] is None:
        return ()
    constant = facts.constant(node.inputs[index])
    if isinstance(constant, Refusal):
        return computed(node, constant, f"its {name} are computed")
    return tuple(int(entry) for entry in constant.stored().reshape(-1))
