"""Weigh a difference against what half-ulp rounding of stored tensors makes.

Needed where no certificate tells the unrounded tensors: then the folded model's own tensors
are nudged by up to half an ulp, and its values may differ from the original's as much as they
differ from the nudged ones, channel by channel. A factor common to a whole channel is looked
for by itself: rounding errors of many weights average out, a forgotten factor does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np

from bnfold.evidence.proof.links import Array, Gap, Wide, is_vast
from bnfold.evidence.quantiles import f_quantile

NUDGES: Final = 4
MORE_NUDGES: Final = 24
"""So many more before anything is called different: the noise of few is itself noisy."""

LIMIT: Final = 5.0
"""Root mean square of a difference in a channel, in units of that of the noise: the least."""

SLOPE_LIMIT: Final = 8.0
"""Common factor of a channel, in units of the factors that noise makes: the least."""

_FALSE_ALARMS: Final = 1e-6
"""So often, at most, a comparison after more nudges calls rounding a difference."""

_CLEAR: Final = 20.0
"""So far above the limit, in a channel that every nudge moved, no more nudges are asked for:
of four of them the noise is underestimated a hundredfold less than once in 10⁵ times (χ² with
4 degrees of freedom), and it is blended with that of the other channels besides."""

_SAME_PENALTY: Final = 1e-6
"""Vast numbers, the penalties of masks, are compared to themselves alone."""

_TRUST: Final = 4.0
_APART: Final = 4
_PLACES: Final = 8
"""Batches of so few samples are weighed one by one, where a channel has so many places."""

_LEAST: Final = 2.0**-48
_BEYOND: Final = 1e-3


class Trial(NamedTuple):
    """A value on one draw: of the original, of the folded model, and of nudged ones.

    Attributes:
        original: What the original gives.
        folded: What the folded model gives.
        nudged: What it gives with its tensors moved by up to half an ulp.
        feeds: What both were evaluated on, as the original reads it.
        is_small: Whether that was small numbers, which say nothing of a map: they show a shift
            more exactly than the others tell it.
        roundoff: Half an ulp of one, in the coarsest type that something nudged is stored in.
    """

    original: Array
    folded: Array
    nudged: Sequence[Array]
    feeds: Mapping[str, Array] = MappingProxyType({})
    is_small: bool = False
    roundoff: float = 0.0


def weigh(trials: Sequence[Trial]) -> Gap:
    """Return the largest difference, in units of what may be: up to 1 is rounding."""
    worst = Gap(0.0)
    is_clear = False
    for trial in trials:
        for part in _samples(trial):
            found = _weigh(part)
            is_clear = is_clear or found.is_clear
            if found.size > worst.size:
                worst = found
    return replace(worst, is_clear=is_clear)


def is_beyond_nudges(trials: Sequence[Trial]) -> bool:
    """Return whether some number is another that no nudge moves noticeably.

    Steps turn a nudge into a jump, and few nudges may not meet it. But these are drawn on
    purpose at numbers that no nudge reaches: many of them move nothing there.
    """
    return any(_beyond(trial).any() for trial in trials)


def _beyond(trial: Trial) -> Array:
    sides = (trial.original, *trial.nudged)
    if any(one.shape != trial.folded.shape or one.dtype != np.float64 for one in sides):
        return np.zeros(1, bool)
    off = np.abs(trial.original - trial.folded)
    moved = np.max([np.abs(one - trial.folded) for one in trial.nudged], axis=0, initial=0.0)
    size = np.abs(trial.original).max(initial=0.0)
    return np.asarray((off > _BEYOND * size) & (moved <= _BEYOND * off))


def _samples(trial: Trial) -> Iterator[Trial]:
    """Yield the samples of a batch apart, if each holds enough places of every channel.

    They are drawn of different sizes, and the rounding of a large one hides a small one.
    """
    shape = trial.original.shape
    alike = shape == trial.folded.shape and all(one.shape == shape for one in trial.nudged)
    if not alike or len(shape) < 3 or not 1 < shape[0] <= _APART:
        yield trial
        return
    if trial.original.size < _PLACES * shape[0] * shape[1]:
        yield trial
        return
    for sample in range(shape[0]):
        mine = slice(sample, sample + 1)
        nudged = [one[mine] for one in trial.nudged]
        yield Trial(trial.original[mine], trial.folded[mine], nudged, trial.feeds)


def _weigh(trial: Trial) -> Gap:
    original, folded, nudged = trial[:3]
    if original.shape != folded.shape or original.dtype != np.float64:
        same = original.shape == folded.shape and np.array_equal(original, folded)
        return Gap(0.0 if same else float("inf"))
    if not original.size or np.array_equal(original, folded, equal_nan=True):
        return Gap(0.0)
    if not (np.isfinite(original).all() and np.isfinite(folded).all()):
        return Gap(float("inf"))
    vast = is_vast(original)
    if vast.any() and not np.allclose(
        folded[vast], original[vast], rtol=_SAME_PENALTY, atol=0
    ):
        return Gap(float("inf"))

    def rows(array: Wide) -> Wide:
        return _by_channel(np.where(vast, 0.0, array) if vast.any() else array)

    reference, error = rows(original), rows(folded - original)
    nudged = [one for one in nudged if one.shape == folded.shape]  # some numbers are sizes
    if not nudged:
        return Gap(float("inf"))
    noises = np.stack([rows(one - folded) for one in nudged])
    powers = _power(noises)
    slope = _Slope(reference)
    slopes = (slope(noises) ** 2).mean(axis=0)
    least = _least_limit(len(noises), len(reference))
    sizes = _ratios(_power(error), powers.mean(axis=0), reference, len(noises))
    sizes = sizes / max(LIMIT, least)
    slopes = np.maximum(slopes, slope.least)
    ratios = np.maximum(
        sizes,
        _ratios(slope(error) ** 2, slopes, None, len(noises)) / max(SLOPE_LIMIT, least),
    )
    place = int(np.argmax(ratios))
    # Half an ulp of float64 moves nothing at all: there every difference is clear.
    moved = (np.min(powers, axis=0) > 0) | (not powers.any())
    is_clear = bool((moved & (sizes > _CLEAR)).any())
    return Gap(float(ratios[place]), place if original.ndim > 1 else None, is_clear)


def _least_limit(nudges: int, channels: int) -> float:
    """Return what a ratio of rounding to noise may be in the worst of so many channels.

    Of one value in a channel, against the mean square of a few draws of its noise: Student's
    t with as many degrees of freedom, for the largest of all channels. A thousand channels of
    one value, as feature vectors have them, pass 5 by chance. The few nudges at first only say
    what is surely the same: there the limit stays as it is.
    """
    if nudges <= NUDGES:
        return 0.0
    return math.sqrt(f_quantile(_FALSE_ALARMS / max(channels, 1), 1, nudges))


def _by_channel(array: Wide) -> Wide:
    if array.ndim < 2:
        return array.reshape(1, -1)
    return np.moveaxis(array, 1, 0).reshape(array.shape[1], -1)


def _power(rows: Wide) -> Wide:
    return np.asarray((rows * rows).mean(axis=-1))


class _Slope:
    """Says which part of a reference an error is, channel by channel.

    Means are taken away first, so that the rounding of an addend does not count.
    """

    def __init__(self, reference: Wide) -> None:
        self._centred = reference - reference.mean(axis=1, keepdims=True)
        self._spread = (self._centred * self._centred).sum(axis=1)
        self._power = (reference * reference).sum(axis=1)

    @property
    def least(self) -> Wide:
        """The square of what rounding in float64 makes of a factor.

        |e| ≤ 2⁻⁴⁸ |r| gives Σ e·c / Σ c² ≤ 2⁻⁴⁸ |r| / |c|: much where a channel hardly varies.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self._spread > 0, _LEAST**2 * self._power / self._spread, 0.0)

    def __call__(self, error: Wide) -> Wide:
        with np.errstate(invalid="ignore", divide="ignore"):
            slope = (error * self._centred).sum(axis=-1) / self._spread
        return np.where(self._spread > 0, slope, 0.0)


def _ratios(found: Wide, noise: Wide, reference: Wide | None, count: int) -> Wide:
    """Return roots of ratios; the noise of a channel is blended with what is typical."""
    size = np.ones_like(noise) if reference is None else _power(reference)
    alive = size > 0
    typical = float(np.median(noise[alive] / size[alive])) if alive.any() else 0.0
    blended = (count * noise + _TRUST * typical * size) / (count + _TRUST)
    floor = _LEAST**2 * np.maximum(size, size.max(initial=0.0) * 1e-12)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = np.sqrt(found / np.maximum(blended, floor))
    return np.where(found == 0, 0.0, np.nan_to_num(ratios, nan=0.0, posinf=np.inf))
