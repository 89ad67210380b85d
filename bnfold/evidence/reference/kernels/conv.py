"""Convolutions: windows copied in blocks to columns, the rest is matrix products."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from bnfold.evidence.reference.arrays import Array
from bnfold.evidence.reference.call import Call, Kernel
from bnfold.evidence.reference.kernels.windows import (
    Pads,
    Windows,
    halved,
    pad_with,
    paired,
    spans,
    windows_of,
)

_COLUMNS: Final = 1 << 22
"""Elements of the largest temporary copy of windows: 32 MB."""
_CACHED: Final = 1 << 15
"""Elements that stay in a core's cache while all taps of a depthwise kernel go over them."""
_LARGE: Final = 256
"""From so many pixels on, a product per sample costs no more than one for all samples."""


def conv(call: Call) -> Array:
    """y[n,o] = b[o] + sum over i and taps of w[o,i,tap]·x[n,i,place(tap)]."""
    x, w, bias = call.x[0], call.x[1], call.maybe(2)
    windows = windows_of(call, x.shape[2:], w.shape[2:])
    return convolve(x, w, bias, windows, call.integer("group", 1))


def convolve(x: Array, w: Array, bias: Array | None, windows: Windows, groups: int) -> Array:
    """Correlate [n, c, *size] with [o, c / groups, *kernel]."""
    counts = windows.counts(x.shape[2:])
    x = pad_with(x, windows.pads)
    if w.shape[1] == 1 and groups > 1:
        y = _depthwise(x, w, windows, counts)
    elif math.prod(w.shape[2:]) == 1 and (len(x) == 1 or math.prod(counts) >= _LARGE):
        y = _pointwise(x, w, windows, groups)
    else:
        y = _by_columns(x, w, windows, counts, groups)
    if bias is not None:
        y += bias.reshape(-1, *[1] * len(counts))
    return y


def _pointwise(x: Array, w: Array, windows: Windows, groups: int) -> Array:
    strided: Any = (..., *(slice(None, None, s) for s in windows.strides))
    x = x[strided]
    n, size = len(x), x.shape[2:]
    flat = x.reshape(n, groups, w.shape[1], -1)
    y = np.matmul(w.reshape(groups, -1, w.shape[1]), flat)
    return np.asarray(y.reshape(n, len(w), *size))


def _depthwise(x: Array, w: Array, windows: Windows, counts: Sequence[int]) -> Array:
    """One input channel per group: a sum over taps, a few channels at a time."""
    n, groups = x.shape[:2]
    kernel = w.reshape(groups, -1, *w.shape[2:])
    each = kernel.shape[1]
    y = np.zeros((n, groups, each, *counts))
    view = windows.view(x, counts)
    ones = [1] * len(counts)
    some = max(1, _CACHED // max(1, n * each * math.prod(counts)))
    for low in range(0, groups, some):
        part = slice(low, low + some)
        for tap in np.ndindex(*w.shape[2:]):
            weight = kernel[(part, slice(None), *tap)].reshape(1, -1, each, *ones)
            y[:, part] += view[(slice(None), part, *tap)][:, :, None] * weight
    return y.reshape(n, groups * each, *counts)


def _by_columns(
    x: Array, w: Array, windows: Windows, counts: Sequence[int], groups: int
) -> Array:
    """Copy windows to columns [groups, taps, places], block by block, and multiply."""
    n, channels = x.shape[:2]
    y = np.empty((n, len(w), *counts))
    kernel = w.reshape(groups, len(w) // groups, -1)
    rank, taps = len(counts), channels * math.prod(w.shape[2:])
    view = windows.view(x, counts)
    order = (*range(1, 2 + rank), 0, *range(2 + rank, 2 + 2 * rank))
    rows = max(1, _COLUMNS // max(1, taps * math.prod(counts[1:])))
    samples = max(1, rows // max(1, counts[0]))
    for first in range(0, n, samples):
        some = slice(first, first + samples)
        for low in range(0, counts[0], rows):
            here: Any = (some, ..., slice(low, low + rows), *[slice(None)] * (rank - 1))
            block = view[here].transpose(order)
            product = np.matmul(kernel, block.reshape(groups, taps // groups, -1))
            target = y[here]
            target[...] = product.reshape(len(w), len(target), *target.shape[2:]).swapaxes(
                0, 1
            )
    return y


def conv_transpose(call: Call) -> Array:
    """Scatter every input pixel through the kernel, then cut the border away."""
    x, w, bias = call.x[0], call.x[1], call.maybe(2)
    n, size, kernel, groups = len(x), x.shape[2:], w.shape[2:], call.integer("group", 1)
    ones = (1,) * len(size)
    strides, dilations = call.integers("strides", ones), call.integers("dilations", ones)
    reach = spans(kernel, dilations)
    pads, out = _transposed(call, size, reach)
    full = tuple(
        max(s * (m - 1) + k, before + o)
        for s, m, k, (before, _), o in zip(strides, size, reach, pads, out, strict=True)
    )
    each = w.shape[1]
    y = np.zeros((n, groups, each, *full))
    flat = x.reshape(n, groups, -1, math.prod(size))
    weights = w.reshape(groups, -1, each, *kernel)
    for tap in np.ndindex(*kernel):
        place: tuple[Any, ...] = tuple(
            slice(t * d, t * d + (m - 1) * s + 1, s)
            for t, d, m, s in zip(tap, dilations, size, strides, strict=True)
        )
        part = np.matmul(weights[(..., *tap)].swapaxes(1, 2), flat)
        y[(..., *place)] += part.reshape(n, groups, each, *size)
    cut: tuple[Any, ...] = tuple(
        slice(before, before + o) for (before, _), o in zip(pads, out, strict=True)
    )
    y = y.reshape(n, groups * each, *full)[(..., *cut)]
    return y if bias is None else y + bias.reshape(-1, *ones)


def _transposed(
    call: Call, size: Sequence[int], reach: Sequence[int]
) -> tuple[Pads, Sequence[int]]:
    """What is cut away from each end, and what remains."""
    rank = len(size)
    strides = call.integers("strides", (1,) * rank)
    extra = call.integers("output_padding", (0,) * rank)
    full = [
        s * (n - 1) + e + k for s, n, e, k in zip(strides, size, extra, reach, strict=True)
    ]
    auto = call.text("auto_pad", "NOTSET")
    wanted: Sequence[int] = call.integers("output_shape")[-rank:]
    if not wanted and auto in {"NOTSET", "VALID"}:
        none = (0,) * (2 * rank)
        pads = paired(call.integers("pads", none) if auto == "NOTSET" else none)
        return pads, [f - a - b for f, (a, b) in zip(full, pads, strict=True)]
    if not wanted:
        wanted = [n * s for n, s in zip(size, strides, strict=True)]
    total = [f - o for f, o in zip(full, wanted, strict=True)]
    return halved(total, more_at_the_end=auto == "SAME_UPPER"), wanted


KERNELS: Final[dict[str, Kernel]] = {"Conv": conv, "ConvTranspose": conv_transpose}
