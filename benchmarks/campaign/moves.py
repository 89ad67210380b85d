"""Steps of drawn graphs that lay out, cut, join and resize values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from benchmarks.campaign.layers import ROOM
from benchmarks.campaign.sketch import Place, Sketch, axes_of

Step = Callable[[Sketch, Place], Place]


def _same(sketch: Sketch, place: Place, kind: str, *more: str) -> Place:
    return Place(sketch.op(kind, [place.name, *more]), place.shape, place.open)


def transpose(sketch: Sketch, place: Place) -> Place:
    """Permute all axes but the batch."""
    order = [0, *(int(n) + 1 for n in sketch.rng.permutation(place.rank - 1))]
    shape = tuple(place.shape[axis] for axis in order)
    opened = frozenset(order.index(axis) for axis in place.open)
    return Place(sketch.op("Transpose", [place.name], perm=order), shape, opened)


def flatten(sketch: Sketch, place: Place) -> Place:
    """Flatten, or Reshape to two axes."""
    if place.rank < 3 or place.open:
        return place
    width = int(np.prod(place.shape[1:]))
    if sketch.chance(0.5):
        return Place(sketch.op("Flatten", [place.name], axis=1), (place.shape[0], width))
    target = sketch.pick([0, -1], [-1, width])
    name = sketch.op("Reshape", [place.name, sketch.whole(*target)])
    return Place(name, (place.shape[0], width))


def reshape(sketch: Sketch, place: Place) -> Place:
    """Split an axis in two, or join the axes behind the channels."""
    if place.rank == 4 and 1 not in place.open:
        channels = place.shape[1]
        joined = (place.shape[0], channels, place.shape[2] * place.shape[3])
        name = sketch.op("Reshape", [place.name, sketch.whole(0, channels, -1)])
        return Place(name, joined, frozenset({2} if place.open else ()))
    if place.rank == 3 and not place.open and place.shape[2] % 2 == 0:
        shape = (*place.shape[:2], place.shape[2] // 2, 2)
        name = sketch.op("Reshape", [place.name, sketch.whole(0, 0, -1, 2)])
        return Place(name, shape)
    return place


def squeeze(sketch: Sketch, place: Place) -> Place:
    """Insert an axis, or take one of size one away."""
    ones = [a for a in range(1, place.rank) if place.shape[a] == 1 and a not in place.open]
    if ones and place.rank > 2:
        axis = int(sketch.pick(*ones))
        more, attributes = axes_of(sketch, [axis], 13)
        name = sketch.op("Squeeze", [place.name, *more], **attributes)
        opened = frozenset(a - (a > axis) for a in place.open)
        return Place(name, (*place.shape[:axis], *place.shape[axis + 1 :]), opened)
    if place.rank > 4:
        return place
    axis = int(sketch.rng.integers(1, place.rank + 1))
    more, attributes = axes_of(sketch, [axis], 13)
    name = sketch.op("Unsqueeze", [place.name, *more], **attributes)
    opened = frozenset(a + (a >= axis) for a in place.open)
    return Place(name, (*place.shape[:axis], 1, *place.shape[axis:]), opened)


def passes(sketch: Sketch, place: Place) -> Place:
    """Append what hands a value on: Identity, Dropout, Cast there and back."""
    kind = sketch.pick("Identity", "Dropout", "Cast")
    if kind != "Cast":
        return _same(sketch, place, kind)
    there = sketch.op("Cast", [place.name], to=11 if sketch.chance(0.5) else sketch.element)
    return Place(sketch.op("Cast", [there], to=sketch.element), place.shape, place.open)


def crop(sketch: Sketch, place: Place) -> Place:
    """Slice with fixed ends, also from behind, or with steps."""
    axes = [a for a in range(1, place.rank) if place.shape[a] > 2 and a not in place.open]
    if not axes:
        return place
    axis = int(sketch.pick(*axes))
    size = place.shape[axis]
    start = int(sketch.rng.integers(0, size - 1))
    end = int(sketch.rng.integers(start + 1, size + 1))
    step = sketch.pick(1, 1, 2) if sketch.opset >= 10 else 1
    kept = len(range(start, end, step))
    shape = (*place.shape[:axis], kept, *place.shape[axis + 1 :])
    if sketch.opset < 10:
        name = sketch.op("Slice", [place.name], starts=[start], ends=[end], axes=[axis])
        return Place(name, shape, place.open)
    if sketch.chance(0.3):
        start, end = start - size, (2**62 if end == size else end - size)
    ranges = [sketch.whole(n) for n in (start, end, axis, step)]
    return Place(sketch.op("Slice", [place.name, *ranges]), shape, place.open)


def gather(sketch: Sketch, place: Place) -> Place:
    """Reorder, drop and repeat entries of an axis."""
    axes = [a for a in range(1, place.rank) if a not in place.open]
    if not axes:
        return place
    axis = int(sketch.pick(*axes))
    order = sketch.rng.integers(0, place.shape[axis], int(sketch.rng.integers(1, 6)))
    name = sketch.op("Gather", [place.name, sketch.whole(*map(int, order))], axis=axis)
    return Place(name, (*place.shape[:axis], order.size, *place.shape[axis + 1 :]), place.open)


def reduce(sketch: Sketch, place: Place) -> Place:
    """Reduce one axis."""
    axes = list(range(1, place.rank))
    if place.rank < 3:
        return place
    axis = int(sketch.pick(*axes))
    kind = sketch.pick("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum")
    if kind == "ReduceSum" and axis in place.open:
        kind = "ReduceMean"
    keep = int(sketch.rng.integers(0, 2))
    more, attributes = axes_of(sketch, [axis], 13 if kind == "ReduceSum" else 18)
    name = sketch.op(kind, [place.name, *more], keepdims=keep, **attributes)
    if keep:
        shape = (*place.shape[:axis], 1, *place.shape[axis + 1 :])
        return Place(name, shape, place.open - {axis})
    opened = frozenset(a - (a > axis) for a in place.open - {axis})
    return Place(name, (*place.shape[:axis], *place.shape[axis + 1 :]), opened)


def pad(sketch: Sketch, place: Place) -> Place:
    """Pad the last axis, or channels, by a constant or from within."""
    mode = sketch.pick("constant", "constant", "edge", "reflect")
    axis = int(sketch.rng.integers(1, place.rank))
    if axis in place.open or (mode == "reflect" and place.shape[axis] < 3):
        return place
    pads = [0] * (2 * place.rank)
    pads[axis], pads[axis + place.rank] = sketch.pick((1, 0), (0, 2), (1, 1))
    grown = place.shape[axis] + pads[axis] + pads[axis + place.rank]
    shape = (*place.shape[:axis], grown, *place.shape[axis + 1 :])
    filler = float(sketch.pick(0.0, 0.0, 0.5))
    if sketch.opset < 11:
        more = {"value": filler} if mode == "constant" else {}
        name = sketch.op("Pad", [place.name], mode=mode, pads=pads, **more)
        return Place(name, shape, place.open)
    inputs = [place.name, sketch.whole(*pads)]
    if mode == "constant" and filler:
        inputs.append(sketch.const(filler))
    return Place(sketch.op("Pad", inputs, mode=mode), shape, place.open)


def repeat(sketch: Sketch, place: Place) -> Place:
    """Tile an axis, or Expand one of size one."""
    if place.open or np.prod(place.shape) * 2 > ROOM:
        return place
    axis = int(sketch.rng.integers(1, place.rank))
    shape = (*place.shape[:axis], 2 * place.shape[axis], *place.shape[axis + 1 :])
    if place.shape[axis] == 1 and sketch.opset >= 8:
        target = [1] * place.rank
        target[axis] = 2
        return Place(sketch.op("Expand", [place.name, sketch.whole(*target)]), shape)
    repeats = [1] * place.rank
    repeats[axis] = 2
    return Place(sketch.op("Tile", [place.name, sketch.whole(*repeats)]), shape)


def resize(sketch: Sketch, place: Place) -> Place:
    """Double the size of an image."""
    if place.rank != 4 or np.prod(place.shape) * 4 > ROOM or sketch.opset < 9:
        return place
    factors = sketch.store(np.array([1, 1, 2, 2], np.float32), "sizes")
    shape = (*place.shape[:2], 2 * place.shape[2], 2 * place.shape[3])
    mode = sketch.pick("nearest", "linear")
    if sketch.opset < 10:
        name = sketch.op("Upsample", [place.name, factors], mode=mode)
    elif sketch.opset < 11:
        name = sketch.op("Resize", [place.name, factors], mode=mode)
    else:
        roi = sketch.store(np.zeros(0, np.float32), "roi")
        name = sketch.op("Resize", [place.name, roi, factors], mode=mode)
    return Place(name, shape, place.open)


def blocks(sketch: Sketch, place: Place) -> Place:
    """Move blocks between space and depth."""
    if place.rank != 4 or place.open:
        return place
    batch, channels, height, width = place.shape
    if channels % 4 == 0 and sketch.chance(0.5):
        more = {"mode": sketch.pick("DCR", "CRD")} if sketch.opset >= 11 else {}
        name = sketch.op("DepthToSpace", [place.name], blocksize=2, **more)
        return Place(name, (batch, channels // 4, 2 * height, 2 * width))
    if height % 2 == 0 and width % 2 == 0:
        name = sketch.op("SpaceToDepth", [place.name], blocksize=2)
        return Place(name, (batch, channels * 4, height // 2, width // 2))
    return place


MOVES: Final[tuple[Step, ...]] = (
    *(transpose, flatten, reshape, squeeze, passes, crop, gather),
    *(reduce, pad, repeat, resize, blocks),
)


def move(sketch: Sketch, place: Place) -> Place:
    """Append one of the steps of this module that fits."""
    for n in sketch.rng.permutation(len(MOVES)):
        done = MOVES[int(n)](sketch, place)
        if done is not place:
            return done
    return place
