"""A nearly dead channel does not keep a fold from the channels beside it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import bnfold
from bnfold.records import Code
from tests.battery import judge
from tests.battery.graphs import Net
from tests.proving import assert_proved, with_larger_weights
from tests.rules.around import assert_stays

C, DEAD = 6, 3
TINY = {"fp32": 1e-39, "fp16": 3e-6, "bf16": 1e-39}
LINEAR = ("Conv", "grouped Conv", "ConvTranspose", "Gemm", "MatMul")


def _behind(kind: str, dtype: str, *, all_of_them: bool = False) -> onnx.ModelProto:
    """A linear operator, and a scale of each of its output channels, one of them tiny."""
    net = Net(f"dead{kind}{dtype}", 22, dtype)
    scale = net.scale(C)
    scale[slice(None) if all_of_them else DEAD] = TINY[dtype]
    if kind in ("Gemm", "MatMul"):
        weight = net.const(np.sign(net.weight(4, C)) * 0.6)
        y = net.node(kind, [net.input([5, 4]), weight])
    else:
        groups = {"grouped Conv": 2, "depthwise": C}.get(kind, 1)
        inputs = C if kind == "depthwise" else 4
        shape = (inputs, C, 3, 3) if kind == "ConvTranspose" else (C, inputs // groups, 3, 3)
        op = "ConvTranspose" if kind == "ConvTranspose" else "Conv"
        weight = net.const(np.sign(net.rng.normal(size=shape)) * 0.3)
        y = net.node(op, [net.input([2, inputs, 6, 6]), weight], group=groups)
        scale = scale.reshape(C, 1, 1)
    net.output(net.node("Mul", [y, net.const(scale)]))
    return net.model()


@pytest.mark.parametrize("dtype", TINY)
@pytest.mark.parametrize("kind", LINEAR)
def test_it_is_folded_where_all_channels_read_the_same_numbers(kind, dtype):
    model = _behind(kind, dtype)
    result = bnfold.fold(model, verify=False, certificate=True)
    folded = result.to_proto()
    assert "Mul" not in [node.op_type for node in folded.graph.node]
    assert judge.wrong_outputs(model, folded) == []
    assert_proved(model, result, with_larger_weights(folded))


@pytest.mark.parametrize("dtype", TINY)
def test_a_tiny_channel_of_numbers_of_its_own_stays(dtype):
    """Nothing says that what a depthwise convolution reads there is not vast."""
    assert_stays(_behind("depthwise", dtype), Code.OUT_OF_RANGE)


@pytest.mark.parametrize("kind", LINEAR)
def test_it_stays_where_all_channels_would_be_lost(kind):
    assert_stays(_behind(kind, "fp16", all_of_them=True), Code.OUT_OF_RANGE)


def test_a_channel_is_compared_with_those_of_its_own_group():
    """Group 1 of two is all tiny; group 0, which reads other numbers, is loud."""
    net = Net("groups", 22, "fp16")
    scale = net.scale(C)
    scale[C // 2 :] = TINY["fp16"]
    weight = net.const(np.sign(net.weight(C, 2, 3, 3)) * 0.3)
    y = net.node("Conv", [net.input([2, 4, 6, 6]), weight], group=2)
    net.output(net.node("Mul", [y, net.const(scale.reshape(C, 1, 1))]))
    assert_stays(net.model(), Code.OUT_OF_RANGE)
