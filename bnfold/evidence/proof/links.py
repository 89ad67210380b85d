"""How two arrays are related: the same, one an affine map of the other, or neither."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Wide = NDArray[np.float64]

EXACT: Final = 1e-9
"""Float64 arithmetic in another order stays within this, relative to its slice."""

_NEGLIGIBLE: Final = 1e-7
"""A slice is compared to no less than this part of the largest number beside it."""

_VAST: Final = 1e8
"""In units of the median: draws spread over less, penalties of masks lie above."""

_FEWEST: Final = 3

_NO_SHIFT: Final = 2.0**-48
"""A fitted shift below this part of the largest number of its slice is rounding of the fit."""


@dataclass(frozen=True, slots=True)
class Gap:
    """How far two arrays are apart.

    Attributes:
        size: Largest difference relative to the slice it lies in; infinite where they cannot
            be compared.
        channel: The slice along axis 1 where it is; None if there is no such axis.
        is_clear: Whether it is so far above a noise that more trials of that noise would not
            change what it means.
        is_special: Whether it was seen at numbers that are drawn on purpose, and that numbers
            drawn for the inputs of a model hardly reach.
    """

    size: float
    channel: int | None = None
    is_clear: bool = False
    is_special: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """``folded = scale · original + shift`` along an axis; None for all of it alike.

    A hazy one was found beside rounding noise, so its numbers are off by as much.
    """

    axis: int | None
    scale: Wide
    shift: Wide
    hazy: bool = False

    def __call__(self, value: Array) -> Array:
        """Return what the folded model holds where the original holds ``value``."""
        if self.axis is None:
            return np.asarray(value * self.scale[0] + self.shift[0])
        along = [-1 if place == self.axis else 1 for place in range(value.ndim)]
        return np.asarray(value * self.scale.reshape(along) + self.shift.reshape(along))

    @property
    def gap(self) -> Gap:
        """By how much, and in which channel, it is no identity."""
        off = np.maximum(np.abs(self.scale - 1.0), np.abs(self.shift))
        place = int(np.argmax(off))
        return Gap(float(off[place]), None if self.axis is None else place)

    def moves(self, least: float) -> NDArray[np.bool_]:
        """Return in which channels it is off from the identity by more than ``least``."""
        return np.maximum(np.abs(self.scale - 1.0), np.abs(self.shift)) > least

    def spans(self, shape: tuple[int, ...]) -> bool:
        """Return whether there is a number for every slice of an array of this shape."""
        return self.axis is None or (
            self.axis < len(shape) and shape[self.axis] == self.scale.size
        )

    def shaken(self, by: float, rng: np.random.Generator) -> Link:
        """Return a map whose numbers are each off by up to ``by``, relative to themselves."""
        scale, shift = (
            part * (1.0 + by * rng.uniform(-1.0, 1.0, part.shape))
            for part in (self.scale, self.shift)
        )
        return Link(self.axis, scale, shift)


def gap(original: Array, folded: Array) -> Gap:
    """Return how far two arrays are apart, by the slices of every axis of one entry or more.

    Args:
        original: What is expected.
        folded: What was found.
    """
    if original.shape != folded.shape or original.dtype != folded.dtype:
        return Gap(float("inf"))
    if original.dtype != np.float64:
        return _gap_of_others(original, folded)
    if not original.size:
        return Gap(0.0)
    ratios = excess(original, folded)
    worst = float(ratios.max())
    if worst == 0.0:
        return Gap(0.0)
    axis = _channel_axis(original.ndim)
    return Gap(worst, None if axis is None else int(np.argmax(_peaks(ratios, axis))))


def excess(original: Wide, folded: Wide) -> Wide:
    """Return every difference relative to the largest number of the slices it lies in.

    Slices along axis 1 and along the last axis, whichever is smaller there: a channel is not
    hidden by a louder one. Infinite where only one of the two is a number.
    """
    with np.errstate(invalid="ignore"):
        error = np.abs(original - folded)
    both = (original == folded) | (np.isnan(original) & np.isnan(folded))
    error = np.where(both, 0.0, error)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = np.where(error == 0.0, 0.0, error / slices(original))
    return np.where(np.isnan(ratios), np.inf, ratios)


def slices(original: Wide) -> Wide:
    """Return what a difference is relative to in `excess`: one number for each."""
    whole = np.where(np.isfinite(original), np.abs(original), 0.0)
    vast = is_vast(original)
    size = np.where(vast, 0.0, whole)
    floor = float(size.max(initial=0.0)) * _NEGLIGIBLE
    allowed = np.full(size.shape, np.inf)
    for axis in _axes(original.ndim):
        along = [-1 if place == axis else 1 for place in range(original.ndim)]
        peaks = np.maximum(_peaks(size, axis), floor).reshape(along)
        allowed = np.minimum(allowed, peaks)
    return np.where(vast, whole, allowed)


def is_vast(values: Wide) -> NDArray[np.bool_]:
    """Return which numbers are so large that nothing beside them is of their size.

    Such as the penalties of a mask: held against these, no difference of a score would count.
    """
    size = np.where(np.isfinite(values), np.abs(values), 0.0)
    some = size > 0
    # A median takes long; that it is large enough can be counted.
    large = size > float(size.max(initial=0.0)) / _VAST
    if 2 * np.count_nonzero(large) > np.count_nonzero(some):
        return np.zeros(size.shape, bool)
    middle = float(np.median(size[some])) if some.any() else np.inf
    return np.asarray(size > _VAST * middle)


def _channel_axis(rank: int) -> int | None:
    return 1 if rank > 1 else None


def _gap_of_others(original: Array, folded: Array) -> Gap:
    return Gap(0.0 if np.array_equal(original, folded) else float("inf"))


def _axes(rank: int) -> tuple[int, ...]:
    return tuple(dict.fromkeys((1, rank - 1))) if rank > 1 else (0,) if rank else (-1,)


def _peaks(array: Wide, axis: int) -> Wide:
    if axis < 0:
        return array.reshape(1)
    others = tuple(other for other in range(array.ndim) if other != axis)
    return np.asarray(array.max(axis=others)) if others else array


def fits(original: Array, folded: Array) -> Iterator[Link]:
    """Yield maps that may take the one array to the other: to be tried, not to be believed.

    Along no axis, axis 1, the last axis, then the rest.
    """
    if original.shape != folded.shape or original.dtype != np.float64:
        return
    if not (np.isfinite(original).all() and np.isfinite(folded).all()):
        return
    rank = original.ndim
    for axis in dict.fromkeys((None, *(_axes(rank) if rank else ()), *range(rank))):
        link = _fit_along(original, folded, axis)
        if link is not None:
            yield link


def _fit_along(original: Wide, folded: Wide, axis: int | None) -> Link | None:
    """Least squares, one line for each slice; a slice that does not vary has scale 1."""
    count = 1 if axis is None else original.shape[axis]
    rows = [
        np.moveaxis(one, axis or 0, 0).reshape(count, -1) if one.ndim else one.reshape(1, 1)
        for one in (original, folded)
    ]
    if rows[0].shape[1] < _FEWEST:
        return None
    (x, x_unit), (y, y_unit) = map(_in_units, rows)
    x_mean, y_mean = x.mean(1), y.mean(1)
    dx, dy = x - x_mean[:, None], y - y_mean[:, None]
    spread = (dx * dx).sum(1)
    varies = spread > 1e-20 * (x * x).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.where(varies, (dx * dy).sum(1) / spread, 1.0)
    if not np.isfinite(scale).all() or (scale == 0.0).any():
        return None
    shift = y_mean - scale * x_mean
    # Rounding that is left there would be another map on every draw.
    shift = np.where(np.abs(shift) <= _NO_SHIFT, 0.0, shift)
    with np.errstate(over="ignore", under="ignore"):
        scale, shift = scale * (y_unit / x_unit), shift * y_unit
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()) or (scale == 0.0).any():
        return None
    return Link(axis, scale, shift)


def _in_units(rows: Wide) -> tuple[Wide, Wide]:
    """Return rows over a power of two each, so that their squares are numbers, and those."""
    _, exponent = np.frexp(np.abs(rows).max(axis=1, initial=0.0))
    return np.ldexp(rows, -exponent[:, None]), np.ldexp(1.0, exponent)
