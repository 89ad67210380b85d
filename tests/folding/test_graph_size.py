"""The work for one node is the same in a large graph as in a small one: counted, not timed."""

from __future__ import annotations

import pytest

import bnfold
from benchmarks.long_graphs import KINDS, PROMISED, long_graph
from bnfold.model import uses
from tests.battery import judge
from tests.counting import calls

_MOST_GROWTH = 1.3
_QUICK = (
    *PROMISED,
    "mul-relu chain",
    "concat of mul",
    "sum of relu-mul",
    "slice-mul chain",
    "split fan",
    "split of conv",
    "shared constant",
    "constant chain",
    "mul chain in if",
    "many calls",
    "nested calls",
)


def calls_per_node(kind: str, nodes: int) -> float:
    """How many functions are called, of C too, to fold a graph of so many nodes."""
    model = long_graph(kind, nodes)
    return calls(lambda: bnfold.fold(model, verify=False)) / nodes


def growth(kind: str, nodes: int) -> float:
    calls_per_node(kind, 16)  # what is imported or built once
    return calls_per_node(kind, 4 * nodes) / calls_per_node(kind, nodes)


@pytest.mark.parametrize("kind", _QUICK)
def test_calls_for_a_node_do_not_grow(kind: str):
    assert growth(kind, 100) <= _MOST_GROWTH


@pytest.mark.thorough
@pytest.mark.parametrize("kind", KINDS)
def test_calls_for_a_node_do_not_grow_in_any_kind_of_graph(kind: str):
    assert growth(kind, 250) <= _MOST_GROWTH


@pytest.mark.parametrize("kind", ["concat fan-out", "concat of relu-mul", "split of conv"])
def test_maps_that_go_together_are_all_gone_and_keep_the_function(kind: str):
    original = long_graph(kind, 160)
    result = bnfold.fold(long_graph(kind, 160), verify=False)
    folded = result.to_proto()
    assert {"Mul", "BatchNormalization"}.isdisjoint(node.op_type for node in folded.graph.node)
    assert judge.wrong_outputs(original, folded) == []


def test_each_of_the_maps_that_go_together_tells_its_own_route():
    steps = bnfold.fold(long_graph("concat fan-out", 160), verify=False).report.steps
    assert len({step.routes for step in steps}) == len(steps) > 1


def test_an_onnx_ir_that_keeps_other_books_gives_the_same_model(
    monkeypatch: pytest.MonkeyPatch,
):
    wanted = bnfold.fold(long_graph("concat fan-out", 160), verify=False).to_proto()
    monkeypatch.setattr(uses, "_IS_KNOWN", False)
    found = bnfold.fold(long_graph("concat fan-out", 160), verify=False).to_proto()
    assert found.SerializeToString() == wanted.SerializeToString()
