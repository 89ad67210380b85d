"""Reshape, Flatten, Squeeze, Unsqueeze and blocks to channels: sizes of what is regrouped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bnfold.model.attributes import int_attr, ints_attr
from bnfold.model.questions import At, Following, Sizes, axes_of
from bnfold.model.sizes import Maybe, Size, multiply, product, quotient, times

_ONE: Final = Size.of(1)
_COPIED: Final = 0
_LEFT_OVER: Final = -1


def _reshape(at: At) -> Following:
    """Sizes are those of the list; 0 copies one (unless ``allowzero``), −1 is what is left.

    A size of the list that is open and turns out to be 0 copies too. The value then has no
    elements, or the size of the list was equal to the one that it copies.
    """
    sizes = yield from at.extents(0)
    target: Sizes | None = None
    if "shape" in at.node.attributes:
        target = tuple(Size.of(size) for size in ints_attr(at.node, "shape"))
    elif at.has(1):
        target = yield from at.contents(1)
        if target is None:
            return _of_rank((yield from at.extents(1)))
    if target is None:
        return None
    if not int_attr(at.node, "allowzero", 0):
        target = tuple(_copied(size, sizes, axis) for axis, size in enumerate(target))
    left = [axis for axis, size in enumerate(target) if _number(size) == _LEFT_OVER]
    if len(left) != 1:
        return None if left else target
    rest = product(size for axis, size in enumerate(target) if axis != left[0])
    found = None if sizes is None else quotient(product(sizes), rest)
    return (*target[: left[0]], found, *target[left[0] + 1 :])


def _of_rank(list_sizes: Sizes | None) -> Sizes | None:
    count = None if not list_sizes else _number(list_sizes[0])
    return None if count is None or not 0 <= count <= _MOST_AXES else (None,) * count


_MOST_AXES: Final = 64


def _copied(size: Maybe, sizes: Sizes | None, axis: int) -> Maybe:
    if _number(size) != _COPIED:
        return size
    return None if sizes is None or axis >= len(sizes) else sizes[axis]


def _number(size: Maybe) -> int | None:
    return None if size is None else size.number


def _flatten(at: At) -> Following:
    sizes = yield from at.extents(0)
    if sizes is None:
        return (None, None)
    axis = int_attr(at.node, "axis", 1)
    axis += len(sizes) if axis < 0 else 0
    return product(sizes[:axis]), product(sizes[axis:])


def _squeeze(at: At) -> Following:
    sizes, axes = (yield from at.extents(0)), (yield from at.listed("axes", 1))
    if sizes is None or axes is None:
        return None
    if not axes:
        known = all(_number(size) is not None for size in sizes)
        return tuple(size for size in sizes if size != _ONE) if known else None
    gone = axes_of(axes, len(sizes))
    if gone is None:
        return None
    return tuple(size for axis, size in enumerate(sizes) if axis not in gone)


def _unsqueeze(at: At) -> Following:
    sizes, axes = (yield from at.extents(0)), (yield from at.listed("axes", 1))
    if sizes is None or not axes:
        return None
    new = axes_of(axes, len(sizes) + len(axes))
    if new is None:
        return None
    rest = iter(sizes)
    return tuple(_ONE if axis in new else next(rest) for axis in range(len(sizes) + len(axes)))


def _depth_to_space(at: At) -> Following:
    sizes, block = (yield from at.extents(0)), int_attr(at.node, "blocksize", 1)
    if sizes is None or len(sizes) != 4:
        return None
    channels = quotient(sizes[1], Size.of(block * block)) if block else None
    return (sizes[0], channels, times(sizes[2], block), times(sizes[3], block))


def _space_to_depth(at: At) -> Following:
    sizes, block = (yield from at.extents(0)), int_attr(at.node, "blocksize", 1)
    if sizes is None or len(sizes) != 4:
        return None
    divided = (at.symbols.floor_divided(size, block) for size in sizes[2:])
    return (sizes[0], times(sizes[1], block * block), *divided)


def _tile(at: At) -> Following:
    sizes, repeats = (yield from at.extents(0)), (yield from at.contents(1))
    if sizes is None or repeats is None or len(sizes) != len(repeats):
        return None
    return tuple(multiply(*pair) for pair in zip(sizes, repeats, strict=True))


REGROUPED: Final[dict[str, Callable[[At], Following]]] = {
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Tile": _tile,
}
"""By operator: the sizes of its result."""
