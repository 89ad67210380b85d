"""Values and their names, as an editor of graphs needs them."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from bnfold.model.graphs import graphs_of, subgraphs_of
from bnfold.model.uses import is_used


def is_stored(value: ir.Value) -> bool:
    """Return whether a constant takes space in the model, rather than being computed."""
    producer = value.producer()
    return producer is None or producer.op_type == "Constant"


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
    """Take away the outer values that a node's subgraphs read; return them."""
    captured: dict[ir.Value, None] = {}
    for subgraph in subgraphs_of(node):
        inside = set(graphs_of(subgraph))
        for inner in (inner for graph in inside for inner in graph):
            for index, value in enumerate(inner.inputs):
                if value is not None and value.graph not in inside:
                    captured[value] = None
                    inner.replace_input_with(index, None)
    return list(captured)
