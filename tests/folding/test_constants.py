"""Maps of constants are stored as what they make of them."""

from __future__ import annotations

import numpy as np
import pytest

import bnfold
from tests.battery import judge, quantised, signs
from tests.battery.graphs import Net, first_conv

KINDS = ["Mul", "Add", "Sub", "Div", "Neg", "bn"]


def _kinds(model) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("kind", KINDS)
def test_a_map_of_a_constant_is_stored(kind):
    model = signs.mapped_constant(kind)
    result = bnfold.fold(model, verify=False)
    folded = result.to_proto()
    assert _kinds(folded) == ["Conv", "Max"]
    assert judge.wrong_outputs(model, folded) == []
    assert judge.newly_invalid(model, folded) == ""
    assert [step.rule for step in result.report.steps] == ["constant"]
    assert judge.duplicate_names(folded) == []


@pytest.mark.parametrize("options", [{"skip": ["Mul"]}, {"only": ["BatchNormalization"]}])
def test_what_may_not_be_touched_is_left(options):
    model = signs.mapped_constant("Mul")
    assert "Mul" in _kinds(bnfold.fold(model, verify=False, **options).to_proto())


def test_a_graph_output_is_left():
    net, y = first_conv("output")
    k = net.node("Mul", [net.const(np.arange(6.0)), net.const(2.0)])
    net.output(y, k)
    assert "Mul" in _kinds(bnfold.fold(net.model(), verify=False).to_proto())


def test_an_overridable_constant_is_left():
    net, y = first_conv("overridable")
    k = net.const(np.ones((6, 5, 4)), "k")
    net.inputs.append(signs.onnx.helper.make_tensor_value_info("k", 1, [6, 5, 4]))
    net.output(net.node("Max", [y, net.node("Mul", [k, net.const(2.0)])]))
    assert "Mul" in _kinds(bnfold.fold(net.model(), verify=False).to_proto())


def test_what_would_grow_a_model_is_left():
    net = Net("grows")
    wide = net.node("Add", [net.const(np.zeros((400, 1))), net.const(np.zeros((1, 400)))])
    net.output(net.node("Max", [net.input([400, 400]), wide]))
    assert "Add" in _kinds(bnfold.fold(net.model(), verify=False).to_proto())


def test_integers_are_not_stored_as_floats():
    net = Net("integers")
    w = quantised.dequantised(net, (64, 64))
    w = net.node("Mul", [w, net.const(2.0)])
    net.output(net.node("MatMul", [net.input([3, 64]), w]))
    assert "Mul" in _kinds(bnfold.fold(net.model(), verify=False).to_proto())


def test_old_models_list_initializers_as_inputs():
    net = Net("old", 8, ir=3)
    y = net.conv(net.input(["N", 4, 7, 6]), 4, 6)
    k = net.node("Mul", [net.const(np.ones((6, 5, 4))), net.const(2.0)])
    net.output(net.node("Max", [y, k]))
    model = net.model()
    folded = bnfold.fold(model, verify=False).to_proto()
    assert _kinds(folded) == ["Conv", "Max"]
    assert judge.newly_invalid(model, folded) == ""
