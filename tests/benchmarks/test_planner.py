from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.gpu import planner
from benchmarks.gpu.planner import Pass, Past, Task

_SECONDS = st.floats(0.1, 1000)


def test_every_network_at_batch_1_and_32_comes_first():
    tasks = planner.plan(["a", "b"], planner.PASSES)
    assert [task.key for task in tasks[:4]] == [
        "a batch 1,32 model",
        "b batch 1,32 model",
        "a batch 1,32 float16",
        "b batch 1,32 float16",
    ]


def test_every_batch_type_and_graph_is_planned_once():
    keys = [key for task in planner.plan(["a"], planner.PASSES) for key in task.case_keys]
    assert len(set(keys)) == len(keys) == 3 * 2 * 2


def test_what_an_earlier_run_measured_is_left_out_case_by_case():
    done = frozenset({"a batch 1 model", "a batch 32 model", "b batch 32 model"})
    (task,) = planner.plan(["a", "b"], [Pass((1, 32))], done)
    assert task.key == "b batch 1 model"


def test_a_task_of_one_batch_size_is_called_as_its_case():
    task = Task("a", Pass((8,), "float16", cuda_graph=True))
    assert task.case_keys == (task.key,) == ("a batch 8 float16 graph",)


def test_a_cpu_has_no_cuda_graphs_to_try():
    assert not any(one.cuda_graph for one in planner.DRY_PASSES)


def test_nothing_is_looked_at_that_the_profiler_does_not_see():
    assert not any(one.cuda_graph and one.details for one in planner.PASSES)


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


_ONE = Task("a", Pass((1,)))
_TWO = Task("a", Pass((1, 32)))


def _past(
    elapsed_s: float, processes: int = 6, task: Task = _ONE, *, details: bool = False
) -> Past:
    return Past(task, details, processes, elapsed_s, timed_s=0.0)


def _needed(task: Task, *past: Past, details: bool = False) -> float:
    """Without what samples take."""
    needed = planner.needed_s(task, past, 60, details=details)
    return needed - 6 * 0.6 * len(task.how.batches)


def test_without_experience_the_first_guess_counts():
    assert planner.needed_s(_ONE, [], 60, details=True) == 60
    assert planner.needed_s(_ONE, [_past(9, 0)], 60, details=False) == 60


def test_too_few_processes_ask_for_more_time():
    assert _needed(_ONE, _past(30, 3)) == pytest.approx(1.1 * 30 * 2)


def test_more_processes_than_needed_ask_for_less():
    assert _needed(_ONE, _past(40, 12)) == pytest.approx(1.1 * 40 / 2)


def test_a_batch_size_more_costs_less_than_a_task_of_its_own():
    assert _needed(_TWO, _past(30)) == pytest.approx(1.1 * 30 * 4 / 3)


def test_details_cost_processes_of_their_own():
    assert _needed(_TWO, _past(30, task=_TWO), details=True) == pytest.approx(1.1 * 30 * 1.5)
    assert _needed(_TWO, _past(45, task=_TWO, details=True)) == pytest.approx(1.1 * 30)


def test_samples_do_not_make_the_next_measurement_longer():
    long = Past(_ONE, details=False, processes=6, elapsed_s=90, timed_s=60)
    assert _needed(_ONE, long) == pytest.approx(1.1 * 30)


def test_a_network_is_judged_by_itself_before_others():
    past = [_past(60, task=Task("slow", _ONE.how)), _past(10, task=Task("fast", _ONE.how))]
    assert _needed(Task("fast", _ONE.how), *past) == pytest.approx(11)
    assert 11 < _needed(Task("new", _ONE.how), *past) < 66


@pytest.mark.parametrize(
    ("left_s", "affords"),
    [(200, True), (90, False), (70, False), (50, True)],
    ids=["plenty", "one network would miss its turn", "nearly enough", "far too short"],
)
def test_details_cost_no_network_its_turn(left_s, affords):
    """Two tasks of about 40 s; details are about 16 s more. Another pass does not matter."""
    queue = [Task("b", _TWO.how), Task("b", Pass((1, 32), "float16")), Task("b", Pass((8,)))]
    past = [_past(30, task=_TWO)]
    assert planner.affords_details(_TWO, queue, left_s, past) is affords


def test_what_is_put_off_comes_before_the_next_pass():
    first, second, third = planner.plan(["a", "b", "c"], [Pass((1, 32))])
    later = planner.plan(["a"], [Pass((1, 32), "float16")])
    short = first.at([32])
    assert planner.put_off([second, third, *later], short) == [second, third, short, *later]
    assert planner.put_off([], first) == [first]


def test_a_section_takes_its_share_and_leaves_the_rest():
    assert planner.section_s(90, [1, 2, 6]) == pytest.approx(10)
    assert planner.section_s(80, [6]) == 80
    assert planner.section_s(80, [0]) == 80
