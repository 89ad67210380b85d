"""Calls of model-local functions written out, in time that does not grow with their number.

onnx_ir's `InlinePass` looks for a free name for every copy of a node by counting up from 2, so
n calls of one function take n² steps. It asks its criterion before each call; there the body
is given names that nobody has, and the pass finds its first try free. They are the names that
it would have found itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from bnfold.model.graphs import graphs_of

_NODE: Final = "node"
_VALUE: Final = "val"
"""What onnx_ir calls copies of nodes and values that have no name."""


def inline_calls(model: ir.Model, chosen: Callable[[ir.Function], bool] | None = None) -> None:
    """Write out the calls of functions, in place; those that are nowhere called any more go.

    Args:
        model: The model; its functions must not call themselves.
        chosen: Says of a function whether its calls are written out; None of all of them.

    Raises:
        RuntimeError: onnx_ir's, if a call cannot be written out; the model is spoiled then.
        ValueError: For the same reason.
    """
    names = _FreshNames(model)

    def begins(function: ir.Function) -> bool:
        """Name the body anew just before it is copied."""
        if chosen is not None and not chosen(function):
            return False
        names.give_to(function)
        return True

    InlinePass(criteria=begins)(model)


class _FreshNames:
    """Names for copies of the bodies of functions, of which none is given twice."""

    def __init__(self, model: ir.Model) -> None:
        self._nodes = _Names(_named(node for graph in _outer(model) for node in graph))
        self._values = _Names(
            value.name for graph in _outer(model) for value in _values(graph) if value.name
        )
        self._stems: dict[ir.OperatorIdentifier, list[tuple[ir.Node, str, list[str]]]] = {}

    def give_to(self, function: ir.Function) -> None:
        """Name all nodes of a body, and their outputs, by what they were first called."""
        known = function.identifier()
        if known not in self._stems:
            self._stems[known] = [
                (node, node.name or _NODE, [one.name or _VALUE for one in node.outputs])
                for graph in graphs_of(function.graph)
                for node in graph
            ]
        for node, stem, outputs in self._stems[known]:
            node.name = self._nodes.next(stem)
            for value, name in zip(node.outputs, outputs, strict=True):
                value.name = self._values.next(name)


class _Names:
    """Names that are taken, and up to where each stem was counted."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = set(taken)
        self._counted: dict[str, int] = {}

    def next(self, stem: str) -> str:
        """Take the stem itself, or the stem with the least number that is free."""
        name, number = stem, self._counted.get(stem, 1)
        if number > 1:
            number += 1
            name = f"{stem}_{number}"
        while name in self._taken:
            number += 1
            name = f"{stem}_{number}"
        self._counted[stem] = number
        self._taken.add(name)
        return name


def _outer(model: ir.Model) -> Iterator[ir.Graph]:
    """Yield every graph that names are unique in: all but the bodies of functions."""
    return graphs_of(model.graph)


def _named(nodes: Iterable[ir.Node]) -> Iterator[str]:
    return (node.name for node in nodes if node.name)


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs
