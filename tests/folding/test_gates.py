"""A scale behind a channel attention goes into the layer that feeds it, past the gate."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

import bnfold
from bnfold.records import Code
from tests.battery import judge
from tests.battery.graphs import Net
from tests.proving import assert_proved
from tests.rules.around import assert_stays

C = 6


def _pooled(net: Net, x: str, pool: str) -> str:
    if pool == "ReduceMean":
        return net.node("ReduceMean", [x, net.ints(2, 3)], keepdims=0)
    return net.node(pool, [x])


def _eca(net: Net, x: str, pool: str) -> str:
    """Efficient channel attention: a convolution along the channels."""
    y = net.node("Reshape", [_pooled(net, x, pool), net.ints(-1, 1, C)])
    y = net.node("Conv", [y, net.const(net.weight(1, 1, 3))], pads=[1, 1])
    return net.node("Reshape", [net.node("Sigmoid", [y]), net.ints(-1, C, 1, 1)])


def _squeeze_and_excite(net: Net, x: str, pool: str) -> str:
    y = net.node("Reshape", [_pooled(net, x, pool), net.ints(-1, C, 1, 1)])
    y = net.node("Conv", [y, net.const(net.weight(2, C, 1, 1)), net.const(net.shift(2))])
    y = net.node("Conv", [net.node("Relu", [y]), net.const(net.weight(C, 2, 1, 1))])
    return net.node("Sigmoid", [y])


def _dense(net: Net, x: str, pool: str) -> str:
    y = net.node("Flatten", [_pooled(net, x, pool)])
    y = net.node("Gemm", [y, net.const(net.weight(C, C))])
    return net.node("Unsqueeze", [net.node("Sigmoid", [y]), net.ints(2, 3)])


def _plain(net: Net, x: str, pool: str) -> str:
    """Nothing between the pool and the Sigmoid: no constant can take an inverse."""
    y = net.node("Reshape", [_pooled(net, x, pool), net.ints(-1, C, 1, 1)])
    return net.node("Sigmoid", [y])


def _linear(net: Net, x: str, pool: str) -> str:
    """``x · mean(x)``: what is multiplied is no gate, it is scaled like x."""
    return net.node("Reshape", [_pooled(net, x, pool), net.ints(-1, C, 1, 1)])


GATES = {"eca": _eca, "se": _squeeze_and_excite, "dense": _dense}


def _block(gate, scale, pool: str = "ReduceMean", dtype: str = "fp32") -> Net:
    """Convolution, gate, gain, and a shortcut beside them."""
    net = Net(f"gate{gate.__name__}{pool}{dtype}", 18, dtype)
    x = net.input([2, 4, 6, 5])
    y = net.node("Conv", [x, net.const(net.weight(C, 4, 3, 3)), net.const(net.shift(C))])
    y = net.node("Mul", [y, gate(net, y, pool)])
    y = net.node("Mul", [y, net.const(scale)])
    beside = net.node("Conv", [x, net.const(net.weight(C, 4, 3, 3))])
    net.output(net.node("Relu", [net.node("Add", [y, beside])]))
    return net


@given(
    st.sampled_from(sorted(GATES)),
    st.sampled_from(["ReduceMean", "GlobalAveragePool"]),
    st.sampled_from(["fp32", "fp16", "fp64"]),
    st.booleans(),
    st.sampled_from([0.2, -1.7]),
)
@settings(max_examples=30)
def test_the_gain_goes_into_the_layer_and_its_inverse_into_the_gate(
    kind, pool, dtype, each, gain
):
    """One number, or one for each channel, which a convolution along channels cannot take."""
    scale = np.array(gain)
    if each:
        scale = (gain * np.linspace(0.5, 2.0, C)).reshape(C, 1, 1)
    model = _block(GATES[kind], scale, pool, dtype).model()
    folded = bnfold.fold(model, verify=False).to_proto()
    assert judge.wrong_outputs(model, folded) == []
    muls = [node.op_type for node in folded.graph.node].count("Mul")
    assert muls == (2 if each and kind == "eca" else 1)


@pytest.mark.parametrize(
    ("gate", "code"), [(_plain, Code.UNKNOWN_OPERATOR), (_linear, Code.SHARED_VALUE)]
)
def test_it_stays_where_nothing_undoes_it_in_front_of_the_gate(gate, code):
    assert_stays(_block(gate, np.array(0.2)).model(), code)


def test_it_stays_where_the_gate_may_not_be_touched():
    model = _block(_eca, np.array(0.2)).model()
    pool = next(node.name for node in model.graph.node if node.op_type == "ReduceMean")
    assert bnfold.fold(model, verify=False, skip=[pool]).report.steps == ()


def test_a_gain_of_zero_stays():
    """What is multiplied by zero cannot be undone."""
    assert bnfold.fold(_block(_eca, np.array(0.0)).model(), verify=False).report.steps == ()


def test_two_gates_of_one_value_both_take_the_inverse():
    net = Net("two", 18)
    x = net.input([2, 4, 6, 5])
    y = net.node("Conv", [x, net.const(net.weight(C, 4, 1, 1))])
    gates = net.node("Mul", [_eca(net, y, "ReduceMean"), _dense(net, y, "ReduceMean")])
    y = net.node("Mul", [net.node("Mul", [y, gates]), net.const(0.3)])
    net.output(net.node("Tanh", [y]))
    model = net.model()
    result = bnfold.fold(model, verify=False)
    (step,) = result.report.steps
    assert len(step.adjusted) == 2
    assert judge.wrong_outputs(model, result.to_proto()) == []


@pytest.mark.parametrize("kind", sorted(GATES))
def test_the_fold_is_proved_and_a_gate_that_was_forgotten_is_seen(kind):
    model = _block(GATES[kind], np.array(0.2)).model()
    result = bnfold.fold(model, verify=False, certificate=True)
    folded = result.to_proto()
    forgotten = _as_before(model, folded, result.report.steps[0].adjusted[0])
    assert_proved(model, result, forgotten)


def _as_before(model: onnx.ModelProto, folded: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The fold with the weight of one node as it was in the original."""
    wrong = onnx.ModelProto()
    wrong.CopyFrom(folded)
    node = next(node for node in wrong.graph.node if node.name == name)
    old = {tensor.name: tensor for tensor in model.graph.initializer}
    tensor = next(t for t in wrong.graph.initializer if t.name == node.input[1])
    tensor.CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(old[tensor.name]), tensor.name)
    )
    return wrong
