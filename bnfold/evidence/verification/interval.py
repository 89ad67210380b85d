"""How sure a ratio of errors is: a bootstrap interval over inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

_RESAMPLES: Final = 4000
_MOST_CELLS: Final = 4_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A ratio with its bounds; without any over a single input."""

    ratio: float
    low: float
    high: float


def ratio_interval(
    above: Vector, below: Vector, *, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """The root of Σ above / Σ below, bounded by resampling pairs.

    Percentiles are widened for few samples as Student's t is (T. Hesterberg, "What Teachers
    Should Know About the Bootstrap", 2015: the expanded percentile interval).

    Args:
        above: Squared errors, one for each input.
        below: Squared errors to compare with, of the same inputs.
        seed: Of the resampling.
        confidence: How often the bounds should hold.
    """
    ratio = float(_root(np.array([above.sum()]), np.array([below.sum()]))[0])
    count = above.size
    if count < 2:
        return Interval(ratio, ratio, ratio)
    rng = np.random.default_rng(seed)
    resamples = min(_RESAMPLES, max(_MOST_CELLS // count, 200))
    drawn = rng.integers(0, count, (resamples, count))
    ratios = np.sort(_root(above[drawn].sum(axis=1), below[drawn].sum(axis=1)))
    tail = _tail((1 - confidence) / 2, count)
    first = math.floor(tail * (resamples - 1))
    return Interval(ratio, float(ratios[first]), float(ratios[resamples - 1 - first]))


def _root(above: Vector, below: Vector) -> Vector:
    """Nothing over nothing is one: both are exact."""
    nothing = below == 0
    found = np.sqrt(above / np.where(nothing, 1.0, below))
    return np.where(nothing, np.where(above == 0, 1.0, np.inf), found)


def _tail(share: float, count: int) -> float:
    """The share to cut off so that so few samples still cover."""
    normal = NormalDist()
    z = -normal.inv_cdf(share)
    stretched = math.sqrt(count / (count - 1)) * _student(z, count - 1)
    return normal.cdf(-stretched)


def _student(z: float, freedom: int) -> float:
    """Student's quantile from the normal one (Cornish and Fisher; exact enough from 3 on)."""
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3
