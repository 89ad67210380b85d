"""Drop nodes that nothing reads: they would hold on to values that maps must pass."""

from __future__ import annotations

import onnx_ir as ir

from bnfold.folding.selection import Selection
from bnfold.model.edit import Editor
from bnfold.model.facts import Facts
from bnfold.model.uses import uses_of
from bnfold.records import Step
from bnfold.rules.base import name_of


def drop_dead_code(facts: Facts, editor: Editor, selection: Selection) -> list[Step]:
    """Remove all nodes no output depends on, where one shares its input with other readers.

    Where none stands in the way of others, they stay, like all that a fold does not touch.
    """
    dead = _dead_nodes(facts)
    in_the_way = any(
        _is_shared(value, dead)
        for node in dead
        if selection.refuse_touch(node) is None
        for value in node.inputs
        if value is not None
    )
    if not in_the_way:
        return []
    dropped = drop_all_dead_code(facts, editor, selection)
    names = tuple(name_of(node) for node in dropped)
    return [Step("dead code", names, "dropped, nothing reads it", (), (), ())]


def drop_all_dead_code(facts: Facts, editor: Editor, selection: Selection) -> list[ir.Node]:
    """Remove all nodes no output depends on; return them."""
    dropped = [node for node in _dead_nodes(facts) if selection.refuse_touch(node) is None]
    if dropped:
        editor.drop_nodes(dropped)
    return dropped


def _dead_nodes(facts: Facts) -> dict[ir.Node, None]:
    """Return the nodes that no graph output depends on, readers before what they read."""
    dead: dict[ir.Node, None] = {}
    for node in reversed(facts.nodes()):
        unread = all(
            not value.is_graph_output() and all(reader in dead for reader, _ in uses_of(value))
            for value in node.outputs
        )
        if unread and node.outputs:
            dead[node] = None
    return dead


def _is_shared(value: ir.Value, dead: dict[ir.Node, None]) -> bool:
    """Return whether a live node computes a value and another live node reads it."""
    producer = value.producer()
    if producer is None or producer in dead:
        return False
    return any(reader not in dead for reader, _ in uses_of(value))
