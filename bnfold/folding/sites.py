"""Find the places where a graph applies a map, and compose those that stand in a row."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.folding.selection import Selection, rule_of
from bnfold.model.facts import Facts
from bnfold.records import NOT_EVALUATED, Code, Refusal
from bnfold.rules.base import Source, name_of

_SILENT = frozenset(
    {
        Code.NOT_AFFINE,
        Code.NOT_FLOAT,
        Code.NOT_SELECTED,
        Code.DYNAMIC_CONSTANT,
    }
)
"""Reasons why an element-wise operator is no map at all; only normalisations report them."""


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """Nodes in a row whose maps compose to one: ``nodes[-1](… nodes[0](x))``.

    Attributes:
        nodes: The nodes in graph order, each the only reader of the one before.
        index: Which input of the first node is x.
        affine: The composed map.
    """

    nodes: tuple[ir.Node, ...]
    index: int
    affine: Affine

    @property
    def source(self) -> ir.Value:
        """The value x that the chain maps."""
        value = self.nodes[0].inputs[self.index]
        if value is None:
            message = f"the chain at {name_of(self.nodes[0])} lost its input"
            raise ValueError(message)
        return value

    @property
    def result(self) -> ir.Value:
        """The value that the chain writes."""
        return self.nodes[-1].outputs[0]

    @property
    def rule(self) -> str:
        """The operator kind a report files the chain under."""
        kinds = [node.op_type for node in self.nodes]
        return "BatchNormalization" if "BatchNormalization" in kinds else kinds[0]

    @property
    def names(self) -> tuple[str, ...]:
        """What a person calls the nodes."""
        return tuple(name_of(node) for node in self.nodes)


def source_of(node: ir.Node, facts: Facts, selection: Selection) -> Source | Refusal:
    """Return the map a node applies, unless it may not be touched."""
    found = _read_source(node, facts)
    if isinstance(found, Refusal):
        return found
    data = node.inputs[found.index]
    known = facts.constant(data)
    if isinstance(known, Refusal) and known.code in NOT_EVALUATED:
        return Refusal(known.code, name_of(node), known.why, known.remedy)
    if facts.is_fixed(data):
        why = "it maps a constant; the result is one"
        return Refusal(Code.NOT_AFFINE, name_of(node), why)
    return selection.refuse_site(node) or found


def _read_source(node: ir.Node, facts: Facts) -> Source | Refusal:
    """Return the map a node applies; from its constants only if it is not known yet."""
    known = facts.sources.get(node)
    if known is not None:
        source, *rest = known
        if isinstance(source, Source) and rest == _read_from(node, source, facts):
            return source
    found = rule_of(node, facts).source(node, facts)
    if isinstance(found, Source) and _is_of_stored(node, found, facts):
        facts.sources[node] = (found, *_read_from(node, found, facts))
    return found


def _read_from(node: ir.Node, source: Source, facts: Facts) -> list[object]:
    data = node.inputs[source.index]
    rank = None if data is None else facts.rank(data)
    held = [None if value is None else value.const_value for value in node.inputs]
    return [rank, node.op_type, node.inputs, held]


def _is_of_stored(node: ir.Node, source: Source, facts: Facts) -> bool:
    """Return whether the constants of a map are initializers, and of no other making."""
    return facts.is_standard(node) and all(
        index == source.index or value is None or value.producer() is None
        for index, value in enumerate(node.inputs)
    )


def is_reported(node: ir.Node, refusal: Refusal) -> bool:
    """Return whether a node that is no map deserves a line in the report."""
    return node.op_type == "BatchNormalization" or refusal.code not in _SILENT


def chain_from(node: ir.Node, facts: Facts, selection: Selection) -> Chain | Refusal:
    """Return the longest chain that starts at ``node``."""
    first = source_of(node, facts, selection)
    if isinstance(first, Refusal):
        return first
    nodes, affine = [node], first.affine
    while (link := _next_link(nodes[-1], affine, facts, selection)) is not None:
        nodes.append(link[0])
        affine = affine.then(link[1])
    return Chain(tuple(nodes), first.index, affine)


def _next_link(
    node: ir.Node, affine: Affine, facts: Facts, selection: Selection
) -> tuple[ir.Node, Affine] | None:
    value = node.outputs[0]
    uses = facts.element_uses(value)
    if len(uses) != 1 or value.is_graph_output():
        return None
    reader, index = uses[0]
    if reader.graph is not node.graph:
        return None
    found = source_of(reader, facts, selection)
    if isinstance(found, Refusal) or found.index != index:
        return None
    return (reader, found.affine) if affine.composes_with(found.affine) else None
