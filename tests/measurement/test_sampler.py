"""The order of calls, by a clock that only the calls move."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain, permutations, repeat

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnfold.measurement.sampler import calls_per_turn, take_turn, time_one, warm_up

MS = 1_000_000


class Clock:
    """Nanoseconds that go by only while something is called."""

    def __init__(self) -> None:
        self.now = 17
        self.asked = 0

    def __call__(self) -> int:
        self.asked += 1
        return self.now


class Work:
    """A call that takes the times it was given, one after the other."""

    def __init__(self, clock: Clock, times: Iterator[int], log: list[str], name: str) -> None:
        self.clock, self.times, self.log, self.name = clock, times, log, name

    def __call__(self) -> None:
        self.log.append(self.name)
        self.clock.now += next(self.times)


def work(clock: Clock, *times: int, log: list[str] | None = None, name: str = "") -> Work:
    """A call with these times; the last one is repeated for ever."""
    return Work(clock, chain(times, repeat(times[-1])), [] if log is None else log, name)


def several(clock: Clock, log: list[str], **times: int) -> dict[str, Work]:
    return {name: work(clock, ns, log=log, name=name) for name, ns in times.items()}


def test_a_call_takes_what_the_clock_says():
    clock = Clock()
    assert time_one(work(clock, 42), clock) == 42
    assert clock.asked == 2


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 90 * MS), min_size=1),
    st.integers(0, 99),
)
def test_every_arm_is_timed_once_in_a_turn_and_its_place_is_recorded(times, seed):
    clock, log = Clock(), []
    arms = several(clock, log, **times)
    taken = take_turn(arms, times, np.random.default_rng(seed), clock)
    order = list(dict.fromkeys(log))
    assert sorted(taken) == sorted(times)
    assert [taken[name].place for name in order] == list(range(len(times)))
    for name, one in taken.items():
        assert one.calls_ns == (times[name],) * calls_per_turn(times[name])
        uncounted = times[name] < 20 * MS
        assert log.count(name) == len(one.calls_ns) + uncounted
    assert log == [name for name in order for _ in range(log.count(name))]


def test_the_uncounted_call_of_a_short_arm_is_its_first():
    clock = Clock()
    arms = {"a": work(clock, 99 * MS, 3 * MS, 2 * MS), "b": work(clock, 99 * MS, 20 * MS)}
    typical = {"a": 3 * MS, "b": 20 * MS}
    taken = take_turn(arms, typical, np.random.default_rng(0), clock)
    assert taken["a"].calls_ns == (3 * MS, 2 * MS)
    assert taken["b"].calls_ns == (99 * MS,)


def test_all_orders_occur_about_as_often():
    clock, log = Clock(), []
    times = {"a": MS, "b": 2 * MS, "c": 3 * MS}
    arms, rng = several(clock, log, **times), np.random.default_rng(5)
    orders: Counter[tuple[str, ...]] = Counter()
    for _ in range(600):
        taken = take_turn(arms, times, rng, clock)
        orders[tuple(sorted(taken, key=lambda name: taken[name].place))] += 1
    assert set(orders) == set(permutations("abc"))
    assert min(orders.values()) > 65


def test_the_order_is_that_of_the_seed():
    def places(seed: int) -> list[int]:
        clock = Clock()
        times = dict.fromkeys("abcdefgh", MS)
        taken = take_turn(
            several(clock, [], **times), times, np.random.default_rng(seed), clock
        )
        return [taken[name].place for name in times]

    assert places(1) == places(1)
    assert places(1) != places(2)


@given(st.integers(1, 10**12))
def test_a_turn_is_neither_empty_nor_long(typical_ns):
    count = calls_per_turn(typical_ns)
    assert 1 <= count <= 32
    assert count == 1 or count * typical_ns <= 6 * MS
    assert calls_per_turn(2 * typical_ns) <= count


@given(
    st.lists(st.integers(1, 50 * MS), min_size=1, max_size=60),
    st.integers(0, 400 * MS),
)
@settings(max_examples=60)
def test_warming_up_ends_no_later_than_one_call_beyond_its_time(times, most_ns):
    clock = Clock()
    begun = clock.now
    warmth = warm_up(work(clock, *times), clock, most_ns)
    assert clock.now - begun <= max(most_ns, 0) + max(times)
    assert warmth.calls >= 1
    assert 1 <= warmth.typical_ns <= max(times)


@pytest.mark.parametrize(
    ("ns", "window"),
    [(10 * MS, 5), (300 * MS, 5), (MS, 20), (40_000, 500), (1_000, 500)],
)
def test_steady_times_settle_after_two_windows_of_20_ms(ns, window):
    clock = Clock()
    warmth = warm_up(work(clock, ns), clock, 10**12)
    assert warmth.settled
    assert warmth.calls == 2 * window
    assert warmth.typical_ns == ns


def test_one_slow_first_call_does_not_shorten_the_window():
    clock = Clock()
    warmth = warm_up(work(clock, 60 * MS, MS), clock, 10**12)
    assert warmth.settled
    assert 40 <= warmth.calls <= 41
    assert warmth.typical_ns == MS


def test_windows_do_not_overlap_so_that_there_are_not_many_looks():
    """Windows that slide would call it settled after 13 calls."""
    clock = Clock()
    warmth = warm_up(work(clock, *[20 * MS] * 5, 10 * MS), clock, 10**12)
    assert warmth.calls == 15


def test_falling_times_have_not_settled_before_they_stop_falling():
    clock = Clock()
    falling = [int(100 * MS * 0.97**k) for k in range(40)]
    warmth = warm_up(work(clock, *falling), clock, 10**13)
    assert warmth.settled
    assert warmth.calls > 40
    assert warmth.typical_ns <= 1.03 * falling[-1]


def test_times_that_never_settle_end_with_the_time_and_say_so():
    clock = Clock()
    times = (int(10 * MS * 1.2**k) for k in range(1000))
    warmth = warm_up(Work(clock, times, [], ""), clock, 500 * MS)
    assert not warmth.settled
    assert clock.now >= 500 * MS


def test_without_any_time_an_arm_is_still_called_once():
    clock = Clock()
    warmth = warm_up(work(clock, 7), clock, 0)
    assert (warmth.calls, warmth.settled, warmth.typical_ns) == (1, False, 7)


def test_a_clock_that_stands_still_does_not_stop_it():
    clock = Clock()
    warmth = warm_up(work(clock, 0), clock, MS)
    assert warmth.settled
    assert warmth.typical_ns == 1
    assert calls_per_turn(warmth.typical_ns) == 32
