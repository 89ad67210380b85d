"""Models whose data lies outside of their file, wherever a tensor can stand."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.attacks.bombs import conv, model_of, tensor

SCALE = np.array([0.5, 2.0, 4.0], np.float32).reshape(3, 1, 1)


def external(name: str, location: str, **entries: str) -> TensorProto:
    """A tensor of three numbers, 12 bytes, that lies in a file."""
    found = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=SCALE.shape)
    found.data_location = TensorProto.EXTERNAL
    told = {"location": location, "offset": "0", "length": "12", **entries}
    for key, value in told.items():
        if value is not None:
            found.external_data.add(key=key, value=value)
    return found


def _site(operand: str, source: str = "c") -> onnx.NodeProto:
    return helper.make_node("Mul", [source, operand], ["y"], name="site")


def initializer(held: TensorProto) -> onnx.ModelProto:
    layers, weights = conv()
    held.name = "k"
    return model_of([*layers, _site("k")], [*weights, held])


def constant_node(held: TensorProto) -> onnx.ModelProto:
    layers, weights = conv()
    node = helper.make_node("Constant", [], ["k"], value=held)
    return model_of([*layers, node, _site("k")], weights)


def in_function(held: TensorProto) -> onnx.ModelProto:
    layers, weights = conv()
    body = [
        helper.make_node("Constant", [], ["k"], value=held),
        helper.make_node("Mul", ["a", "k"], ["b"]),
    ]
    opsets = [helper.make_opsetid("", 17)]
    function = helper.make_function("own", "scaled", ["a"], ["b"], body, opsets)
    call = helper.make_node("scaled", ["c"], ["y"], domain="own")
    own = [helper.make_opsetid("own", 1)]
    return model_of([*layers, call], weights, functions=[function], opsets=own)


def _branch(nodes: list[onnx.NodeProto], stored: list[TensorProto]) -> onnx.GraphProto:
    result = helper.make_tensor_value_info("r", TensorProto.FLOAT, None)
    return helper.make_graph(nodes, "branch", [], [result], stored)


def _chosen(branch: onnx.GraphProto) -> onnx.ModelProto:
    layers, weights = conv()
    other = _branch([helper.make_node("Neg", ["c"], ["r"])], [])
    node = helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=other)
    model = model_of([*layers, node], weights)
    model.graph.input.add().CopyFrom(helper.make_tensor_value_info("yes", 9, []))
    return model


def subgraph_initializer(held: TensorProto) -> onnx.ModelProto:
    held.name = "k"
    return _chosen(_branch([helper.make_node("Mul", ["c", "k"], ["r"])], [held]))


def subgraph_constant(held: TensorProto) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Constant", [], ["k"], value=held),
        helper.make_node("Mul", ["c", "k"], ["r"]),
    ]
    return _chosen(_branch(nodes, []))


def sparse(held: TensorProto) -> onnx.ModelProto:
    layers, weights = conv()
    held.name, held.dims[:] = "k", [3]
    model = model_of([*layers, _site("k")], weights)
    indices = numpy_helper.from_array(np.array([0, 1, 2]))
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(held, indices, list(SCALE.shape))
    )
    return model


def training(held: TensorProto) -> onnx.ModelProto:
    model = initializer(tensor(SCALE, "k"))
    held.name = "start"
    info = model.training_info.add()
    info.initialization.initializer.append(held)
    info.initialization.node.append(helper.make_node("Identity", ["start"], ["z"]))
    return model


def list_of_tensors(held: TensorProto) -> onnx.ModelProto:
    layers, weights = conv()
    k = tensor(SCALE, "k")
    odd = helper.make_node("Odd", ["m"], ["y"], domain="some.where", tensors=[held, k])
    return model_of(
        [*layers, helper.make_node("Mul", ["c", "k"], ["m"], name="site"), odd],
        [*weights, k],
        opsets=[helper.make_opsetid("some.where", 1)],
    )


def function_default(held: TensorProto) -> onnx.ModelProto:
    model = in_function(tensor(SCALE, "k"))
    model.functions[0].attribute_proto.append(helper.make_attribute("given", held))
    return model


PLACES: dict[str, Callable[[TensorProto], onnx.ModelProto]] = {
    "initializer": initializer,
    "constant": constant_node,
    "function": in_function,
    "subgraph initializer": subgraph_initializer,
    "subgraph constant": subgraph_constant,
    "sparse": sparse,
    "training": training,
    "list": list_of_tensors,
    "function default": function_default,
}
"""Where a tensor of a model can stand."""


def every_tensor(message: object) -> Iterator[TensorProto]:
    """Every tensor in a message, found without knowing where to look."""
    if isinstance(message, TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for one in value if hasattr(value, "append") else [value]:
                yield from every_tensor(one)
