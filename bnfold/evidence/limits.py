"""What a ratio of difference to rounding noise may be: knows how often it was looked.

Two reasons let a right fold exceed a ratio of one. Its rounding may really be larger than that
of the nudges, by a bounded factor: `Leeway.plain` is never undercut. And both sides are
estimated from few numbers, so chance alone exceeds any fixed limit if one looks often enough:
the ratio of two mean squares follows the F distribution, and its quantile at the share that
one comparison has of ALPHA, times `Leeway.true`, is not undercut either.

How many independent numbers a mean square is worth is not its count: all elements of a channel
may move together. It is read off how much the nudged runs vary among themselves
(F. E. Satterthwaite, "An approximate distribution of estimates of variance components", 1946).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from numpy.typing import NDArray

from bnfold.evidence.quantiles import binomial_tail, f_quantile

ALPHA: Final = 1e-4
"""The share of right folds that the comparisons of one report together may call wrong."""

_TIMES: Final = 2
_FEW_DRAWS: Final = 4
_ONE_NUMBER: Final = 1.0
_SEVERAL: Final = 8.0


@dataclass(frozen=True, slots=True)
class Leeway:
    """What a right fold is allowed.

    Attributes:
        plain: The ratio that is allowed whatever was measured.
        true: How much larger than the noise the error of a right fold may really be, which
            chance comes on top of.
    """

    plain: float
    true: float


FINE: Final = Leeway(5.0, 2.0)
"""Arithmetic makes the noise: measured ratios of right folds reach 2.7, chance included."""

COARSE: Final = Leeway(2.5, 0.5)
"""Storage makes the noise: a fold rounds a few tensors once, by half an ulp at most (0.29 of
one as a root mean square); a nudge moves every number by one. Measured ratios reach 1.1."""

PROVED: Final = Leeway(20.0, 5.0)
"""The function is known to be the same: only an accuracy that is really lost counts."""


@dataclass(frozen=True, slots=True)
class Looks:
    """How many comparisons a report makes: what each may cost of ALPHA.

    Each is made twice at most: by few draws, and by more where those leave doubt.

    Attributes:
        wholes: Comparisons of whole outputs: mean, largest, count of changed choices.
        channels: Comparisons of single channels.
    """

    wholes: int
    channels: int

    @property
    def whole_share(self) -> float:
        """What one comparison of a whole output may cost: together they have one half."""
        return ALPHA / _TIMES / 2 / max(self.wholes, 1)

    @property
    def channel_share(self) -> float:
        """What one comparison of a channel may cost: together they have the other half."""
        return ALPHA / _TIMES / 2 / max(self.channels, 1)

    @property
    def total(self) -> int:
        """All comparisons."""
        return self.wholes + self.channels

    def __add__(self, other: Looks) -> Looks:
        """Both together."""
        return Looks(self.wholes + other.wholes, self.channels + other.channels)


def by_chance(share: float, above: float, below: float) -> float:
    """The ratio that chance exceeds with that probability where both sides are alike."""
    return math.sqrt(_quantile(share, _rounded(above), _rounded(below)))


@lru_cache(maxsize=4096)
def _quantile(share: float, above: float, below: float) -> float:
    return f_quantile(share, above, below)


def _rounded(freedom: float) -> float:
    """Downwards to steps of a fifth of an octave, so that few quantiles are computed."""
    return 2 ** (math.floor(math.log2(max(freedom, 1.0)) * 5) / 5)


def freedom(draws: NDArray[Any], kinds: Sequence[object], width: float) -> float:
    """How many independent numbers a mean square of one run is worth: 2 · mean² / variance.

    Only runs of one kind are compared. Few of them may happen to agree, so one run in which
    everything moves together is added to what was seen; where there are next to none, the
    many numbers of a model that is too large for more runs speak for some independence.

    Args:
        draws: Mean squares, one row per run, one column per channel.
        kinds: What kind of run each row is.
        width: How many numbers a mean square is made of: it is never worth more.
    """
    varying, freedoms = 0.0, 0
    for kind in set(kinds):
        rows = draws[[one == kind for one in kinds]]
        if len(rows) > 1:
            varying += float(((rows - rows.mean(axis=0)) ** 2).sum())
            freedoms += len(rows) - 1
    means = float((draws.mean(axis=0) ** 2).sum())
    seen = varying / means if means > 0 else 2.0 * freedoms
    least = _ONE_NUMBER if len(draws) >= _FEW_DRAWS else _SEVERAL
    relative = (seen + 2 / least) / (freedoms + 1)
    return float(min(max(2 / max(relative, 1e-9), 1.0), max(width, 1.0)))


def most_flips(share: float, usual: int, draws: int, factor: float) -> int:
    """How many changed choices are allowed where so many were seen in all draws together.

    If they are ``factor`` times as frequent as in a draw, each of all that were seen is the
    accused's with probability factor / (factor + draws).
    """
    chance = factor / (factor + max(draws, 1))
    count = max(1, math.floor(factor * usual / max(draws, 1)))
    while binomial_tail(count, count + usual, chance) >= share:
        count += max(1, count // 64)
    return count - 1
