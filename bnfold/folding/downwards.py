"""Carry a map towards the outputs until every reader has absorbed it, or say what stopped it.

Nodes are asked in topological order, so all maps that reach a node are known before it is
asked; a node is asked once. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.folding.journey import Crossroads, Journey, Queue, first_way, too_far
from bnfold.folding.selection import Selection, rule_of
from bnfold.folding.sites import Chain, source_of
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import Taken

_Inside = dict[tuple[ir.Graph, int], Affine]


def lower(
    value: ir.Value, affine: Affine, facts: Facts, selection: Selection
) -> Journey | Refusal:
    """Let the readers of ``value`` do with x where they read ``affine(x)``."""
    return first_way(
        lambda crossroads: _Descent(value, facts, selection, crossroads).run(affine)
    )


class _Descent:
    """One walk, along one choice of ways."""

    def __init__(
        self, value: ir.Value, facts: Facts, selection: Selection, crossroads: Crossroads
    ) -> None:
        self._start = value
        self._facts = facts
        self._selection = selection
        self._crossroads = crossroads
        self._arriving: dict[ir.Node, dict[int, Affine]] = {}
        self._inside: dict[ir.Node, _Inside] = {}
        self._queue = Queue(facts, downwards=True)
        self._journey = Journey()

    def run(self, affine: Affine) -> Journey | Refusal:
        refusal = self._enter(self._start, affine, None)
        while refusal is None and (node := self._queue.pop()) is not None:
            refusal = self._visit(node)
        return self._journey if refusal is None else refusal

    def _visit(self, node: ir.Node) -> Refusal | None:
        answer = self._ask(node)
        if isinstance(answer, Refusal):
            return self._journey.stopped(answer, self._journey.came_from(node))
        taken = self._crossroads.choose(answer)
        self._journey.note(node, taken)
        if self._crossroads.is_far:
            return self._journey.stopped(too_far(self._start, node), node)
        refusals = (
            self._enter(node.outputs[place], affine, node)
            for place, affine in taken.onward.items()
        )
        return next((refusal for refusal in refusals if refusal is not None), None)

    def _ask(self, node: ir.Node) -> Taken | Refusal:
        blocked = self._selection.refuse_touch(node)
        if blocked is not None:
            return blocked
        rule = rule_of(node, self._facts)
        if node in self._inside:
            if node in self._arriving:
                return rule.take_before(node, self._arriving[node], self._facts)
            return rule.take_within(node, self._inside[node], self._facts)
        maps = self._arriving[node]
        taken = rule.take_before(node, maps, self._facts)
        if not isinstance(taken, Refusal) or taken.code is not Code.MAPS_DIFFER:
            return taken
        joining = dict(self._chains_into(node, maps))
        if not joining:
            return taken
        others = {index: chain.affine for index, chain in joining.items()}
        together = rule.take_before(node, {**maps, **others}, self._facts)
        if isinstance(together, Refusal):
            return taken
        self._journey.recruits.extend(joining.values())
        return together

    def _chains_into(
        self, node: ir.Node, maps: dict[int, Affine]
    ) -> Iterable[tuple[int, Chain]]:
        """Yield the maps that stand right in front of the other inputs of a node."""
        for index, value in enumerate(node.inputs):
            producer = None if value is None else value.producer()
            if index in maps or value is None or producer is None:
                continue
            alone = self._facts.reads(value) == [(node, index)]
            if producer in self._journey or not alone or self._facts.leaves(value):
                continue
            found = source_of(producer, self._facts, self._selection)
            if not isinstance(found, Refusal) and producer.graph is node.graph:
                yield index, Chain((producer,), found.index, found.affine)

    def _enter(self, value: ir.Value, affine: Affine, by: ir.Node | None) -> Refusal | None:
        """Hand the map to every reader of a value, unless the value leaves the graph."""
        if self._facts.leaves(value):
            why = f"{value.name!r} is a graph output, its value may not change"
            refusal = Refusal(Code.GRAPH_OUTPUT, value.name or "", why)
            return self._journey.stopped(refusal, by)
        for reader, index in self._facts.reads(value):
            if index < 0 and value.graph is not None:
                results = self._inside.setdefault(reader, {})
                results[value.graph, self._facts.place(index)] = affine
            else:
                self._arriving.setdefault(reader, {})[index] = affine
            self._journey.reach(reader, by)
            self._queue.push(reader)
        return None
