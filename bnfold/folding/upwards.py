"""Carry a map towards the inputs until every branch of it is absorbed, or say what stopped it.

Nodes are asked against the topological order, so all maps that its readers bring to a value
are known before its producer is asked; a node is asked once. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.folding.downwards import lower_into
from bnfold.folding.gathering import branches_behind, is_wide_split
from bnfold.folding.journey import Crossroads, Journey, Queue, together_or_alone, too_far
from bnfold.folding.selection import Selection, refuse_unruled, rule_of
from bnfold.folding.tracks import row_above
from bnfold.model.facts import Facts, Use
from bnfold.records import Code, Refusal
from bnfold.rules.base import Passage, Taken, name_of

Demands = Mapping[Use, Affine]
"""Maps by the reader that brings them."""

_BEFORE_ALL: Final = -1
_POOLS: Final = frozenset({"GlobalAveragePool", "ReduceMean", "ReduceSum", "AveragePool"})
"""What the gate of a channel attention begins with: the inverse is looked for behind these."""


def lift(
    value: ir.Value,
    demands: Demands,
    facts: Facts,
    selection: Selection,
    *,
    whole: bool = False,
) -> Journey | Refusal:
    """Let ``value`` arrive at its readers with the map they demand already applied.

    Args:
        value: The value.
        demands: The maps, by reader.
        facts: The model.
        selection: What may be touched.
        whole: Whether nothing of the map is left behind; those that meet it where a value is
            parted in very many go with it then.
    """

    def alone(crossroads: Crossroads) -> Journey | Refusal:
        return _Climb(value, facts, selection, crossroads, together=False).run(demands)

    def together(crossroads: Crossroads) -> Journey | Refusal:
        return _Climb(value, facts, selection, crossroads, together=True).run(demands)

    return together_or_alone(together if whole else None, alone, facts)


class _Climb:
    """One walk, along one choice of ways."""

    def __init__(
        self,
        value: ir.Value,
        facts: Facts,
        selection: Selection,
        crossroads: Crossroads,
        *,
        together: bool,
    ) -> None:
        self._start = value
        self._facts = facts
        self._selection = selection
        self._crossroads = crossroads
        self._may_gather = together
        self._asked: dict[ir.Value, dict[Use, Affine]] = {}
        self._queue = Queue(facts, downwards=False)
        self._journey = Journey()

    def run(self, demands: Demands) -> Journey | Refusal:
        self._asked[self._start] = dict(demands)
        refusal = self._enter(self._start, None)
        while refusal is None and (node := self._queue.pop()) is not None:
            refusal = self._visit(node)
        return self._journey if refusal is None else refusal

    def _visit(self, node: ir.Node) -> Refusal | None:
        taken = self._journey.passes(node, self._ask(node), self._crossroads)
        if isinstance(taken, Refusal):
            return taken
        for index, affine in taken.onward.items():
            source = node.inputs[index]
            if source is None or affine.is_identity:
                continue
            self._asked.setdefault(source, {})[node, index] = affine
            refusal = self._enter(source, node)
            if refusal is not None:
                return refusal
        for (graph, place), affine in taken.inside.items():
            source = graph.outputs[place]
            self._asked.setdefault(source, {})[node, self._facts.result(place)] = affine
            refusal = self._enter(source, node)
            if refusal is not None:
                return refusal
        return None if taken.through is None else self._pass_through(node, taken.through)

    def _pass_through(self, node: ir.Node, passage: Passage) -> Refusal | None:
        refuse = self._selection.refuse_touch
        last = self._journey.pass_through(node, passage, refuse)
        if isinstance(last, Refusal):
            return last
        source = last.inputs[0]
        if source is None:
            return None
        self._asked.setdefault(source, {})[last, 0] = passage.affine
        return self._enter(source, last)

    def _ask(self, node: ir.Node) -> Taken | Refusal:
        """Ask a node to give its outputs as all of their readers demand them."""
        blocked = self._selection.refuse_touch(node)
        if blocked is not None:
            return blocked
        maps: dict[int, Affine] = {}
        for place, output in enumerate(node.outputs):
            if output in self._asked:
                agreed = self._agree(output)
                if isinstance(agreed, Refusal):
                    return agreed
                maps[place] = agreed
        if is_wide_split(node, self._facts):
            stopped = self._refuse_in_front(node)
            if stopped is not None:
                return stopped
            self._gather(node, maps)
        return rule_of(node, self._facts).take_after(node, maps, self._facts)

    def _refuse_row(self, value: ir.Value) -> Refusal | None:
        """Return what will stop a long walk, if nothing on its way can take any map."""
        if not self._crossroads.is_long:
            return None
        count, first = row_above(value, self._facts)
        if not count:
            return None
        producer = value.producer()
        if producer is not None and self._crossroads.is_too_long(count):
            return too_far(producer)
        return self._refuse_any(first)

    def _refuse_in_front(self, node: ir.Node) -> Refusal | None:
        """Return what stops every map in front of a node that parts a value in very many."""
        value = node.inputs[0]
        return None if value is None else self._refuse_any(value)

    def _refuse_any(self, value: ir.Value) -> Refusal | None:
        """Return what stops every map that reaches a value, whatever the map."""
        refusal = self._refuse_value(value)
        producer = value.producer()
        if refusal is not None or producer is None:
            return refusal
        return refuse_unruled(producer, self._facts)

    def _gather(self, node: ir.Node, maps: dict[int, Affine]) -> None:
        """Let the maps that reach a wide Split through other outputs go on with this one."""
        if not self._may_gather or node in self._facts.apart:
            return
        self._facts.apart[node] = True  # until it is done: see `together_or_alone`
        found = branches_behind(node, maps, self._facts, self._selection)
        for place, branch in list(found):
            maps[place] = branch.affine
            self._journey.recruit(branch.chain, branch.edits, branch.passed, node)

    def _enter(self, value: ir.Value, by: ir.Node | None) -> Refusal | None:
        """Queue the producer of a value that must change, unless the value may not."""
        refusal = self._refuse_value(value) or self._refuse_row(value)
        refusal = refusal or self._refuse_reader(value, by)
        if refusal is not None:
            return self._journey.stopped(refusal, by)
        producer = value.producer()
        if producer is not None:
            self._journey.reach(producer, by)
            self._queue.push(producer)
        return None

    def _refuse_value(self, value: ir.Value) -> Refusal | None:
        name = value.name or ""
        if self._facts.leaves(value):
            why = f"{name!r} is a graph output, its value may not change"
            return Refusal(Code.GRAPH_OUTPUT, name, why)
        if value.producer() is None:
            why = (
                f"{name!r} is a graph input or a constant, nothing in front of it can take"
                " the map"
            )
            return Refusal(Code.GRAPH_INPUT, name, why)
        return None

    def _refuse_reader(self, value: ir.Value, by: ir.Node | None) -> Refusal | None:
        """Name a reader that neither brings this map, nor will, nor can do with it."""
        now = _BEFORE_ALL if by is None else self._facts.position(by)
        demands = self._asked[value]
        affine = next(iter(demands.values()))
        for use in self._facts.each_read(value):
            if use in demands or use[0] is by or self._facts.position(use[0]) < now:
                continue
            if self._may_be_undone(use, affine):
                continue  # found out when all demands are known
            if self._tolerance(use, affine) is None:
                return _shared(value, use[0])
        return None

    def _agree(self, value: ir.Value) -> Affine | Refusal:
        """Return the map that every reader brings, or name the one that does not."""
        demands = self._asked[value]
        first = next(iter(demands.values()))
        for use in self._facts.each_read(value):
            brought = demands.get(use)
            if brought is not None and not brought.equals(first):
                return _differ(value, use[0], demands)
            if brought is not None:
                continue
            if any(node is use[0] for node, _ in demands):
                return _differ(value, use[0], demands)
            if not self._is_undone(use, first):
                return _shared(value, use[0])
        return first

    def _is_undone(self, use: Use, affine: Affine) -> bool:
        """Let a reader that brings no map go on, once its input carries ``affine``.

        It takes the inverse itself, or what stands near behind it does: the gate of a channel
        attention pools the value that it multiplies, and its first layer takes the inverse.
        """
        tolerance = self._tolerance(use, affine)
        if tolerance is not None:
            if tolerance.edits:
                self._journey.adjust(use[0], tolerance)
            return True
        if not self._may_be_undone(use, affine):
            return False
        way = lower_into(use, affine.inverse(), self._facts, self._selection)
        if isinstance(way, Refusal):
            return False
        nodes = {*way.passed, *way.absorbed_by}
        if any(node in self._journey for node in nodes) or nodes & self._journey.undone:
            return False
        self._journey.undo(way)
        return True

    def _may_be_undone(self, use: Use, affine: Affine) -> bool:
        """Return whether it is worth a look whether a scale is undone behind a reader."""
        node, index = use
        if index < 0 or affine.has_shift or not affine.is_invertible:
            return False
        return node.op_type in _POOLS and self._facts.is_standard(node)

    def _tolerance(self, use: Use, affine: Affine) -> Taken | None:
        """Return how a reader that brings no map goes on, once its input carries ``affine``.

        It does not look at the channels that change, or its own constants undo a scale. A
        shift is not undone: the difference of large numbers would cost precision.
        """
        node, index = use
        if node in self._journey or node in self._journey.undone or index < 0:
            return None
        rule = rule_of(node, self._facts)
        taken = rule.take_before(node, {index: affine}, self._facts)
        if isinstance(taken, Taken) and not (taken.goes_on or taken.edits):
            return taken
        if affine.has_shift or not affine.is_invertible:
            return None
        if self._selection.refuse_touch(node) is not None:
            return None
        taken = rule.take_before(node, {index: affine.inverse()}, self._facts)
        return None if isinstance(taken, Refusal) or taken.goes_on else taken


def _differ(value: ir.Value, reader: ir.Node, demands: Demands) -> Refusal:
    """Say that a value would have to carry two maps, of one reader or of several."""
    why = f"{value.name!r} is also read by {name_of(reader)}, which needs another map of it"
    if all(node is reader for node, _ in demands):
        why = f"{name_of(reader)} reads {value.name!r} several times, each with another map"
    return Refusal(Code.MAPS_DIFFER, name_of(reader), why)


def _shared(value: ir.Value, reader: ir.Node) -> Refusal:
    why = f"{value.name!r} is also read by {name_of(reader)}, which needs it as it is"
    return Refusal(Code.SHARED_VALUE, name_of(reader), why)
