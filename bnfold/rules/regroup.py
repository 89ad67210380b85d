"""Where the entries of a map stand once elements are laid out anew, and axes exchanged."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bnfold.affine import Affine
from bnfold.model.sizes import Maybe, Size, multiply
from bnfold.rules.passing import along_one_axis

_MAX_ELEMENTS: Final = 1 << 22
Sizes = tuple[Size, ...]
_Parts = list[NDArray[np.float64]]
"""Scale and shift, spread over a run of axes."""


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
    laid = _laid([affine.scale, affine.shift], slice(axis, axis + 1), sizes, to_sizes)
    return None if laid is None else _along_one_axis(*laid)


def through_shuffle(
    affine: Affine, sizes: Sizes, parted: Sizes, perm: Sequence[int], joined: Sizes
) -> Affine | None:
    """Return the map after Reshape, Transpose and Reshape; None if it is none then.

    Between the Reshapes it may run along several axes, as where the channels of groups are
    shuffled: ``[N, g·c, H, W] → [N, g, c, H, W] → [N, c, g, H, W] → [N, c·g, H, W]``.

    Args:
        affine: The map, along an axis of ``sizes``.
        sizes: What the first Reshape reads.
        parted: What it writes.
        perm: Axis j behind the Transpose is axis ``perm[j]`` in front of it.
        joined: What the second Reshape writes.
    """
    axis = affine.axis or 0
    if sizes[axis].number != affine.scale.size or sorted(perm) != list(range(len(parted))):
        return None
    laid = _laid([affine.scale, affine.shift], slice(axis, axis + 1), sizes, parted)
    if laid is None:
        return None
    parts, run = laid
    order = [place for place in perm if run.start <= place < run.stop]
    places = [j for j, place in enumerate(perm) if run.start <= place < run.stop]
    wide = slice(places[0], places[-1] + 1)
    along = [1] * (wide.stop - wide.start)
    for place, source in zip(places, order, strict=True):
        along[place - wide.start] = parts[0].shape[source - run.start]
    turned = [
        part.transpose([place - run.start for place in order]).reshape(along) for part in parts
    ]
    laid = _laid(turned, wide, tuple(parted[place] for place in perm), joined)
    return None if laid is None else _along_one_axis(*laid)


def _along_one_axis(parts: _Parts, run: slice) -> Affine | None:
    found = along_one_axis(parts)
    if found is None:
        return None
    axis, (scale, shift) = found
    return Affine.per_channel(run.start + axis, scale, shift)


def _laid(
    parts: _Parts, run: slice, sizes: Sizes, to_sizes: Sizes
) -> tuple[_Parts, slice] | None:
    """Return what runs along axes of one shape along those of another, and these."""
    block = _block(run, sizes, to_sizes)
    inside, outside = _numbers(sizes[block[0]]), _numbers(to_sizes[block[1]])
    if inside is None or outside is None or math.prod(inside) > _MAX_ELEMENTS:
        return None
    if math.prod(inside) != math.prod(outside):
        return None
    along = [1] * len(inside)
    start = run.start - block[0].start
    along[start : start + parts[0].ndim] = parts[0].shape
    laid = [np.broadcast_to(part.reshape(along), inside).reshape(outside) for part in parts]
    return laid, block[1]


def _numbers(sizes: Sizes) -> list[int] | None:
    numbers = [size.number for size in sizes]
    known = [number for number in numbers if number is not None]
    return known if len(known) == len(numbers) else None


def _block(run: slice, sizes: Sizes, to_sizes: Sizes) -> tuple[slice, slice]:
    """Return the smallest runs of axes around ``run`` that hold the same elements.

    Places in both lists match where as many elements stand in front of an entry, or behind it:
    where the products of these sizes are equal, whatever the open ones are.
    """
    cuts = {(0, 0), (len(sizes), len(to_sizes))}
    for front in (True, False):
        places = {size: place for place, size in _products(to_sizes, front=front)}
        products = _products(sizes, front=front)
        cuts |= {(place, places[size]) for place, size in products if size in places}
    start = max(cut for cut in cuts if cut[0] <= run.start)
    stop = min(cut for cut in cuts if cut[0] >= run.stop and cut[1] >= start[1])
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
