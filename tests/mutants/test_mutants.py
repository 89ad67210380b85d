"""The mutation tool does what it says, and the judge convicts and acquits a small campaign."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest

from bnfold.records import Verdict
from tests.mutants.mutants import mutants_of
from tests.mutants.originals import FAMILIES, PRECISIONS, family_of, original_of
from tests.mutants.subject import floats_of, fold_of, same_bytes
from tests.mutants.trial import fold_of_seed, nursery_of, sentence

# What the issue names, and what else the tool knows.
KINDS = {
    *("axis", "epsilon forgotten", "epsilon 1e-3", "variance forgotten", "mean forgotten"),
    *("bias scale forgotten", "group order", "sign of one channel", "padding"),
    *("shift with the wrong sign", "beta forgotten", "stale weight", "stale bias"),
    *("channel by 1 %", "channel by 0.1 %", "rounded twice", "channels swapped"),
    *("element by 2 ulp", "alpha attribute", "strides", "axis attribute", "node bypassed"),
    *("input wired elsewhere", "constant that was not folded", "shift forgotten"),
    *("root forgotten", "mean with the wrong sign", "scale forgotten", "alpha forgotten"),
    *("scales of two channels swapped", "means of two channels swapped", "bias forgotten"),
    *("scale inverted", "inputs in another order"),
}
SEEDS = range(len(FAMILIES))
MLP_WITH_BETA = 33


LARGE = ("mixed", "residual", "attention")
SMALL = [seed for seed in SEEDS if family_of(seed) not in LARGE]


@pytest.fixture(scope="module")
def everything():
    """Mutants of every kind that one fold of each small family has."""
    found = []
    for seed in (*SMALL, MLP_WITH_BETA):
        fold = fold_of_seed(seed, "fp32")
        found += [(fold.folded, mutant) for mutant in nursery_of(fold, seed).sample(40)]
    return found


def test_all_mutants_of_a_fold_are_found():
    original = original_of(2)
    mutants = list(mutants_of(original, fold_of(original), np.random.default_rng(0)))
    assert len(mutants) > 15
    assert len({mutant.model.SerializeToString() for mutant in mutants}) == len(mutants)


def test_every_kind_occurs(everything):
    assert {mutant.kind for _, mutant in everything} >= KINDS


def test_mutants_are_valid_and_differ(everything):
    for folded, mutant in everything:
        onnx.checker.check_model(mutant.model)
        assert mutant.model.SerializeToString() != folded.SerializeToString()


def test_the_named_tensors_hold_the_change_and_no_others(everything):
    for folded, mutant in everything:
        before, after = dict(floats_of(folded)), dict(floats_of(mutant.model))
        changed = {name for name in before if not same_bytes(before[name], after[name])}
        assert changed == set(mutant.tensors)


def test_the_named_nodes_read_the_change_or_are_it(everything):
    for folded, mutant in everything:
        old, new = ({n.name: n for n in m.graph.node} for m in (folded, mutant.model))
        changed = {name for name in old if old[name] != new.get(name)}
        readers = {name for name, node in old.items() if set(node.input) & set(mutant.tensors)}
        assert changed | readers == set(mutant.nodes)
        assert mutant.node in mutant.nodes


def test_a_channel_fault_is_in_one_channel_only(everything):
    kinds = Counter(m.kind for _, m in everything if m.channel is not None)
    assert set(kinds) == {
        *("channel by 1 %", "channel by 0.1 %", "element by 2 ulp", "sign of one channel"),
    }


def test_the_same_seed_gives_the_same_mutants():
    one, two = (
        [(m.kind, m.nodes, m.model.SerializeToString()) for m in nursery_of(fold, 3).sample(5)]
        for fold in (fold_of_seed(3, "fp16"), fold_of_seed(3, "fp16"))
    )
    assert one == two


# tests/campaign judges folds and mutants of the same networks in `make test`.
@pytest.mark.thorough
@pytest.mark.parametrize("precision", PRECISIONS)
def test_spoiled_folds_are_convicted_with_the_right_node(precision):
    missed, count = [], 0
    for seed in (104 + seed for seed in SMALL):  # 104 is a multiple of the number of families
        fold = fold_of_seed(seed, precision)
        for mutant in nursery_of(fold, seed).sample(6):
            said = sentence("certificate", fold, mutant.model)
            count += 1
            if not said.convicted or not said.names_node(mutant):
                missed.append((seed, mutant.kind, mutant.nodes, said))
    assert count >= 50
    assert missed == []


@pytest.mark.thorough
@pytest.mark.parametrize("precision", PRECISIONS)
def test_honest_folds_are_acquitted(precision):
    wrong = []
    for seed in range(200, 221):
        fold = fold_of_seed(seed, precision)
        for judge in ("certificate", "no certificate"):
            said = sentence(judge, fold, fold.folded)
            if said.verdict is not Verdict.PASSED:
                wrong.append((seed, judge, said))
    assert wrong == []
