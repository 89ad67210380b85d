"""Plain figures that people ask for: absolute, relative, ULP, SNR, cosine, tolerance."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from bnfold.evidence.compare import is_float
from bnfold.records import OutputMetrics
from bnfold.runtime.arrays import bits_of

Pair = tuple[NDArray[Any], NDArray[Any]]
Vector = NDArray[np.float64]


def metrics_of(name: str, pairs: Iterable[Pair], *, is_choice: bool = False) -> OutputMetrics:
    """The figures of one output over all inputs.

    Args:
        name: Name of the output.
        pairs: Original and folded, one pair per set of inputs.
        is_choice: Integers are indices and the like: class 7 is no nearer to 8 than to 800, so
            they are counted, and not subtracted.
    """
    largest = {"abs": 0.0, "rel": 0.0, "ulp": 0.0, "tolerance": 0.0}
    sums = np.zeros(4)
    changed = 0
    for before, after in pairs:
        if before.shape != after.shape or before.dtype != after.dtype:
            changed += max(before.size, after.size)
            continue
        if not is_float(before) and (is_choice or before.dtype.kind not in "iu"):
            changed += int(np.count_nonzero(before != after))
            continue
        one, other, lost = _comparable(before, after)
        changed += lost
        for key, value in _largest(one, other).items():
            largest[key] = max(largest[key], value)
        wide, found = one.astype(np.float64), other.astype(np.float64)
        far = found - wide
        sums += [wide @ wide, found @ found, wide @ found, far @ far]
    return OutputMetrics(
        name=name,
        max_abs=largest["abs"],
        max_rel=largest["rel"],
        max_ulp=largest["ulp"],
        snr_db=_decibels(sums[0], sums[3]),
        cosine=_cosine(*sums[:3]),
        tolerance=math.inf if changed else largest["tolerance"],
        changed=changed,
    )


def _comparable(before: NDArray[Any], after: NDArray[Any]) -> tuple[Any, Any, int]:
    """What can be subtracted, and how much cannot: finite on one side only, or otherwise."""
    one, other = before.reshape(-1), after.reshape(-1)
    left, right = one.astype(np.float64), other.astype(np.float64)
    both = np.isfinite(left) & np.isfinite(right)
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    return one[both], other[both], int(np.count_nonzero(~both & ~same))


def _largest(one: NDArray[Any], other: NDArray[Any]) -> dict[str, float]:
    wide, found = one.astype(np.float64), other.astype(np.float64)
    far, size = np.abs(found - wide), np.abs(wide)
    relative = np.divide(far, size, out=np.where(far > 0, np.inf, 0.0), where=size > 0)
    ulps = ulp_distance(one, other) if is_float(one) else np.zeros(1)
    return {
        "abs": float(far.max(initial=0.0)),
        "rel": float(relative.max(initial=0.0)),
        "ulp": float(ulps.max(initial=0.0)),
        "tolerance": float((far / (1 + size)).max(initial=0.0)),
    }


def ulp_distance(one: NDArray[Any], other: NDArray[Any]) -> Vector:
    """How many representable numbers apart, for every element of two float arrays."""
    return np.asarray(np.abs(_ordered(other) - _ordered(one)), dtype=np.float64)


def _ordered(array: NDArray[Any]) -> NDArray[np.longdouble]:
    """Floats as counts: neighbours differ by one, and both zeros are zero."""
    bits = bits_of(array).reshape(array.shape)
    sign = bits.dtype.type(1 << (ml_dtypes.finfo(array.dtype).bits - 1))  # type: ignore[no-untyped-call]  # untyped there
    size = (bits & ~sign).astype(np.longdouble)
    return np.asarray(np.where(bits & sign, -size, size))


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def _cosine(before: float, after: float, product: float) -> float:
    if before == 0 or after == 0:
        return 1.0 if before == after else 0.0
    return min(max(float(product) / math.sqrt(before) / math.sqrt(after), -1.0), 1.0)
