"""What the storage type of a tensor can hold of what a fold would write."""

from __future__ import annotations

from typing import Final

import numpy as np

from bnfold.expression import Expression, Wide, round_once

_HEARD_BESIDE: Final = 512.0
"""A channel that becomes subnormal counts unless one beside it is so many times the smallest
normal number: see `range_fault`."""


def range_fault(
    expression: Expression, dtype: np.dtype[np.generic], axis: int | None, alike: int = 1
) -> str:
    """Say what the storage type ``dtype`` cannot hold of ``expression``; empty when it fits.

    No element may become infinite or NaN. No slice along ``axis`` (an output channel) may fall
    into the subnormal range as a whole: single small elements beside larger ones lose no more
    than the rounding of the larger ones does, a whole channel there loses its precision.

    Nor does a channel that is nearly dead beside a loud one, if both read the same numbers:
    what storing it loses (half the smallest step for each of its elements) is then under a
    thousandth of what rounding the largest element of the other makes, whatever those numbers
    are. A pruned channel must not keep a fold from all others. ``alike`` channels in a row
    read the same numbers.

    ``axis`` None asks for overflow only: a subnormal addend is off by no more than the
    smallest step of the type its sum is stored in.
    """
    smallest, largest = _limits(dtype)
    peaks = expression.peaks(axis)
    if not np.isfinite(peaks).all():
        return "a folded value is not finite"
    if (np.abs(round_once(peaks, dtype).astype(np.float64)) > largest).any():
        return (
            f"a folded value of {peaks.max():.3g} overflows {dtype.name} (max {largest:.3g})"
        )
    low = (peaks > 0) & (peaks < smallest)
    low &= _loudest(peaks, alike) < _HEARD_BESIDE * smallest
    if axis is not None and low.any():
        before = Expression(expression.base, expression.shape).peaks(axis)
        if before.shape != peaks.shape or (low & (before >= smallest)).any():
            return (
                f"a whole channel would shrink to {peaks[low].min():.3g}, below the normal "
                f"range of {dtype.name} ({smallest:.3g})"
            )
    return ""


def _loudest(peaks: Wide, alike: int) -> Wide:
    """Return for each channel the peak of the loudest that reads the same numbers."""
    if alike <= 1 or peaks.size % alike:
        return peaks
    return np.asarray(peaks.reshape(-1, alike).max(axis=1).repeat(alike))


def has_subnormal(expression: Expression, dtype: np.dtype[np.generic]) -> bool:
    """Return whether any element would be stored below the normal range, zeros aside."""
    smallest, _ = _limits(dtype)
    return any(
        bool(((wide != 0) & (np.abs(wide) < smallest)).any())
        for _, wide in expression.wide_blocks()
    )


def shrinks(expression: Expression, own: Expression, dtype: np.dtype[np.generic]) -> bool:
    """Return whether all of ``expression`` became subnormal, where ``own`` was not."""
    smallest, _ = _limits(dtype)
    peak = expression.peaks(None).max(initial=0.0)
    return bool(0 < peak < smallest <= own.peaks(None).max(initial=0.0))


def _limits(dtype: np.dtype[np.generic]) -> tuple[float, float]:
    """Smallest normal and largest finite value of a floating type."""
    if dtype.name == "bfloat16":
        return 2.0**-126, float(2.0**127 * (2 - 2.0**-7))
    info = np.finfo(np.dtype(dtype.name))
    return float(info.smallest_normal), float(info.max)
