"""Carry a map through the graph until every branch of it is absorbed, or say what stopped it.

Both walks visit nodes in topological order (against it, going up), so that all maps that reach
a node are known before it is asked; a node is asked once. Nothing is written.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.folding.selection import Selection, rule_of
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import Edit, Taken, name_of

Demands = Mapping[tuple[ir.Node, int], Affine]
"""Maps by the reader (node, input index) that brings them."""

_FARTHEST: Final = 200
"""No walk asks more nodes, so that planning stays linear in the size of the graph."""


@dataclass(slots=True)
class Journey:
    """Where a map went: the nodes it passed, those that absorbed it, and their edits."""

    edits: list[Edit] = field(default_factory=list)
    passed: list[ir.Node] = field(default_factory=list)
    absorbed_by: list[ir.Node] = field(default_factory=list)

    @property
    def is_too_long(self) -> bool:
        """Whether so many nodes were asked that the search would cost more than it brings."""
        return len(self.passed) + len(self.absorbed_by) > _FARTHEST

    def note(self, node: ir.Node, taken: Taken) -> None:
        """Remember the answer of one node."""
        self.edits.extend(taken.edits)
        (self.passed if taken.onward else self.absorbed_by).append(node)


def lift(
    value: ir.Value, demands: Demands, facts: Facts, selection: Selection
) -> Journey | Refusal:
    """Let ``value`` arrive at its readers with the map they demand already applied."""
    journey = Journey()
    asked: dict[ir.Value, dict[tuple[ir.Node, int], Affine]] = {value: dict(demands)}
    queue = _Queue(facts, downwards=False)
    first = _enter_up(value, queue, value)
    if first is not None:
        return first
    while (node := queue.pop()) is not None:
        taken = _ask_upwards(node, asked, facts, selection)
        if isinstance(taken, Refusal):
            return taken
        journey.note(node, taken)
        if journey.is_too_long:
            return _too_far(value, node)
        for index, affine in taken.onward.items():
            source = node.inputs[index]
            if source is None:
                continue
            asked.setdefault(source, {})[node, index] = affine
            blocked = _enter_up(source, queue, value)
            if blocked is not None:
                return blocked
    return journey


def _ask_upwards(
    node: ir.Node,
    asked: Mapping[ir.Value, Demands],
    facts: Facts,
    selection: Selection,
) -> Taken | Refusal:
    """Ask a node to give its outputs as all of their readers demand them."""
    blocked = selection.refuse_touch(node)
    if blocked is not None:
        return blocked
    maps: dict[int, Affine] = {}
    for place, output in enumerate(node.outputs):
        if output in asked:
            agreed = _agree(output, asked[output], facts)
            if isinstance(agreed, Refusal):
                return agreed
            maps[place] = agreed
    return rule_of(node, facts).take_after(node, maps, facts)


def lower(
    value: ir.Value, affine: Affine, facts: Facts, selection: Selection
) -> Journey | Refusal:
    """Let the readers of ``value`` do with x where they read ``affine(x)``."""
    journey = Journey()
    arriving: dict[ir.Node, dict[int, Affine]] = {}
    queue = _Queue(facts, downwards=True)
    blocked = _enter_down(value, affine, arriving, queue, facts)
    if blocked is not None:
        return blocked
    while (node := queue.pop()) is not None:
        rule = rule_of(node, facts)
        blocked = selection.refuse_touch(node)
        taken = blocked or rule.take_before(node, arriving[node], facts)
        if isinstance(taken, Refusal):
            return taken
        journey.note(node, taken)
        if journey.is_too_long:
            return _too_far(value, node)
        for place, onward in taken.onward.items():
            blocked = _enter_down(node.outputs[place], onward, arriving, queue, facts)
            if blocked is not None:
                return blocked
    return journey


def _too_far(value: ir.Value, node: ir.Node) -> Refusal:
    why = f"the map of {value.name!r} would have to pass more than {_FARTHEST} nodes"
    return Refusal(Code.TOO_FAR, name_of(node), why)


class _Queue:
    """Nodes in topological order, or against it; each once."""

    def __init__(self, facts: Facts, *, downwards: bool) -> None:
        self._facts = facts
        self._sign = 1 if downwards else -1
        self._heap: list[tuple[int, int, ir.Node]] = []
        self._seen: set[ir.Node] = set()

    def push(self, node: ir.Node) -> None:
        if node not in self._seen:
            self._seen.add(node)
            place = self._sign * self._facts.position(node)
            heapq.heappush(self._heap, (place, len(self._seen), node))

    def pop(self) -> ir.Node | None:
        return heapq.heappop(self._heap)[2] if self._heap else None


def _enter_up(value: ir.Value, queue: _Queue, start: ir.Value) -> Refusal | None:
    """Queue the producer of a value that must change, unless the value may not."""
    name = value.name or ""
    if value.is_graph_output():
        why = f"{name!r} is a graph output, its value may not change"
        return Refusal(Code.GRAPH_OUTPUT, name, why)
    producer = value.producer()
    if producer is None:
        why = (
            f"{name!r} is a graph input or a constant, nothing in front of it can take the map"
        )
        return Refusal(Code.GRAPH_INPUT, name, why)
    if value.graph is not start.graph:
        why = f"{name!r} is computed outside of this subgraph"
        return Refusal(Code.OUTER_SCOPE, name, why)
    queue.push(producer)
    return None


def _agree(value: ir.Value, demands: Demands, facts: Facts) -> Affine | Refusal:
    """Return the map that every reader of a value brings, or name the reader that does not."""
    first = next(iter(demands.values()))
    for reader, index in facts.element_uses(value):
        brought = demands.get((reader, index))
        if brought is None or not brought.equals(first):
            why = f"{value.name!r} is also read by {name_of(reader)}, which needs it as it is"
            return Refusal(Code.SHARED_VALUE, name_of(reader), why)
    return first


def _enter_down(
    value: ir.Value,
    affine: Affine,
    arriving: dict[ir.Node, dict[int, Affine]],
    queue: _Queue,
    facts: Facts,
) -> Refusal | None:
    """Hand the map to every reader of a value, unless the value itself leaves the graph."""
    if value.is_graph_output():
        why = f"{value.name!r} is a graph output, its value may not change"
        return Refusal(Code.GRAPH_OUTPUT, value.name or "", why)
    for reader, index in facts.element_uses(value):
        if reader.graph is not value.graph:
            why = f"{value.name!r} is read inside of a subgraph, by {name_of(reader)}"
            return Refusal(Code.OUTER_SCOPE, name_of(reader), why)
        arriving.setdefault(reader, {})[index] = affine
        queue.push(reader)
    return None
