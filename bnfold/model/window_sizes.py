"""Conv, pools, Pad and Resize: sizes of results that windows, pads or scales decide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from bnfold.model.attributes import int_attr, ints_attr, string_attr
from bnfold.model.questions import At, Following, Sizes, axes_of
from bnfold.model.sizes import Maybe, Size, add, plus, times

_ONE: Final = Size.of(1)


def _conv(at: At) -> Following:
    data, weight = (yield from at.extents(0)), (yield from at.extents(1))
    if weight is None:
        return None
    kernel = _numbers(weight[2:])
    batch, places = _batch_and_places(data, len(weight))
    if kernel is None:
        return (batch, weight[0], *[None] * len(places))
    return (batch, weight[0], *_windows(at, places, kernel))


def _conv_transpose(at: At) -> Following:
    data, weight = (yield from at.extents(0)), (yield from at.extents(1))
    if weight is None or len(weight) < 2:
        return None
    batch, places = _batch_and_places(data, len(weight))
    channels = times(weight[1], int_attr(at.node, "group", 1))
    return (batch, channels, *_spread(at, places, _numbers(weight[2:])))


def _spread(at: At, places: Sizes, kernel: tuple[int, ...] | None) -> Sizes:
    """Return ``stride · (in − 1) + reach + output_padding − pads`` along each axis."""
    rank = len(places)
    unknown = "output_shape" in at.node.attributes or _kind(at) != "NOTSET"
    lists = _lists(at, kernel or (), rank)
    extra = ints_attr(at.node, "output_padding", (0,) * rank)
    if unknown or lists is None or len(extra) != rank:
        return (None,) * rank
    reach, strides, pads = lists
    rows = zip(places, reach, strides, pads[:rank], pads[rank:], extra, strict=True)
    return tuple(
        plus(times(size, stride), taps + more - stride - front - behind)
        for size, taps, stride, front, behind, more in rows
    )


def _pool(at: At) -> Following:
    data, kernel = (yield from at.extents(0)), ints_attr(at.node, "kernel_shape")
    if data is None or len(data) != len(kernel) + 2:
        return None
    return (*data[:2], *_windows(at, data[2:], kernel))


def _global_pool(at: At) -> Following:
    data = yield from at.extents(0)
    return None if data is None else (*data[:2], *[_ONE] * (len(data) - 2))


def _batch_and_places(data: Sizes | None, rank: int) -> tuple[Maybe, Sizes]:
    if data is None or len(data) != rank:
        return None, (None,) * (rank - 2)
    return data[0], data[2:]


def _numbers(sizes: Sizes) -> tuple[int, ...] | None:
    found = [None if size is None else size.number for size in sizes]
    known = tuple(number for number in found if number is not None)
    return known if len(known) == len(found) else None


def _kind(at: At) -> str:
    return string_attr(at.node, "auto_pad", "NOTSET")


def _lists(
    at: At, kernel: Sequence[int], rank: int
) -> tuple[list[int], tuple[int, ...], tuple[int, ...]] | None:
    """Return how far windows reach, their strides and pads; None if these do not fit."""
    strides = ints_attr(at.node, "strides", (1,) * rank)
    dilations = ints_attr(at.node, "dilations", (1,) * rank)
    pads = (0,) * 2 * rank if _kind(at) == "VALID" else ints_attr(at.node, "pads", ())
    pads = pads or (0,) * 2 * rank
    fits = [len(kernel), len(strides), len(dilations), len(pads)] == [
        rank,
        rank,
        rank,
        2 * rank,
    ]
    if not fits or any(stride < 1 for stride in strides):
        return None
    reach = [step * (taps - 1) + 1 for step, taps in zip(dilations, kernel, strict=True)]
    return reach, strides, pads


def _windows(at: At, places: Sizes, kernel: Sequence[int]) -> Sizes:
    """Return ``⌊(in + pads − reach) / stride⌋ + 1`` along each axis.

    With SAME it is ``⌈in / stride⌉``; with ``ceil_mode`` runtimes and versions differ.
    """
    rank, divide = len(places), at.symbols.floor_divided
    lists = _lists(at, kernel, rank)
    if lists is None or int_attr(at.node, "ceil_mode", 0):
        return (None,) * rank
    reach, strides, pads = lists
    if _kind(at).startswith("SAME"):
        pairs = zip(places, strides, strict=True)
        return tuple(divide(plus(size, stride - 1), stride) for size, stride in pairs)
    rows = zip(places, reach, strides, pads[:rank], pads[rank:], strict=True)
    return tuple(
        plus(divide(plus(size, front + behind - taps), stride), 1)
        for size, taps, stride, front, behind in rows
    )


def _pad(at: At) -> Following:
    sizes = yield from at.extents(0)
    if sizes is None:
        return None
    if "pads" in at.node.attributes:
        pads: Sizes | None = tuple(Size.of(pad) for pad in ints_attr(at.node, "pads"))
    else:
        pads = yield from at.contents(1)
    named = (yield from at.integers(3)) if at.has(3) else tuple(range(len(sizes)))
    axes = None if named is None else axes_of(named, len(sizes))
    if pads is None or axes is None or len(pads) != 2 * len(axes):
        return None
    result = list(sizes)
    for axis, front, behind in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        result[axis] = add(result[axis], add(front, behind))
    return tuple(result)


def _resize(at: At) -> Following:
    """Sizes that are given; scales are floats, and onnx tells what they give where known."""
    sizes, given = (yield from at.extents(0)), (yield from at.contents(3))
    if sizes is None:
        return None
    named = ints_attr(at.node, "axes", tuple(range(len(sizes))))
    axes = axes_of(named, len(sizes))
    policy = string_attr(at.node, "keep_aspect_ratio_policy", "stretch")
    if axes is None or policy != "stretch":
        return None
    if given is None or len(given) != len(axes):
        return None
    result = list(sizes)
    for axis, size in zip(axes, given, strict=True):
        result[axis] = size
    return tuple(result)


WINDOWED: Final[dict[str, Callable[[At], Following]]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "LpPool": _pool,
    "GlobalMaxPool": _global_pool,
    "GlobalAveragePool": _global_pool,
    "GlobalLpPool": _global_pool,
    "Pad": _pad,
    "Resize": _resize,
}
"""By operator: the sizes of its result."""
