"""The campaign in short: no right fold is refused, no wrong or forged one passes.

Seeds are fixed: those that cost little of each source, and between them every type, every
operator that absorbs a map, every kind of fault and every forgery.
"""

from __future__ import annotations

import pytest

from benchmarks.campaign.counts import Counts
from benchmarks.campaign.work import Task, done
from tests.campaign.seeds import FORGED, SEEDS

LEAST_NAMED = 0.99
MOST_OPEN = 0.1
"""Share of right folds of which a judge may say that it cannot tell."""


def counts_of(source: str) -> Counts:
    counts = Counts()
    for seed in SEEDS[source]:
        forgeries = 2 if (source, seed) in FORGED else 0
        counts.add(done(Task(source, seed, mutants=1, forgeries=forgeries)))
    return counts


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


@pytest.mark.parametrize("source", sorted(SEEDS))
def test_no_right_fold_is_refused_and_no_wrong_one_passes(source):
    counts = counts_of(source)
    right, mutants, _ = counts.progress()
    assert problems(counts) == {}
    assert right == len(SEEDS[source])
    assert mutants
    for judge, words in counts.right.words.items():
        open_ones = counts.right.faults[f"{judge}: inconclusive"]
        assert len(open_ones) <= MOST_OPEN * words.total(), open_ones
    for words in counts.named.words.values():
        assert words["right"] >= LEAST_NAMED * words.total(), counts.named.faults
