"""Half a unit in the last place, by type."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnfold.evidence.proof.rounding import furthest, half_ulp, nudged, rounded

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
    assert found[1] >= 2.9


def test_infinity_and_nan_are_convicted():
    wide = np.array([1e6, 1.0, 2.0])
    assert furthest(wide.astype(np.float16), wide) == (0, np.inf)
    assert furthest(np.array([1e6, np.nan, 2.0], np.float32), wide) == (1, np.inf)


def test_bfloat16_is_rounded_once():
    tie = 1 + 2.0**-8 + 2.0**-30  # float32 rounds the last bit away, and a tie is left
    assert float(rounded(np.array([tie]), np.dtype(ml_dtypes.bfloat16))[0]) == 1 + 2.0**-7


@pytest.mark.parametrize("kind", TYPES)
def test_nudges_stay_within_half_an_ulp(kind):
    stored = rounded(np.linspace(-3, 3, 100), np.dtype(kind))
    moved = nudged(stored, np.random.default_rng(0))
    assert furthest(stored, moved) is None
    assert (moved != stored.astype(np.float64)).sum() > 90
