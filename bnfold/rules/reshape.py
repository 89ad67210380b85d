"""Reshape, Flatten, Squeeze, Unsqueeze: the map is spread over the elements and read back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.model.facts import Facts
from bnfold.model.sizes import Maybe, Size, multiply
from bnfold.records import Refusal
from bnfold.rules.base import Maps, Rule, Taken, wrong_axis
from bnfold.rules.passing import along_one_axis, unknown_shape

_MAX_ELEMENTS: Final = 1 << 22
Sizes = tuple[Size, ...]


class Reshape(Rule):
    """The elements keep their order, so a map survives if it varies along one new axis."""

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """The map of the output becomes the map of the input."""
        return _pass(node, maps, node.outputs[0], node.inputs[0], facts)

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """The map of the input becomes the map of the output."""
        return _pass(node, maps, node.inputs[0], node.outputs[0], facts)


def _pass(
    node: ir.Node, maps: Maps, here: ir.Value | None, there: ir.Value | None, facts: Facts
) -> Taken | Refusal:
    affine = maps[0]
    if affine.axis is None:
        return Taken(onward={0: affine})
    sizes, to_sizes = (None if v is None else facts.extents(v) for v in (here, there))
    if sizes is None or to_sizes is None or affine.axis >= len(sizes):
        return unknown_shape(node, "the shape on its other side")
    if any(size.number == 0 for size in sizes + to_sizes):
        # Exporters have written 0 for sizes they did not know: so nothing is said of the map.
        return wrong_axis(node, affine, "its value is declared to have no elements")
    moved = through_reshape(affine, sizes, to_sizes)
    if moved is None:
        dims = [list(facts.shape(value) or ()) for value in (here, there) if value is not None]
        why = f"they do not survive as one axis from {dims[0]} to {dims[1]}"
        why += ", which takes equal entries within each group that is merged"
        if any(size.number is None for size in sizes + to_sizes):
            why += ", whatever the open sizes are"
        return wrong_axis(node, affine, why)
    return Taken(onward={0: moved})


def through_reshape(affine: Affine, sizes: Sizes, to_sizes: Sizes) -> Affine | None:
    """Return the map after its elements are laid out as ``to_sizes``; None if it is none then.

    Only the block of axes that is regrouped matters: ``[N, C, H, W] → [N, C·H·W]`` spreads the
    C entries over H·W elements each. Sizes outside of the block may be open.

    Args:
        affine: The map, along an axis of ``sizes``.
        sizes: The sizes that the value has; along the axis it has those of the map.
        to_sizes: The sizes of the same elements in the same order, laid out anew.
    """
    axis, channels = affine.axis or 0, Size.of(affine.scale.size)
    if sizes[axis].number not in (None, channels.number):
        return None
    sizes, to_sizes = (
        tuple(channels if size == sizes[axis] else size for size in one)
        for one in (sizes, to_sizes)
    )
    block = _block(axis, sizes, to_sizes)
    inside, outside = _numbers(sizes[block[0]]), _numbers(to_sizes[block[1]])
    if inside is None or outside is None or math.prod(inside) > _MAX_ELEMENTS:
        return None
    if math.prod(inside) != math.prod(outside):
        return None
    along = [1] * len(inside)
    along[axis - block[0].start] = affine.scale.size
    parts = [
        np.broadcast_to(part.reshape(along), inside).reshape(outside)
        for part in (affine.scale, affine.shift)
    ]
    found = along_one_axis(parts)
    if found is None:
        return None
    to_axis, (scale, shift) = found
    return Affine.per_channel(block[1].start + to_axis, scale, shift)


def _numbers(sizes: Sizes) -> list[int] | None:
    numbers = [size.number for size in sizes]
    known = [number for number in numbers if number is not None]
    return known if len(known) == len(numbers) else None


def _block(axis: int, sizes: Sizes, to_sizes: Sizes) -> tuple[slice, slice]:
    """Return the smallest runs of axes around ``axis`` that hold the same elements.

    Places in both lists match where as many elements stand in front of an entry, or behind it:
    where the products of these sizes are equal, whatever the open ones are.
    """
    cuts = {(0, 0), (len(sizes), len(to_sizes))}
    for front in (True, False):
        places = {size: place for place, size in _products(to_sizes, front=front)}
        products = _products(sizes, front=front)
        cuts |= {(place, places[size]) for place, size in products if size in places}
    start = max(cut for cut in cuts if cut[0] <= axis)
    stop = min(cut for cut in cuts if cut[0] > axis and cut[1] >= start[1])
    return slice(start[0], stop[0]), slice(start[1], stop[1])


def _products(sizes: Sizes, *, front: bool) -> Iterator[tuple[int, Size]]:
    """Yield each place with the number of elements in front of it, or behind it."""
    running: Maybe = Size.of(1)
    places = range(len(sizes) + 1) if front else range(len(sizes), -1, -1)
    for place in places:
        if running is None:
            return
        yield place, running
        beside = place if front else place - 1
        if 0 <= beside < len(sizes):
            running = multiply(running, sizes[beside])
