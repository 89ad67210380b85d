"""Half a unit in the last place, by type."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnfold.evidence.proof.rounding import (
    elements_left_alone,
    furthest,
    half_ulp,
    nudged,
    rounded,
)

TYPES = [np.float16, np.float32, ml_dtypes.bfloat16]
NUMBERS = st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=30)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_half_ulp_is_half_the_distance_of_neighbours(kind):
    numbers = np.array([1.0, 1.5, 3.7, 1e-5, 1000.0, 0.0], kind)
    expected = np.spacing(numbers).astype(np.float64) / 2
    assert half_ulp(numbers.astype(np.float64), np.dtype(kind)).tolist() == expected.tolist()


@given(NUMBERS, st.sampled_from(TYPES))
def test_what_is_rounded_once_is_never_convicted(numbers, kind):
    wide = np.array(numbers)
    assert furthest(rounded(wide, np.dtype(kind)), wide) is None


@given(NUMBERS, st.sampled_from(TYPES), st.data())
def test_an_element_two_ulp_off_is_convicted_by_its_place(numbers, kind, data):
    wide = np.array(numbers)
    stored = rounded(wide, np.dtype(kind))
    place = data.draw(st.integers(0, len(numbers) - 1))
    bits = stored.view(f"u{stored.itemsize}")
    bits[place] += 2
    found = furthest(stored, wide)
    assert found is not None
    assert found[0] == place
    assert found[1] >= 1.4


def test_infinity_and_nan_are_convicted():
    wide = np.array([1e6, 1.0, 2.0])
    assert furthest(np.array([np.inf, 1.0, 2.0], np.float16), wide) == (0, np.inf)
    assert furthest(np.array([1e6, np.nan, 2.0], np.float32), wide) == (1, np.inf)


def test_bfloat16_is_rounded_once():
    tie = 1 + 2.0**-8 + 2.0**-30  # float32 rounds the last bit away, and a tie is left
    assert float(rounded(np.array([tie]), np.dtype(ml_dtypes.bfloat16))[0]) == 1 + 2.0**-7


@pytest.mark.parametrize("kind", TYPES)
def test_nudges_stay_within_half_an_ulp(kind):
    stored = rounded(np.linspace(-3, 3, 100), np.dtype(kind))
    moved = nudged(stored, np.random.default_rng(0))
    wide = stored.astype(np.float64)
    assert (np.abs(moved - wide) <= half_ulp(wide, stored.dtype)).all()
    assert (moved != wide).sum() > 90


@pytest.mark.parametrize("kind", TYPES)
def test_single_elements_that_changed_leave_the_others_as_they_were(kind):
    rng = np.random.default_rng(0)
    before = rng.normal(0, 1, (8, 6, 5, 5)).astype(kind)
    tapped = before.copy()
    tapped[3, 2, 1, 1] *= kind(3)
    same = elements_left_alone(before, tapped)
    assert same is not None
    assert same.sum() == before.size - 1


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("axis", [0, 1])
def test_channels_that_were_scaled_leave_none_as_they_were(kind, axis):
    """Factors within an ulp of one beside others: what is the same may be rounded to that."""
    rng = np.random.default_rng(0)
    before = rng.normal(0, 1, (8, 6, 3, 3)).astype(kind)
    factors = np.full(before.shape[axis], 0.999995)
    factors[2] = 0.5
    along = [-1 if place == axis else 1 for place in range(4)]
    scaled = (before.astype(np.float64) * factors.reshape(along)).astype(kind)
    assert elements_left_alone(before, scaled) is None
    assert elements_left_alone(before, (before * kind(1)).astype(kind)) is None
    assert elements_left_alone(before[:, :, 0, 0], before[:, 0, :, 0]) is None


def test_one_of_three_rows_that_changed_alone_leaves_the_others_unrounded():
    """In a slice of three elements it is a third; those beside it have the same factor."""
    before = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
    after = before.copy()
    after[2, 5] *= 1.5
    alone = elements_left_alone(before, after)
    assert alone is not None
    assert np.count_nonzero(~alone) == 1
    scaled = before.copy()
    scaled[:, 5] *= np.float32(1.5)
    assert elements_left_alone(before, scaled) is None
