"""Walk the graphs of a model."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir


def graphs_of(graph: ir.Graph) -> Iterator[ir.Graph]:
    """Yield a graph and its subgraphs, depth first, in the order of nodes and attributes."""
    yield graph
    for node in graph:
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
