"""Plain figures against values worked out by hand or by numpy."""

import math

import ml_dtypes
import numpy as np
import pytest

from bnfold.evidence.verification.metrics import metrics_of, ulp_distance

KINDS = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]


def test_the_figures_of_a_small_case():
    before = np.array([1.0, 2.0, -4.0], np.float32)
    after = np.array([1.0, 2.5, -4.0], np.float32)
    found = metrics_of("y", [(before, after)])
    assert found.max_abs == 0.5
    assert found.max_rel == 0.25
    assert found.tolerance == pytest.approx(0.5 / 3)
    assert found.snr_db == pytest.approx(10 * math.log10(21 / 0.25))
    assert found.cosine == pytest.approx((1 + 5 + 16) / math.sqrt(21 * 23.25))
    assert found.max_ulp == 2**21  # half of the numbers from 2 to 4, divided by two
    assert found.changed == 0


def test_the_tolerance_is_the_smallest_that_allclose_takes(rng):
    before = rng.normal(size=200).astype(np.float32)
    after = before + rng.normal(size=200).astype(np.float32) * np.float32(1e-3)
    wide, found = before.astype(np.float64), after.astype(np.float64)
    least = metrics_of("y", [(before, after)]).tolerance
    assert np.allclose(found, wide, rtol=least * 1.000001, atol=least * 1.000001)
    assert not np.allclose(found, wide, rtol=least * 0.999, atol=least * 0.999)


@pytest.mark.parametrize("kind", KINDS)
def test_ulps_count_representable_numbers_across_zero(kind):
    least = ml_dtypes.finfo(kind).smallest_subnormal
    one = np.array([1.0, 0.0, 0.0, least], kind)
    other = np.array([1.0 + float(ml_dtypes.finfo(kind).eps), -0.0, -least, -least], kind)
    assert ulp_distance(one, other).tolist() == [1.0, 0.0, 1.0, 2.0]


def test_sets_are_pooled_and_equal_ones_are_perfect():
    one, two = np.ones((1, 3), np.float32), np.full((2, 3), 2.0, np.float32)
    same = metrics_of("y", [(one, one), (two, two)])
    assert (same.snr_db, same.cosine, same.max_ulp, same.tolerance) == (math.inf, 1.0, 0, 0)
    assert metrics_of("y", [(one, one), (two, two + 1)]).max_abs == 1.0


def test_what_cannot_be_subtracted_is_counted():
    before = np.array([1.0, np.inf, np.nan, 2.0], np.float32)
    after = np.array([np.nan, np.inf, np.nan, 2.0], np.float32)
    found = metrics_of("y", [(before, after)])
    assert found.changed == 1
    assert found.tolerance == math.inf
    words = metrics_of("y", [(np.array(["a", "b"]), np.array(["a", "c"]))])
    assert words.changed == 1
    assert metrics_of("y", [(np.array([1, 2]), np.array([1, 5]))]).max_abs == 3


def test_another_shape_is_all_changed():
    found = metrics_of("y", [(np.ones(3, np.float32), np.ones(4, np.float32))])
    assert found.changed == 4
