"""Time shared out among processes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bnfold.measurement.budget import Spent, is_time_over, next_sampling_s
from bnfold.measurement.stats import FEWEST_PROCESSES

LEFT = st.floats(-100, 1e5)


@st.composite
def spents(draw, most: int = 12) -> list[Spent]:
    """What processes took; a clock may say that one took no longer than its samples."""
    pairs = st.tuples(st.floats(0, 60), st.floats(0, 10))
    return [
        Spent(beside + sampling, sampling)
        for beside, sampling in draw(st.lists(pairs, max_size=most))
    ]


@given(LEFT, spents())
def test_a_process_samples_neither_nothing_nor_for_ever(left_s, spent):
    assert 0.3 <= next_sampling_s(left_s, spent) <= 6


@given(LEFT, spents(), st.integers(1, 9))
def test_every_case_has_its_share(left_s, spent, cases):
    assert 0.3 * cases <= next_sampling_s(left_s, spent, cases) <= 6 * cases
    if is_time_over(left_s, spent, insist=False):
        assert is_time_over(left_s, spent, cases, insist=False)
    if spent and not is_time_over(left_s, spent, cases, insist=False):
        beside_s = sum(one.whole_s - one.sampling_s for one in spent) / len(spent)
        assert beside_s + 0.3 * cases <= left_s + 1e-6


def test_the_shortest_process_samples_every_case_a_little():
    spent = [Spent(2.0, 1.0)]
    assert is_time_over(2.1, spent, 4, insist=False)
    assert not is_time_over(2.3, spent, 4, insist=False)
    assert not is_time_over(1.31, spent, insist=False)


@given(LEFT)
def test_the_first_process_is_short(left_s):
    assert next_sampling_s(left_s, []) <= 0.6


@given(st.floats(0.3, 1e5), spents())
def test_it_stays_within_the_time_that_is_left_when_it_can(left_s, spent):
    sampling_s = next_sampling_s(left_s, spent)
    beside_s = sum(one.whole_s - one.sampling_s for one in spent) / max(len(spent), 1)
    assert sampling_s <= max(left_s - beside_s, 0.3) + 1e-6


@given(st.floats(0, 30), st.floats(5, 500))
def test_the_time_is_enough_for_the_processes_that_an_interval_needs(beside_s, total_s):
    """Wherever the shortest samples of six fit at all, the plan has room for six."""
    left_s, spent = total_s, list[Spent]()
    while not is_time_over(left_s, spent, insist=False):
        sampling_s = next_sampling_s(left_s, spent)
        spent.append(Spent(beside_s + sampling_s, sampling_s))
        left_s -= beside_s + sampling_s
    if FEWEST_PROCESSES * (beside_s + 0.6) < total_s:
        assert len(spent) >= FEWEST_PROCESSES
    assert left_s > -(beside_s + 0.61)


@given(LEFT, spents(most=FEWEST_PROCESSES - 1))
def test_who_insists_goes_on_to_an_interval_whatever_the_time(left_s, spent):
    assert not is_time_over(left_s, spent, insist=True)


@given(LEFT, st.lists(st.just(Spent(2.0, 1.0)), min_size=FEWEST_PROCESSES, max_size=20))
def test_and_no_further(left_s, spent):
    over = is_time_over(left_s, spent, insist=True)
    assert over is is_time_over(left_s, spent, insist=False)
    assert over is (left_s < 1.3)


@given(LEFT, st.floats(0, 1e4), spents(), st.booleans())
def test_more_time_is_never_over_sooner(left_s, more_s, spent, insist):
    if is_time_over(left_s + more_s, spent, insist=insist):
        assert is_time_over(left_s, spent, insist=insist)
    assert next_sampling_s(left_s + more_s, []) >= next_sampling_s(left_s, [])


@given(spents())
def test_time_that_has_run_out_is_over(spent):
    assert is_time_over(-1e-9, spent, insist=False)


def test_the_first_process_is_tried_however_little_time_there_is():
    assert not is_time_over(0.0, [], insist=False)
