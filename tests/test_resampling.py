"""Student's t and the widening for few samples, against tables and against simulation."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnfold.resampling import expanded_tail, student_quantile


@pytest.mark.parametrize(
    ("share", "freedom", "expected"),
    [
        (0.975, 1, 12.7062),
        (0.975, 2, 4.30265),
        (0.975, 5, 2.57058),
        (0.95, 5, 2.01505),
        (0.995, 11, 3.10581),
        (0.8, 5, 0.919544),
        (0.9, 30, 1.31042),
    ],
)
def test_quantiles_are_those_of_the_tables(share, freedom, expected):
    assert student_quantile(share, freedom) == pytest.approx(expected, rel=1e-5)


@given(st.floats(0.51, 0.999), st.integers(1, 200))
def test_quantiles_grow_with_the_share_and_shrink_with_freedom(share, freedom):
    found = student_quantile(share, freedom)
    assert student_quantile(share + 0.0005, freedom) > found
    assert student_quantile(share, freedom + 1) < found
    assert found > NormalDist().inv_cdf(share)


def test_with_much_freedom_it_is_the_normal_distribution():
    assert student_quantile(0.975, 5000) == pytest.approx(
        NormalDist().inv_cdf(0.975), rel=1e-3
    )


def test_drawn_t_values_lie_below_the_quantile_as_often_as_it_says():
    drawn = np.random.default_rng(3).standard_t(5, size=200_000)
    for share in (0.7, 0.9, 0.975):
        assert np.mean(drawn < student_quantile(share, 5)) == pytest.approx(share, abs=0.004)


@given(st.floats(0.01, 0.2), st.integers(4, 300))
def test_fewer_samples_cut_off_less(share, count):
    found = expanded_tail(share, count)
    assert 0 < found < share
    assert expanded_tail(share, count + 1) > found


def test_with_many_samples_nothing_is_widened():
    assert expanded_tail(0.025, 3000) == pytest.approx(0.025, rel=5e-3)


def test_the_expanded_tail_of_six_is_that_of_the_literature():
    """Hesterberg 2015: for n = 6 and 95 % it is about 0.24 % at each end."""
    wide = np.sqrt(6 / 5) * 2.57058
    assert expanded_tail(0.025, 6) == pytest.approx(NormalDist().cdf(-wide), rel=1e-4)
