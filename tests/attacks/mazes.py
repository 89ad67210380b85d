"""Models that never end: loops, functions that call themselves or double, graphs in graphs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.attacks.bombs import conv, model_of, tensor

Model = onnx.ModelProto
_DOMAIN = "attack"
YES = onnx.numpy_helper.from_array(np.array(1, np.bool_), "yes")
_OPSET = [helper.make_opsetid("", 17)]


def function(name: str, nodes: list[onnx.NodeProto], *, inputs=("a",), outputs=("b",)):
    opsets = [*_OPSET, helper.make_opsetid(_DOMAIN, 1)]
    return helper.make_function(_DOMAIN, name, list(inputs), list(outputs), nodes, opsets)


def call(name: str, source: str, result: str) -> onnx.NodeProto:
    return helper.make_node(name, [source], [result], domain=_DOMAIN)


def calling(name: str, functions: list[onnx.FunctionProto]) -> Model:
    """x → Conv → a function → y."""
    layers, weights = conv()
    opsets = [helper.make_opsetid(_DOMAIN, 1)]
    nodes = [*layers, call(name, "c", "y")]
    return model_of(nodes, weights, functions=functions, opsets=opsets)


def doubling(levels: int, breadth: int = 2) -> Model:
    """Every function calls the one before twice: 2ⁿ nodes."""
    layers = [helper.make_node("Mul", ["a", "two"], ["b"])]
    constant = helper.make_node("Constant", [], ["two"], value_float=1.0)
    found = [function("f0", [constant, *layers])]
    for level in range(1, levels):
        nodes, last = [], "a"
        for turn in range(breadth):
            result = "b" if turn == breadth - 1 else f"t{turn}"
            nodes.append(call(f"f{level - 1}", last, result))
            last = result
        found.append(function(f"f{level}", nodes))
    return calling(f"f{levels - 1}", found)


def deep(levels: int) -> Model:
    """Every function calls the one before once."""
    return doubling(levels, breadth=1)


def recursive() -> Model:
    return calling("f", [function("f", [call("f", "a", "b")])])


def mutually_recursive() -> Model:
    pair = [function("f", [call("g", "a", "b")]), function("g", [call("f", "a", "b")])]
    return calling("f", pair)


def recursive_in_a_branch() -> Model:
    inner = helper.make_graph(
        [call("f", "a", "r")], "inner", [],
        [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)],
    )  # fmt: skip
    nodes = [
        helper.make_node("Constant", [], ["yes"], value=tensor([True], "v", np.bool_)),
        helper.make_node("If", ["yes"], ["b"], then_branch=inner, else_branch=inner),
    ]
    return calling("f", [function("f", nodes)])


def twice_the_same_function() -> Model:
    one = function("f", [helper.make_node("Relu", ["a"], ["b"])])
    other = function("f", [helper.make_node("Neg", ["a"], ["b"])])
    return calling("f", [one, other])


def too_many_arguments() -> Model:
    model = calling("f", [function("f", [helper.make_node("Relu", ["a"], ["b"])])])
    model.graph.node[-1].input.extend(["c", "c", "c"])
    return model


def too_many_results() -> Model:
    model = calling("f", [function("f", [helper.make_node("Relu", ["a"], ["b"])])])
    model.graph.node[-1].output.append("more")
    return model


def cyclic_function() -> Model:
    nodes = [
        helper.make_node("Add", ["a", "b"], ["t"]),
        helper.make_node("Relu", ["t"], ["b"]),
    ]
    return calling("f", [function("f", nodes)])


def function_that_reads_nothing_known() -> Model:
    return calling("f", [function("f", [helper.make_node("Relu", ["nowhere"], ["b"])])])


def function_that_writes_no_result() -> Model:
    return calling("f", [function("f", [helper.make_node("Relu", ["a"], ["t"])])])


def function_that_writes_twice() -> Model:
    nodes = [helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Neg", ["a"], ["b"])]
    return calling("f", [function("f", nodes)])


def function_without_its_opset() -> Model:
    model = calling("f", [function("f", [helper.make_node("Relu", ["a"], ["b"])])])
    del model.functions[0].opset_import[:]
    return model


def _body(nodes, outputs, *, kind=TensorProto.FLOAT) -> onnx.GraphProto:
    info = helper.make_tensor_value_info
    return helper.make_graph(
        nodes,
        "body",
        [info("turn", TensorProto.INT64, []), info("go", TensorProto.BOOL, []),
         info("v", kind, None)],
        [info("goes", TensorProto.BOOL, []), *(info(one, kind, None) for one in outputs)],
    )  # fmt: skip


def endless(turns: int | None = None, *, outputs=("next",), scans: bool = False) -> Model:
    """A Loop whose condition never becomes false."""
    nodes = [
        helper.make_node("Identity", ["go"], ["goes"]),
        helper.make_node("Mul", ["v", "one"], ["next"]),
    ]
    if scans:
        nodes.append(helper.make_node("Identity", ["next"], ["row"]))
        outputs = ("next", "row")
    body = _body(nodes, outputs)
    stored = [YES, tensor([1.0], "one")]
    limit = ""
    if turns is not None:
        limit = "turns"
        stored.append(tensor(turns, "turns", np.int64))
    layers, weights = conv()
    results = ["y", "rows"] if scans else ["y"]
    site = helper.make_node("Mul", ["c", "scale"], ["l"], name="site")
    loop = helper.make_node("Loop", [limit, "yes", "l"], results, body=body, name="loop")
    scale = tensor(np.full((3, 1, 1), 2.0), "scale")
    return model_of([*layers, site, loop], [*weights, *stored, scale])


def endless_constant() -> Model:
    """The operand of a map is computed by a loop that never ends."""
    model = endless()
    conv_node, site, loop = model.graph.node
    loop.input[2], loop.output[0] = "scale", "k"
    other = helper.make_node("Mul", ["l", "k"], ["y"], name="other")
    del model.graph.node[:]
    model.graph.node.extend([conv_node, site, loop, other])
    return model


def nested_loops(levels: int) -> Model:
    """A billion turns, of a billion turns, …"""
    body = None
    for level in range(levels + 1):
        work = helper.make_node("Mul", [f"v{level}", "one"], [f"next{level}"])
        if body is not None:
            inputs = ["turns", "yes", f"v{level}"]
            work = helper.make_node("Loop", inputs, [f"next{level}"], body=body)
        nodes = [helper.make_node("Identity", [f"go{level}"], [f"goes{level}"]), work]
        body = _body(nodes, (f"next{level}",))
        for entry, name in zip(body.input, ("turn", "go", "v"), strict=True):
            entry.name = f"{name}{level}"
        body.output[0].name = f"goes{level}"
    layers, weights = conv()
    site = helper.make_node("Mul", ["c", "scale"], ["l"], name="site")
    loop = helper.make_node("Loop", ["turns", "yes", "l"], ["y"], body=body)
    stored = [
        YES, tensor([1.0], "one"), tensor(10**9, "turns", np.int64),
        tensor(np.full((3, 1, 1), 2.0), "scale"),
    ]  # fmt: skip
    return model_of([*layers, site, loop], [*weights, *stored])


def growing_loop() -> Model:
    """Every turn doubles what is carried."""
    nodes = [
        helper.make_node("Identity", ["go"], ["goes"]),
        helper.make_node("Concat", ["v", "v"], ["next"], axis=0),
    ]
    model = endless()
    model.graph.node[2].attribute[0].g.CopyFrom(_body(nodes, ("next",)))
    return model


def nested_branches(levels: int) -> bytes:
    """Graphs in graphs, made as bytes: protobuf's own writer has a bound too."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["o"])], "in", [],
        [helper.make_tensor_value_info("o", TensorProto.FLOAT, None)],
    )  # fmt: skip
    inner = body.SerializeToString()
    end = _field(12, helper.make_tensor_value_info("o", 1, None).SerializeToString())
    for _ in range(levels):
        branches = b"".join(
            _field(
                5, _field(1, name) + _field(6, inner) + bytes([20 << 3 & 0x7F | 0x80, 1, 5])
            )
            for name in (b"then_branch",)
        )
        node = _field(1, b"yes") + _field(2, b"o") + _field(4, b"If") + branches
        inner = _field(1, node) + end
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]).SerializeToString()
    yes = helper.make_tensor_value_info("yes", TensorProto.BOOL, []).SerializeToString()
    graph = inner + _field(11, x) + _field(11, yes)
    opset = _field(8, helper.make_opsetid("", 17).SerializeToString())
    return _field(7, graph) + opset + bytes([1 << 3, 10])


def _field(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    out = bytearray()
    while True:
        low, value = value & 0x7F, value >> 7
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def lattice(levels: int, op: str) -> Model:
    """Two ways through every level: 2ⁿ ways through the graph, a map at each end."""
    layers, weights = conv()
    scale = tensor(np.full((3, 1, 1), 2.0), "scale")
    nodes = [*layers, helper.make_node("Mul", ["c", "scale"], ["l0"])]
    nodes.extend(
        helper.make_node(op, [f"l{level}", f"l{level}"], [f"l{level + 1}"])
        for level in range(levels)
    )
    nodes.append(helper.make_node("Mul", [f"l{levels}", "scale"], ["y"]))
    return model_of(nodes, [*weights, scale])


def diamonds(levels: int) -> Model:
    layers, weights = conv()
    scale = tensor(np.full((3, 1, 1), 2.0), "scale")
    nodes = [*layers, helper.make_node("Mul", ["c", "scale"], ["l0"])]
    for level in range(levels):
        last = f"l{level}"
        nodes.append(helper.make_node("Relu", [last], [f"a{level}"]))
        nodes.append(helper.make_node("Transpose", [last], [f"t{level}"], perm=[0, 1, 3, 2]))
        nodes.append(
            helper.make_node("Transpose", [f"t{level}"], [f"s{level}"], perm=[0, 1, 3, 2])
        )
        nodes.append(helper.make_node("Add", [f"a{level}", f"s{level}"], [f"l{level + 1}"]))
    return model_of(nodes, [*weights, scale], y=None) if not levels else _ended(
        nodes, [*weights, scale], f"l{levels}"
    )  # fmt: skip


def _ended(nodes, stored, last: str) -> Model:
    nodes.append(helper.make_node("Identity", [last], ["y"]))
    return model_of(nodes, stored)


def ALL() -> dict[str, Callable[[], Model | bytes]]:  # noqa: N802  a table
    return {
        "recursive": recursive,
        "mutually_recursive": mutually_recursive,
        "recursive_in_a_branch": recursive_in_a_branch,
        "twice_the_same_function": twice_the_same_function,
        "too_many_arguments": too_many_arguments,
        "too_many_results": too_many_results,
        "cyclic_function": cyclic_function,
        "function_that_reads_nothing_known": function_that_reads_nothing_known,
        "function_that_writes_no_result": function_that_writes_no_result,
        "function_that_writes_twice": function_that_writes_twice,
        "function_without_its_opset": function_without_its_opset,
        "doubling_40": lambda: doubling(40),
        "doubling_15": lambda: doubling(15),
        "doubling_12": lambda: doubling(12),
        "tenfold_6": lambda: doubling(6, 10),
        "deep_60": lambda: deep(60),
        "deep_100": lambda: deep(100),
        "deep_5000": lambda: deep(5000),
        "endless": endless,
        "endless_billion": lambda: endless(10**9),
        "endless_scans": lambda: endless(scans=True),
        "endless_constant": endless_constant,
        "growing_loop": growing_loop,
        "nested_loops": lambda: nested_loops(3),
        "nested_branches_20": lambda: nested_branches(20),
        "nested_branches_31": lambda: nested_branches(31),
        "nested_branches_40": lambda: nested_branches(40),
        "nested_branches_900": lambda: nested_branches(900),
        "lattice_add": lambda: lattice(80, "Add"),
        "lattice_mul": lambda: lattice(80, "Mul"),
        "lattice_max": lambda: lattice(80, "Max"),
        "lattice_sum": lambda: lattice(80, "Sum"),
        "diamonds": lambda: diamonds(60),
    }
