"""A sample of the graphs of `make fuzz`, and the instrument itself."""

from __future__ import annotations

from collections import Counter

import onnx
import pytest
from hypothesis import given, settings
from onnx import TensorProto

import bnfold
from tests.fuzz.__main__ import count
from tests.fuzz.attributes import attributes_of
from tests.fuzz.draws import by_number, replayed
from tests.fuzz.models import Drawn, drawn_model, models
from tests.fuzz.nodes import operators, schema_of
from tests.fuzz.shrink import shrunk
from tests.fuzz.trial import kind_of, tried
from tests.laws.by_runtime import Runtime
from tests.laws.promise import is_accepted, judged
from tests.laws.spoiling import spoiled_by


@pytest.fixture(scope="module")
def runtime():
    pytest.importorskip("onnxruntime")
    with Runtime() as one:
        yield one


def test_some_graphs_keep_the_promise(runtime):
    counts: Counter[str] = Counter()
    faults = {}
    for number in range(100):
        trial = tried(by_number(number, 0), runtime, control=True)
        count(counts, trial)
        if trial.said.faults:
            faults[number] = trial.said.faults
    assert faults == {}
    assert counts["folded"] >= 25
    assert counts["compared in float64"] >= 25
    assert counts["refused by checker"] <= 20
    assert counts["runtime: agrees"] >= 10
    noticed = counts["wrong on purpose: noticed"]
    assert noticed >= 10
    assert noticed >= 0.9 * (noticed + counts["wrong on purpose: not noticed"])


@settings(max_examples=40)
@given(models())
def test_graphs_of_hypothesis_keep_the_promise(drawn: Drawn):
    assert judged(drawn.case, 0, feeds_of=drawn.feeds).faults == ()


def test_a_number_gives_the_same_graph_and_so_do_its_decisions():
    draws = by_number(3, 1)
    first = drawn_model(draws).case.model.SerializeToString()
    assert drawn_model(by_number(3, 1)).case.model.SerializeToString() == first
    assert drawn_model(replayed(draws.made)).case.model.SerializeToString() == first


def test_every_operator_set_and_most_operators_are_drawn():
    opsets, kinds = set(), set()
    for number in range(500):
        model = drawn_model(by_number(number, 2)).case.model
        opsets.add(model.opset_import[0].version)
        kinds.update(node.op_type for node in model.graph.node)
    assert opsets == set(range(6, onnx.defs.onnx_opset_version() + 1))
    assert len(kinds) > 130
    assert {"If", "Loop", "Scan", "F0"} <= kinds
    assert len(operators(onnx.defs.onnx_opset_version())) > 170


def test_a_fold_that_is_wrong_is_told_and_made_small(monkeypatch):
    """The folded model is another one: its first node is gone."""

    def spoil(proto):
        proto.graph.node[0].op_type = "NoSuchOperator"

    monkeypatch.setattr(bnfold, "fold", spoiled_by(spoil))
    made = next(
        draws.made
        for draws in (by_number(number, 0) for number in range(40))
        if any("checker" in fault for fault in tried(draws).said.faults)
    )

    def is_faulty(other):
        return any("checker" in fault for fault in tried(replayed(other)).said.faults)

    small = shrunk(made, is_faulty, seconds=5.0)
    assert len(small) < len(made)
    assert is_accepted(drawn_model(replayed(small)).case.model)


def test_kinds_of_faults_have_no_names_and_numbers():
    assert kind_of("3.2 bounds of rounding off") == kind_of("17 bounds of rounding off")
    assert kind_of("Traceback\n  File x\nValueError: no 3") == "ValueError: no"


def test_what_is_yes_or_no_is_drawn_as_one_or_zero():
    """Mod of fmod=2 is one number to those who ask whether it is 1, another to all others.

    The truth that folds are compared with, which reads a node by one or the other, then
    disagreed with itself: seed 31, graph 99.
    """
    for number in range(200):
        draws = by_number(number, 0)
        for name, flag in (("Mod", "fmod"), ("CumSum", "reverse"), ("MaxPool", "ceil_mode")):
            found = attributes_of(draws, schema_of(name, 22), (2, 3, 4), TensorProto.FLOAT)
            assert {one.i for one in found if one.name == flag} <= {0, 1}
