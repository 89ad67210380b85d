"""Quantiles of the F distribution, and tails of the binomial one, without scipy.

The regularised incomplete beta function by its continued fraction, evaluated as Lentz does
(W. H. Press et al., Numerical Recipes, 3rd edition, 6.4; M. Abramowitz and I. Stegun, Handbook
of Mathematical Functions, 26.5.8 and 26.6.2).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

_MOST_TERMS: Final = 3000
_SMALL: Final = 1e-300
_EXACT: Final = 1e-14
_HALVINGS: Final = 100
_MOST_FREEDOM: Final = 1e7
"""From here on the distribution is that of its limit, to more digits than anyone needs."""


@lru_cache(maxsize=4096)
def f_quantile(share: float, above: float, below: float) -> float:
    """The number that a ratio of mean squares exceeds with probability ``share``.

    Args:
        share: The upper tail, between 0 and 1, both excluded; as small as 1e-12.
        above: Degrees of freedom of the mean square above the line.
        below: The same below the line; infinite where that is known.
    """
    d1, d2 = min(above, _MOST_FREEDOM), min(below, _MOST_FREEDOM)
    low, high = -1.0, 1.0
    while f_tail(math.exp(low), d1, d2) < share:
        low *= 2
    while f_tail(math.exp(high), d1, d2) > share:
        high *= 2
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        is_below = f_tail(math.exp(middle), d1, d2) > share
        low, high = (middle, high) if is_below else (low, middle)
    return math.exp(high)


def f_tail(ratio: float, above: float, below: float) -> float:
    """The probability that a ratio of mean squares exceeds ``ratio``."""
    return beta_share(below / (below + above * ratio), below / 2, above / 2)


def binomial_tail(least: int, trials: int, chance: float) -> float:
    """The probability of at least so many successes."""
    if least <= 0:
        return 1.0
    return 0.0 if least > trials else beta_share(chance, least, trials - least + 1)


def beta_share(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b)."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    ends = a * math.log(x) + b * math.log1p(-x)
    front = math.exp(ends + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b))
    # the fraction converges fast on this side of the mean only
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(x, a, b) / a
    return 1 - front * _fraction(1 - x, b, a) / b


def _fraction(x: float, a: float, b: float) -> float:
    above, below = 1.0, 1 / _away(1 - (a + b) * x / (a + 1))
    value = below
    for m in range(1, _MOST_TERMS):
        for term in _terms(m, x, a, b):
            below = 1 / _away(1 + term * below)
            above = _away(1 + term / above)
            value *= above * below
        if abs(above * below - 1) < _EXACT:
            break
    return value


def _terms(m: int, x: float, a: float, b: float) -> tuple[float, float]:
    even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
    odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
    return even, odd


def _away(value: float) -> float:
    """Keep a denominator off zero."""
    return value if abs(value) > _SMALL else _SMALL
