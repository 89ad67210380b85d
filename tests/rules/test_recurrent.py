"""What stands in front of an LSTM, GRU or RNN goes into W and B; what stands behind stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

import bnfold
from bnfold.records import Code, Verdict
from tests.battery.graphs import Net
from tests.recurrent import GATES, Cell, cells
from tests.rules.around import Map, assert_carried, assert_stays, maps

OPERATORS = pytest.mark.parametrize("op", sorted(GATES))


def _below(cell: Cell, into: Map, dtype: str = "fp32") -> onnx.ModelProto:
    net = Net("recurrent", cell.opset, dtype)
    x = into.write(net, net.input(cell.shape), 3)
    for result in cell.write(net, x):
        net.output(result)
    return net.model()


def _recogniser(cell: Cell, dtype: str = "fp32") -> onnx.ModelProto:
    """BatchNormalization over [batch, channels, time], laid out for the recurrent layer."""
    net = Net("recogniser", cell.opset, dtype)
    x = net.bn(net.input([cell.batch, cell.inputs, cell.steps]), cell.inputs)
    x = net.node("Transpose", [x], perm=[0, 2, 1] if cell.batch_first else [2, 0, 1])
    for result in cell.write(net, x):
        net.output(result)
    return net.model()


@given(cells(), st.data(), st.sampled_from(["fp32", "fp32", "fp64", "fp16"]))
@settings(max_examples=60)
def test_a_map_of_the_inputs_goes_into_the_weights(cell, data, dtype):
    axis = data.draw(st.sampled_from([2, 2, None]))
    into = data.draw(maps(cell.inputs, axis))
    assert_carried(_below(cell, into, dtype), into.nodes)


@given(cells(), st.sampled_from(["fp32", "fp16", "fp64"]))
@settings(max_examples=30)
@example(Cell("LSTM", 22), "bf16")
@example(Cell("GRU", 22, directions=2, attributes={"direction": "bidirectional"}), "bf16")
def test_the_batch_norm_of_a_speech_recogniser_goes(cell, dtype):
    assert_carried(_recogniser(cell, dtype), 1)


@OPERATORS
@pytest.mark.parametrize("bias", [True, False])
def test_the_bias_of_the_state_stays(op, bias):
    """A GRU multiplies R · h + Rb by its reset gate: Rb is another summand than Wb."""
    cell = Cell(op, bias=bias, attributes={"linear_before_reset": 1} if op == "GRU" else {})
    model = _below(cell, Map(2, np.array([2.0, -1.5, 0.5]), np.array([1.0, 2.0, 3.0])))
    folded = bnfold.fold(model, verify=False).to_proto()
    wide = GATES[op] * cell.hidden
    stored = [_bias_of(model, wide), _bias_of(folded, wide)]
    before = np.zeros((1, wide)) if stored[0] is None else stored[0][:, wide:]
    assert stored[1] is not None
    np.testing.assert_array_equal(stored[1][:, wide:], before)


def _bias_of(model: onnx.ModelProto, wide: int) -> np.ndarray | None:
    arrays = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    return next((a for a in arrays if a.shape == (1, 2 * wide)), None)


@OPERATORS
@pytest.mark.parametrize("axis", [0, 1])
def test_a_map_along_time_or_batch_stays(op, axis):
    cell = Cell(op, steps=4, batch=2)
    shift = Map(axis, None, np.arange(1.0, 1.0 + cell.shape[axis]))
    assert_stays(_below(cell, shift), Code.WRONG_AXIS)


@OPERATORS
def test_a_map_behind_stays_and_the_reason_is_that_the_state_feeds_back(op):
    net = Net("behind")
    y = Cell(op).write(net, net.input(Cell(op).shape))[0]
    net.output(Map(3, np.array([2.0, 0.5]), np.array([1.0, -1.0])).write(net, y, 4))
    assert_stays(net.model(), Code.FEEDS_BACK)


@OPERATORS
@pytest.mark.parametrize("place", [1, 5])
def test_a_map_of_a_computed_weight_or_state_stays(op, place):
    """It reaches W or initial_h, which are inputs of the model here."""
    cell = Cell(op, states=True)
    net = Net("computed")
    cell.write(net, net.input(cell.shape))
    node = net.nodes[-1]
    known = {t.name: t for t in net.initializers}
    tensor = known[node.input[place]]
    net.initializers.remove(tensor)
    moved = net.node("Mul", [net.input(list(tensor.dims), "given"), net.const(2.0)])
    node.input[place] = moved
    net.nodes.insert(0, net.nodes.pop())
    for result in node.output:
        net.output(result)
    assert_stays(net.model(), Code.DYNAMIC_WEIGHT)


@pytest.mark.parametrize(
    "cell",
    [
        Cell("LSTM", directions=2, attributes={"direction": "bidirectional"}, lengths=True),
        Cell("GRU", bias=False, attributes={"linear_before_reset": 1, "layout": 1}),
        Cell("RNN", states=True, attributes={"direction": "reverse"}),
    ],
    ids=["LSTM", "GRU", "RNN"],
)
def test_the_fold_is_proved_and_a_wrong_one_is_seen(cell):
    cell = replace(cell, inputs=6, hidden=5)
    model = _recogniser(cell)
    result = bnfold.fold(model, verify=False, certificate=True)
    folded, certificate = result.to_proto(), result.certificate
    assert bnfold.verify(model, folded, certificate=certificate, run=False).passed
    assert bnfold.verify(model, folded, run=False).passed
    for name in {name for step in result.report.steps for name in step.tensors}:
        wrong = _spoiled(folded, name)
        for claim in (certificate, None):
            report = bnfold.verify(model, wrong, certificate=claim, run=False)
            assert report.verdict is Verdict.FAILED, (name, claim is None)


def _spoiled(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    wrong = onnx.ModelProto()
    wrong.CopyFrom(model)
    tensor = next(t for t in wrong.graph.initializer if t.name == name)
    array = numpy_helper.to_array(tensor).copy()
    array.flat[array.size // 2] *= 1.05
    array.flat[array.size // 2] += 0.01
    tensor.CopyFrom(numpy_helper.from_array(array, name))
    return wrong
