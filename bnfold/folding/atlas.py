"""A map of all graphs of a model: who makes a value, who reads it, and what is constant.

Built once for a model, in one walk. Data flows through control flow as it is computed: what an
operator inside of a Loop reads comes from what the Loop was given, and the results of a branch
go to the If that holds it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import onnx_ir as ir

from bnfold.model.graphs import subgraphs_of
from bnfold.rules.base import name_of

_OF_SHAPES: Final = frozenset({"Shape", "Size"})
_MOST_READERS: Final = 16
"""So many readers of one value are looked at: a value may have thousands."""
_NEXT_TO: Final = 8
"""So many nodes of one name are looked at, on either side of a place."""
_FARTHEST: Final = 64
"""So many nodes are looked at on the way from one node to another."""


_AKIN: Final = (
    frozenset({"MatMul", "Gemm"}),
    frozenset({"ReduceMax", "ReduceMin"}),
    frozenset({"Max", "Min"}),
)
"""Operators that a fold turns into each other at their place."""


class Atlas:
    """Where the nodes of a model stand, and how data flows between them.

    Attributes:
        place: Position of every node; a node with subgraphs stands behind what is in them.
        by_name: Nodes by the names that reports call them.
        maker: Nodes by the names of the values that they write.
        fixed: Nodes that compute from constants and shapes only: no data flows through them.
        home: Where a graph stands, in words; equal before and after a fold.
    """

    def __init__(self, model: ir.Model) -> None:
        """Walk through a model."""
        self.place: dict[ir.Node, int] = {}
        self.by_name: dict[str, list[ir.Node]] = {}
        self.maker: dict[str, ir.Node] = {}
        self.fixed: set[ir.Node] = set()
        self.home: dict[ir.Graph | None, str] = {model.graph: ""}
        self._readers: dict[ir.Value, list[ir.Node]] = {}
        self._given: dict[ir.Value, ir.Value] = {}
        self._results: dict[ir.Node, list[ir.Value]] = {}
        self._chart(model.graph)

    def _chart(self, graph: ir.Graph) -> None:
        for node in graph:
            for number, inner in enumerate(subgraphs_of(node)):
                self.home[inner] = f"{self.home[graph]}/{name_of(node)}:{number}"
                self._enter(node, inner)
                self._chart(inner)
                self._leave(node, inner)
            self._add(node)

    def _enter(self, node: ir.Node, graph: ir.Graph) -> None:
        """Remember what the inputs of a body stand for: the last inputs of its node."""
        for inner, outer in zip(reversed(graph.inputs), reversed(node.inputs), strict=False):
            if outer is not None and not self.is_fixed(outer):
                self._given[inner] = self._given.get(outer, outer)

    def _leave(self, node: ir.Node, graph: ir.Graph) -> None:
        """Let a node read the results of its subgraph."""
        results = self._results.setdefault(node, [])
        for value in graph.outputs:
            results.append(value)
            self._readers.setdefault(value, []).append(node)

    def _add(self, node: ir.Node) -> None:
        self.place[node] = len(self.place)
        self.by_name.setdefault(name_of(node), []).append(node)
        for value in node.outputs:
            if value.name:
                self.maker.setdefault(value.name, node)
        if self._is_fixed(node):
            self.fixed.add(node)
        for read in node.inputs:
            if read is not None:
                self._readers.setdefault(self._given.get(read, read), []).append(node)

    def _is_fixed(self, node: ir.Node) -> bool:
        if node.op_type == "Constant" or node.op_type in _OF_SHAPES:
            return True
        read = [value for value in node.inputs if value is not None]
        return bool(read) and node not in self._results and all(map(self.is_fixed, read))

    def is_fixed(self, value: ir.Value) -> bool:
        """Return whether a value is a constant, or computed from constants and shapes."""
        producer = value.producer()
        if producer is None:
            return value.const_value is not None or value.is_initializer()
        return producer in self.fixed

    def feeds(self, node: ir.Node) -> Iterator[ir.Value]:
        """Yield the values that a node reads, each once, results of its subgraphs included."""
        read = dict.fromkeys(value for value in node.inputs if value is not None)
        yield from dict.fromkeys(self._given.get(value, value) for value in read)
        yield from self._results.get(node, ())

    def is_result(self, value: ir.Value, node: ir.Node) -> bool:
        """Return whether a value is a result of a subgraph of ``node``."""
        return value in self._results.get(node, ())

    def readers(self, value: ir.Value) -> list[ir.Node]:
        """Return the nodes that read a value; one that holds the graph it is a result of."""
        return self._readers.get(value, [])

    def makers(self, node: ir.Node) -> Iterator[ir.Node]:
        """Yield the nodes that data comes from."""
        for value in self.feeds(node):
            producer = value.producer()
            if producer is None or producer not in self.place or producer in self.fixed:
                continue
            if not self.is_result(value, node):
                yield producer

    def takers(self, node: ir.Node) -> Iterator[ir.Node]:
        """Yield the first nodes that read the results of a node, and more than shapes."""
        for value in node.outputs:
            for reader in self.readers(value)[:_MOST_READERS]:
                if reader not in self.fixed or node in self.fixed:
                    yield reader

    def find(
        self, name: str, near: ir.Node | None = None, others: Sequence[ir.Node] = ()
    ) -> ir.Node | None:
        """Return the node of a name: of several, the one in the same graph, or close by.

        Args:
            name: As reports say it.
            near: Where to look first.
            others: Nodes that are not meant, unless no other has the name.
        """
        found = self.by_name.get(name, [])
        if not found:
            return self._renamed(name)
        if len(found) == 1 or near is None:
            return found[0]
        here = self.place[near]
        at = bisect_left(found, here, key=self.place.__getitem__)
        close = found[max(0, at - _NEXT_TO) : at + _NEXT_TO]
        close = [node for node in close if node not in others] or close
        return min(close, key=lambda n: (n.graph is not near.graph, abs(self.place[n] - here)))

    def _renamed(self, name: str) -> ir.Node | None:
        """Return a node without a name that wrote a value later called as in ``name``.

        When a map moves up out of a graph, its producer writes what the map wrote.
        """
        kind, arrow, value = name.partition(" → ")
        last = self.maker.get(value) if arrow else None
        if last is None:
            return None
        behind = reached([last], self.makers, lambda _: True)
        alike = (n for n in (last, *behind) if not n.name and are_akin(n.op_type, kind))
        return next(alike, None)


def are_akin(kind: str, other: str) -> bool:
    """Return whether a node of one kind may have been one of another."""
    return kind == other or frozenset({kind, other}) in _AKIN


def reached(
    starts: Iterable[ir.Node],
    onward: Callable[[ir.Node], Iterable[ir.Node]],
    may_enter: Callable[[ir.Node], bool],
) -> dict[ir.Node, None]:
    """Return the nodes that a walk from ``starts`` enters, in order, a bounded number."""
    pending = deque(starts)
    seen = set(pending)
    found: dict[ir.Node, None] = {}
    while pending and len(found) < _FARTHEST:
        for node in onward(pending.popleft()):
            if node not in seen:
                seen.add(node)
                if may_enter(node):
                    found[node] = None
                    pending.append(node)
    return found
