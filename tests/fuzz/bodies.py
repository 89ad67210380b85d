"""Nodes with a graph inside, and functions: what they read is drawn like all else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.fuzz.contents import FLOATS
from tests.fuzz.nodes import floats, recent
from tests.fuzz.scope import Scope, Value

Fill = Callable[[Scope, int], None]
"""Appends so many nodes to a scope."""
DEEPEST = 2


def branch(scope: Scope, fill: Fill) -> None:
    """Append an If: each branch computes something of the values around it."""
    draws = scope.draws
    condition = _condition(scope)
    inner = [scope.fork(sees=True) for _ in range(2)]
    ends = []
    for one in inner:
        fill(one, draws.integer(1, 3))
        own = [v for v in one.values if v not in scope.values and v.element in FLOATS]
        if not own:
            return
        ends.append(own[-1])
    if ends[0].element != ends[1].element:
        return
    graphs = {
        name: helper.make_graph(one.nodes, name, [], [_end(end)], one.weights)
        for name, one, end in zip(("then_branch", "else_branch"), inner, ends, strict=True)
    }
    name = scope.fresh()
    scope.nodes.append(helper.make_node("If", [condition.name], [name], name=name, **graphs))
    taken = ends[0] if bool(condition.array.reshape(-1)[0]) else ends[1]
    scope.values.append(Value(name, taken.element, taken.array))


def _end(value: Value) -> onnx.ValueInfoProto:
    return _sized(value.name, value, len(value.shape))


def _sized(name: str, value: Value, rank: int) -> onnx.ValueInfoProto:
    """Declare a rank, and no sizes: they may be others in the next turn."""
    return helper.make_tensor_value_info(name, value.element, [None] * rank)


def _condition(scope: Scope) -> Value:
    draws = scope.draws
    known = [v for v in scope.values if v.element == TensorProto.BOOL and v.array.size == 1]
    if known and draws.chance(40):
        return draws.pick(known)
    if scope.new_input is not None and draws.chance(50):
        return scope.new_input(TensorProto.BOOL, ())
    return scope.constant(np.asarray(draws.chance(50)), TensorProto.BOOL)


def loop(scope: Scope, fill: Fill) -> None:
    """Append a Loop of a few turns around one value, which keeps its shape."""
    draws = scope.draws
    given = floats(scope)
    if not given:
        return
    start = recent(draws, given)
    inner = scope.fork(sees=True)
    names = [inner.fresh() for _ in range(3)]
    state = Value(names[2], start.element, start.array)
    inner.values.append(state)
    fill(inner, draws.integer(1, 3))
    end = _alike(inner, state)
    if end is None:
        return
    outputs = [scope.fresh()]
    seen = None
    if draws.chance(50):
        seen = draws.pick([v for v in inner.values if v.element in FLOATS])
        outputs.append(scope.fresh())
    body = _loop_body(inner, names, state, end, seen)
    turns = draws.integer(0, 3)
    count = scope.constant(np.asarray(turns, np.int64), TensorProto.INT64)
    going = scope.constant(np.asarray(True), TensorProto.BOOL)  # noqa: FBT003  the array itself
    inputs = [count.name, going.name, start.name]
    scope.nodes.append(helper.make_node("Loop", inputs, outputs, name=outputs[0], body=body))
    scope.values.append(Value(outputs[0], end.element, end.array if turns else start.array))
    if seen is not None:
        stacked = np.stack([seen.array] * turns) if turns else seen.array[None][:0]
        scope.values.append(Value(outputs[1], seen.element, stacked))


def _loop_body(
    inner: Scope, names: list[str], state: Value, end: Value, seen: Value | None
) -> onnx.GraphProto:
    """Return the graph of a loop: it goes on, keeps a state, and may collect a value."""
    copies = {name: inner.fresh() for name in (names[1], *([seen.name] if seen else []))}
    for name, copied in copies.items():
        inner.nodes.append(helper.make_node("Identity", [name], [copied]))
    infos = [
        helper.make_tensor_value_info(names[0], TensorProto.INT64, []),
        helper.make_tensor_value_info(names[1], TensorProto.BOOL, []),
        state.info(),
    ]
    going = helper.make_tensor_value_info(copies[names[1]], TensorProto.BOOL, [])
    collected = [_sized(copies[seen.name], seen, len(seen.shape))] if seen else []
    results = [going, _end(end), *collected]
    return helper.make_graph(inner.nodes, "body", infos, results, inner.weights)


def _alike(inner: Scope, state: Value) -> Value | None:
    """Return the last value of a body that has the type and shape of its state."""
    fit = [
        v
        for v in inner.values
        if v.element == state.element and v.shape == state.shape and v is not state
    ]
    own = {name for node in inner.nodes for name in node.output}
    fit = [v for v in fit if v.name in own]
    return fit[-1] if fit else None


def scan(scope: Scope, fill: Fill) -> None:
    """Append a Scan over the first axis of a value."""
    draws = scope.draws
    given = [v for v in floats(scope) if v.shape and v.shape[0] > 0]
    if not given or scope.opset < 9:
        return
    over = recent(draws, given)
    inner = scope.fork(sees=True)
    item = Value(inner.fresh(), over.element, over.array[0])
    inner.values.append(item)
    fill(inner, draws.integer(1, 3))
    own = {name for node in inner.nodes for name in node.output}
    ends = [v for v in inner.values if v.name in own and v.element in FLOATS]
    if not ends:
        return
    end = ends[-1]
    body = helper.make_graph(inner.nodes, "body", [item.info()], [_end(end)], inner.weights)
    name = scope.fresh()
    attributes = {"body": body, "num_scan_inputs": 1}
    if draws.chance(20):
        attributes["scan_input_directions"] = [1]
    scope.nodes.append(helper.make_node("Scan", [over.name], [name], name=name, **attributes))
    scope.values.append(Value(name, end.element, np.stack([end.array] * over.shape[0])))


def function(scope: Scope, fill: Fill) -> None:
    """Define a function of one to three values, and call it once or twice."""
    draws = scope.draws
    given = floats(scope)
    if not given:
        return
    arguments = [draws.pick(given) if k else recent(draws, given) for k in range(2)]
    arguments = arguments[: draws.integer(1, 2)]
    inner = scope.fork(sees=False)
    names = [f"p{k}" for k in range(len(arguments))]
    inner.values.extend(
        Value(name, one.element, one.array) for name, one in zip(names, arguments, strict=True)
    )
    fill(inner, draws.integer(1, 4))
    own = {name for node in inner.nodes for name in node.output}
    ends = [v for v in inner.values if v.name in own and v.element in FLOATS]
    if not ends:
        return
    end = ends[-1]
    alpha = _refer(inner)
    title = f"F{len(scope.functions)}"
    imports = [helper.make_opsetid("", scope.opset), helper.make_opsetid("local", 1)]
    scope.functions.append(
        helper.make_function("local", title, names, [end.name], inner.nodes, imports, alpha)
    )
    for turn in range(draws.integer(1, 2)):
        order = arguments[::-1] if turn and _same_types(arguments) else arguments
        name = scope.fresh()
        node = helper.make_node(
            title, [one.name for one in order], [name], name=name, domain="local"
        )
        node.attribute.extend(helper.make_attribute(one, 0.25 * (1 + turn)) for one in alpha)
        scope.nodes.append(node)
        if order is arguments:
            scope.values.append(Value(name, end.element, end.array))


def _same_types(arguments: list[Value]) -> bool:
    kinds = {(one.element, one.shape) for one in arguments}
    return len(kinds) == 1


def _refer(inner: Scope) -> list[str]:
    """Let an attribute of a node be one of the function."""
    for node in inner.nodes:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.FLOAT and attribute.name == "alpha":
                attribute.CopyFrom(onnx.AttributeProto(name="alpha", type=attribute.type))
                attribute.ref_attr_name = "slope"
                return ["slope"]
    return []
