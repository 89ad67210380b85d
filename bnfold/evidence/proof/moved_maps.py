"""Which values are maps of their counterparts because a map was moved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from bnfold.evidence.proof.links import Link
from bnfold.evidence.proof.sides import Side


@dataclass(slots=True)
class MovedMaps:
    """Decides each value once: a map may be handed on through thousands of nodes.

    A walk asks in graph order, and finds the relation of a value before it asks what follows
    from that: so what was decided stays.

    Attributes:
        folded: The folded model.
        relations: What the walk found so far, by value name; None for the same.
        has_another: Says of a node of the folded model whether more than an attribute of it,
            or a constant that it reads, is not that of the original.
    """

    folded: Side
    relations: Mapping[str, Link | None]
    has_another: Callable[[ir.Node], bool]
    _known: dict[str, bool] = field(default_factory=dict)

    def is_moved(self, name: str) -> bool:
        """Return whether a value is such a map, by a node that computes it or one before."""
        waiting, seen = [name], {name}
        while waiting:
            here = waiting.pop()
            is_moved, before = self._at(here)
            if is_moved:
                self._known[here] = self._known[name] = True
                return True
            new = dict.fromkeys(read for read in before if read not in seen)
            seen.update(new)
            waiting.extend(new)
        self._known.update(dict.fromkeys(seen, False))
        return False

    def _at(self, name: str) -> tuple[bool, tuple[str, ...]]:
        """Return whether the node of a value makes its map; what it reads if it does not."""
        if name in self._known:
            return self._known[name], ()
        value = self.folded.values.get(name)
        node = None if value is None else value.producer()
        if self.relations.get(name) is None:
            return False, ()
        if node is None or self.has_another(node):
            return True, ()
        return False, tuple(self._computed(node))

    def _computed(self, node: ir.Node) -> Iterator[str]:
        reads = self.folded.reads(node)
        return (read.name or "" for read in reads if not self.folded.is_constant(read))
