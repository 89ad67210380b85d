"""Little time leaves few nudges: what they do not move has no noise of nothing."""

from __future__ import annotations

import numpy as np
import pytest

from bnfold.evidence.compare import Deviation, Scale
from bnfold.evidence.judge import Trial, judge


@pytest.mark.parametrize(
    ("draws", "off", "passed"),
    [(1, 3e-8, True), (3, 3e-8, True), (1, 1e-5, False), (4, 3e-8, False)],
)
def test_few_nudges_that_move_nothing_are_no_noise_of_nothing(draws, off, passed):
    """A Sigmoid of 2e-5 goes in steps of 3e-8, and one nudge reached none of them."""
    ulp = 2.0**-24
    still = Deviation(np.zeros(1), 0.0, 0, 0.0, 0)
    scale = Scale(np.array([1.9e-9]), 2.5e-5, 3, ulp, 1.2e-38)
    accused = Deviation(np.array([3 * off**2]), off, 0, off, 0)
    trial = Trial(scale, (still,) * draws, (), accused)
    assert judge("y", [trial], ulp).passed is passed
