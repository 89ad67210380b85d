"""A proof takes time that grows with the graph alone: counted in calls, not in seconds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

import bnfold
from benchmarks.long_graphs import KINDS, PROMISED, long_graph
from bnfold.evidence.proof.links import fits
from bnfold.evidence.proof.same_constants import SameConstants
from bnfold.evidence.proof.sides import Side
from bnfold.evidence.proof.stored_noise import StoredNoise
from bnfold.model.io import opened
from tests.counting import growth

_MOST_GROWTH = 1.2
_LINEAR_ALONE = "conv-bn chain"
"""Its folded form is one Conv, compared with all of the original at once: that runs anew."""
_QUICK = (
    *(kind for kind in PROMISED if kind != _LINEAR_ALONE),
    "mul-relu chain",
    "map handed on",
    "constant chain",
    "constant diamonds",
    "conv-bn-relu chain",
)


def _verify(kind: str) -> Callable[[int], Callable[[], object]]:
    def of_size(nodes: int) -> Callable[[], object]:
        model = long_graph(kind, nodes)
        folded = bnfold.fold(model, verify=False).to_proto()
        return lambda: bnfold.verify(model, folded, run=False, max_time=3600)

    return of_size


def _certify(kind: str) -> Callable[[int], Callable[[], object]]:
    def of_size(nodes: int) -> Callable[[], object]:
        model = long_graph(kind, nodes)
        return lambda: bnfold.fold(model, verify=False, certificate=True, max_time=3600)

    return of_size


@pytest.mark.parametrize("kind", _QUICK)
def test_calls_of_a_comparison_for_a_node_do_not_grow(kind: str):
    assert growth(_verify(kind), 40) <= _MOST_GROWTH


@pytest.mark.parametrize("kind", ["concat fan-out", "map handed on", "constant chain"])
def test_calls_of_the_proof_of_a_fold_for_a_node_do_not_grow(kind: str):
    # A narrow fan takes other ways than a wide one.
    assert growth(_certify(kind), 80 if kind == "concat fan-out" else 40) <= _MOST_GROWTH


@pytest.mark.thorough
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != _LINEAR_ALONE])
def test_calls_of_a_comparison_do_not_grow_in_any_kind_of_graph(kind: str):
    assert growth(_verify(kind), 60) <= _MOST_GROWTH


def test_a_map_of_factors_alone_is_found_without_a_shift():
    rng = np.random.default_rng(3)
    original = rng.standard_normal((2, 4, 8, 8))
    factors = np.array([0.9, 1.1, 3.0, 1e-6]).reshape(-1, 1, 1)
    link = next(link for link in fits(original, original * factors) if link.axis == 1)
    assert not link.shift.any()
    shifted = original * factors + np.array([1e-9, 0.0, 1e-12, 1e-15]).reshape(-1, 1, 1)
    link = next(link for link in fits(original, shifted) if link.axis == 1)
    assert link.shift.astype(bool).tolist() == [True, False, True, True]


def test_a_map_that_two_sizes_agree_on_is_compared_at_no_third():
    model = long_graph("mul-relu chain", 20)
    folded = bnfold.fold(model, verify=False)
    report = bnfold.verify(model, folded, certificate=folded.certificate, run=False).proof
    assert report is not None
    assert report.passed
    assert report.windows <= 2 * len(folded.model.graph)


def test_nudged_models_look_up_what_was_found_in_the_graph():
    side = Side(opened(long_graph("mul-relu chain", 8)))
    noise = StoredNoise(side, side, lambda _: True)
    for kept in (frozenset({"w0"}), frozenset({"w1"})):
        assert all(one.survey is side.survey for one in noise.sides(2, kept))


@pytest.mark.parametrize("kind", ["constant chain", "constant diamonds"])
def test_constants_computed_in_thousands_of_steps_are_held_against_each_other(kind: str):
    model = opened(long_graph(kind, 3000))
    side = Side(model)
    last = _read_by(model.graph.outputs[0])
    same = SameConstants(side, side, lambda _: True, frozenset(side.survey.by_key))
    assert same.is_same(last)
    other = SameConstants(side, side, lambda _: True, frozenset())
    assert not other.is_same(last)
    assert side.survey.hangs_on(last, frozenset({"w0"}))
    assert not side.survey.hangs_on(last, frozenset({"no such tensor"}))
    assert np.isfinite(side.constant(last)).all()


def _read_by(output: ir.Value) -> ir.Value:
    """Return the constant that the node of the output reads."""
    node = output.producer()
    assert node is not None
    value = node.inputs[1]
    assert value is not None
    return value
