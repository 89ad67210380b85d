"""Another way to write a model down: the same function, other words.

What comes from exporters differs in all of this: constants as nodes, absent inputs that are
written out, names that are missing, given twice or used in other graphs too, a graph inside of
an If or a function, initializers that are inputs, Identity and dead code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import onnx
from onnx import helper

_OPTIONAL: Final = onnx.defs.OpSchema.FormalParameterOption.Optional
_CONDITION: Final = "is_it_so"


def respelled(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """Return the model written in another way, each with a chance of its own."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for spell in _WAYS:
        if rng.random() < _WAYS[spell]:
            spell(copy, rng)
    return copy


def constants_as_nodes(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Put some initializers into Constant nodes."""
    graph = model.graph
    listed = {info.name for info in (*graph.input, *graph.output)}
    kept = [t for t in graph.initializer if t.name in listed or rng.random() < 0.5]
    names = {tensor.name for tensor in kept}
    moved = [
        helper.make_node("Constant", [], [tensor.name], value=tensor)
        for tensor in graph.initializer
        if tensor.name not in names
    ]
    _replace(graph.initializer, kept)
    _replace(graph.node, [*moved, *graph.node])


def absent_inputs(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Write out optional inputs that are not there, as empty names."""
    opset = _opset(model)
    for node in model.graph.node:
        if node.domain or not onnx.defs.has(node.op_type):
            continue
        formal = onnx.defs.get_schema(node.op_type, opset, "").inputs
        while len(node.input) < len(formal) and formal[len(node.input)].option == _OPTIONAL:
            if rng.random() < 0.3:
                break
            node.input.append("")


def identities(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Put an Identity in front of some inputs of nodes."""
    nodes = []
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name and rng.random() < 0.12:
                fresh = f"same_{len(nodes)}_{name}"
                nodes.append(helper.make_node("Identity", [name], [fresh]))
                node.input[place] = fresh
        nodes.append(node)
    _replace(model.graph.node, nodes)


def dead_code(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Compute some results a second time, and read them nowhere or in one place more."""
    nodes = []
    for node in model.graph.node:
        nodes.append(node)
        if any(a.HasField("g") for a in node.attribute) or rng.random() > 0.15:
            continue
        again = onnx.NodeProto()
        again.CopyFrom(node)
        again.name = f"{node.name}_again" if node.name else ""
        names = [f"again_{name}" if name else "" for name in node.output]
        _replace(again.output, names)
        nodes.append(again)
        if rng.random() < 0.5:
            nodes.append(helper.make_node("Relu", [names[0]], [f"dead_{names[0]}"]))
    _replace(model.graph.node, nodes)


def names_of_nodes(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Take the names of nodes away, or give all the same."""
    name = str(rng.choice(["", "node"]))
    for node in model.graph.node:
        node.name = name


def types_inside(model: onnx.ModelProto, rng: np.random.Generator) -> None:  # noqa: ARG001  contract
    """Declare the types and shapes of inner values, as far as they are found."""
    del model.graph.value_info[:]
    found = onnx.shape_inference.infer_shapes(model)
    model.graph.value_info.extend(found.graph.value_info)


def overridable(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """List some initializers as inputs too: callers may give others."""
    listed = {info.name for info in model.graph.input}
    for tensor in model.graph.initializer:
        if tensor.name not in listed and rng.random() < 0.2:
            info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            model.graph.input.append(info)


def inside_an_if(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Put the whole graph into both branches of an If; its condition may be a constant."""
    graph = model.graph
    given = {info.name for info in graph.input}
    written = {name for node in graph.node for name in node.output}
    if _CONDITION in given | written or any(o.name not in written for o in graph.output):
        return
    inner = _renamed(graph, {info.name: f"{info.name}_inside" for info in graph.output})
    weights = [tensor for tensor in graph.initializer if tensor.name not in given]
    own = bool(rng.random() < 0.6)
    branches = {}
    for place, name in enumerate(("then_branch", "else_branch")):
        nodes = [_copied(node) for node in inner]
        if place:  # something else, in the same words
            nodes.insert(0, helper.make_node("Identity", [graph.input[0].name], ["other"]))
        results = [_copied(info) for info in graph.output]
        for info in results:
            info.name = f"{info.name}_inside"
        stored = [_copied(tensor) for tensor in weights] if own else []
        branches[name] = helper.make_graph(nodes, name, [], results, stored)
    outputs = [info.name for info in graph.output]
    chosen = helper.make_node("If", [_CONDITION], outputs, name="chosen", **branches)
    _replace(graph.node, [chosen])
    if own:
        _replace(graph.initializer, [t for t in graph.initializer if t.name in given])
    del graph.value_info[:]
    if rng.random() < 0.6:
        known = helper.make_tensor(_CONDITION, onnx.TensorProto.BOOL, [], [rng.random() < 0.5])
        graph.initializer.append(known)
    else:
        graph.input.append(
            helper.make_tensor_value_info(_CONDITION, onnx.TensorProto.BOOL, [])
        )


def in_a_function(model: onnx.ModelProto, rng: np.random.Generator) -> None:  # noqa: ARG001  contract
    """Put all nodes into a function that is called once."""
    graph = model.graph
    if model.functions or any(one.domain not in ("", "local") for one in model.opset_import):
        return
    given = [info.name for info in graph.input]
    given += [tensor.name for tensor in graph.initializer if tensor.name not in given]
    results = [info.name for info in graph.output]
    written = {name for node in graph.node for name in node.output}
    if any(name not in written for name in results):
        return
    opsets = [one for one in model.opset_import if one.domain == ""]
    body = [_copied(node) for node in graph.node]
    function = helper.make_function("local", "Whole", given, results, body, opsets)
    model.functions.append(function)
    if all(one.domain != "local" for one in model.opset_import):
        model.opset_import.append(helper.make_opsetid("local", 1))
    call = helper.make_node("Whole", given, results, name="call", domain="local")
    _replace(graph.node, [call])
    del graph.value_info[:]


_WAYS: Final[dict[Callable[[onnx.ModelProto, np.random.Generator], None], float]] = {
    dead_code: 0.3,
    identities: 0.3,
    constants_as_nodes: 0.4,
    absent_inputs: 0.5,
    overridable: 0.1,
    names_of_nodes: 0.3,
    types_inside: 0.3,
    inside_an_if: 0.25,
    in_a_function: 0.2,
}


def _opset(model: onnx.ModelProto) -> int:
    return next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))


def _copied(message):
    return type(message).FromString(message.SerializeToString())


def _replace(field, entries) -> None:
    kept = [entry if isinstance(entry, str) else _copied(entry) for entry in entries]
    del field[:]
    field.extend(kept)


def _renamed(graph: onnx.GraphProto, names: dict[str, str]) -> list[onnx.NodeProto]:
    nodes = [_copied(node) for node in graph.node]
    for node in nodes:
        _rename(node, names)
    return nodes


def _rename(node: onnx.NodeProto, names: dict[str, str]) -> None:
    _replace(node.input, [names.get(name, name) for name in node.input])
    _replace(node.output, [names.get(name, name) for name in node.output])
    for attribute in node.attribute:
        for inner in attribute.g.node:
            _rename(inner, names)
        for info in attribute.g.output:
            info.name = names.get(info.name, info.name)
