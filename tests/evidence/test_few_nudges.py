"""Little time leaves few nudges: what they do not move has no noise of nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bnfold.evidence.compare import Deviation, Scale
from bnfold.evidence.judge import Trial, judge, judge_proved
from bnfold.evidence.noise import Draw, Pattern
from bnfold.evidence.readings import Measure, Readings
from bnfold.evidence.weigh import trials_of


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


@pytest.mark.parametrize(
    ("step", "count", "passed"), [(0.0, 1, False), (0.06, 1, True), (0.06, 1000, False)]
)
def test_one_number_next_to_a_tie_is_a_step_of_the_quantiser(step, count, passed):
    """Of 1024 numbers no nudge moved any; one of the folded model is beyond a tie.

    Negative control: were most of them moved by a step, it would be no tie.
    """
    ulp = 2.0**-24
    still = Deviation(np.zeros(1), 0.0, 0, 0.0, 0)
    scale = Scale(np.array([1024.0]), 1.0, 1024, ulp, 1.2e-38)
    accused = Deviation(np.array([count * 0.06**2]), 0.06, 0, 0.06, 0)
    trial = Trial(scale, (still,) * 4, (), accused, step=step)
    for how in (judge, judge_proved):
        assert how("y", [trial], ulp).passed is passed


def test_the_step_behind_a_quantiser_is_what_noise_shows_on_any_set_of_inputs():
    still, moved = Deviation(np.zeros(1), 0.0, 0, 0.0, 0), Deviation(np.ones(1), 0.25, 0, 0, 0)
    draw = Draw(1, Pattern.EACH, 2.0**-8)
    measure = Measure(Scale(np.array([64.0]), 1.0, 64, 2.0**-24, 1e-38), (1, 64), 0, 1.0)
    for behind, step in ((frozenset({0}), 0.25), (frozenset[int](), 0.0)):
        seen = replace(draw, unit=draw.unit if behind else 0.0)
        readings = Readings(
            names=("y",), own_outputs=1, fronts={}, behind=behind, exact=frozenset(),
            reference=({0: measure},) * 2, noise={seen: ({0: still}, {0: moved})}, own=(),
            accused=({0: moved}, {0: still}), selves={}, coarsest=2.0**-24,
        )  # fmt: skip
        assert [trial.step for _, trial in trials_of(readings, 0)] == [step] * 2
