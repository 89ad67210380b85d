"""Find sums in a graph, and what each of their terms is: a linear operator, a map, a value.

A sum is a tree of Add, Sub and Sum. Its inner results are read by it alone, so that a term may
be taken out here and written into another one there.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.folding.selection import Selection
from bnfold.folding.sites import Chain, source_of
from bnfold.model.facts import Facts
from bnfold.model.uses import is_used_once
from bnfold.records import Refusal
from bnfold.rules.base import Source

_SUMS: Final = frozenset({"Add", "Sub", "Sum"})
_MOST_TERMS: Final = 64
_LONGEST_CHAIN: Final = 16
_LONGEST_ROW: Final = 3
"""So many operators are looked through in front of the one that enters the sum."""
_LINEAR: Final = frozenset({"Conv", "MatMul", "Gemm"})


@dataclass(frozen=True, slots=True)
class Place:
    """Where a term enters a sum: an input of one of its nodes, and its sign there."""

    node: ir.Node
    index: int
    sign: float


@dataclass(frozen=True, slots=True, eq=False)
class Sum:
    """A tree of additions.

    Attributes:
        nodes: Its nodes, readers in front of what they read; the first writes the result.
        places: Its terms.
    """

    nodes: tuple[ir.Node, ...]
    places: tuple[Place, ...]

    @property
    def root(self) -> ir.Node:
        """The node that writes the result."""
        return self.nodes[0]


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """A term ``affine(operator(source))``, or ``affine(source)``.

    Attributes:
        place: Where it enters the sum.
        source: The value it is made of.
        operator: The Conv, MatMul or Gemm that reads it; None where there is none.
        chain: The nodes that apply the map, in graph order.
        affine: The map.
        front: Operators in a row between the source and the operator, read by nobody else.
    """

    place: Place
    source: ir.Value
    operator: ir.Node | None = None
    chain: tuple[ir.Node, ...] = ()
    affine: Affine = field(default_factory=Affine.uniform)
    front: tuple[ir.Node, ...] = ()

    @property
    def nodes(self) -> tuple[ir.Node, ...]:
        """All nodes that nobody needs once the term is gone."""
        return (*self.front, *(() if self.operator is None else (self.operator,)), *self.chain)

    @property
    def row(self) -> tuple[ir.Node, ...]:
        """The operators that make the term of its source, in graph order."""
        return self.front if self.operator is None else (*self.front, self.operator)

    def chain_as_site(self) -> Chain:
        """Return the nodes of the map as a chain; there must be some."""
        index = 0
        first = self.chain[0]
        below = self.source if self.operator is None else self.operator.outputs[0]
        for place, value in enumerate(first.inputs):
            if value is below:
                index = place
        return Chain(self.chain, index, self.affine)


class Reader:
    """Reads sums and terms; remembers values with many readers while nothing is undone."""

    def __init__(self, facts: Facts, selection: Selection) -> None:
        self._facts = facts
        self._selection = selection
        # What is chosen by --only is the sum; the maps in it go with it.
        self._in_terms = replace(selection, only=())
        self._busy: set[ir.Value] = set()

    def read_once(self, value: ir.Value) -> bool:
        """Return whether exactly one input of one node reads a value, and nobody else."""
        if value in self._busy:
            return False
        if is_used_once(value) and not value.is_graph_output():
            return True
        self._busy.add(value)
        return False

    def sums(self) -> Iterator[Sum]:
        """Yield every sum, the last of the graph first."""
        inner: set[ir.Node] = set()
        for node in reversed(self._facts.nodes()):
            if node not in inner and self._adds(node):
                found = self._sum_at(node)
                inner.update(found.nodes)
                yield found

    def _adds(self, node: ir.Node) -> bool:
        """Return whether a node adds computed values, and may be touched."""
        return (
            node.op_type in _SUMS
            and node.graph is not None
            and self._facts.is_standard(node)
            and len(node.inputs) > 1
            and self._selection.refuse_touch(node) is None
            and all(value is not None for value in node.inputs)
            and all(isinstance(self._facts.constant(v), Refusal) for v in node.inputs)
        )

    def _sum_at(self, root: ir.Node) -> Sum:
        nodes, signs = [root], {root: 1.0}
        places: list[Place] = []
        for node in nodes:
            for index, value in enumerate(node.inputs):
                minus = node.op_type == "Sub" and index == 1
                sign = -signs[node] if minus else signs[node]
                below = None if value is None else value.producer()
                room = len(nodes) + len(places) < _MOST_TERMS
                if below is not None and room and self._is_inner(below, root, value):
                    nodes.append(below)
                    signs[below] = sign
                else:
                    places.append(Place(node, index, sign))
        return Sum(tuple(nodes), tuple(places))

    def _is_inner(self, node: ir.Node, root: ir.Node, value: ir.Value | None) -> bool:
        return (
            value is not None
            and node.graph is root.graph
            and self._adds(node)
            and self.read_once(value)
        )

    def terms(self, found: Sum) -> list[Term]:
        """Return the terms of a sum, each with the value that it is made of."""
        return [self._term(place, found.root.graph) for place in found.places]

    def _term(self, place: Place, graph: ir.Graph | None) -> Term:
        value = place.node.inputs[place.index]
        if value is None:
            message = "a sum lost an operand"
            raise ValueError(message)
        chain: list[ir.Node] = []
        affine = Affine.uniform()
        while len(chain) < _LONGEST_CHAIN and (link := self._map_at(value, graph)) is not None:
            node, index, own = link
            below = node.inputs[index]
            if below is None or not own.composes_with(affine):
                break
            affine = own.then(affine)
            chain.insert(0, node)
            value = below
        operator = self._operator_at(value, graph)
        at = 0 if operator is None else data_index(operator, self._facts)
        data = None if operator is None else operator.inputs[at]
        if data is not None:
            return Term(place, data, operator, tuple(chain), affine)
        return Term(place, value, None, tuple(chain), affine)

    def longer(self, term: Term) -> Iterator[Term]:
        """Yield a term as made of what stands further in front: ``(x · A) · B`` of ``x``.

        Such a row may be dearer as one operator and still cost nothing in a sum, where another
        operator holds it.
        """
        while term.operator is not None and len(term.front) < _LONGEST_ROW:
            first = term.row[0]
            below = self._operator_at(term.source, term.place.node.graph)
            like = below is not None and (below.op_type == "Conv") == (first.op_type == "Conv")
            data = below.inputs[data_index(below, self._facts)] if below and like else None
            if below is None or data is None:
                return
            term = replace(term, source=data, front=(below, *term.front))
            yield term

    def _map_at(
        self, value: ir.Value, graph: ir.Graph | None
    ) -> tuple[ir.Node, int, Affine] | None:
        """Return the node that applies a map to give ``value``, for the sum alone."""
        node = value.producer()
        if node is None or node.graph is not graph or not self.read_once(value):
            return None
        if self._selection.refuse_touch(node) is not None:
            return None
        if node.op_type == "Identity" and self._facts.is_standard(node):
            return node, 0, Affine.uniform()
        found = source_of(node, self._facts, self._in_terms)
        return (node, found.index, found.affine) if isinstance(found, Source) else None

    def _operator_at(self, value: ir.Value, graph: ir.Graph | None) -> ir.Node | None:
        node = value.producer()
        if node is None or node.graph is not graph or node.op_type not in _LINEAR:
            return None
        free = self.read_once(value) and self._selection.refuse_touch(node) is None
        return node if free and self._facts.is_standard(node) else None


def data_index(node: ir.Node, facts: Facts) -> int:
    """Return which input of a linear operator is its data: 0, but 1 where 0 is the weight."""
    if node.op_type != "MatMul" or isinstance(facts.constant(node.inputs[0]), Refusal):
        return 0
    return 1


def removal(found: Sum, gone: Iterable[Place], facts: Facts, kept: Place) -> Removal | None:
    """Return how ``gone`` leaves a sum; None where the rest would not be the same sum.

    The first operand of a Sub can only leave together with the second one, and an inner result
    that loses its widest operand would change its shape.
    """
    out = {(place.node, place.index) for place in gone}
    empty: dict[ir.Node, None] = {}
    changed: dict[ir.Node, tuple[int, ...]] = {}
    for node in reversed(found.nodes):
        lost = tuple(_lost(node, out, empty))
        if lost:
            changed[node] = lost
        if len(lost) == len(node.inputs):
            empty[node] = None
        elif node.op_type == "Sub" and lost == (0,):
            return None
    if not _keeps_shapes(found, changed, kept, facts):
        return None
    order = [node for node in reversed(found.nodes) if node in changed and node not in empty]
    return Removal(tuple((node, changed[node]) for node in order), tuple(empty))


def _keeps_shapes(
    found: Sum, changed: Mapping[ir.Node, tuple[int, ...]], kept: Place, facts: Facts
) -> bool:
    """Return whether every result that stays has the shape it had.

    One that adds what is kept has: a merged term is as large as those that left.
    """
    holds_kept: set[ir.Node] = set()
    touched: set[ir.Node] = set()
    for node in reversed(found.nodes):
        if node is kept.node or _reads_any(node, holds_kept):
            holds_kept.add(node)
        lost = changed.get(node, ())
        if not lost and not _reads_any(node, touched):
            continue
        touched.add(node)
        several = len(node.inputs) - len(lost) > 1
        if several and node not in holds_kept and not _has_full(node, lost, touched, facts):
            return False
    return True


def _has_full(
    node: ir.Node, lost: tuple[int, ...], touched: set[ir.Node], facts: Facts
) -> bool:
    """Return whether an operand that stays as it is has the shape of the result for sure."""
    shape = facts.shape(node.outputs[0])
    if shape is None or any(dim is None for dim in shape):
        return False
    return any(
        value is not None and value.producer() not in touched and facts.shape(value) == shape
        for index, value in enumerate(node.inputs)
        if index not in lost
    )


@dataclass(frozen=True, slots=True)
class Removal:
    """What happens to the nodes of a sum.

    Attributes:
        losses: Nodes that lose operands, with their indices, operands in front of readers.
        empty: Nodes that lose all of them.
    """

    losses: tuple[tuple[ir.Node, tuple[int, ...]], ...]
    empty: tuple[ir.Node, ...]

    @property
    def gone(self) -> tuple[ir.Node, ...]:
        """The nodes that are not needed any more."""
        passed = (node for node, lost in self.losses if len(node.inputs) - len(lost) == 1)
        return (*passed, *self.empty)


def _lost(
    node: ir.Node, out: set[tuple[ir.Node, int]], empty: Container[ir.Node]
) -> Iterator[int]:
    for index, value in enumerate(node.inputs):
        below = None if value is None else value.producer()
        if (node, index) in out or (below is not None and below in empty):
            yield index


def _reads_any(node: ir.Node, nodes: set[ir.Node]) -> bool:
    return any(value is not None and value.producer() in nodes for value in node.inputs)
