"""Ratios, intervals and verdicts: laws by property, error rates by simulation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnfold.measurement.stats import (
    FEWEST_PROCESSES,
    Ratio,
    compare,
    latency_of,
    paired_logs,
    ratio_of,
    settled,
    speed_shown,
)
from bnfold.records import Series, Speed, Turn

ORIGINAL, AGAIN, FOLDED = "original", "again", "folded"
Noise = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def series(arm: str, process: int, turns: list[list[int]]) -> Series:
    taken = tuple(Turn(index, 0, tuple(calls)) for index, calls in enumerate(turns))
    return Series(arm, process, 10, settled=True, turns=taken)


@st.composite
def two_arms(draw, fewest: int = FEWEST_PROCESSES) -> list[Series]:
    """Times of two arms, a millisecond or so, in several processes."""
    seed = draw(st.integers(0, 2**32 - 1))
    processes, turns, calls = (
        draw(st.integers(*ends)) for ends in ((fewest, 9), (1, 5), (1, 4))
    )
    spread = draw(st.sampled_from([0.0, 0.01, 0.3]))
    rng = np.random.default_rng(seed)
    return [
        series(
            arm,
            process,
            np.maximum(1e6 * (1 + spread * rng.normal(size=(turns, calls))), 1e4)
            .astype(int)
            .tolist(),
        )
        for process in range(processes)
        for arm in (ORIGINAL, FOLDED)
    ]


def scaled(one: Series, factor: int) -> Series:
    turns = [[ns * factor for ns in turn.calls_ns] for turn in one.turns]
    return series(one.arm, one.process, turns)


def only(found):
    (one,) = found
    return one


@given(two_arms(), st.integers(2, 50))
@settings(max_examples=40)
def test_times_of_an_arm_times_c_give_the_ratio_and_its_ends_times_c(measured, factor):
    before = only(compare(measured, ORIGINAL, "", 0.95, 1))
    slowed = [scaled(one, factor) if one.arm == FOLDED else one for one in measured]
    after = only(compare(slowed, ORIGINAL, "", 0.95, 1))
    for name in ("ratio", "low", "high"):
        expected = factor * getattr(before, name)
        assert getattr(after, name) == pytest.approx(expected, rel=1e-9)
    assert after.detectable == pytest.approx(before.detectable, rel=1e-6, abs=1e-9)


@given(two_arms(), st.integers(2, 50))
@settings(max_examples=20)
def test_a_slower_machine_changes_nothing(measured, factor):
    slowed = [scaled(one, factor) for one in measured]
    assert only(compare(slowed, ORIGINAL, "", 0.95, 1)).ratio == pytest.approx(
        only(compare(measured, ORIGINAL, "", 0.95, 1)).ratio, rel=1e-9
    )


@given(two_arms())
@settings(max_examples=40)
def test_swapping_arm_and_base_inverts(measured):
    one = only(compare(measured, ORIGINAL, "", 0.95, 1))
    other = only(compare(measured, FOLDED, "", 0.95, 1))
    assert other.ratio == pytest.approx(1 / one.ratio, rel=1e-9)
    assert other.low <= other.ratio <= other.high
    assert other.detectable == pytest.approx(one.detectable, rel=1e-6, abs=1e-9)


@given(two_arms(), st.randoms(use_true_random=False))
@settings(max_examples=20)
def test_the_order_of_processes_does_not_matter_for_the_ratio(measured, random):
    shuffled = list(measured)
    random.shuffle(shuffled)
    assert only(compare(shuffled, ORIGINAL, "", 0.95, 1)).ratio == pytest.approx(
        only(compare(measured, ORIGINAL, "", 0.95, 1)).ratio, rel=1e-12
    )


@given(two_arms())
@settings(max_examples=20)
def test_identical_times_give_exactly_one_and_no_difference(measured):
    bases = [one for one in measured if one.arm == ORIGINAL]
    copies = [dataclasses.replace(one, arm=FOLDED) for one in bases]
    found = only(compare([*bases, *copies], ORIGINAL, "", 0.95, 1))
    assert (found.low, found.ratio, found.high, found.detectable) == (1, 1, 1, 0)
    assert found.verdict is Speed.NO_DIFFERENCE


@given(two_arms(), st.sampled_from([0.5, 0.8, 0.9, 0.99]), st.integers(0, 9))
@settings(max_examples=40)
def test_the_ratio_is_inside_its_interval(measured, confidence, seed):
    found = only(compare(measured, ORIGINAL, "", confidence, seed))
    assert 0 < found.low <= found.ratio <= found.high
    assert found.detectable >= 0
    assert found.confidence == confidence
    assert found.processes == len({one.process for one in measured})


@given(two_arms())
@settings(max_examples=20)
def test_more_confidence_never_narrows(measured):
    wide = only(compare(measured, ORIGINAL, "", 0.99, 1))
    narrow = only(compare(measured, ORIGINAL, "", 0.8, 1))
    assert wide.low <= narrow.low
    assert narrow.high <= wide.high


@given(two_arms())
@settings(max_examples=20)
def test_turns_that_only_one_arm_took_are_ignored(measured):
    before = compare(measured, ORIGINAL, "", 0.95, 1)
    alone = Turn(99, 0, (5_000_000_000,))
    longer = [
        dataclasses.replace(one, turns=(*one.turns, alone)) if one.arm == FOLDED else one
        for one in measured
    ]
    stray = Series(FOLDED, 1000, 10, settled=True, turns=(alone,))
    assert compare([*longer, stray], ORIGINAL, "", 0.95, 1) == before


def test_turns_are_paired_by_their_number_and_not_by_their_place():
    ours = (Turn(2, 0, (800,)), Turn(1, 1, (7,)), Turn(0, 0, (300,)))
    theirs = (Turn(0, 0, (100,)), Turn(2, 1, (400,)))
    arm = Series("a", 0, 1, settled=True, turns=ours)
    base = Series("b", 0, 1, settled=True, turns=theirs)
    assert sorted(np.exp(paired_logs(arm, base))) == pytest.approx([2, 3])


@pytest.mark.parametrize("count", [0, 1, 2, FEWEST_PROCESSES - 1])
def test_too_few_processes_are_not_measured(count):
    measured = [
        one
        for process in range(count)
        for one in (series(ORIGINAL, process, [[100]]), series(FOLDED, process, [[300]]))
    ]
    measured.append(series(FOLDED, 99, [[300]]))
    found = only(compare(measured, ORIGINAL, "", 0.95, 0))
    assert found.verdict is Speed.NOT_MEASURED
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert math.isnan(found.detectable)
    assert found.processes == count
    assert math.isnan(found.ratio) if count == 0 else found.ratio == pytest.approx(3)


def test_a_ratio_of_one_process_is_refused():
    with pytest.raises(ValueError, match="two processes"):
        ratio_of([np.zeros(4)], 0.95)
    with pytest.raises(ValueError, match="two processes"):
        ratio_of([np.zeros(4), np.zeros(0)], 0.95)


def disturbed(one: Series) -> list[list[int]]:
    """One turn a thousand times as long, and one call of each of the others."""
    return [[10**6] * 5, *[[*turn.calls_ns[:4], 10**6] for turn in one.turns[1:]]]


def test_one_wild_call_or_turn_does_not_move_the_ratio():
    rng = np.random.default_rng(0)
    quiet = [
        series(arm, process, rng.integers(990, 1010, (9, 5)).tolist())
        for process in range(8)
        for arm in (ORIGINAL, FOLDED)
    ]
    loud = [
        series(one.arm, one.process, disturbed(one)) if one.arm == FOLDED else one
        for one in quiet
    ]
    assert only(compare(loud, ORIGINAL, "", 0.95, 0)).ratio == pytest.approx(1, abs=0.01)


def ratio(low: float, high: float) -> Ratio:
    return Ratio(math.sqrt(low * high), low, high, 0.1)


@pytest.mark.parametrize(
    ("base", "copy", "verdict"),
    [
        ((0.8, 0.9), None, Speed.FASTER),
        ((0.8, 0.9), (0.85, 0.99), Speed.FASTER),
        ((0.8, 0.9), (0.85, 1.01), Speed.NO_DIFFERENCE),
        ((0.8, 0.9), (1.1, 1.2), Speed.NO_DIFFERENCE),
        ((1.1, 1.2), (1.01, 1.3), Speed.SLOWER),
        ((1.1, 1.2), (0.99, 1.3), Speed.NO_DIFFERENCE),
        ((0.9, 1.1), (1.1, 1.3), Speed.NO_DIFFERENCE),
        ((0.9, 1.0), None, Speed.NO_DIFFERENCE),
        ((1.0, 1.2), None, Speed.NO_DIFFERENCE),
    ],
)
def test_a_difference_needs_both_witnesses(base, copy, verdict):
    assert speed_shown(ratio(*base), copy and ratio(*copy)) is verdict


def test_half_the_width_is_a_fraction_of_the_ratio():
    assert ratio(0.99, 1.01).half_width == pytest.approx(0.01, rel=0.01)
    assert ratio(1.98, 2.02).half_width == pytest.approx(0.01, rel=0.01)
    assert ratio(0.0, 1.0).half_width == math.inf


@given(two_arms(fewest=1), st.sampled_from([None, 1, 8]))
@settings(max_examples=30)
def test_latency_is_what_numpy_says_of_all_calls(measured, batch):
    calls = [
        ns for one in measured if one.arm == FOLDED for t in one.turns for ns in t.calls_ns
    ]
    found = latency_of(FOLDED, measured, batch)
    times = np.array(calls) / 1e6
    assert found.calls == len(calls)
    expected = [*np.percentile(times, [50, 90, 99]), times.mean()]
    assert [found.p50_ms, found.p90_ms, found.p99_ms, found.mean_ms] == pytest.approx(expected)
    assert found.items_per_s == pytest.approx((batch or 1) / (times.mean() / 1e3))


def test_the_latency_of_an_arm_that_was_never_timed_is_an_error():
    with pytest.raises(ValueError, match="folded was never timed"):
        latency_of(FOLDED, [series(ORIGINAL, 0, [[1]])], 1)


# Error rates. A process has an offset of its own, a turn has noise.

NOISES: dict[str, Noise] = {
    "normal": lambda rng, size: rng.normal(size=size),
    "t3": lambda rng, size: rng.standard_t(3, size=size) / math.sqrt(3),
    "spiky": lambda rng, size: (
        rng.normal(size=size) + (rng.random(size) < 0.1) * rng.exponential(5, size)
    ),
}
REPEATS = 400
LEAST_COVER, MOST_COVER = 0.895, 0.995
BETWEEN, WITHIN, TURNS = 0.01, 0.03, 9


def thorough(value):
    """A simulation that others stand for in `make test`."""
    return pytest.param(value, marks=pytest.mark.thorough)


def logs_of(noise: Noise, rng: np.random.Generator, processes: int) -> np.ndarray:
    """Logarithms of ratios of two arms that take the same time: processes × turns."""
    between = noise(rng, (processes, 1)) - noise(rng, (processes, 1))
    within = noise(rng, (processes, TURNS)) - noise(rng, (processes, TURNS))
    return BETWEEN * between + WITHIN * within


@pytest.mark.parametrize("processes", [6, thorough(8), 12])
@pytest.mark.parametrize("noise", NOISES)
def test_intervals_hold_about_as_often_as_they_claim(noise, processes):
    rng = np.random.default_rng(processes)
    found = [
        ratio_of(list(logs_of(NOISES[noise], rng, processes)), 0.95, seed)
        for seed in range(REPEATS)
    ]
    covered = np.mean([one.low <= 1 <= one.high for one in found])
    assert LEAST_COVER <= covered <= MOST_COVER


def synthetic(
    noise: Noise, rng: np.random.Generator, processes: int, slower: float
) -> list[Series]:
    """The base, its null run, and an arm that takes ``1 + slower`` times as long."""
    factors = {ORIGINAL: 1.0, AGAIN: 1.0, FOLDED: 1 + slower}
    found = []
    for process in range(processes):
        for arm, factor in factors.items():
            logs = BETWEEN * noise(rng, ()) + WITHIN * noise(rng, (TURNS,))
            calls = [[int(1e7 * factor * math.exp(one))] for one in logs]
            found.append(series(arm, process, calls))
    return found


def verdicts(
    noise: str, processes: int, slower: float, repeats: int
) -> list[dict[str, Speed]]:
    rng = np.random.default_rng(7 * processes)
    return [
        {
            one.arm: one.verdict
            for one in compare(
                synthetic(NOISES[noise], rng, processes, slower), ORIGINAL, AGAIN, 0.95, seed
            )
        }
        for seed in range(repeats)
    ]


@pytest.mark.parametrize("processes", [6, thorough(10)])
@pytest.mark.parametrize("noise", NOISES)
def test_a_copy_is_rarely_called_a_difference(noise, processes):
    """The arm has two witnesses; of the null run itself only the interval is asked."""
    found = verdicts(noise, processes, 0.0, 200)
    alarms = {
        arm: np.mean([one[arm] is not Speed.NO_DIFFERENCE for one in found])
        for arm in (FOLDED, AGAIN)
    }
    assert alarms[FOLDED] <= 0.05
    assert alarms[AGAIN] <= 0.105


@pytest.mark.parametrize("processes", [6, thorough(12)])
def test_what_is_called_detectable_is_found_in_about_four_of_five_runs(processes):
    """It needs two witnesses, and still is what the report says of it."""
    rng = np.random.default_rng(processes)
    typical = np.median(
        [
            compare(
                synthetic(NOISES["normal"], rng, processes, 0.0), ORIGINAL, AGAIN, 0.95, seed
            )[-1].detectable
            for seed in range(100)
        ]
    )
    found = verdicts("normal", processes, float(typical), 200)
    power = np.mean([one[FOLDED] is Speed.SLOWER for one in found])
    assert 0.7 <= power <= 0.95
    assert not any(one[FOLDED] is Speed.FASTER for one in found)


@pytest.mark.parametrize("processes", [thorough(6), 12])
def test_with_one_witness_it_is_found_as_often(processes):
    noise, rng = NOISES["normal"], np.random.default_rng(processes)
    drawn = [list(logs_of(noise, rng, processes)) for _ in range(REPEATS)]
    typical = np.median([ratio_of(logs, 0.95).detectable for logs in drawn])
    shift = math.log1p(float(typical))
    found = [ratio_of([one + shift for one in logs], 0.95).low > 1 for logs in drawn]
    assert 0.7 <= np.mean(found) <= 0.9


@pytest.mark.parametrize("runs", [50, thorough(150)])
def test_stopping_when_it_looks_precise_keeps_the_error_rates(runs):
    """The interval is looked at after every process; that must not spoil what it claims."""
    rng = np.random.default_rng(2)
    covered, alarms = [], []
    for spread in (0.005, 0.009, 0.013):
        for _ in range(runs):
            base, again, arm = (rng.normal(0, spread, 20) for _ in range(3))
            against, null, copy = arm - base, again - base, arm - again
            for count in range(FEWEST_PROCESSES, 21):
                shown, quiet = (
                    ratio_of([np.array([log]) for log in logs[:count]], 0.95)
                    for logs in (against, null)
                )
                if shown.half_width <= 0.01 and quiet.half_width <= 0.01:
                    break
            other = ratio_of([np.array([log]) for log in copy[:count]], 0.95)
            covered.append(shown.low <= 1 <= shown.high)
            alarms.append(speed_shown(shown, other) is not Speed.NO_DIFFERENCE)
    assert np.mean(covered) >= LEAST_COVER
    assert np.mean(alarms) <= 0.05


# When a warm-up has settled.


@given(st.floats(1, 1e9), st.integers(1, 20), st.integers(0, 30))
def test_constant_times_have_settled_after_two_windows(time, window, more):
    assert not settled([time] * (2 * window - 1), window, 0.03)
    assert settled([time] * (2 * window + more), window, 0.03)


@given(st.lists(st.floats(1, 1e6), min_size=10, max_size=40), st.floats(1.01, 100))
def test_the_unit_does_not_matter(times, factor):
    assert settled(times, 5, 0.05) == settled([factor * one for one in times], 5, 0.05)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([2.0] * 5 + [1.0] * 5, False),
        ([1.0] * 5 + [2.0] * 5, False),
        ([9.0] * 5 + [1.0] * 10, True),
        ([1.0, 1.0, 1.0, 80.0, 90.0] * 2, True),
        ([1.029] * 5 + [1.0] * 5, True),
        ([1.031] * 5 + [1.0] * 5, False),
        ([100 * 0.99**k for k in range(10)], False),
    ],
)
def test_settled_compares_the_medians_of_the_last_two_windows(times, expected):
    assert settled(times, 5, 0.03) is expected
