"""Small models that several tests share."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def conv_bn(seed: int = 0, names: tuple[str, str] = ("conv", "bn")) -> onnx.ModelProto:
    """x → Conv → BatchNormalization → Relu → y, with notes on every part."""
    rng = np.random.default_rng(seed)
    weights = {
        "w": rng.normal(size=(4, 3, 3, 3)),
        "scale": rng.uniform(0.5, 2, 4),
        "B": rng.normal(size=4),
        "mean": rng.normal(size=4),
        "var": rng.uniform(0.5, 2, 4),
    }
    conv, bn = names
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name=conv, pads=[1] * 4),
        helper.make_node("BatchNormalization", ["c", *list(weights)[1:]], ["b"], name=bn),
        helper.make_node("Relu", ["b"], ["y"], name="relu", doc_string="kept"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4, 8, 8])],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in weights.items()],
        doc_string="a graph",
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="test"
    )
    helper.set_model_props(model, {"author": "somebody"})
    return model


def two_layers() -> onnx.ModelProto:
    """x → Gemm → Mul → Relu → Gemm → Add → y, every node named."""
    rng = np.random.default_rng(1)
    weights = {
        "w1": rng.normal(size=(3, 4)),
        "s": rng.uniform(0.5, 2, 4),
        "w2": rng.normal(size=(4, 2)),
        "t": rng.normal(size=2),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "w1"], ["g1"], name="first"),
        helper.make_node("Mul", ["g1", "s"], ["m"], name="scale"),
        helper.make_node("Relu", ["m"], ["r"], name="relu"),
        helper.make_node("Gemm", ["r", "w2"], ["g2"], name="second"),
        helper.make_node("Add", ["g2", "t"], ["y"], name="shift"),
    ]
    graph = helper.make_graph(
        nodes,
        "two_layers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def operators(model: onnx.ModelProto) -> list[str]:
    """Operator kinds in graph order."""
    return [node.op_type for node in model.graph.node]
