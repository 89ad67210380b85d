"""Readers that see only the shape of a value do not hold its map."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import bnfold
from tests.battery import judge
from tests.small import operators


def shape_of(where: str) -> onnx.ModelProto:
    """Conv → Mul → Add → Relu → Reshape to the shape of a value along the way."""
    rng = np.random.default_rng(3)
    weights = {
        "w": rng.normal(size=(4, 3, 3, 3)),
        "s": rng.uniform(0.5, 2, (4, 1, 1)),
        "t": rng.normal(size=(4, 1, 1)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Mul", ["c", "s"], ["m"]),
        helper.make_node("Add", ["m", "t"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Shape", [where], ["shape"]),
        helper.make_node("Reshape", ["r", "shape"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "blind",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("where", ["c", "m", "a", "r"])
def test_shape_does_not_hold_a_map(where):
    model = shape_of(where)
    folded = bnfold.fold(model, verify=False).to_proto()
    assert sorted(operators(folded)) == ["Conv", "Relu", "Reshape", "Shape"]
    assert judge.wrong_outputs(model, folded) == []
    assert judge.newly_invalid(model, folded) == ""
