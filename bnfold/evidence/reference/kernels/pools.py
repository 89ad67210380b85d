"""Pools: a window is reduced along one axis after the other, so no window is ever copied."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any, Final, TypeAlias

import numpy as np

from bnfold.evidence.reference.arrays import Array
from bnfold.evidence.reference.call import Call, Kernel
from bnfold.evidence.reference.kernels.windows import Windows, along, pad_with, windows_of

_Combine: TypeAlias = Callable[[Array, Array], Array]


def _geometry(call: Call, x: Array) -> tuple[Windows, tuple[int, ...]]:
    """Windows with the padding that they really need at the end, and how many there are."""
    windows = windows_of(call, x.shape[2:], call.integers("kernel_shape"))
    if not call.integer("ceil_mode", 0):
        return windows, windows.counts(x.shape[2:])
    fitting = zip(x.shape[2:], windows.pads, windows.spans, windows.strides, strict=True)
    counts = tuple(
        # a window that would start in the padding at the end does not count
        min(-(-(n + low + high - span) // s), (n + low - 1) // s) + 1
        for n, (low, high), span, s in fitting
    )
    return windows, counts


def _reduced(
    x: Array, windows: Windows, counts: tuple[int, ...], fill: float, combine: _Combine
) -> Array:
    """Combine the elements of every window; what lies outside of the tensor is ``fill``."""
    pads = tuple(
        (low, max(0, (count - 1) * s + span - n - low))
        for n, (low, _), span, s, count in zip(
            x.shape[2:], windows.pads, windows.spans, windows.strides, counts, strict=True
        )
    )
    y = pad_with(x, pads, fill)
    for index, (count, kernel) in enumerate(zip(counts, windows.kernel, strict=True)):
        step, dilation = windows.strides[index], windows.dilations[index]
        taps = (along(y, 2 + index, t * dilation, count, step) for t in range(kernel))
        y = reduce(combine, taps)
    return y


def max_pool(call: Call) -> Any:
    """The largest element of every window; what is padded is never the largest."""
    x = call.x[0]
    windows, counts = _geometry(call, x)
    lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    if len(call.node.outputs) > 1:
        return _max_and_places(call, windows, counts)
    return _reduced(x, windows, counts, lowest, np.maximum)


def _max_and_places(
    call: Call, windows: Windows, counts: tuple[int, ...]
) -> tuple[Array, Array]:
    """Also the place of the first largest element in the flattened tensor."""
    x = call.x[0].astype(np.float64)
    rank = len(counts)
    column_major = bool(call.integer("storage_order", 0))
    number = np.arange(np.prod(x.shape[2:]))
    number = number.reshape(x.shape[2:], order="F" if column_major else "C")
    rows = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *[1] * rank)
    pads = tuple(
        (low, max(0, (count - 1) * s + span - n - low))
        for n, (low, _), span, s, count in zip(
            x.shape[2:], windows.pads, windows.spans, windows.strides, counts, strict=True
        )
    )
    flat = (*x.shape[:2], -1, *counts)
    seen = windows.view(pad_with(x, pads, -np.inf), counts).reshape(flat)
    numbered = windows.view(pad_with(number[None, None], pads), counts)
    best = seen.argmax(2, keepdims=True)
    places = np.broadcast_to(numbered.reshape(1, 1, -1, *counts), seen.shape)
    place = np.take_along_axis(places, best, 2)[:, :, 0]
    largest = np.take_along_axis(seen, best, 2)[:, :, 0]
    return largest.astype(call.x[0].dtype), (place + rows * number.size).astype(np.int64)


def average_pool(call: Call) -> Array:
    """The mean of every window, over all its places or over those inside of the tensor."""
    x = call.x[0]
    windows, counts = _geometry(call, x)
    total = _reduced(x, windows, counts, 0.0, np.add)
    inside = np.ones((1, 1, *x.shape[2:]))
    if call.integer("count_include_pad", 0):
        # what ceil_mode adds beyond the padding is not counted
        inside = pad_with(inside, windows.pads, 1.0)
        windows = Windows(
            windows.kernel, windows.strides, windows.dilations, ((0, 0),) * len(counts)
        )
    return total / _reduced(inside, windows, counts, 0.0, np.add)


def lp_pool(call: Call) -> Array:
    """The p-norm of every window."""
    p = call.integer("p", 2)
    windows, counts = _geometry(call, call.x[0])
    total = _reduced(np.abs(call.x[0]) ** p, windows, counts, 0.0, np.add)
    return np.asarray(total ** (1 / p))


def _spatial(x: Array) -> tuple[int, ...]:
    return tuple(range(2, x.ndim))


def global_average_pool(call: Call) -> Array:
    """The mean over all spatial axes."""
    return np.asarray(call.x[0].mean(_spatial(call.x[0]), keepdims=True))


def global_max_pool(call: Call) -> Array:
    """The largest element over all spatial axes."""
    return np.asarray(call.x[0].max(_spatial(call.x[0]), keepdims=True))


def global_lp_pool(call: Call) -> Array:
    """The p-norm over all spatial axes."""
    x, p = call.x[0], call.integer("p", 2)
    return np.asarray((np.abs(x) ** p).sum(_spatial(x), keepdims=True) ** (1 / p))


KERNELS: Final[dict[str, Kernel]] = {
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "LpPool": lp_pool,
    "GlobalMaxPool": global_max_pool,
    "GlobalAveragePool": global_average_pool,
    "GlobalLpPool": global_lp_pool,
}
