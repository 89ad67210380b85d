"""Concat and Split: a map along their axis is joined or cut, one along another axis passes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Set

import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.model.attributes import int_attr
from bnfold.model.facts import Facts
from bnfold.model.uses import is_used
from bnfold.records import Code, Refusal
from bnfold.rules.base import Maps, Rule, Taken, name_of, wrong_axis
from bnfold.rules.meet import give
from bnfold.rules.passing import (
    all_equal,
    channels_of,
    maps_differ,
    onward,
    refuse_vast_axis,
    unknown_shape,
)
from bnfold.rules.weights import only_map

_Values = tuple[ir.Value | None, ...]
_Sizes = tuple[int | None, ...]


class Concat(Rule):
    """``y = [x₀, x₁, …]`` along one axis (Concat-1 to -13)."""

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """Each part takes its piece of the map; a constant part is mapped in place."""
        axis = _axis(node, node.outputs[0], 1, facts)
        if isinstance(axis, Refusal):
            return axis
        sizes = facts.sizes(node, axis)
        refusal = None if maps[0].axis != axis else _refuse_sizes(node, sizes, maps[0])
        if refusal is not None:
            return refusal
        pieces = _Pieces(maps[0], axis, sizes)
        constants = facts.constant_inputs(node)
        edits = give(node, {index: pieces[index] for index in constants}, facts)
        if isinstance(edits, Refusal):
            return edits
        return Taken(edits.edits, _Pieces(maps[0], axis, sizes, constants))

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """Parts without a map count as mapped by the identity."""
        axis = _axis(node, node.outputs[0], 1, facts)
        if isinstance(axis, Refusal):
            return axis
        joined = _join(node, maps, axis, tuple(node.inputs), facts)
        return joined if isinstance(joined, Refusal) else onward({0: joined})


class Split(Rule):
    """``[y₀, y₁, …] = x`` along one axis (Split-1 to -18)."""

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """Outputs without a map count as mapped by the identity."""
        axis = _axis(node, node.inputs[0], 0, facts)
        if isinstance(axis, Refusal):
            return axis
        joined = _join(node, maps, axis, tuple(node.outputs), facts)
        return joined if isinstance(joined, Refusal) else onward({0: joined})

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """Each output goes on with its piece of the map."""
        affine = only_map(node, maps, 0, "sizes")
        axis = _axis(node, node.inputs[0], 0, facts)
        if isinstance(affine, Refusal):
            return affine
        if isinstance(axis, Refusal):
            return axis
        sizes = tuple(channels_of(part, axis, facts) for part in node.outputs)
        refusal = None if affine.axis != axis else _refuse_sizes(node, sizes, affine)
        return refusal or onward(_Pieces(affine, axis, sizes))


def _axis(node: ir.Node, whole: ir.Value | None, default: int, facts: Facts) -> int | Refusal:
    axis = int_attr(node, "axis", default)
    if axis >= 0:
        return axis
    rank = None if whole is None else facts.rank(whole)
    return unknown_shape(node, "the rank of its values") if rank is None else axis + rank


def _join(
    node: ir.Node, maps: Maps, axis: int, parts: _Values, facts: Facts
) -> Affine | Refusal:
    """Return the map of the whole from those of the parts that matter."""
    read = [
        index
        for index, part in enumerate(parts)
        if part is not None and (index in maps or not _is_dead(part, node))
    ]
    known = [maps.get(index, Affine.uniform()) for index in read]
    if all_equal(known) and known[0].axis != axis:
        return known[0]
    pieces: list[tuple[Affine, int]] = []
    for index, part in enumerate(parts):
        affine = maps.get(index, Affine.uniform())
        size = channels_of(part, axis, facts)
        if affine.axis not in (None, axis):
            along = f"the parts have different maps along axis {affine.axis}"
            return maps_differ(node, f"{along}, they are joined along axis {axis}")
        if size is None:
            return unknown_shape(node, f"how many channels its part {index} has")
        if affine.channels not in (None, size):
            return wrong_axis(node, affine, f"that part has {size} channels")
        pieces.append((affine, size))
    vast = refuse_vast_axis(node, sum(size for _, size in pieces))
    return vast or Affine.concat(axis, pieces)


def _is_dead(part: ir.Value, node: ir.Node) -> bool:
    return part.producer() is node and not is_used(part) and not part.is_graph_output()


def _refuse_sizes(node: ir.Node, sizes: _Sizes, affine: Affine) -> Refusal | None:
    if None in sizes:
        index = sizes.index(None)
        return unknown_shape(node, f"how many channels its part {index} has")
    channels = sum(size or 0 for size in sizes)
    if channels != affine.channels:
        why = f"its parts have {channels} channels, the map has {affine.channels}"
        return Refusal(Code.WRONG_SHAPE, name_of(node), why)
    return None


class _Pieces(Mapping[int, Affine]):
    """The pieces of a map of the whole that belong to its parts, each cut when asked for.

    A Concat may join hundreds of parts, and the first often stops the map.
    """

    def __init__(
        self, affine: Affine, axis: int, sizes: _Sizes, without: Set[int] = frozenset()
    ) -> None:
        self._affine = affine
        self._is_cut = affine.axis == axis
        self._stops = list(itertools.accumulate(size or 0 for size in sizes))
        self._without = without

    def __getitem__(self, index: int) -> Affine:
        if not self._is_cut:
            return self._affine
        start = self._stops[index - 1] if index else 0
        return _piece(self._affine, start, self._stops[index])

    def __iter__(self) -> Iterator[int]:
        return (index for index in range(len(self._stops)) if index not in self._without)

    def __len__(self) -> int:
        return len(self._stops) - len(self._without)


def _piece(affine: Affine, start: int, stop: int) -> Affine:
    """Return the map of some channels in a row, without copies: a Concat may join many."""
    scale, shift = affine.scale[start:stop], affine.shift[start:stop]
    if not scale.size or ((scale == scale[0]).all() and (shift == shift[0]).all()):
        return affine.take(range(start, min(stop, affine.scale.size)))
    return Affine(scale, shift, affine.axis)
