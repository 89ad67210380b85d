"""In which order nodes run, and which values nobody needs behind each of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TypeAlias

import onnx_ir as ir

from bnfold.model.graphs import graphs_of, subgraphs_of

Schedule: TypeAlias = list[tuple[ir.Node, list[ir.Value]]]


def schedule(graph: ir.Graph, kept: Collection[ir.Value]) -> Schedule:
    """Return the nodes in an order that can run, each with the values that die with it."""
    plan: Schedule = []
    seen = set(kept)
    for node in reversed(_ordered(graph)):
        dying = [value for value in node.outputs if value not in seen]
        for value in reads(node):
            if value not in seen:
                seen.add(value)
                if value.graph is graph or value.graph is None:
                    dying.append(value)
        plan.append((node, dying))
    plan.reverse()
    return plan


def reads(node: ir.Node) -> Iterator[ir.Value]:
    """Yield what a node reads, and what stands in its subgraphs."""
    for value in node.inputs:
        if value is not None:
            yield value
    for subgraph in subgraphs_of(node):
        for graph in graphs_of(subgraph):
            yield from graph.outputs
            for inner in graph:
                yield from (value for value in inner.inputs if value is not None)


def _ordered(graph: ir.Graph) -> list[ir.Node]:
    """The order of the graph where every node reads from earlier ones, else such an order."""
    nodes = list(graph)
    done: set[ir.Node] = set()
    for node in nodes:
        if any(producer not in done for producer in _producers(node, graph)):
            return _sorted(nodes, graph)
        done.add(node)
    return nodes


def _producers(node: ir.Node, graph: ir.Graph) -> Iterator[ir.Node]:
    for value in reads(node):
        producer = value.producer()
        if producer is not None and producer.graph is graph:
            yield producer


def _sorted(nodes: list[ir.Node], graph: ir.Graph) -> list[ir.Node]:
    """Depth first from the producers; a cycle is left for the evaluation to stumble over."""
    order: dict[ir.Node, None] = {}
    begun: set[ir.Node] = set()
    stack = list(reversed(nodes))
    while stack:
        node = stack[-1]
        waiting = [p for p in _producers(node, graph) if p not in begun]
        begun.add(node)
        if waiting:
            stack.extend(waiting)
        else:
            order.setdefault(stack.pop())
    return list(order)
