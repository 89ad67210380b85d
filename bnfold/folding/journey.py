"""What a walk through the graph leaves behind, and how it turns back at a crossroads."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

import onnx_ir as ir

from bnfold.folding.sites import Chain
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import Edit, Passage, Taken, name_of

_FARTHEST: Final = 200
"""No walk asks more nodes, all its ways together: planning stays linear in the graph."""
_WORTH_A_LOOK: Final = 8


@dataclass(frozen=True, slots=True, eq=False)
class _Detour:
    """The way of a map to the node where it met another.

    Attributes:
        passed: Nodes that handed it on.
        meets: That node.
    """

    passed: tuple[ir.Node, ...]
    meets: ir.Node


@dataclass(slots=True)
class Journey:
    """Where a map went.

    Attributes:
        edits: What has to be written.
        passed: Nodes that handed the map on.
        absorbed_by: Nodes that took it into their constants.
        adjusted: Readers of a value that changed under way, which take the inverse.
        undone: All nodes between such values and those that take it.
        recruits: Chains that met the map with one of their own, and leave with it.
        detours: Ways of recruits from another place, by the first node of the chain.
    """

    edits: list[Edit] = field(default_factory=list)
    passed: list[ir.Node] = field(default_factory=list)
    absorbed_by: list[ir.Node] = field(default_factory=list)
    adjusted: list[ir.Node] = field(default_factory=list)
    undone: set[ir.Node] = field(default_factory=set)
    recruits: list[Chain] = field(default_factory=list)
    detours: dict[ir.Node, _Detour] = field(default_factory=dict)
    _came_from: dict[ir.Node, ir.Node | None] = field(default_factory=dict)

    def __contains__(self, node: ir.Node) -> bool:
        """Return whether the map reached ``node``."""
        return node in self._came_from

    def reach(self, node: ir.Node, by: ir.Node | None) -> None:
        """Remember which node handed the map to ``node`` first; None: the site did."""
        self._came_from.setdefault(node, by)

    def passes(
        self, node: ir.Node, answer: Taken | Refusal, crossroads: Crossroads
    ) -> Taken | Refusal:
        """Follow the answer of a node; a refusal, or one for the distance, has its route."""
        if isinstance(answer, Refusal):
            return self.stopped(answer, self._came_from[node])
        taken = crossroads.choose(answer)
        self._note(node, taken)
        return self.stopped(too_far(node), node) if crossroads.is_far else taken

    def _note(self, node: ir.Node, taken: Taken) -> None:
        self.edits.extend(taken.edits)
        (self.passed if taken.goes_on else self.absorbed_by).append(node)

    def pass_through(
        self, node: ir.Node, passage: Passage, refuse: Callable[[ir.Node], Refusal | None]
    ) -> ir.Node | Refusal:
        """Follow a map past nodes that hand it on together with ``node``; return the last."""
        for behind in passage.nodes:
            blocked = refuse(behind)
            if blocked is not None:
                return self.stopped(blocked, node)
            self.reach(behind, node)
            self.passed.append(behind)
            node = behind
        return node

    def adjust(self, node: ir.Node, taken: Taken) -> None:
        """Remember that a reader takes the inverse of what it will now read."""
        self.edits.extend(taken.edits)
        self.adjusted.append(node)
        self.undone.add(node)

    def undo(self, way: Journey) -> None:
        """Remember how the inverse went on from a reader to those that take it."""
        self.edits.extend(way.edits)
        self.adjusted.extend(way.absorbed_by)
        self.undone.update(way.passed, way.absorbed_by)

    def route_to(self, node: ir.Node | None) -> tuple[str, ...]:
        """Return the names of the nodes from the site to ``node``, which is the last."""
        names: list[str] = []
        while node is not None:
            names.append(name_of(node))
            node = self._came_from[node]
        return tuple(reversed(names))

    def routes(self, chain: Chain | None = None) -> tuple[tuple[str, ...], ...]:
        """Return a route for every node that absorbed a part of the map of a chain."""
        routes = tuple(self.route_to(node) for node in self.absorbed_by)
        detour = None if chain is None else self.detours.get(chain.nodes[0])
        if detour is None:
            return routes
        common = len(self.route_to(detour.meets)) - 1
        own = tuple(name_of(node) for node in detour.passed)
        return tuple((*own, *route[common:]) for route in routes)

    def recruit(
        self, chain: Chain, edits: Iterable[Edit], passed: tuple[ir.Node, ...], meets: ir.Node
    ) -> None:
        """Let a chain leave with the map, which it meets at a node."""
        self.recruits.append(chain)
        self.edits.extend(edits)
        self.passed.extend(passed)
        for node in passed:
            self.reach(node, None)
        self.detours[chain.nodes[0]] = _Detour(passed, meets)

    def stopped(self, refusal: Refusal, behind: ir.Node | None) -> Refusal:
        """Return the refusal with the route to it; ``behind`` is the last node passed."""
        return replace(refusal, path=self.route_to(behind))


class Crossroads:
    """Depth-first search over the alternatives that rules offer, by walking again.

    A walk asks `choose` at every node. When it fails, `turn` moves the last choice that still
    has an alternative, and the walk is made again.
    """

    def __init__(self, farthest: int = _FARTHEST) -> None:
        """Start with the first way everywhere; ask so many nodes at most."""
        self._farthest = farthest
        self._taken: list[int] = []
        self._widths: list[int] = []
        self._at = 0
        self._asked = 0

    def choose(self, taken: Taken) -> Taken:
        """Return the alternative to follow now."""
        self._asked += 1
        if not taken.otherwise:
            return taken
        if self._at == len(self._taken):
            self._taken.append(0)
            self._widths.append(1 + len(taken.otherwise))
        chosen = self._taken[self._at]
        self._at += 1
        return taken if chosen == 0 else taken.otherwise[chosen - 1]

    def turn(self) -> bool:
        """Go back to the last crossroads with a way left; return whether there is one."""
        while self._taken and self._taken[-1] + 1 == self._widths[-1]:
            self._taken.pop()
            self._widths.pop()
        if not self._taken or self.is_far:
            return False
        self._taken[-1] += 1
        self._at = 0
        return True

    @property
    def is_long(self) -> bool:
        """Whether so many nodes were asked that a look ahead pays."""
        return self._asked >= _WORTH_A_LOOK

    def is_too_long(self, count: int) -> bool:
        """Return whether a walk would be too long with so many nodes more."""
        return self._asked + count > self._farthest

    @property
    def is_far(self) -> bool:
        """Whether so many nodes were asked that the search would cost more than it brings."""
        return self._asked > self._farthest


def together_or_alone(
    together: Callable[[Crossroads], Journey | Refusal] | None,
    alone: Callable[[Crossroads], Journey | Refusal],
    facts: Facts,
) -> Journey | Refusal:
    """Return the first way of a map with those that meet it, or else of it alone.

    Args:
        together: Walks along one choice of ways with others; None: none may go with it.
        alone: Does without.
        facts: The model, which knows which maps would not go together.
    """
    if together is not None:
        known = len(facts.apart)
        outcome = first_way(together)
        if isinstance(outcome, Journey) or len(facts.apart) == known:
            return outcome
    return first_way(alone)


def first_way(
    walk: Callable[[Crossroads], Journey | Refusal], farthest: int = _FARTHEST
) -> Journey | Refusal:
    """Return the first way that leads out, or why the preferred one does not."""
    crossroads = Crossroads(farthest)
    first = outcome = walk(crossroads)
    while isinstance(outcome, Refusal) and crossroads.turn():
        outcome = walk(crossroads)
    return first if isinstance(outcome, Refusal) else outcome


def too_far(node: ir.Node) -> Refusal:
    """Refuse because the search costs more than it may bring."""
    why = f"the map would have to pass more than {_FARTHEST} nodes"
    return Refusal(Code.TOO_FAR, name_of(node), why)


class Queue:
    """Nodes in topological order, or against it; each once.

    A node with subgraphs comes before what stands in them going up, and after it going down.
    """

    def __init__(self, facts: Facts, *, downwards: bool) -> None:
        """Start empty."""
        self._facts = facts
        self._downwards = downwards
        self._heap: list[tuple[int, int, ir.Node]] = []
        self._seen: set[ir.Node] = set()

    def push(self, node: ir.Node) -> None:
        """Add a node unless it was there before."""
        if node in self._seen:
            return
        self._seen.add(node)
        place = self._facts.end(node) if self._downwards else -self._facts.position(node)
        heapq.heappush(self._heap, (place, len(self._seen), node))

    def pop(self) -> ir.Node | None:
        """Return the next node, or None when none is left."""
        return heapq.heappop(self._heap)[2] if self._heap else None
