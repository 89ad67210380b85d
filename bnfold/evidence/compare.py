"""How far two runs are apart, measured so that it can be weighed against rounding noise.

For one output and one set of inputs a `Deviation` holds the squares of the differences per
channel (axis 1), the largest one, a high quantile, and the count of what cannot be
subtracted: changed integers, new NaN and infinities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bnfold.evidence.noise import roundoff
from bnfold.runtime.arrays import is_foreign

_FLUSHED: Final = float(np.finfo(np.float32).smallest_normal)
_HIGH: Final = 0.99

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Deviation:
    """The distance of one run from the reference run, on one output.

    Attributes:
        squares: Sum of squared differences per channel.
        largest: Largest absolute difference.
        flipped: How many elements differ that cannot be subtracted: integers, booleans, text,
            and floats that are NaN or infinite where the reference is not.
        high: The absolute difference that 99 % of all elements stay below.
        overflown: How many elements are infinite where the reference is finite.
    """

    squares: Vector
    largest: float
    flipped: int
    high: float = 0.0
    overflown: int = 0


@dataclass(frozen=True, slots=True)
class Scale:
    """The size of the reference itself, on one output.

    Attributes:
        squares: Sum of squares per channel.
        largest: Largest absolute value.
        width: Elements in one channel.
        floor: Roundoff of the element type, relative; 0 for what is not a float.
        tiny: Absolute step below which the element type or the processor rounds to zero.
    """

    squares: Vector
    largest: float
    width: int
    floor: float
    tiny: float


def deviation(reference: NDArray[Any], other: NDArray[Any]) -> Deviation | None:
    """The distance of ``other`` from ``reference``; None if their shapes or types differ."""
    if reference.shape != other.shape or reference.dtype != other.dtype:
        return None
    if not is_float(reference):
        flipped = int(np.count_nonzero(reference != other))
        return Deviation(np.zeros(_channels(reference)), 0.0, flipped)
    before, after = reference.astype(np.float64), other.astype(np.float64)
    finite = np.isfinite(before)
    new = finite & ~np.isfinite(after)
    difference = np.zeros_like(before)
    np.subtract(after, before, out=difference, where=finite & ~new)
    return Deviation(
        _squares(difference),
        float(np.abs(difference).max(initial=0.0)),
        int(new.sum()),
        high_of(np.abs(difference)),
        int(np.count_nonzero(finite & np.isinf(after))),
    )


def high_of(sizes: Vector) -> float:
    """The size that 99 % of all elements stay below."""
    if not sizes.size:
        return 0.0
    place = int(_HIGH * (sizes.size - 1))
    return float(np.partition(sizes.reshape(-1), place)[place])


def counted(array: NDArray[Any]) -> NDArray[Any]:
    """Integers of a quantiser as numbers: their differences are counts of steps."""
    return array.astype(np.float64) if array.dtype.kind in "iu" else array


def scale_of(reference: NDArray[Any], unit: float | None = None) -> Scale:
    """The size of a reference output.

    Args:
        reference: What the original gives.
        unit: Its relative roundoff; that of its element type if there is none.
    """
    width = reference.size // max(_channels(reference), 1)
    if not is_float(reference):
        return Scale(np.zeros(_channels(reference)), 0.0, width, 0.0, _FLUSHED)
    values = reference.astype(np.float64)
    values = np.where(np.isfinite(values), values, 0.0)
    unit = roundoff(reference.dtype) if unit is None else unit
    largest = float(np.abs(values).max(initial=0.0))
    return Scale(_squares(values), largest, width, unit, _tiny(reference.dtype))


def is_float(array: NDArray[Any]) -> bool:
    """Whether differences of the elements mean something."""
    return bool(np.issubdtype(array.dtype, np.floating)) or is_foreign(array)


def _tiny(dtype: np.dtype[Any]) -> float:
    """Half precision keeps subnormals; wider types may be flushed by the processor."""
    if dtype == np.float16:
        return float(np.finfo(np.float16).smallest_subnormal)
    if dtype == np.float64:
        return float(np.finfo(np.float64).smallest_normal)
    return _FLUSHED


def _channels(array: NDArray[Any]) -> int:
    return array.shape[1] if array.ndim >= 2 else 1


def _squares(values: Vector) -> Vector:
    if values.ndim < 2:
        return np.array([float(np.sum(values * values))])
    others = tuple(axis for axis in range(values.ndim) if axis != 1)
    return np.asarray(np.sum(values * values, axis=others))
