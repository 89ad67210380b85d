"""How sure a ratio of errors is: a bootstrap interval over inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bnfold.resampling import expanded_tail

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

    Percentiles are widened for few samples, see `bnfold.resampling`.

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
    tail = expanded_tail((1 - confidence) / 2, count)
    first = math.floor(tail * (resamples - 1))
    return Interval(ratio, float(ratios[first]), float(ratios[resamples - 1 - first]))


def _root(above: Vector, below: Vector) -> Vector:
    """Nothing over nothing is one: both are exact."""
    nothing = below == 0
    found = np.sqrt(above / np.where(nothing, 1.0, below))
    return np.where(nothing, np.where(above == 0, 1.0, np.inf), found)
