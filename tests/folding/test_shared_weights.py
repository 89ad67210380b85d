"""A weight that many nodes read is written once for all that need the same of it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import bnfold
from bnfold.expression import Expression
from bnfold.records import Code
from tests.battery import judge
from tests.battery.graphs import Net
from tests.proving import assert_proved

STEPS = 8


def _unrolled(size: int, scales: list[float], *, in_front: bool = False) -> Net:
    """A recurrent layer written out: every step multiplies its input by the same weight."""
    net = Net(f"unrolled{size}{scales}")
    x = net.input([2, len(scales), size])
    if in_front:
        x = net.node("Mul", [x, net.const(net.rng.uniform(0.5, 2.0, size))])
    weight = net.const(net.weight(4, size) if in_front else net.weight(size, size), "shared")
    state = net.node("Tanh", [net.input([2, 4 if in_front else size], "state")])
    turn = net.const(net.weight(*[4 if in_front else size] * 2))
    for step, scale in enumerate(scales):
        part = net.node("Gather", [x, net.const(step, dtype="int64")], axis=1)
        fed = net.node("Gemm", [part, weight], transB=1)
        if not in_front:
            fed = net.node("Mul", [fed, net.const(scale)])
        state = net.node("Add", [fed, net.node("MatMul", [state, turn])])
        state = net.node("Tanh", [state])
    net.output(state)
    return net


def _folded(net: Net) -> tuple[onnx.ModelProto, onnx.ModelProto, bnfold.FoldResult]:
    model = net.model()
    result = bnfold.fold(model, verify=False, certificate=True)
    folded = result.to_proto()
    assert judge.wrong_outputs(model, folded) == []
    return model, folded, result


def _copies(model: onnx.ModelProto, shape: tuple[int, ...]) -> int:
    return sum(tuple(tensor.dims) == shape for tensor in model.graph.initializer)


def test_a_map_in_front_of_all_steps_is_written_once():
    """40 Gemms on two weights made 268 MB of 19 MB."""
    model, folded, result = _folded(_unrolled(12, [1.0] * STEPS, in_front=True))
    assert _copies(model, (4, 12)) == _copies(folded, (4, 12)) == 1
    assert "Mul" not in [node.op_type for node in folded.graph.node]
    assert result.report.cloned_bytes == 0


def test_equal_maps_that_come_one_by_one_share_what_is_written():
    model, folded, result = _folded(_unrolled(6, [0.7] * STEPS))
    assert _copies(model, (6, 6)) == _copies(folded, (6, 6)) == 2  # the weight of the state
    assert "Mul" not in [node.op_type for node in folded.graph.node]
    assert result.report.cloned_bytes == 0


def test_a_reader_that_needs_it_as_it_is_keeps_it():
    _, folded, result = _folded(_unrolled(6, [1.0, *[0.7] * (STEPS - 1)]))
    assert _copies(folded, (6, 6)) == 3
    assert result.report.cloned_bytes == 6 * 6 * 4


def test_small_weights_are_copied_for_different_maps():
    scales = [0.5 + 0.1 * step for step in range(STEPS)]
    _, folded, result = _folded(_unrolled(6, scales))
    assert "Mul" not in [node.op_type for node in folded.graph.node]
    assert result.report.cloned_bytes == (STEPS - 1) * 6 * 6 * 4


def test_a_large_weight_is_not_copied_many_times():
    """One by one they would be seven copies of a megabyte and a half."""
    scales = [0.5 + 0.1 * step for step in range(STEPS)]
    net = _unrolled(600, scales)
    result = bnfold.fold(net.model(), verify=False)
    size = 600 * 600 * 4
    assert result.report.cloned_bytes == size
    codes = {refusal.code for stay in result.report.stays for refusal in stay.refusals}
    assert Code.SHARED_VALUE in codes
    assert (
        len(result.to_proto().SerializeToString())
        < len(net.model().SerializeToString()) + 1.1 * size
    )


@pytest.mark.parametrize("scales", [[0.7] * 4, [1.0, 0.7, 0.7, 0.4]], ids=["equal", "mixed"])
def test_the_fold_is_proved_and_a_wrong_copy_is_seen(scales):
    model, folded, result = _folded(_unrolled(6, scales))
    wrong = onnx.ModelProto()
    wrong.CopyFrom(folded)
    written = {name for step in result.report.steps for name in step.tensors}
    tensor = next(t for t in wrong.graph.initializer if t.name in written)
    array = numpy_helper.to_array(tensor).copy()
    array[2, 3] *= 1.05
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    assert_proved(model, result, wrong)


def test_expressions_are_equal_by_what_they_are_made_of():
    base = np.ones((2, 3), np.float32)
    one, other = Expression.of(base), Expression.of(base.copy())
    assert one.equals(other)
    assert not one.equals(Expression.of(2 * base))
    assert not one.equals(Expression.of(base.astype(np.float64)))
    assert not one.equals(Expression.of(base.T))
    scale = np.array([1.0, 2.0])
    assert one.times(scale, (0,)).equals(other.times(scale, (0,)))
    assert not one.times(scale, (0,)).equals(other.times(2 * scale, (0,)))
    assert not one.times(scale, (0,)).equals(other)
