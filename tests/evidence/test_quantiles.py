"""Quantiles agree with scipy, far into the tails."""

import importlib
import itertools
from types import ModuleType

import pytest

from bnfold.evidence.quantiles import binomial_tail, f_quantile, f_tail

SHARES = (0.5, 0.05, 1e-4, 1e-8, 1e-11)
FREEDOMS = (1.0, 1.7, 4.0, 33.3, 800.0, 2e5)


@pytest.fixture(scope="module")
def stats() -> ModuleType:
    """Loaded by who runs these tests, not by all who collect them: it takes a second."""
    return importlib.import_module("scipy.stats")


def test_quantiles_of_f_agree_with_scipy(stats: ModuleType) -> None:
    for share, above, below in itertools.product(SHARES, FREEDOMS, FREEDOMS):
        found, of = f_quantile(share, above, below), (share, above, below)
        assert found == pytest.approx(stats.f.isf(share, above, below), rel=1e-6), of
        assert f_tail(found, above, below) == pytest.approx(share, rel=1e-6), of


def test_a_known_variance_gives_the_chi_squared_distribution(stats: ModuleType) -> None:
    for share, above in itertools.product(SHARES, FREEDOMS[:-1]):
        found = f_quantile(share, above, float("inf"))
        assert found == pytest.approx(stats.chi2.isf(share, above) / above, rel=2e-3)


def test_tails_of_the_binomial_distribution_agree_with_scipy(stats: ModuleType) -> None:
    for least, trials, chance in ((0, 5, 0.3), (1, 5, 0.3), (6, 5, 0.3), (13, 13, 1 / 3)):
        expected = stats.binom.sf(least - 1, trials, chance)
        assert binomial_tail(least, trials, chance) == pytest.approx(expected)
    assert binomial_tail(900, 1000, 0.7) == pytest.approx(stats.binom.sf(899, 1000, 0.7))
