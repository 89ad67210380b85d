"""Half a unit in the last place: how far a stored number may be from what it stands for."""

from __future__ import annotations

from typing import Final, NamedTuple

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from bnfold.evidence import clock

Wide = NDArray[np.float64]

_SLACK: Final = 2.0**-46
"""The checker's own float64 arithmetic may be off by this, relative to the number."""

_BLOCK: Final = 1 << 17


class Format(NamedTuple):
    """A binary floating type: bits of its fraction, exponent of its smallest normal number."""

    fraction: int
    low: int


_FORMATS: Final = {
    "float16": Format(10, -14),
    "bfloat16": Format(7, -126),
    "float32": Format(23, -126),
    "float64": Format(52, -1022),
}


_FEW_HALF_ULPS: Final = 4.0
"""A number that a factor near 1 moves to a neighbour moves by two, and is not counted."""
_MOSTLY: Final = 0.9
"""So much of every slice is the same where single elements were changed."""
_MOST_ALONE: Final = 1 << 20


def half_ulp(wide: Wide, dtype: np.dtype[np.generic]) -> Wide:
    """Return half the distance between neighbours of the type ``dtype`` around ``wide``."""
    fraction, low = _FORMATS[dtype.name]
    _, exponent = np.frexp(np.where(wide == 0.0, 2.0**low, wide))
    return np.asarray(np.ldexp(0.5, np.maximum(exponent - 1, low) - fraction))


def furthest(stored: NDArray[np.generic], wide: Wide) -> tuple[int, float] | None:
    """Return where ``stored`` is further than half an ulp from ``wide``; None if nowhere.

    Returns:
        The flat index of the element that is furthest off, and by how many half ulps.

    Raises:
        OutOfTimeError: If the time is up.
    """
    flat = np.ascontiguousarray(stored).reshape(-1)
    exact = np.ascontiguousarray(wide).reshape(-1)
    worst: tuple[int, float] | None = None
    for start in range(0, flat.size, _BLOCK):
        clock.check()
        found = _furthest_in(flat[start : start + _BLOCK], exact[start : start + _BLOCK])
        if found is not None and (worst is None or found[1] > worst[1]):
            worst = (start + found[0], found[1])
    return worst


def _furthest_in(stored: NDArray[np.generic], wide: Wide) -> tuple[int, float] | None:
    """Look closer only at what is not simply the nearest number of the type."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        unlike = wide.astype(stored.dtype) != stored
        infinite = np.isinf(stored)
    if infinite.any():
        unlike |= infinite & np.isfinite(wide)  # what overflows is not "rounded"
    suspects = np.flatnonzero(unlike) if unlike.any() else np.empty(0, np.intp)
    if not suspects.size:
        return None
    exact = wide[suspects]
    with np.errstate(invalid="ignore", over="ignore"):
        off = np.abs(stored[suspects].astype(np.float64) - exact)
        half = half_ulp(exact, stored.dtype)
        ratio = off / (half * (1 + 2.0**-20) + np.abs(exact) * _SLACK)
        ratio = np.where(np.isnan(stored[suspects]) & np.isnan(exact), 0.0, ratio)
    ratio = np.where(np.isnan(ratio), np.inf, ratio)
    place = int(np.argmax(ratio))
    return (int(suspects[place]), float(ratio[place])) if ratio[place] > 1.0 else None


def half_ulps_apart(one: NDArray[np.generic], other: NDArray[np.generic]) -> Wide:
    """Return by how many half ulps of ``one`` the elements of ``other`` are off from it.

    What has less than two axes is an addend, a sum: where the summands cancel, arithmetic is
    off by roundings of these, so the unit is that of the largest element.

    Args:
        one: Numbers of a floating type.
        other: Numbers of the same type and shape.
    """
    mine, theirs = (array.astype(np.float64) for array in (one, other))
    same = (mine == theirs) | (np.isnan(mine) & np.isnan(theirs))
    if one.dtype.name not in _FORMATS:
        return np.where(same, 0.0, np.inf)
    size = np.abs(mine)
    if one.ndim < 2:
        size = np.maximum(size, np.where(np.isfinite(size), size, 0.0).max(initial=0.0))
    with np.errstate(invalid="ignore", over="ignore"):
        off = np.abs(theirs - mine) / half_ulp(size, one.dtype)
    return np.where(same, 0.0, np.where(np.isnan(off), np.inf, off))


def nudged(stored: NDArray[np.generic], rng: np.random.Generator) -> Wide:
    """Return the elements in float64, each moved by up to half an ulp of its type.

    Integers are moved by up to a half.
    """
    wide = stored.astype(np.float64)
    if stored.dtype.name not in _FORMATS:
        return wide + rng.uniform(-0.5, 0.5, wide.shape)
    moved = rng.uniform(-1.0, 1.0, wide.shape) * half_ulp(wide, stored.dtype)
    return np.where(wide == 0.0, wide, wide + moved)


def elements_left_alone(
    before: NDArray[np.generic], after: NDArray[np.generic]
) -> NDArray[np.bool_] | None:
    """Return which elements are the same in a tensor of which single ones were changed.

    A factor of a channel changes all of a slice, or rounds all of it to what it was. Where all
    that changed by more than an ulp stands alone, in whatever slice, there is no such factor:
    the others are no rounded numbers. None where that is not so. In a slice of three elements
    one that changed alone is a third of it: it stands alone there too, if one beside it is
    the same and not zero, for that one has the factor of the slice as well.

    Args:
        before: The tensor of the original.
        after: That of the folded model.
    """
    if before.shape != after.shape or before.dtype != after.dtype or before.ndim < 2:
        return None
    if before.dtype.name not in _FORMATS or before.size > _MOST_ALONE:
        return None
    same = np.asarray(before == after)
    wide = before.astype(np.float64)
    off = np.abs(after.astype(np.float64) - wide)
    clearly = off > _FEW_HALF_ULPS * half_ulp(wide, before.dtype)
    if not clearly.any():
        return None
    for axis in range(before.ndim):
        others = tuple(place for place in range(before.ndim) if place != axis)
        crowded = same.mean(axis=others) < _MOSTLY
        alone = clearly.sum(axis=others) == 1
        alone &= (same & (wide != 0.0)).any(axis=others)
        if (clearly.any(axis=others) & crowded & ~alone).any():
            return None
    return same


def roundoff_of(dtype: np.dtype[np.generic]) -> float:
    """Return half the distance from one to the next number of a type."""
    return float(2.0 ** -(_FORMATS[dtype.name].fraction + 1))


def rounded(wide: Wide, dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    """Return ``wide`` as numbers of the type ``dtype``: what a Cast of a constant gives.

    The cast of ml_dtypes to bfloat16 rounds to float32 first; where that falls on a tie, the
    float64 decides.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if dtype != ml_dtypes.bfloat16:
            return wide.astype(dtype)
        near = wide.astype(dtype)
        step = 2.0 * half_ulp(wide, near.dtype)
        other = (wide + np.sign(wide - near.astype(np.float64)) * 0.5 * step).astype(dtype)
        closer = np.abs(other.astype(np.float64) - wide) < np.abs(
            near.astype(np.float64) - wide
        )
        return np.where(closer, other, near)
