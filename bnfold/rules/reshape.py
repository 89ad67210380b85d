"""Reshape, Flatten, Squeeze, Unsqueeze: the map is spread over the elements and read back."""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import Maps, Passage, Rule, Taken, wrong_axis
from bnfold.rules.passing import unknown_shape
from bnfold.rules.regroup import Sizes, through_reshape, through_shuffle
from bnfold.rules.transpose import permutation

_LAYS_OUT: Final = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})


class Reshape(Rule):
    """The elements keep their order, so a map survives if it varies along one new axis."""

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """The map of the output becomes the map of the input."""
        alone = _pass(node, maps, node.outputs[0], node.inputs[0], facts)
        return _together(alone, maps[0], _row_above(node, facts), facts, up=True)

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """The map of the input becomes the map of the output."""
        alone = _pass(node, maps, node.inputs[0], node.outputs[0], facts)
        return _together(alone, maps[0], _row_below(node, facts), facts, up=False)


def _pass(
    node: ir.Node, maps: Maps, here: ir.Value | None, there: ir.Value | None, facts: Facts
) -> Taken | Refusal:
    affine = maps[0]
    if affine.axis is None:
        return Taken(onward={0: affine})
    sizes, to_sizes = (None if v is None else facts.extents(v) for v in (here, there))
    if sizes is None or to_sizes is None or affine.axis >= len(sizes):
        return unknown_shape(node, "the shape on its other side")
    if any(size.number == 0 for size in sizes + to_sizes):
        # Exporters have written 0 for sizes they did not know: so nothing is said of the map.
        return wrong_axis(node, affine, "its value is declared to have no elements")
    moved = through_reshape(affine, sizes, to_sizes)
    if moved is None:
        dims = [list(facts.shape(value) or ()) for value in (here, there) if value is not None]
        why = f"they do not survive as one axis from {dims[0]} to {dims[1]}"
        why += ", which takes equal entries within each group that is merged"
        if any(size.number is None for size in sizes + to_sizes):
            why += ", whatever the open sizes are"
        return wrong_axis(node, affine, why)
    return Taken(onward={0: moved})


_Row = tuple[ir.Node, ir.Node, ir.Node]
"""A Reshape, a Transpose and a Reshape, each the only reader of the one before."""


def _together(
    alone: Taken | Refusal, affine: Affine, row: _Row | None, facts: Facts, *, up: bool
) -> Taken | Refusal:
    """Let a map that one Reshape breaks pass all three, behind which it is one again."""
    if not isinstance(alone, Refusal) or alone.code is not Code.WRONG_AXIS or row is None:
        return alone
    first, turn, last = row
    values = (first.inputs[0], first.outputs[0], turn.outputs[0], last.outputs[0])
    sizes = [None if value is None else facts.extents(value) for value in values]
    perm = permutation(turn, facts)
    known = [one for one in sizes if one is not None]
    if len(known) < len(values) or isinstance(perm, Refusal) or any(map(_is_empty, known)):
        return alone
    begin, parted, turned, end = known
    if up:
        back = sorted(range(len(perm)), key=perm.__getitem__)
        moved = through_shuffle(affine, end, turned, back, begin)
        return alone if moved is None else Taken(through=Passage((turn, first), moved))
    moved = through_shuffle(affine, begin, parted, perm, end)
    return alone if moved is None else Taken(through=Passage((turn, last), moved))


def _is_empty(sizes: Sizes) -> bool:
    return any(size.number == 0 for size in sizes)


def _row_below(first: ir.Node, facts: Facts) -> _Row | None:
    turn = _only_reader(first, facts)
    last = None if turn is None else _only_reader(turn, facts)
    return _row(first, turn, last, facts)


def _row_above(last: ir.Node, facts: Facts) -> _Row | None:
    turn = None if last.inputs[0] is None else last.inputs[0].producer()
    value = None if turn is None or not turn.inputs else turn.inputs[0]
    first = None if value is None else value.producer()
    if turn is None or first is None:
        return None
    alone = _only_reader(turn, facts) is last and _only_reader(first, facts) is turn
    return _row(first, turn, last, facts) if alone else None


def _row(
    first: ir.Node, turn: ir.Node | None, last: ir.Node | None, facts: Facts
) -> _Row | None:
    if turn is None or last is None or turn.op_type != "Transpose":
        return None
    laid = first.op_type in _LAYS_OUT and last.op_type in _LAYS_OUT
    known = all(facts.is_standard(node) for node in (first, turn, last))
    return (first, turn, last) if laid and known else None


def _only_reader(node: ir.Node, facts: Facts) -> ir.Node | None:
    """Return the node that alone reads the elements of a result, as its data."""
    value = node.outputs[0]
    readers = facts.reads(value)
    if len(readers) != 1 or value.is_graph_output():
        return None
    reader, index = readers[0]
    return reader if index == 0 and reader.graph is node.graph else None
