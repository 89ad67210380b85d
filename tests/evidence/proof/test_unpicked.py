"""A Where of a constant condition: what it never picks cannot be seen, and need not be."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import bnfold
from bnfold.records import Verdict
from tests.battery.graphs import Net

OPEN = np.array([1, 0, 1, 1], bool).reshape(4, 1, 1)
VECTOR = np.array([0.5, -0.7, 1.5, 2.0]).reshape(4, 1, 1)
CASES = {
    "a channel": (OPEN, VECTOR),
    "a number that grows to channels": (OPEN, np.array(0.7)),
    "none": (np.ones((4, 1, 1), bool), VECTOR),
    "some places of all": (np.arange(9).reshape(3, 3) % 2 == 0, VECTOR),
}


def _model(condition: np.ndarray, constant: np.ndarray, *, turned: bool) -> onnx.ModelProto:
    net = Net("where", 17)
    x = net.conv(net.input([2, 3, 5, 5]), 3, 4)
    chosen = net.const(~condition if turned else condition, dtype="bool")
    pair = [x, net.const(constant, "held")]
    y = net.node("Where", [chosen, *(reversed(pair) if turned else pair)])
    net.output(net.node("Relu", [net.bn(y, 4)]))
    return net.model()


def _proved(model: onnx.ModelProto, folded: onnx.ModelProto, certificate) -> Verdict:
    return bnfold.verify(model, folded, certificate=certificate, run=False).verdict


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_what_is_never_picked_leaves_no_proof_inconclusive(case, turned):
    model = _model(*CASES[case], turned=turned)
    result = bnfold.fold(model, verify=False, certificate=True)
    folded = result.to_proto()
    assert [node.op_type for node in folded.graph.node] == ["Conv", "Where", "Relu"]
    for certificate in (result.certificate, None):
        assert _proved(model, folded, certificate) is Verdict.PASSED


@pytest.mark.parametrize("case", ["a channel", "some places of all"])
def test_what_is_picked_is_seen(case):
    model = _model(*CASES[case], turned=False)
    folded = bnfold.fold(model, verify=False).to_proto()
    where = next(node for node in folded.graph.node if node.op_type == "Where")
    held = next(one for one in folded.graph.initializer if one.name == where.input[2])
    array = numpy_helper.to_array(held).copy()
    array[1] = array[1] * 1.1 + 0.1
    held.CopyFrom(numpy_helper.from_array(array, held.name))
    assert _proved(model, folded, None) is Verdict.FAILED
