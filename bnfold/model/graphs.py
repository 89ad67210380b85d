"""Walk the graphs of a model."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from bnfold.errors import ModelError


def graphs_of(graph: ir.Graph) -> Iterator[ir.Graph]:
    """Yield a graph and its subgraphs, depth first, in the order of nodes and attributes."""
    yield graph
    for node in graph:
        if not node.attributes:  # most operators: this is walked often
            continue
        for subgraph in subgraphs_of(node):
            yield from graphs_of(subgraph)


def subgraphs_of(node: ir.Node) -> Iterator[ir.Graph]:
    """Yield the graphs in a node's attributes, e.g. the branches of an If."""
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def sort_graphs(model: ir.Model) -> bool:
    """Put the nodes of every graph in topological order; return whether any was out of it.

    Raises:
        ModelError: If there is no such order.
    """
    if all(_is_sorted(graph) for graph in graphs_of(model.graph)):
        return False
    try:
        for graph in list(graphs_of(model.graph)):
            graph.sort()
    except ValueError as error:
        raise ModelError(
            "the graph has a cycle",
            where=f"graph {model.graph.name!r}",
            why=str(error),
            remedy="export the model again; ONNX graphs are acyclic",
        ) from error
    return True


def _is_sorted(graph: ir.Graph) -> bool:
    """Return whether every node, and what stands in its subgraphs, reads from earlier ones."""
    seen: set[ir.Node] = set()
    for node in graph:
        inside = (
            inner
            for subgraph in subgraphs_of(node)
            for g in graphs_of(subgraph)
            for inner in g
        )
        for reader in (node, *inside):
            for value in reader.inputs:
                producer = None if value is None else value.producer()
                if producer is not None and producer.graph is graph and producer not in seen:
                    return False
        seen.add(node)
    return True


def initializer_bytes(model: ir.Model) -> int:
    """Return how much the initializers of the main graph take, in bytes."""
    held = (value.const_value for value in model.graph.initializers.values())
    return sum(one.nbytes for one in held if one is not None)
