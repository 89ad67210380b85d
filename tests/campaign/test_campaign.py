"""The campaign in short: no right fold is refused, no wrong or forged one passes.

Seeds are fixed: those that cost little of each source, and between them every type, every
operator that absorbs a map, every kind of fault and every forgery.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest

from benchmarks.campaign.counts import Counts
from benchmarks.campaign.work import Task, done
from tests.campaign.seeds import FEW, FORGED, SEEDS, SLOW_SUITE, SUITE

LEAST_FOLDED = 0.8
"""Share of models that fold: which those are is for other tests."""
LEAST_NAMED = 0.98
"""Share of mutants whose node is named right without the certificate of the right fold."""
MOST_OPEN = 0.1
"""Share of right folds of which a judge may say that it cannot tell."""


def tasks_of(source: str, seeds: Iterable[int]) -> list[Task]:
    return tasks_for((source, seed) for seed in seeds)


def tasks_of_suite(cases: Mapping[str, Iterable[int]]) -> list[Task]:
    return tasks_for((f"suite:{name}", n) for name, which in cases.items() for n in which)


def tasks_for(pairs: Iterable[tuple[str, int]]) -> list[Task]:
    return [Task(*pair, mutants=1, forgeries=2 if pair in FORGED else 0) for pair in pairs]


def problems(counts: Counts) -> dict[str, list[str]]:
    """Everything that must not be, and the seeds that show it."""
    tallies = {
        "right fold": (counts.right, ("refused", "crashed")),
        "mutant": (counts.mutants, ("passed", "crashed")),
        "forgery": (counts.forged, ("passed", "crashed")),
    }
    found = {
        f"{what}, {which}": told
        for what, (tally, words) in tallies.items()
        for which, told in tally.faults.items()
        if which.rpartition(": ")[2] in words
    }
    found["quiet mutant, certificate"] = counts.quiet.faults["certificate: passed"]
    found["wrong fold or error"] = counts.wrong
    return {what: told for what, told in found.items() if told}


@pytest.mark.parametrize("source", FEW)
def test_no_right_fold_is_refused_and_no_wrong_one_passes(source):
    check(tasks_of(source, FEW[source]))


@pytest.mark.parametrize(
    "cases", [SUITE, pytest.param(SLOW_SUITE, marks=pytest.mark.thorough)], ids=["few", "slow"]
)
def test_of_the_suite_of_onnx_none_is_judged_wrongly(cases):
    check(tasks_of_suite(cases))


@pytest.mark.thorough
@pytest.mark.parametrize("source", SEEDS)
def test_of_more_graphs_none_is_judged_wrongly(source):
    assert set(FEW[source]) <= set(SEEDS[source])
    check(tasks_of(source, SEEDS[source]))


def check(tasks: list[Task]) -> None:
    counts = Counts()
    for task in tasks:
        counts.add(done(task))
    right, mutants, _ = counts.progress()
    assert problems(counts) == {}
    assert right >= LEAST_FOLDED * len(tasks)
    assert mutants >= right / 2
    for judge, words in counts.right.words.items():
        open_ones = counts.right.faults[f"{judge}: inconclusive"]
        assert len(open_ones) <= MOST_OPEN * words.total(), open_ones
    for judge, words in counts.named.words.items():
        least = 1.0 if judge == "certificate" else LEAST_NAMED
        assert words["right"] >= least * words.total(), counts.named.faults
