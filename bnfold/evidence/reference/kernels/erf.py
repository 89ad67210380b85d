"""The error function, without scipy: Taylor series about the points of a fine table."""

from __future__ import annotations

import math
from functools import cache
from typing import Final

import numpy as np

from bnfold.evidence.reference.arrays import Array

_PER_UNIT: Final = 64
_LARGEST: Final = 6.0
"""erf(6) is 1 in float64."""
_ORDER: Final = 8
"""(1/128)⁹ of a coefficient is below 1e-19."""
_BLOCK: Final = 1 << 15
"""Elements that stay in a core's cache during all terms."""


def erf(x: Array) -> Array:
    """The error function, within about one unit in the last place."""
    flat = np.ascontiguousarray(x, dtype=np.float64).reshape(-1)
    out = np.empty_like(flat)
    for low in range(0, flat.size, _BLOCK):
        out[low : low + _BLOCK] = _erf(flat[low : low + _BLOCK])
    return out.reshape(np.shape(x))


def _erf(x: Array) -> Array:
    size = np.minimum(np.abs(x), _LARGEST)  # not-a-number stays what it is
    place = np.rint(np.nan_to_num(size) * _PER_UNIT).astype(np.intp)
    offset = size - place / _PER_UNIT
    table = _taylor()
    y = table[_ORDER][place]
    for order in range(_ORDER - 1, -1, -1):
        y *= offset
        y += table[order][place]
    return np.asarray(np.copysign(y, x))


@cache
def _taylor() -> Array:
    """Row k: the k-th Taylor coefficient of erf at every point of the table.

    The derivatives are erf⁽ᵏ⁾(a) = 2/√π · exp(−a²) · (−1)ᵏ⁻¹ · H₍ₖ₋₁₎(a), with H₀ = 1, H₁ = 2a
    and H₍ₖ₊₁₎ = 2a·Hₖ − 2k·H₍ₖ₋₁₎.
    """
    points = np.arange(int(_LARGEST * _PER_UNIT) + 1) / _PER_UNIT
    slope = 2 / math.sqrt(math.pi) * np.exp(-(points**2))
    hermite = [np.ones_like(points), 2 * points]
    for k in range(1, _ORDER):
        hermite.append(2 * points * hermite[k] - 2 * k * hermite[k - 1])
    rows = [np.array([math.erf(point) for point in points])]
    rows.extend(
        slope * (-1) ** (k - 1) * hermite[k - 1] / math.factorial(k)
        for k in range(1, _ORDER + 1)
    )
    return np.stack(rows)
