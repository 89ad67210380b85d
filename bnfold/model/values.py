"""Values and their names, as an editor of graphs needs them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator

import onnx_ir as ir

from bnfold.model.graphs import graphs_of, subgraphs_of
from bnfold.model.uses import is_used


def label(node: ir.Node) -> str:
    """Return what new tensors of a node are named after."""
    return node.name or node.outputs[0].name or node.op_type


def graph_of(node: ir.Node) -> ir.Graph:
    """Return the graph a node stands in.

    Raises:
        ValueError: If it has left its graph.
    """
    graph = node.graph
    if graph is None:
        message = f"node {node.name!r} has left its graph"
        raise ValueError(message)
    return graph


def take_identity(value: ir.Value, other: ir.Value) -> None:
    """Give ``value`` the name and the declared type of ``other``, which is about to go."""
    name = other.name
    other.name = None
    value.name = name
    value.type = other.type
    value.shape = other.shape
    value.doc_string = other.doc_string
    value.metadata_props.clear()
    value.metadata_props.update(other.metadata_props)
    value.meta.update(other.meta)


def is_read(value: ir.Value) -> bool:
    """Return whether anything depends on a value."""
    return is_used(value) or value.is_graph_output()


def values_in(graph: ir.Graph) -> Iterable[ir.Value]:
    """Yield inputs, initializers and results of the nodes of one graph."""
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def values_of(graph: ir.Graph) -> Iterator[ir.Value]:
    """Yield inputs, initializers and results of a graph and of all graphs inside of it."""
    for inner in graphs_of(graph):
        yield from values_in(inner)


def rename_new(graph: ir.Graph, known: Container[ir.Value]) -> None:
    """Give values that are not ``known`` names that no other value has, in any graph.

    In a graph inside of another a name must not be that of an outer value (ONNX IR, "Names
    Within a Graph"), and readers take a name from the innermost graph that has it.
    """
    names = set(all_names(graph))
    counts = Counter(value.name for value in values_of(graph))
    numbers: Counter[str] = Counter()
    for value in [value for value in values_of(graph) if value not in known]:
        name = value.name
        if not name or counts[name] <= 1:
            continue
        counts[name] -= 1
        while (fresh := f"{name}_{numbers[name] + 1}") in names:
            numbers[name] += 1
        names.add(fresh)
        if value.const_value is not None:
            value.const_value = renamed(value.const_value, fresh)
        value.name = fresh


def renamed(tensor: ir.TensorProtocol, name: str) -> ir.LazyTensor:
    """Return a tensor under another name.

    onnx_ir would write the name into the message that the tensor was read from, which belongs
    to whoever gave it; the elements are those of ``tensor``, read when somebody asks.
    """
    return ir.LazyTensor(
        lambda: tensor,
        dtype=tensor.dtype,
        shape=ir.Shape(tensor.shape.numpy()),
        name=name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )


def all_names(graph: ir.Graph) -> Iterable[str]:
    """Yield every name that a value has anywhere, with repetitions."""
    for inner in graphs_of(graph):
        for value in values_in(inner):
            yield value.name or ""
        for node in inner:
            for used in node.inputs:
                if used is not None:
                    yield used.name or ""


def detach_subgraphs(node: ir.Node) -> list[ir.Value]:
    """Empty a node's subgraphs, and return the outer values that they read.

    What stood in them is in no graph any more: whoever still holds such a node can tell.
    """
    captured: dict[ir.Value, None] = {}
    for subgraph in subgraphs_of(node):
        inside = set(graphs_of(subgraph))
        for inner in (inner for graph in inside for inner in graph):
            for index, value in enumerate(inner.inputs):
                if value is not None and value.graph not in inside:
                    captured[value] = None
                    inner.replace_input_with(index, None)
        for graph in inside:
            graph.outputs.clear()
            graph.remove(list(graph))
    return list(captured)
