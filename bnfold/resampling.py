"""Bootstrap intervals that hold for few samples: numpy and Student's t, nothing else.

Percentiles are widened for few samples as Student's t is (T. Hesterberg, "What Teachers Should
Know About the Bootstrap", 2015: the expanded percentile interval).
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Final

_STEPS: Final = 80


def expanded_tail(share: float, count: int) -> float:
    """The share to cut off each end of a bootstrap distribution over so few samples.

    Args:
        share: What is to be outside at one end, e.g. 0.025.
        count: Number of samples that were drawn from, at least 2.
    """
    stretched = math.sqrt(count / (count - 1)) * student_quantile(1 - share, count - 1)
    return NormalDist().cdf(-stretched)


def student_quantile(share: float, freedom: int) -> float:
    """The number that Student's t is below with probability ``share``, by bisection.

    Args:
        share: Between 0.5 and 1, 1 excluded.
        freedom: Degrees of freedom, at least 1.
    """
    low, high = 0.0, 1.0
    while _student_cdf(high, freedom) < share:
        high *= 2
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_cdf(middle, freedom) < share else (low, middle)
    return high


def _student_cdf(t: float, freedom: int) -> float:
    """Student's distribution for whole degrees of freedom.

    M. Abramowitz and I. Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    angle = math.atan(t / math.sqrt(freedom))
    cosine = math.cos(angle) ** 2
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(2 + odd, freedom - 1, 2):
        term *= cosine * (k - 1) / k
        total += term
    inside = math.sin(angle) * total
    if odd:
        return 0.5 + (angle + inside) / math.pi
    return 0.5 + inside / 2
