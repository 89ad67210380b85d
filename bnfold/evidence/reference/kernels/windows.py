"""Where the windows of convolutions and pools lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.lib.stride_tricks import as_strided

from bnfold.evidence.reference.arrays import Array
from bnfold.evidence.reference.call import Call

Pads: TypeAlias = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows over the spatial axes: one entry per axis in every field."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: Pads

    @property
    def spans(self) -> tuple[int, ...]:
        """How far a window reaches, dilations included."""
        return spans(self.kernel, self.dilations)

    def counts(self, size: Sequence[int]) -> tuple[int, ...]:
        """How many windows fit."""
        fitting = zip(size, self.pads, self.spans, self.strides, strict=True)
        return tuple(max((n + sum(p) - span) // s + 1, 0) for n, p, span, s in fitting)

    def view(self, padded: Array, counts: Sequence[int]) -> Array:
        """View a padded tensor [n, c, *size] as [n, c, *kernel, *counts], copying nothing."""
        steps = padded.strides[2:]
        within = tuple(step * d for step, d in zip(steps, self.dilations, strict=True))
        between = tuple(step * s for step, s in zip(steps, self.strides, strict=True))
        shape = (*padded.shape[:2], *self.kernel, *counts)
        strides = (*padded.strides[:2], *within, *between)
        return as_strided(padded, shape, strides, writeable=False)


def spans(kernel: Sequence[int], dilations: Sequence[int]) -> tuple[int, ...]:
    """How far a dilated kernel reaches along each axis."""
    return tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))


def windows_of(call: Call, size: Sequence[int], kernel: Sequence[int]) -> Windows:
    """Read the geometry of a convolution or a pool from its attributes."""
    rank = len(size)
    ones = (1,) * rank
    strides = call.integers("strides", ones)
    dilations = call.integers("dilations", ones)
    return Windows(tuple(kernel), strides, dilations, _pads(call, size, strides, kernel))


def _pads(
    call: Call, size: Sequence[int], strides: Sequence[int], kernel: Sequence[int]
) -> Pads:
    rank = len(size)
    auto = call.text("auto_pad", "NOTSET")
    if auto == "VALID":
        return ((0, 0),) * rank
    if auto == "NOTSET":
        return paired(call.integers("pads", (0,) * (2 * rank)))
    reach = spans(kernel, call.integers("dilations", (1,) * rank))
    total = [
        max((-(-n // s) - 1) * s + k - n, 0)
        for n, s, k in zip(size, strides, reach, strict=True)
    ]
    return halved(total, more_at_the_end=auto == "SAME_UPPER")


def paired(flat: Sequence[int]) -> Pads:
    """Turn ONNX's list, all begins and then all ends, into a pair per axis."""
    rank = len(flat) // 2
    return tuple(zip(flat[:rank], flat[rank:], strict=True))


def halved(total: Sequence[int], *, more_at_the_end: bool) -> Pads:
    """Share padding between both ends; an odd one goes to the end or to the beginning."""
    if more_at_the_end:
        return tuple((t // 2, t - t // 2) for t in total)
    return tuple((t - t // 2, t // 2) for t in total)


def pad_with(x: Array, pads: Pads, value: float = 0.0) -> Array:
    """Pad the spatial axes of [n, c, *size]; the tensor itself where nothing is to pad."""
    if not any(map(any, pads)):
        return x
    size = [n + low + high for n, (low, high) in zip(x.shape[2:], pads, strict=True)]
    out = np.full((*x.shape[:2], *size), value, dtype=x.dtype)
    inner = (slice(low, low + n) for n, (low, _) in zip(x.shape[2:], pads, strict=True))
    out[(slice(None), slice(None), *inner)] = x
    return out


def along(x: Array, axis: int, start: int, count: int, step: int) -> Array:
    """View every ``step``-th entry from ``start`` on along one axis, ``count`` of them."""
    cut = [slice(None)] * x.ndim
    cut[axis] = slice(start, start + (count - 1) * step + 1, step)
    return x[tuple(cut)]
