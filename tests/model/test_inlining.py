"""Calls are written out as onnx_ir does it, with the same names, in linear time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes.common import InlinePass, inliner

import bnfold
from benchmarks.long_graphs import long_graph
from bnfold.model import inlining
from bnfold.model.graphs import graphs_of
from bnfold.model.inlining import inline_calls
from bnfold.model.written_out import why_not_written_out
from tests.battery import judge

_OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]


def _function(name: str, nodes: list[onnx.NodeProto]) -> onnx.FunctionProto:
    return helper.make_function("own", name, ["a"], ["r"], nodes, _OPSETS)


def _model(functions: list[onnx.FunctionProto], nodes: list[onnx.NodeProto]) -> ir.Model:
    info = [helper.make_tensor_value_info(one, TensorProto.FLOAT, [2, 3]) for one in "xy"]
    graph = helper.make_graph(nodes, "g", [info[0]], [info[1]])
    proto = helper.make_model(graph, opset_imports=_OPSETS, functions=functions, ir_version=8)
    return ir.from_proto(proto)


def _nested(depth: int) -> ir.Model:
    """Functions in functions: each calls the one before twice."""
    functions = [_function("F0", [helper.make_node("Abs", ["a"], ["r"], name="abs")])]
    for level in range(1, depth):
        calls = [
            helper.make_node(f"F{level - 1}", ["a"], ["m"], domain="own", name="call"),
            helper.make_node(f"F{level - 1}", ["m"], ["r"], domain="own"),
        ]
        functions.append(_function(f"F{level}", calls))
    last = helper.make_node(f"F{depth - 1}", ["x"], ["y"], domain="own")
    return _model(functions, [last])


def _with_clashes() -> ir.Model:
    """Names of the graph that the copies would get, and a branch within the function."""
    value = helper.make_tensor_value_info("b", TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Neg", ["a"], ["b"])], "br", [], [value])
    nodes = [
        helper.make_node("ReduceMax", ["a"], ["s"], keepdims=0),
        helper.make_node("Cast", ["s"], ["c"], to=TensorProto.BOOL, name="cast"),
        helper.make_node("If", ["c"], ["r"], then_branch=branch, else_branch=branch),
    ]
    calls = [
        helper.make_node("F", ["x"], ["s_2"], domain="own", name="cast"),
        helper.make_node("F", ["s_2"], ["s"], domain="own"),
        helper.make_node("F", ["s"], ["y"], domain="own"),
    ]
    return _model([_function("F", nodes)], calls)


def _names(model: ir.Model) -> Iterator[tuple[str | None, ...]]:
    for graph in graphs_of(model.graph):
        for node in graph:
            yield (node.name, *(value.name for value in node.outputs))


@pytest.mark.parametrize("build", [lambda: _nested(1), lambda: _nested(5), _with_clashes])
def test_written_out_calls_compute_the_same_under_names_of_their_own(build):
    model = build()
    x = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    wanted = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})
    inline_calls(model)
    assert not model.functions
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    np.testing.assert_array_equal(ReferenceEvaluator(proto).run(None, {"x": x}), wanted)


def test_the_names_are_those_of_onnx_ir():
    model, other = _nested(5), _nested(5)
    inline_calls(model)
    InlinePass()(other)
    assert list(_names(model)) == list(_names(other))


def test_functions_that_are_not_chosen_stay_with_their_calls():
    model = _nested(3)
    inline_calls(model, lambda function: function.name == "F1")
    assert sorted(function.name for function in model.functions.values()) == ["F0", "F2"]
    assert [node.op_type for node in model.graph] == ["F2"]
    inner = model.functions["own", "F2", ""]
    assert [node.op_type for node in inner] == ["F0"] * 4
    assert len({node.outputs[0].name for node in inner}) == 4


def _lines_per_node(nodes: int) -> float:
    """How many lines of Python run for a node, in whatever module writes calls out."""
    model = ir.from_proto(long_graph("many calls", nodes))
    files = {inlining.__file__, inliner.__file__}
    lines = 0

    def traced(frame: FrameType, event: str, _: object) -> object:
        nonlocal lines
        lines += event == "line"
        return traced if frame.f_code.co_filename in files else None

    sys.settrace(traced)
    try:
        inline_calls(model)
    finally:
        sys.settrace(None)
    return lines / nodes


def test_the_work_for_a_call_does_not_grow_with_the_number_of_calls():
    assert _lines_per_node(3000) <= 1.1 * _lines_per_node(300)


def test_thousands_of_calls_are_not_refused():
    model = ir.from_proto(long_graph("many calls", 15_000))
    assert why_not_written_out(model) == ""


@pytest.mark.parametrize("kind", ["many calls", "nested calls"])
def test_what_is_called_many_times_folds_and_keeps_the_function(kind: str):
    proto = long_graph(kind, 80)
    result = bnfold.fold(proto, verify=False)
    assert not result.to_proto().functions
    assert {"Mul", "Div"}.isdisjoint(result.report.counts_after)
    assert judge.wrong_outputs(proto, result.to_proto()) == []
