"""Graphs of any number of nodes, many kinds of them, to see how a fold grows with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

_CHANNELS: Final = 4
_OPSET: Final = 17


class _Draft:
    """A graph that is being written: nodes, weights, inputs and outputs."""

    def __init__(self, nodes: int) -> None:
        self.size = nodes
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self.outputs: list[str] = []
        self.functions: list[onnx.FunctionProto] = []
        self.inputs = [("x", [1, _CHANNELS, 8, 8])]
        self.known = True
        self.ir_version = 8
        self._rng = np.random.default_rng(0)

    def numbers(self, *shape: int) -> str:
        """Store seeded float32 numbers near 1; return their name."""
        return self.held(self._rng.uniform(0.9, 1.1, shape).astype(np.float32))

    def held(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def then(self, op_type: str, *inputs: str, **attributes: object) -> str:
        """Append a node with one result; return the name of that."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(op_type, list(inputs), [name], name=f"n{name}", **attributes)
        )
        return name

    def batch_norm(self, data: str) -> str:
        parameters = [self.numbers(_CHANNELS) for _ in range(4)]
        return self.then("BatchNormalization", data, *parameters)

    def conv(self, data: str, kernel: int = 1) -> str:
        weight = self.numbers(_CHANNELS, _CHANNELS, kernel, kernel)
        return self.then("Conv", data, weight, pads=[kernel // 2] * 4)

    def model(self) -> onnx.ModelProto:
        inputs = [_info(name, shape if self.known else None) for name, shape in self.inputs]
        if self.ir_version < 4:
            inputs += [
                helper.make_tensor_value_info(w.name, w.data_type, w.dims)
                for w in self.weights
            ]
        graph = helper.make_graph(
            self.nodes,
            "long",
            inputs,
            [_info(name, None) for name in self.outputs],
            self.weights,
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", _OPSET), helper.make_opsetid("own", 1)],
            ir_version=self.ir_version,
            functions=self.functions,
        )


def _info(name: str, shape: list[int] | None) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _chain(*links: Callable[[_Draft, str], str]) -> Callable[[_Draft], None]:
    """Return a writer of these links over and over, each reading the one before."""

    def write(draft: _Draft) -> None:
        value = "x"
        while len(draft.nodes) < draft.size:
            for link in links:
                value = link(draft, value)
        draft.outputs.append(value)

    return write


def _op(op_type: str, **attributes: object) -> Callable[[_Draft, str], str]:
    return lambda draft, value: draft.then(op_type, value, **attributes)


def _by(op_type: str, *shape: int) -> Callable[[_Draft, str], str]:
    return lambda draft, value: draft.then(op_type, value, draft.numbers(*shape))


def _per_channel(op_type: str) -> Callable[[_Draft, str], str]:
    return _by(op_type, _CHANNELS, 1, 1)


def _residual(draft: _Draft, value: str) -> str:
    branch = draft.batch_norm(draft.conv(value))
    return draft.then("Add", draft.then("Relu", branch), value)


def _linear_residual(draft: _Draft, value: str) -> str:
    return draft.then("Add", draft.batch_norm(value), value)


def _reshape(draft: _Draft, value: str) -> str:
    flat = draft.then("Reshape", value, draft.held(np.array([1, _CHANNELS, 64])))
    return draft.then("Reshape", flat, draft.held(np.array([1, _CHANNELS, 8, 8])))


def _transposes(draft: _Draft, value: str) -> str:
    back = draft.then("Transpose", value, perm=[0, 2, 3, 1])
    return draft.then("Transpose", back, perm=[0, 3, 1, 2])


def _slice(draft: _Draft, value: str) -> str:
    """All of two axes, but by a Slice that has to be looked into."""
    bounds = [draft.held(np.array(one)) for one in ([0, 0], [8, 1000], [2, 3])]
    return draft.then("Slice", value, *bounds)


def _gelu(draft: _Draft, value: str) -> str:
    inner = draft.then("Erf", draft.then("Div", value, draft.held(np.float32(1.4142135))))
    gate = draft.then("Add", inner, draft.held(np.float32(1)))
    product = draft.then("Mul", value, gate)
    return draft.then("Mul", product, draft.held(np.float32(0.5)))


def _matmul(draft: _Draft, value: str) -> str:
    product = draft.then("MatMul", value, draft.numbers(8, 8))
    return draft.then("Relu", draft.then("Mul", product, draft.numbers(8)))


def _layer_norm(draft: _Draft, value: str) -> str:
    found = draft.then("LayerNormalization", value, draft.numbers(8), draft.numbers(8))
    return draft.then("MatMul", found, draft.numbers(8, 8))


def _if(draft: _Draft, value: str) -> str:
    condition = draft.held(np.array(True))  # noqa: FBT003  a tensor
    branches = []
    for kind in ("Relu", "Neg"):
        result = f"{value}.{kind}"
        node = helper.make_node(kind, [value], [result])
        branches.append(helper.make_graph([node], kind, [], [_info(result, None)]))
    return draft.then("If", condition, then_branch=branches[0], else_branch=branches[1])


def _shared_constants(draft: _Draft) -> None:
    """Mul by one and the same tensor, between operators that no map passes."""
    value, factor = "x", draft.numbers(_CHANNELS, 1, 1)
    while len(draft.nodes) < draft.size:
        value = draft.then("Sigmoid", draft.then("Mul", draft.conv(value), factor))
    draft.outputs.append(value)


def _constant_chain(draft: _Draft) -> None:
    """Operators of constants only, the last of which maps the input."""
    value = draft.numbers(_CHANNELS, 1, 1)
    while len(draft.nodes) + 1 < draft.size:
        value = draft.then("Mul", value, draft.numbers(_CHANNELS, 1, 1))
    draft.outputs.append(draft.then("Mul", "x", value))


def _constant_diamonds(draft: _Draft) -> None:
    """Constants that are each computed from the one before in two ways."""
    value = draft.numbers(_CHANNELS, 1, 1)
    while len(draft.nodes) + 1 < draft.size:
        value = draft.then("Max", value, draft.then("Neg", value))
    draft.outputs.append(draft.then("Mul", "x", value))


def _handed_on(draft: _Draft) -> None:
    """A map in front of very many operators that let it pass, each with its own constant."""
    value = draft.then("Mul", "x", draft.numbers(_CHANNELS, 1, 1))
    while len(draft.nodes) + 1 < draft.size:
        value = draft.then("PRelu", value, draft.numbers(_CHANNELS, 1, 1))
    draft.outputs.append(draft.conv(value))


def _fan(*links: Callable[[_Draft, str], str]) -> Callable[[_Draft], list[str]]:
    def write(draft: _Draft) -> list[str]:
        ends = []
        while len(draft.nodes) + 1 < draft.size:
            value = "x"
            for link in links:
                value = link(draft, value)
            ends.append(value)
        return ends

    return write


def _joined(fan: Callable[[_Draft], list[str]], *links: str) -> Callable[[_Draft], None]:
    """Join what is read from one value by Concat or Sum, then go on."""

    def write(draft: _Draft) -> None:
        ends = fan(draft)
        kind, *rest = links
        value = draft.then(kind, *ends, **({"axis": 1} if kind == "Concat" else {}))
        for link in rest:
            if link == "Conv":
                channels = _CHANNELS * (len(ends) if kind == "Concat" else 1)
                value = draft.then("Conv", value, draft.numbers(2, channels, 1, 1))
            else:
                value = draft.then(link, value)
        draft.outputs.append(value)

    return write


def _split_fan(draft: _Draft) -> None:
    count = max(1, (draft.size - 2) // 2)
    draft.inputs = [("x", [1, _CHANNELS * count, 8, 8])]
    parts = [f"p{place}" for place in range(count)]
    sizes = draft.held(np.full(count, _CHANNELS))
    draft.nodes.append(helper.make_node("Split", ["x", sizes], parts, axis=1))
    halves = [draft.then("Relu", draft.batch_norm(part)) for part in parts]
    draft.outputs.append(draft.then("Concat", *halves, axis=1))


def _split_of_conv(draft: _Draft) -> None:
    """Parts of one convolution, each of which is normalised for itself."""
    count = max(1, (draft.size - 3) // 3)
    weight = draft.numbers(_CHANNELS * count, _CHANNELS, 1, 1)
    parts = [f"p{place}" for place in range(count)]
    sizes = draft.held(np.full(count, _CHANNELS))
    whole = draft.then("Conv", "x", weight)
    draft.nodes.append(helper.make_node("Split", [whole, sizes], parts, axis=1))
    ends = [draft.then("Relu", draft.batch_norm(part)) for part in parts]
    draft.outputs.append(draft.then("Concat", *ends, axis=1))


def _many_outputs(draft: _Draft) -> None:
    value = "x"
    while len(draft.nodes) < draft.size:
        value = draft.batch_norm(draft.conv(value))
        draft.outputs.append(draft.then("Mul", value, draft.numbers(_CHANNELS, 1, 1)))


def _fan_outputs(draft: _Draft) -> None:
    value = draft.conv("x")
    while len(draft.nodes) < draft.size:
        draft.outputs.append(draft.then("Mul", value, draft.numbers(_CHANNELS, 1, 1)))


def _many_initializers(draft: _Draft) -> None:
    """A few nodes of very many inputs, all of them stored."""
    count = draft.size
    held = [draft.numbers(_CHANNELS) for _ in range(count)]
    added = draft.then("Concat", *held, axis=0)
    total = draft.then("ReduceSum", added, keepdims=1)
    draft.outputs.append(draft.then("Mul", draft.conv("x"), total))


def _dead(draft: _Draft) -> None:
    """Nodes that nothing reads beside the one that is read."""
    value = draft.conv("x")
    draft.outputs.append(draft.then("Relu", draft.batch_norm(value)))
    while len(draft.nodes) < draft.size:
        value = draft.then("Sigmoid", value)


def _pairs(draft: _Draft) -> None:
    """Add of two values that were made by two operators each, as a tree."""
    level = []
    while 2 * len(draft.nodes) < draft.size:
        level.append(
            draft.then("Mul", draft.then("Relu", "x"), draft.numbers(_CHANNELS, 1, 1))
        )
    while len(level) > 1:
        joined = [
            draft.then("Add", *pair) for pair in zip(level[::2], level[1::2], strict=False)
        ]
        level = joined + (level[-1:] if len(level) % 2 else [])
    draft.outputs.append(level[0])


def _inside(write: Callable[[_Draft], None]) -> Callable[[_Draft], None]:
    """Write the same into both branches of an If that runs by an input."""

    def outer(draft: _Draft) -> None:
        branches = []
        for stem in ("a", "b"):
            inner = _Draft(draft.size // 2)
            write(inner)
            nodes = [_renamed(node, stem) for node in inner.nodes]
            weights = [_renamed_tensor(weight, stem) for weight in inner.weights]
            outputs = [_info(stem + name, None) for name in inner.outputs]
            branches.append(helper.make_graph(nodes, stem, [], outputs, weights))
        condition = draft.then("Cast", draft.then("ReduceMax", "x", keepdims=0), to=9)
        draft.outputs.append(
            draft.then("If", condition, then_branch=branches[0], else_branch=branches[1])
        )

    return outer


def _renamed(node: NodeProto, stem: str) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.name = stem + node.name
    copy.input[:] = [name if name == "x" else stem + name for name in node.input]
    copy.output[:] = [stem + name for name in node.output]
    return copy


def _renamed_tensor(tensor: TensorProto, stem: str) -> TensorProto:
    copy = TensorProto()
    copy.CopyFrom(tensor)
    copy.name = stem + tensor.name
    return copy


def _in_function(draft: _Draft) -> None:
    """One function whose body is a chain of Mul and Relu."""
    inner = _Draft(draft.size)
    _chain(_per_channel("Mul"), _op("Relu"))(inner)
    body = [
        helper.make_node("Constant", [], [weight.name], value=weight)
        for weight in inner.weights
    ]
    draft.functions.append(
        helper.make_function(
            "own",
            "Body",
            ["x"],
            inner.outputs,
            [*body, *inner.nodes],
            [helper.make_opsetid("", _OPSET)],
        )
    )
    draft.outputs.append(draft.then("Body", "x", domain="own"))


def _small_function(draft: _Draft) -> None:
    """Times 2, Relu, by 2: however many follow one another, no product overflows."""
    nodes = [
        helper.make_node(
            "Constant", [], ["c"], value=numpy_helper.from_array(np.float32([2]))
        ),
        helper.make_node("Mul", ["a", "c"], ["m"]),
        helper.make_node("Relu", ["m"], ["s"]),
        helper.make_node("Div", ["s", "c"], ["r"]),
    ]
    opsets = [helper.make_opsetid("", _OPSET)]
    draft.functions.append(helper.make_function("own", "Small", ["a"], ["r"], nodes, opsets))


def _calls(draft: _Draft) -> None:
    """Very many calls of one small function."""
    _small_function(draft)
    value = "x"
    while 4 * len(draft.nodes) < draft.size:
        value = draft.then("Small", value, domain="own")
    draft.outputs.append(value)


def _nested_calls(draft: _Draft) -> None:
    """Functions that call one another ten deep, and very many calls of the outermost."""
    _small_function(draft)
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("own", 1)]
    inner = "Small"
    for level in range(9):
        call = helper.make_node(inner, ["a"], ["r"], domain="own")
        inner = f"Level{level}"
        draft.functions.append(
            helper.make_function("own", inner, ["a"], ["r"], [call], opsets)
        )
    value = "x"
    while 4 * len(draft.nodes) < draft.size:
        value = draft.then(inner, value, domain="own")
    draft.outputs.append(value)


def _unknown(write: Callable[[_Draft], None]) -> Callable[[_Draft], None]:
    """Say nothing of the shape of the input."""

    def outer(draft: _Draft) -> None:
        write(draft)
        draft.known = False

    return outer


def _old(write: Callable[[_Draft], None]) -> Callable[[_Draft], None]:
    """List every initializer among the inputs, as IR version 3 does."""

    def outer(draft: _Draft) -> None:
        write(draft)
        draft.ir_version = 3

    return outer


def _conv_bn(draft: _Draft, value: str) -> str:
    return draft.batch_norm(draft.conv(value))


def _conv3_bn_relu(draft: _Draft, value: str) -> str:
    return draft.then("Relu", draft.batch_norm(draft.conv(value, 3)))


_mul, _add, _relu = _per_channel("Mul"), _per_channel("Add"), _op("Relu")

KINDS: Final[dict[str, Callable[[_Draft], None]]] = {
    "mul chain": _chain(_mul),
    "conv-bn chain": _chain(_conv_bn),
    "relu chain": _chain(_relu),
    "concat fan-out": _joined(_fan(_mul, _relu), "Concat", "Conv"),
    "add chain": _chain(_add),
    "scalar mul-add chain": _chain(_by("Mul"), _by("Add")),
    "mul-relu chain": _chain(_mul, _relu),
    "add-relu chain": _chain(_add, _relu),
    "mul-sigmoid chain": _chain(_mul, _op("Sigmoid")),
    "conv chain": _chain(lambda draft, value: draft.conv(value)),
    "conv-bn-relu chain": _chain(_conv3_bn_relu),
    "batch-norm chain": _chain(lambda draft, value: draft.batch_norm(value)),
    "batch-norm-relu chain": _chain(lambda draft, value: draft.batch_norm(value), _relu),
    "matmul-mul-relu chain": _chain(_matmul),
    "layer-norm-matmul chain": _chain(_layer_norm),
    "gelu chain": _chain(_gelu),
    "residual ladder": _chain(_residual),
    "linear residual ladder": _chain(_linear_residual),
    "transpose chain": _chain(_transposes),
    "transpose-mul chain": _chain(_transposes, _mul),
    "reshape chain": _chain(_reshape),
    "reshape-mul chain": _chain(_reshape, _mul),
    "slice-mul chain": _chain(_slice, _mul),
    "identity chain": _chain(_op("Identity")),
    "concat of mul": _joined(_fan(_mul), "Concat"),
    "concat of conv-bn": _joined(_fan(_conv_bn), "Concat", "Conv"),
    "concat of relu-mul": _joined(_fan(_relu, _mul), "Concat", "Conv"),
    "concat of relu": _joined(_fan(_relu), "Concat"),
    "sum of mul": _joined(_fan(_mul), "Sum"),
    "sum of conv-bn": _joined(_fan(_conv_bn), "Sum", "Relu"),
    "sum of relu-mul": _joined(_fan(_relu, _mul), "Sum", "Conv"),
    "split fan": _split_fan,
    "split of conv": _split_of_conv,
    "tree of add": _pairs,
    "shared constant": _shared_constants,
    "constant chain": _constant_chain,
    "constant diamonds": _constant_diamonds,
    "map handed on": _handed_on,
    "many outputs": _many_outputs,
    "fan of outputs": _fan_outputs,
    "many initializers": _many_initializers,
    "dead code": _dead,
    "many if": _chain(_if, _mul),
    "mul chain in if": _inside(_chain(_mul)),
    "conv-bn-relu chain in if": _inside(_chain(_conv3_bn_relu)),
    "chain in function": _in_function,
    "many calls": _calls,
    "nested calls": _nested_calls,
    "relu chain, shape unknown": _unknown(_chain(_relu)),
    "mul-relu chain, shape unknown": _unknown(_chain(_mul, _relu)),
    "conv-bn-relu chain, IR 3": _old(_chain(_conv3_bn_relu)),
}
"""What writes each kind of graph. The first four are those that a promise is made of."""

PROMISED: Final = ("mul chain", "conv-bn chain", "relu chain", "concat fan-out")


def long_graph(kind: str, nodes: int) -> onnx.ModelProto:
    """Return a model of about so many nodes, float32 weights seeded.

    Args:
        kind: One of `KINDS`.
        nodes: How many, subgraphs and functions included; a few more or less.
    """
    draft = _Draft(nodes)
    KINDS[kind](draft)
    return draft.model()
