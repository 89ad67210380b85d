"""Constants stay in float64 until they are rounded once, to the nearest value."""

from __future__ import annotations

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bnfold.expression import Expression, round_once
from bnfold.storable import range_fault

BF16 = np.dtype(ml_dtypes.bfloat16)
TYPES = [np.dtype(np.float16), BF16, np.dtype(np.float32)]
finite = st.floats(-1e4, 1e4, allow_nan=False)


def neighbours(value: np.ndarray) -> list[float]:
    """The rounded value and its two neighbours in its type, as numbers."""
    kind = {2: np.uint16, 4: np.uint32}[value.itemsize]
    bits = value.reshape(1).view(kind)
    around = [bits, bits + kind(1), bits - kind(1)]
    found = [float(b.view(value.dtype)[0].astype(np.float64)) for b in around]
    return [number for number in found if np.isfinite(number)]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_rounds_to_the_nearest(dtype):
    @given(finite)
    @example(1 + 2**-8 + 2**-40)  # float32 in between would round this to a tie
    @example(1 + 3 * 2**-8 - 2**-40)
    @example(2.0**-140)
    def law(number):
        rounded = round_once(np.array([number]), dtype)
        away = abs(Fraction(float(rounded.astype(np.float64)[0])) - Fraction(number))
        candidates = neighbours(rounded[:1]) if rounded[0] != 0 else [0.0]
        assert away <= min(abs(Fraction(other) - Fraction(number)) for other in candidates)

    law()


@given(st.lists(finite, min_size=6, max_size=6), st.lists(finite, min_size=2, max_size=2))
def test_factors_multiply_in_float64(elements, factor):
    base = np.array(elements, np.float32).reshape(2, 3)
    along = np.array(factor)
    expression = Expression.of(base).times(along, (0,)).times(along, (0,))
    wanted = base.astype(np.float64) * (along * along)[:, None]
    assert np.array_equal(expression.evaluate(), wanted)
    assert np.array_equal(expression.rounded(base.dtype), wanted.astype(np.float32))
    assert len(expression.factors) == 1


def test_two_folds_are_rounded_once(rng):
    base = rng.normal(size=100).astype(np.float32)
    third, three = np.array([1 / 3]), np.array([3.0])
    expression = Expression.of(base).times(third, (0,)).times(three, (0,))
    assert np.array_equal(expression.rounded(base.dtype), base)
    rounded_twice = (base / np.float32(3)) * np.float32(3)
    assert not np.array_equal(rounded_twice, base)


@given(st.lists(st.floats(-4, 4), min_size=4, max_size=4), st.integers(0, 1))
def test_peaks_are_those_of_the_elements(factor, axis):
    base = np.linspace(-3, 2, 16, dtype=np.float32).reshape(4, 4)
    for place in (0, 1):
        expression = Expression.of(base).times(np.array(factor), (place,))
        others = tuple(other for other in (0, 1) if other != axis)
        assert np.allclose(
            expression.peaks(axis), np.abs(expression.evaluate()).max(axis=others), rtol=1e-12
        )


@pytest.mark.parametrize(
    ("scale", "dtype", "fault"),
    [
        (1.0, np.float16, ""),
        (1e5, np.float16, "overflows"),
        (1e-6, np.float16, "whole channel"),
        (1e39, np.float32, "overflows"),
        (1e-39, np.float32, "whole channel"),
        (1e39, np.float64, ""),
        (np.inf, np.float64, "not finite"),
        (np.nan, np.float32, "not finite"),
        (1e39, BF16, "overflows"),
        (1e5, BF16, ""),
    ],
)
def test_what_a_type_cannot_hold_is_named(scale, dtype, fault):
    base = np.array([[1.0, 2.0], [0.5, 1.0]], np.dtype(dtype))
    expression = Expression.of(base).times(np.array([1.0, scale]), (0,))
    assert fault in range_fault(expression, np.dtype(dtype), 0)
    assert bool(fault) == bool(range_fault(expression, np.dtype(dtype), 0))


@pytest.mark.parametrize(
    ("dtype", "smallest"), [(np.float16, 2.0**-14), (np.float32, 2.0**-126), (BF16, 2.0**-126)]
)
def test_a_nearly_dead_channel_is_no_fault_beside_one_that_drowns_its_rounding(
    dtype, smallest
):
    """It loses half a step for each element, the other rounds a thousand times that away."""
    base = np.array([[1.0, -0.5], [1.0, 1.0]], np.dtype(dtype))
    for loud, fault in ((512.0, ""), (500.0, "whole channel")):
        both = Expression.of(base).times(smallest * np.array([0.25, loud]), (0,))
        assert fault in range_fault(both, base.dtype, 0, alike=2)
        assert bool(fault) == bool(range_fault(both, base.dtype, 0, alike=2))
        assert "whole channel" in range_fault(both, base.dtype, 0)  # of other numbers


def test_one_small_element_beside_large_ones_is_no_fault():
    base = np.array([[1.0, 1e-4]], np.float16)
    assert range_fault(Expression.of(base).times(np.array([0.5]), (0,)), base.dtype, 0) == ""


def test_a_channel_that_was_subnormal_before_may_stay_so():
    base = np.array([[1e-40, 2e-40], [1.0, 1.0]], np.float32)
    assert range_fault(Expression.of(base).times(np.array([0.5]), (0,)), base.dtype, 0) == ""


def test_an_addend_is_checked_for_overflow_only():
    tiny, huge = np.array([1e-7]), np.array([1e6])
    assert range_fault(Expression.of(tiny), np.dtype(np.float16), None) == ""
    assert "overflows" in range_fault(Expression.of(huge), np.dtype(np.float16), None)
