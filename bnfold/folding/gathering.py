"""Maps that enter one operator through very many inputs, or leave it, go through it together.

Each alone would be completed with the identity for all the other parts: n maps in front of a
Concat of n parts would take n² steps, and its reader would be written n times. Where an
operator has few parts, each map goes alone, as everywhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from typing import Final, TypeGuard

import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.folding.selection import Selection, refuse_unruled, rule_of
from bnfold.folding.sites import Chain, chain_from, source_of
from bnfold.model.facts import Facts
from bnfold.model.uses import first_uses
from bnfold.records import Code, Refusal
from bnfold.rules.base import Edit, Source, Taken

_WIDE: Final = 32
_LONGEST_BRANCH: Final = 16
"""So many operators may stand between a map and the operator that joins it with others."""
_JOIN: Final = frozenset({"Concat", "Sum", "Mean"})


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """A map that reaches one part of a wide operator, and what it passes on the way.

    Attributes:
        chain: The nodes that apply the map.
        passed: The nodes between them and the wide operator, those next to the chain first.
        edits: What has to be written there.
        affine: The map as it arrives.
    """

    chain: Chain
    passed: tuple[ir.Node, ...]
    edits: tuple[Edit, ...]
    affine: Affine


def is_wide_join(node: ir.Node, facts: Facts) -> bool:
    """Return whether a node joins very many values to one."""
    return len(node.inputs) > _WIDE and node.op_type in _JOIN and facts.is_standard(node)


def is_wide_split(node: ir.Node, facts: Facts) -> bool:
    """Return whether a node parts one value in very many."""
    return len(node.outputs) > _WIDE and node.op_type == "Split" and facts.is_standard(node)


def refuse_behind(node: ir.Node, facts: Facts) -> Refusal | None:
    """Return what stops every map behind a wide join, so that not each has to be laid out."""
    value = node.outputs[0]
    if facts.leaves(value):
        why = f"{value.name!r} is a graph output, its value may not change"
        return Refusal(Code.GRAPH_OUTPUT, value.name or "", why)
    blind = (refuse_unruled(reader, facts) for reader, _ in facts.each_read(value))
    return next((refusal for refusal in blind if refusal is not None), None)


def branches_into(
    node: ir.Node,
    without: Container[int],
    facts: Facts,
    selection: Selection,
    stays: Callable[[Chain], bool],
) -> Iterator[tuple[int, Branch]]:
    """Yield the maps that reach a wide join, by input.

    Args:
        node: The join.
        without: Inputs that are not looked at.
        facts: The model.
        selection: What may be touched.
        stays: Says of a chain that it cannot leave by another way, which would be tried first.
    """
    for index, value in enumerate(node.inputs):
        if value is not None and index not in without:
            chain = _chain_above(node, value, facts, selection)
            branch = None if chain is None else _descend(chain, node, facts, selection)
            if branch is not None and stays(branch.chain):
                yield index, branch


def branches_behind(
    node: ir.Node, without: Container[int], facts: Facts, selection: Selection
) -> Iterator[tuple[int, Branch]]:
    """Yield the maps that go up to a wide Split, by output."""
    for place, value in enumerate(node.outputs):
        if place not in without:
            branch = _ascend(value, node, facts, selection)
            if branch is not None:
                yield place, branch


def _read_by_one(value: ir.Value, facts: Facts) -> tuple[ir.Node, int] | None:
    """Return the one use of a value within its graph."""
    uses = first_uses(value, 2)
    if len(uses) != 1 or value.is_graph_output() or facts.leaves(value):
        return None
    return uses[0]


def _chain_above(
    join: ir.Node, value: ir.Value, facts: Facts, selection: Selection
) -> Chain | None:
    """Return the only chain that a value hangs on, all of which is read by it alone."""
    found: list[ir.Node] = []
    current: ir.Value | None = value
    for _ in range(_LONGEST_BRANCH):
        node = None if current is None else current.producer()
        if current is None or node is None or node.graph is not join.graph:
            break
        if _read_by_one(current, facts) is None:
            break
        source = source_of(node, facts, selection)
        if isinstance(source, Source):
            found.append(node)
            current = node.inputs[source.index]
            continue
        current = node.inputs[0] if len(node.inputs) == 1 else None
    chain = chain_from(found[-1], facts, selection) if found else None
    # of several chains in a row, the first goes first, into the next
    return chain if isinstance(chain, Chain) and len(chain.nodes) == len(found) else None


def _descend(chain: Chain, join: ir.Node, facts: Facts, selection: Selection) -> Branch | None:
    """Carry a chain's map down to the join."""
    value, affine = chain.result, chain.affine
    passed: list[ir.Node] = []
    edits: list[Edit] = []
    while (use := _read_by_one(value, facts)) is not None:
        node, index = use
        if node is join:
            return Branch(chain, tuple(passed), tuple(edits), affine)
        if selection.refuse_touch(node) is not None or len(passed) > _LONGEST_BRANCH:
            return None
        taken = rule_of(node, facts).take_before(node, {index: affine}, facts)
        if not _goes_on(taken, 0) or len(node.outputs) != 1:
            return None
        passed.append(node)
        edits.extend(taken.edits)
        value, affine = node.outputs[0], taken.onward[0]
    return None


def _ascend(
    part: ir.Value, split: ir.Node, facts: Facts, selection: Selection
) -> Branch | None:
    """Find the map behind a part of a Split, and carry it up to there."""
    value = part
    between: list[tuple[ir.Node, int]] = []
    while (use := _read_by_one(value, facts)) is not None and len(between) < _LONGEST_BRANCH:
        node, index = use
        if node.graph is not split.graph:
            return None
        chain = chain_from(node, facts, selection)
        if isinstance(chain, Chain) and chain.index == index:
            return _carried_up(chain, between, facts, selection)
        if len(node.inputs) != 1 or len(node.outputs) != 1:
            return None
        between.append(use)
        value = node.outputs[0]
    return None


def _carried_up(
    chain: Chain, between: list[tuple[ir.Node, int]], facts: Facts, selection: Selection
) -> Branch | None:
    affine = chain.affine
    edits: list[Edit] = []
    for node, index in reversed(between):
        if selection.refuse_touch(node) is not None:
            return None
        taken = rule_of(node, facts).take_after(node, {0: affine}, facts)
        if not _goes_on(taken, index):
            return None
        edits.extend(taken.edits)
        affine = taken.onward[index]
    passed = tuple(node for node, _ in reversed(between))
    return Branch(chain, passed, tuple(edits), affine)


def _goes_on(taken: Taken | Refusal, place: int) -> TypeGuard[Taken]:
    """Return whether a map goes on, this one way and no other."""
    return (
        isinstance(taken, Taken)
        and set(taken.onward) == {place}
        and not taken.inside
        and taken.through is None
        and not taken.otherwise
    )
