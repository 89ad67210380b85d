"""Who reads a value, asked in time that does not grow with how many do.

`onnx_ir.Value.uses` copies the readers, so asking each of n readers of a value who else reads
it takes n² steps. The dictionary that it copies is read here, in place; where an onnx_ir keeps
none, its copy is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from typing import Final

import onnx_ir as ir

_WIDE: Final = 32
"""Inputs of a node from which on they are exchanged all at once."""

_IS_KNOWN: Final = all(hasattr(ir.Value, one) for one in ("_add_usage", "_remove_usage"))
"""Whether onnx_ir keeps its books as 1.1 does; if not, all goes by its own calls."""


def uses_of(value: ir.Value) -> Collection[tuple[ir.Node, int]]:
    """Return the readers of a value, (node, input index); not to be held over a change."""
    known = getattr(value, "_uses", None)
    return known if isinstance(known, dict) else value.uses()


def is_used(value: ir.Value) -> bool:
    """Return whether any node reads a value."""
    return bool(uses_of(value))


def is_used_once(value: ir.Value) -> bool:
    """Return whether one input of one node reads a value, and no other node does."""
    return len(uses_of(value)) == 1


def first_uses(value: ir.Value, count: int) -> list[tuple[ir.Node, int]]:
    """Return the first readers of a value, so many at most."""
    return list(islice(uses_of(value), count))


def is_wide(node: ir.Node) -> bool:
    """Return whether a node reads so many values that they are exchanged all at once."""
    return len(node.inputs) > _WIDE and _IS_KNOWN and hasattr(node, "_inputs")


def exchange_inputs(node: ir.Node, values: Mapping[int, ir.Value | None]) -> None:
    """Let a node read other values, by input index.

    onnx_ir lays all inputs of a node out anew for every one that changes: a Concat of n parts
    that lost a map in front of each would take n² steps.
    """
    olds = node.inputs
    if not is_wide(node):
        for index, value in values.items():
            node.replace_input_with(index, value)
        return
    inputs = list(olds)
    for index, value in values.items():
        inputs[index] = value
    node._inputs = tuple(inputs)  # noqa: SLF001  see above
    for index, value in values.items():
        old = olds[index]
        if old is not None:
            old._remove_usage(node, index)  # noqa: SLF001
        if value is not None:
            value._add_usage(node, index)  # noqa: SLF001


def read_only(node: ir.Node, values: Sequence[ir.Value | None]) -> None:
    """Leave a node these inputs, no more than it has."""
    olds = node.inputs
    exchange_inputs(node, dict(enumerate(values)))
    if not is_wide(node):
        node.resize_inputs(len(values))
        return
    for index, old in enumerate(olds[len(values) :], start=len(values)):
        if old is not None:
            old._remove_usage(node, index)  # noqa: SLF001
    node._inputs = tuple(values)  # noqa: SLF001  as above


def replace_uses(old: ir.Value, new: ir.Value) -> None:
    """Let every node that reads ``old`` read ``new``; outputs of graphs stay as they are."""
    wide: dict[ir.Node, dict[int, ir.Value]] = {}
    for node, index in old.uses():
        if is_wide(node):
            wide.setdefault(node, {})[index] = new
        else:
            node.replace_input_with(index, new)
    for node, values in wide.items():
        exchange_inputs(node, values)


def take_out(node: ir.Node, graph: ir.Graph) -> None:
    """Remove a node whose results nothing reads from its graph, and let it read nothing.

    onnx_ir lays all outputs of a graph out for every node that it removes, and all inputs of
    the node for each of them.
    """
    if is_wide(node):
        read_only(node, [None] * len(node.inputs))
        read_only(node, ())
    if len(graph.outputs) <= _WIDE or not hasattr(graph, "_nodes"):
        graph.remove(node, safe=True)
        return
    for index in range(len(node.inputs)):
        node.replace_input_with(index, None)
    node.graph = None
    graph._nodes.remove(node)  # noqa: SLF001
