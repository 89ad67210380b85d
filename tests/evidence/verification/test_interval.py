"""The interval of an error ratio covers what it claims to cover."""

import math

import numpy as np
import pytest

from bnfold.evidence.verification.interval import ratio_interval


@pytest.mark.parametrize(("count", "least"), [(5, 0.88), (18, 0.90), (200, 0.92)])
def test_it_covers_the_true_ratio_as_often_as_it_says(count, least, rng):
    """Paired squared errors that vary by input and share the input's difficulty."""
    true, held, rounds = 2.0, 0, 300
    for index in range(rounds):
        hard = rng.lognormal(0.0, 0.5, count)
        below = hard * rng.chisquare(8, count) / 8
        above = true**2 * hard * rng.chisquare(8, count) / 8
        found = ratio_interval(above, below, seed=index)
        assert found.low <= found.ratio <= found.high
        held += found.low <= true <= found.high
    assert least <= held / rounds <= 0.995


def test_more_inputs_narrow_it(rng):
    widths = []
    for count in (6, 60, 600):
        found = ratio_interval(rng.chisquare(4, count), rng.chisquare(4, count))
        widths.append(math.log(found.high / found.low))
    assert widths[0] > 1.5 * widths[1] > 2 * widths[2]


def test_one_input_has_no_interval():
    found = ratio_interval(np.array([4.0]), np.array([1.0]))
    assert (found.ratio, found.low, found.high) == (2.0, 2.0, 2.0)


def test_exact_against_exact_is_one_and_wrong_against_exact_is_infinite():
    nothing, some = np.zeros(4), np.ones(4)
    assert ratio_interval(nothing, nothing).ratio == 1.0
    assert ratio_interval(some, nothing).low == math.inf
    assert ratio_interval(nothing, some).high == 0.0


def test_the_same_seed_gives_the_same_bounds(rng):
    above, below = rng.chisquare(4, 20), rng.chisquare(4, 20)
    assert ratio_interval(above, below, seed=3) == ratio_interval(above, below, seed=3)
    assert ratio_interval(above, below, seed=3) != ratio_interval(above, below, seed=4)
