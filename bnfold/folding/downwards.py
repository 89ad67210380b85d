"""Carry a map towards the outputs until every reader has absorbed it, or say what stopped it.

Nodes are asked in topological order, so all maps that reach a node are known before it is
asked; a node is asked once. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final, TypeVar

import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.folding.gathering import branches_into, is_wide_join, refuse_behind
from bnfold.folding.journey import (
    Crossroads,
    Journey,
    Queue,
    first_way,
    together_or_alone,
)
from bnfold.folding.selection import Selection, rule_of
from bnfold.folding.sites import Chain, source_of
from bnfold.model.facts import Facts, Use
from bnfold.model.graphs import subgraphs_of
from bnfold.records import Code, Refusal
from bnfold.rules.base import Taken

_Inside = dict[tuple[ir.Graph, int], Affine]
_Place = TypeVar("_Place")
_NEAR: Final = 8
"""Nodes that `lower_into` asks, all its ways together: it is tried at every shared value."""


def lower(
    value: ir.Value,
    affine: Affine,
    facts: Facts,
    selection: Selection,
    stays: Callable[[Chain], bool] | None = None,
) -> Journey | Refusal:
    """Let the readers of ``value`` do with x where they read ``affine(x)``.

    Args:
        value: The value.
        affine: Its map.
        facts: The model.
        selection: What may be touched.
        stays: Says of the map of a chain that it would go down too; such as meet this map
            where very many come together go with it. None: none does.
    """

    def alone(crossroads: Crossroads) -> Journey | Refusal:
        return _Descent(value, facts, selection, crossroads, None).run(affine)

    def together(crossroads: Crossroads) -> Journey | Refusal:
        return _Descent(value, facts, selection, crossroads, stays).run(affine)

    return together_or_alone(None if stays is None else together, alone, facts)


def lower_alone(
    value: ir.Value, affine: Affine, facts: Facts, selection: Selection
) -> Journey | Refusal:
    """Do as `lower` does, for a map inside of an operator: no other can leave with it."""
    journey = lower(value, affine, facts, selection)
    if isinstance(journey, Refusal) or not journey.recruits:
        return journey
    chain = journey.recruits[0]
    why = f"it could go only together with the map of {chain.names[0]}"
    return Refusal(Code.MAPS_DIFFER, chain.names[0], why)


def lower_into(
    use: Use, affine: Affine, facts: Facts, selection: Selection
) -> Journey | Refusal:
    """Let one reader of a value do with x where it read ``affine(x)``, if that is near by.

    The other readers are left alone; no map that stands on the way leaves with this one.
    """
    value = use[0].inputs[use[1]]
    if value is None:
        return Refusal(Code.GRAPH_INPUT, "", "it reads nothing there")
    start = value

    def walk(crossroads: Crossroads) -> Journey | Refusal:
        return _Descent(start, facts, selection, crossroads, None).run_into(use, affine)

    journey = first_way(walk, _NEAR)
    if isinstance(journey, Journey) and journey.recruits:
        why = "it could go only together with another map"
        return Refusal(Code.MAPS_DIFFER, journey.recruits[0].names[0], why)
    return journey


class _Descent:
    """One walk, along one choice of ways."""

    def __init__(
        self,
        value: ir.Value,
        facts: Facts,
        selection: Selection,
        crossroads: Crossroads,
        stays: Callable[[Chain], bool] | None,
    ) -> None:
        self._start = value
        self._facts = facts
        self._selection = selection
        self._crossroads = crossroads
        self._stays = stays
        self._arriving: dict[ir.Node, dict[int, Affine]] = {}
        self._inside: dict[ir.Node, _Inside] = {}
        self._queue = Queue(facts, downwards=True)
        self._journey = Journey()

    def run(self, affine: Affine) -> Journey | Refusal:
        return self._walk(self._enter(self._start, affine, None))

    def run_into(self, use: Use, affine: Affine) -> Journey | Refusal:
        node, index = use
        self._hand(node, index, affine, None)
        return self._walk(None)

    def _walk(self, refusal: Refusal | None) -> Journey | Refusal:
        while refusal is None and (node := self._queue.pop()) is not None:
            refusal = self._visit(node)
        return self._journey if refusal is None else refusal

    def _visit(self, node: ir.Node) -> Refusal | None:
        taken = self._journey.passes(node, self._ask(node), self._crossroads)
        if isinstance(taken, Refusal):
            return taken
        refusals = (
            self._enter(node.outputs[place], affine, node)
            for place, affine in taken.onward.items()
        )
        stopped = next((refusal for refusal in refusals if refusal is not None), None)
        if stopped is not None or taken.through is None:
            return stopped
        refuse = self._selection.refuse_touch
        last = self._journey.pass_through(node, taken.through, refuse)
        if isinstance(last, Refusal):
            return last
        return self._enter(last.outputs[0], taken.through.affine, last)

    def _ask(self, node: ir.Node) -> Taken | Refusal:
        blocked = self._selection.refuse_touch(node)
        if blocked is not None:
            return blocked
        rule = rule_of(node, self._facts)
        if node in self._inside and node not in self._arriving:
            results = self._inside[node]
            taken = rule.take_within(node, results, self._facts)
            return self._together(
                taken,
                self._chains_within(node, results),
                lambda more: rule.take_within(node, {**results, **more}, self._facts),
            )
        maps = self._arriving[node]
        if is_wide_join(node, self._facts):
            stopped = refuse_behind(node, self._facts)
            if stopped is not None:
                return stopped
            self._gather(node, maps)
        taken = rule.take_before(node, maps, self._facts)
        if self._is_known_apart(node, maps):
            return taken
        return self._together(
            taken,
            self._chains_into(node, maps),
            lambda more: self._ask_with(node, {**maps, **more}),
        )

    def _ask_with(self, node: ir.Node, maps: dict[int, Affine]) -> Taken | Refusal:
        answer = rule_of(node, self._facts).take_before(node, maps, self._facts)
        if isinstance(answer, Refusal) and is_wide_join(node, self._facts):
            self._facts.apart[node] = maps
        return answer

    def _is_known_apart(self, node: ir.Node, maps: dict[int, Affine]) -> bool:
        """Return whether these maps, with the others in front of the node, were refused."""
        known = self._facts.apart.get(node)
        return isinstance(known, dict) and all(
            index in known and known[index].equals(affine) for index, affine in maps.items()
        )

    def _gather(self, node: ir.Node, maps: dict[int, Affine]) -> None:
        """Let the maps that reach a wide Concat through other inputs go on with this one."""
        if self._stays is None or node in self._facts.apart or node.op_type != "Concat":
            return
        self._facts.apart[node] = True  # until it is done: see `together_or_alone`
        found = branches_into(node, maps, self._facts, self._selection, self._stays)
        for index, branch in list(found):
            maps[index] = branch.affine
            self._journey.recruit(branch.chain, branch.edits, branch.passed, node)

    def _together(
        self,
        taken: Taken | Refusal,
        chains: Iterable[tuple[_Place, Chain]],
        ask: Callable[[dict[_Place, Affine]], Taken | Refusal],
    ) -> Taken | Refusal:
        """Ask again with the maps that stand right in front of the others, if that helps."""
        if not isinstance(taken, Refusal) or taken.code is not Code.MAPS_DIFFER:
            return taken
        joining = dict(chains)
        if not joining:
            return taken
        again = ask({place: chain.affine for place, chain in joining.items()})
        if isinstance(again, Refusal):
            return taken
        self._journey.recruits.extend(joining.values())
        return again

    def _chains_into(
        self, node: ir.Node, maps: dict[int, Affine]
    ) -> Iterator[tuple[int, Chain]]:
        for index, value in enumerate(node.inputs):
            chain = None if value is None else self._chain_of(value, (node, index))
            if index not in maps and chain is not None:
                yield index, chain

    def _chains_within(
        self, node: ir.Node, results: _Inside
    ) -> Iterator[tuple[tuple[ir.Graph, int], Chain]]:
        places = dict.fromkeys(place for _, place in results)
        for graph in subgraphs_of(node):
            for place in places:
                use = (node, self._facts.result(place))
                chain = self._chain_of(graph.outputs[place], use)
                if (graph, place) not in results and chain is not None:
                    yield (graph, place), chain

    def _chain_of(self, value: ir.Value, use: Use) -> Chain | None:
        """Return the map that makes a value which only ``use`` reads."""
        producer = value.producer()
        if producer is None or producer in self._journey or self._facts.leaves(value):
            return None
        if list(islice(self._facts.each_read(value), 2)) != [use]:
            return None
        found = source_of(producer, self._facts, self._selection)
        if isinstance(found, Refusal):
            return None
        source = producer.inputs[found.index]
        if value.is_graph_output() and (
            source is None or source.producer() is None or source.graph is not value.graph
        ):
            return None  # the result of a subgraph must be made inside
        return Chain((producer,), found.index, found.affine)

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
                self._hand(reader, index, affine, by)
                continue
            self._journey.reach(reader, by)
            self._queue.push(reader)
        return None

    def _hand(self, reader: ir.Node, index: int, affine: Affine, by: ir.Node | None) -> None:
        self._arriving.setdefault(reader, {})[index] = affine
        self._journey.reach(reader, by)
        self._queue.push(reader)
