from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.gpu import planner
from benchmarks.gpu.planner import Pass, Past

_SECONDS = st.floats(0.1, 1000)


def test_all_networks_at_batch_1_and_32_come_first():
    tasks = planner.plan(["a", "b"], planner.PASSES)
    assert [task.key for task in tasks[:4]] == [
        "a batch 1 model",
        "b batch 1 model",
        "a batch 32 model",
        "b batch 32 model",
    ]


def test_every_batch_type_and_graph_is_planned_once():
    tasks = planner.plan(["a"], planner.PASSES)
    assert len({task.key for task in tasks}) == len(tasks) == 3 * 2 * 2


def test_what_an_earlier_run_measured_is_left_out():
    tasks = planner.plan(["a", "b"], [Pass(1)], frozenset({"a batch 1 model"}))
    assert [task.net for task in tasks] == ["b"]


def test_a_cpu_has_no_cuda_graphs_to_try():
    assert not any(one.cuda_graph for one in planner.DRY_PASSES)


def test_plenty_of_time_is_shared_evenly():
    assert planner.share_s(100, 4, needed=5, longest_s=60) == 25


def test_none_takes_more_than_the_longest_share_unless_it_needs_more():
    assert planner.share_s(1000, 2, needed=5, longest_s=60) == 60
    assert planner.share_s(1000, 2, needed=90, longest_s=60) == 90


def test_short_time_goes_to_the_first():
    assert planner.share_s(100, 50, needed=30, longest_s=60) == 30


def test_a_measurement_that_could_not_end_is_not_begun():
    assert planner.share_s(29, 50, needed=30, longest_s=60) is None
    assert planner.share_s(-1, 1, needed=0, longest_s=60) is None


@given(st.floats(-10, 1000), st.integers(1, 200), _SECONDS, _SECONDS)
def test_no_share_goes_beyond_what_is_left(left, tasks, needed, longest):
    share = planner.share_s(left, tasks, needed, longest)
    assert share is None or needed <= share <= left


@given(st.lists(_SECONDS, min_size=1, max_size=60), st.floats(10, 700))
def test_the_plan_never_outlasts_the_time(costs, budget):
    left = budget
    for index, needed in enumerate(costs):
        share = planner.share_s(left, len(costs) - index, needed, 60)
        left -= share or 0
    assert left >= -1e-6


def test_without_experience_the_first_guess_counts():
    assert planner.needed_s("a", [], 60) == 60
    assert planner.needed_s("a", [Past("a", 9, 0)], 60) == 60


def test_too_few_processes_ask_for_more_time():
    assert planner.needed_s("a", [Past("a", 30, 3)], 60) == pytest.approx(1.1 * 30 * 9 / 6)


def test_more_processes_than_needed_ask_for_less():
    assert planner.needed_s("a", [Past("a", 40, 15)], 60) == pytest.approx(1.1 * 40 / 2)


def test_a_network_is_judged_by_itself_before_others():
    past = [Past("slow", 60, 6), Past("fast", 10, 6)]
    assert planner.needed_s("fast", past, 60) == pytest.approx(11)
    assert 11 < planner.needed_s("new", past, 60) < 66


def test_what_is_put_off_comes_before_the_next_pass():
    first, second, third = planner.plan(["a", "b", "c"], [Pass(1)])
    later = planner.plan(["a"], [Pass(32)])
    assert planner.put_off([second, third, *later], first) == [second, third, first, *later]
    assert planner.put_off([], first) == [first]


def test_a_section_takes_its_share_and_leaves_the_rest():
    assert planner.section_s(90, [1, 2, 6]) == pytest.approx(10)
    assert planner.section_s(80, [6]) == 80
    assert planner.section_s(80, [0]) == 80
