"""Cut a patch out of a graph: which nodes are drawn, and the wires between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import onnx_ir as ir

from bnfold.folding.atlas import Atlas
from bnfold.records import Box, Patch, Role, Wire
from bnfold.rules.base import name_of

_MOST_BOXES: Final = 12
_FIRST: Final = (
    (Role.SITE, 4),
    (Role.ABSORBED, 3),
    (Role.CHANGED, 2),
    (Role.BESIDE, 2),
)
"""So many of each are chosen before any are left out …"""
_THEN: Final = (
    (Role.PASSED, 6),
    (Role.GONE, _MOST_BOXES),
    (Role.CHANGED, 6),
    (Role.SITE, 6),
    (Role.ABSORBED, 4),
    (Role.BESIDE, 4),
)
"""… and so many at most: in what order the room that is left is filled."""
_STUBS: Final = 3
"""So many values are shown that come into one node, or leave it, from or to elsewhere."""


def cut_out(atlas: Atlas, roles: Mapping[ir.Node, Role]) -> Patch:
    """Return the patch of these nodes.

    Args:
        atlas: The model they stand in.
        roles: Their roles; of each role, those that matter more come first.
    """
    shown = sorted(_chosen(roles), key=atlas.place.__getitem__)
    hidden = {node for node, role in roles.items() if role is not Role.BESIDE}
    hidden.difference_update(shown)
    boxes = tuple(Box(name_of(node), node.op_type, roles[node]) for node in shown)
    wiring = _Wiring(atlas, {node: place for place, node in enumerate(shown)}, hidden, roles)
    return Patch(boxes, tuple(wiring.wires()), len(hidden))


def _chosen(roles: Mapping[ir.Node, Role]) -> list[ir.Node]:
    """Return the nodes that are drawn: all, or the telling ones."""
    by_role: dict[Role, list[ir.Node]] = {role: [] for role in Role}
    for node, role in roles.items():
        by_role[role].append(node)
    chosen: dict[ir.Node, None] = {}
    for role, most in (*_FIRST, *_THEN):
        room = _MOST_BOXES - len(chosen)
        already = sum(1 for node in chosen if roles[node] is role)
        fresh = [node for node in by_role[role] if node not in chosen]
        chosen.update(dict.fromkeys(fresh[: max(0, min(room, most - already))]))
    return list(chosen)


def ends_first(nodes: Sequence[ir.Node]) -> list[ir.Node]:
    """Return nodes in a row so that its middle comes last."""
    pairs = zip(nodes, reversed(nodes), strict=True)
    return list(dict.fromkeys(node for pair in pairs for node in pair))


@dataclass(slots=True)
class _Wiring:
    """The wires of a patch; what is hidden is a longer wire.

    Attributes:
        atlas: The model.
        shown: The nodes that are drawn, with their indices.
        hidden: The nodes that belong to the patch, but are not drawn.
        roles: The roles of both.
    """

    atlas: Atlas
    shown: dict[ir.Node, int]
    hidden: set[ir.Node]
    roles: Mapping[ir.Node, Role]
    _reach: dict[ir.Node, dict[int | None, int]] = field(default_factory=dict)
    _leads_on: set[ir.Node] = field(default_factory=set)

    def wires(self) -> Iterable[Wire]:
        """Yield the wires: those into each box, then those that leave."""
        hidden = sorted(self.hidden, key=self.atlas.place.__getitem__)
        for node in hidden:
            self._reach[node] = self._behind(node)
        found: list[Wire] = []
        for node in self.shown:
            found.extend(self._into(node))
            self._leads_on.update(self._hidden_makers(node))
        for node in reversed(hidden):
            if node in self._leads_on:
                self._leads_on.update(self._hidden_makers(node))
        for node in self.shown:
            found.extend(self._out_of(node))
        return found

    def _behind(self, node: ir.Node) -> dict[int | None, int]:
        """Return the boxes that feed a hidden node, and how many nodes on its result is."""
        lengths: dict[int | None, int] = {}
        for value in self._data(node):
            for source, length in self._sources(value).items():
                lengths[source] = max(lengths.get(source, 0), length + 1)
        if len(lengths) > 1:
            lengths.pop(None, None)
        return lengths

    def _sources(self, value: ir.Value) -> dict[int | None, int]:
        """Return the boxes that a value comes from, and how many hidden nodes lie between."""
        maker = value.producer()
        if maker in self.shown:
            return {self.shown[maker]: 0}
        if maker in self.hidden:
            return self._reach.get(maker, {})
        return {None: 0}

    def _hidden_makers(self, node: ir.Node) -> set[ir.Node]:
        makers = {value.producer() for value in self.atlas.feeds(node)}
        return {maker for maker in makers if maker is not None and maker in self.hidden}

    def _data(self, node: ir.Node) -> Iterable[ir.Value]:
        """Yield what a node reads that is drawn: data, and what boxes compute of constants."""
        return (value for value in self.atlas.feeds(node) if self._is_drawn(value, node))

    def _is_drawn(self, value: ir.Value, node: ir.Node) -> bool:
        maker = value.producer()
        if maker is not None and (maker in self.shown or maker in self.hidden):
            return self.roles[maker] is not Role.BESIDE or not self.atlas.is_fixed(value)
        return not self.atlas.is_fixed(value) and not self.atlas.is_result(value, node)

    def _into(self, node: ir.Node) -> Iterable[Wire]:
        target = self.shown[node]
        found: dict[tuple[int | None, str], Wire] = {}
        stubs = 1 if self.roles[node] is Role.BESIDE else _STUBS
        for value in self._data(node):
            for source, hops in self._sources(value).items():
                length = hops
                key = (source, "" if length else value.name or "")
                if source is None and key in found and length:
                    length += found.pop(key).through
                elif source is None and key not in found:
                    stubs -= 1
                wire = Wire(source, target, value.name or "", shape_of(value), length)
                if source is not None or stubs >= 0:
                    found.setdefault(key, wire)
        return found.values()

    def _out_of(self, node: ir.Node) -> Iterable[Wire]:
        """Yield a wire for each value that other nodes read, or that is a result."""
        source = self.shown[node]
        stubs = 1 if self.roles[node] is Role.BESIDE else _STUBS
        found: list[Wire] = []
        for value in node.outputs:
            dead_ends = self._dead_ends(value)
            if dead_ends or self._leaves(value, node):
                found.append(Wire(source, None, value.name or "", shape_of(value), dead_ends))
        return found[:stubs]

    def _dead_ends(self, value: ir.Value) -> int:
        """Return how many hidden nodes read a value and lead to no box."""
        if not self.hidden:
            return 0
        readers = dict.fromkeys(self.atlas.readers(value))
        return sum(1 for n in readers if n in self.hidden and n not in self._leads_on)

    def _leaves(self, value: ir.Value, node: ir.Node) -> bool:
        if value.is_graph_output() and self.atlas.home.get(node.graph) == "":
            return True
        fixed = self.atlas.fixed
        return any(
            reader not in self.shown and reader not in self.hidden
            for reader in self.atlas.readers(value)
            if reader not in fixed or node in fixed
        )


def shape_of(value: ir.Value) -> str:
    """Return the shape of a value as text, e.g. ``N×64×56×56``; empty if it is unknown."""
    if value.shape is None:
        return ""
    return "×".join(
        str(dim) if isinstance(dim, int) else str(dim.value or "?") for dim in value.shape
    )
