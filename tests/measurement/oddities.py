"""Odd but legal models, small, that a benchmark has to cope with."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.small import conv_bn

FLOAT, INT64, TEXT = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
Face = tuple[str, int, Sequence[int | str] | None]


def net(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Face],
    outputs: Sequence[Face | onnx.ValueInfoProto],
    weights: dict[str, np.ndarray] | None = None,
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    """A model of these nodes, opset 17."""
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info(*face) for face in inputs],
        [
            helper.make_tensor_value_info(*face) if isinstance(face, tuple) else face
            for face in outputs
        ],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(one, 1) for one in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def embedding() -> onnx.ModelProto:
    """Whole numbers go in, and not all of them are allowed."""
    return net(
        [helper.make_node("Gather", ["table", "ids"], ["y"])],
        [("ids", INT64, ["N", "T"])],
        [("y", FLOAT, ["N", "T", 4])],
        {"table": np.arange(20, dtype=np.float32).reshape(5, 4)},
    )


def two_inputs() -> onnx.ModelProto:
    """One input has a batch axis, the other a fixed first axis."""
    return net(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [("x", FLOAT, ["N", 4]), ("w", FLOAT, [4, 3])],
        [("y", FLOAT, ["N", 3])],
    )


def scalar() -> onnx.ModelProto:
    """An input of rank 0."""
    return net([helper.make_node("Neg", ["x"], ["y"])], [("x", FLOAT, [])], [("y", FLOAT, [])])


def sequence() -> onnx.ModelProto:
    """An output that is no tensor, and one that is."""
    return net(
        [
            helper.make_node("SequenceConstruct", ["x"], ["s"]),
            helper.make_node("Neg", ["x"], ["y"]),
        ],
        [("x", FLOAT, ["N", 2])],
        [helper.make_tensor_sequence_value_info("s", FLOAT, None), ("y", FLOAT, ["N", 2])],
    )


def text() -> onnx.ModelProto:
    """An output of words."""
    return net(
        [
            helper.make_node("Cast", ["x"], ["t"], to=TEXT),
            helper.make_node("Neg", ["x"], ["y"]),
        ],
        [("x", FLOAT, ["N", 2])],
        [("t", TEXT, ["N", 2]), ("y", FLOAT, ["N", 2])],
    )


def nonzero() -> onnx.ModelProto:
    """The shape of the output depends on the numbers."""
    return net(
        [
            helper.make_node("Relu", ["x"], ["r"]),
            helper.make_node("NonZero", ["r"], ["y"]),
        ],
        [("x", FLOAT, ["N", 6])],
        [("y", INT64, [2, None])],
    )


def constant() -> onnx.ModelProto:
    """No inputs at all."""
    return net(
        [helper.make_node("RandomNormal", [], ["y"], shape=[2, 3], seed=1.0)],
        [],
        [("y", FLOAT, [2, 3])],
    )


def spatial() -> onnx.ModelProto:
    """Conv and BatchNormalization on pictures of any size."""
    model = conv_bn()
    for face in (*model.graph.input, *model.graph.output):
        for axis in (2, 3):
            face.type.tensor_type.shape.dim[axis].dim_param = f"s{axis}"
    return model


def fixed_batch(size: int = 2) -> onnx.ModelProto:
    """The first axis has one size only."""
    model = conv_bn()
    for face in (*model.graph.input, *model.graph.output):
        face.type.tensor_type.shape.dim[0].dim_value = size
    return model


def foreign() -> onnx.ModelProto:
    """An operator that no runtime knows."""
    return net(
        [helper.make_node("Wonder", ["x"], ["y"], domain="nowhere.else")],
        [("x", FLOAT, ["N", 3])],
        [("y", FLOAT, ["N", 3])],
        domains=["nowhere.else"],
    )


def negation(scale: float | None = None) -> onnx.ModelProto:
    """What `foreign` would have to be compared with; or a Mul instead."""
    node = helper.make_node("Neg", ["x"], ["y"])
    weights = {}
    if scale is not None:
        node = helper.make_node("Mul", ["x", "c"], ["y"])
        weights = {"c": np.float32([scale])}
    return net([node], [("x", FLOAT, ["N", 3])], [("y", FLOAT, ["N", 3])], weights)


def cube(deadly: bool) -> onnx.ModelProto:  # noqa: FBT001 (two spellings of one function)
    """BatchNormalization of opset 9; with its empty outputs spelled out the runtime dies."""
    outputs = ["y", "", "", "", ""] if deadly else ["y"]
    node = helper.make_node("BatchNormalization", ["x", "v", "v", "v", "v"], outputs)
    model = net(
        [node],
        [("x", FLOAT, [1, 2, 3])],
        [("y", FLOAT, [1, 2, 3])],
        {"v": np.ones(2, np.float32)},
    )
    model.opset_import[0].version = 9
    return model


def heavy(extra: int = 30) -> onnx.ModelProto:
    """`conv_bn` that reads the same and takes many times as long."""
    model = conv_bn()
    model.graph.initializer.append(
        numpy_helper.from_array(np.zeros((3, 3, 3, 3), np.float32), "no")
    )
    names = [f"h{index}" for index in range(extra + 1)]
    model.graph.node[0].input[0] = names[-1]
    nodes = [helper.make_node("Identity", ["x"], [names[0]])]
    for before, after in pairwise(names):
        nodes += [
            helper.make_node("Conv", [before, "no"], [f"{after}c"], pads=[1] * 4),
            helper.make_node("Erf", [f"{after}c"], [f"{after}e"]),
            helper.make_node("Add", [before, f"{after}e"], [after]),
        ]
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])
    return model


def spoiled(model: onnx.ModelProto, value: float) -> onnx.ModelProto:
    """The same with one number of its first weight replaced."""
    other = onnx.ModelProto()
    other.CopyFrom(model)
    weight = numpy_helper.to_array(other.graph.initializer[0]).copy()
    weight.flat[0] = value
    other.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(weight, other.graph.initializer[0].name)
    )
    return other


def save(model: onnx.ModelProto, path: Path) -> Path:
    """Write it and give the path back."""
    onnx.save(model, path)
    return path
