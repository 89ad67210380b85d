"""How many nodes a model is once every call of a function is written out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import onnx_ir as ir

from bnfold.model.graphs import graphs_of

_LOOKED_INTO: Final = 8192
_TIMES: Final = 16
"""So many nodes, or so many times what the file has, are written out to look into them."""


def nodes_written_out(model: ir.Model) -> int:
    """Count the nodes along the calls; nothing is written out. Functions call no circles."""
    known: dict[ir.OperatorIdentifier, int] = {}
    for name in model.functions:
        _count(name, model, known)
    return sum(known.get(node.op_identifier(), 1) for node in _nodes(model.graph))


def own_nodes(model: ir.Model) -> int:
    """Count the nodes that stand in the file, those of functions once."""
    inside = sum(1 for one in model.functions.values() for _ in _nodes(one.graph))
    return inside + sum(1 for _ in _nodes(model.graph))


def why_not_written_out(model: ir.Model) -> str:
    """Say why functions are not looked into: a small file may be millions of nodes."""
    if not model.functions:
        return ""
    whole, most = nodes_written_out(model), max(_LOOKED_INTO, _TIMES * own_nodes(model))
    if whole > most:
        return f"written out, the model has {whole} nodes; {most} are looked into"
    return ""


def _count(
    first: ir.OperatorIdentifier, model: ir.Model, known: dict[ir.OperatorIdentifier, int]
) -> None:
    stack = [first]
    while stack:
        name = stack[-1]
        inside = [node.op_identifier() for node in _nodes(model.functions[name].graph)]
        waiting = [one for one in inside if one in model.functions and one not in known]
        if name in known or not waiting:
            known.setdefault(name, sum(known.get(one, 1) for one in inside))
            stack.pop()
        else:
            stack.extend(dict.fromkeys(waiting))


def _nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    for inner in graphs_of(graph):
        yield from inner
