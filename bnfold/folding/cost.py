"""What a map costs where it is, and what a way out costs: plans are compared by it.

An element-wise operator reads a value and writes it again; next to that its arithmetic is
free. So passes over activations count first, in bytes, then arithmetic, then weights that had
to be copied, then readers that had to be adjusted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import onnx_ir as ir

from bnfold.model.facts import Facts
from bnfold.model.uses import is_used_once, uses_of
from bnfold.records import Code, Refusal
from bnfold.rules.base import Edit, SetConstant, SetQuantized, name_of

_FREE_BYTES: Final = 1 << 20
"""Copies of one constant may take so much, or as much as it does itself."""


@dataclass(frozen=True, slots=True, order=True)
class Cost:
    """The price of one state of a site; less is better, compared from the first field on.

    Attributes:
        activation_bytes: Bytes read and written by element-wise passes, for a batch of one
            where the batch is free.
        arithmetic: Operations per element: a BatchNormalization is two, a Mul or Add one.
        grown_bytes: Growth by weights that others read too.
        adjusted: Readers that take the inverse of a map they did not ask for.
    """

    activation_bytes: float = 0.0
    arithmetic: int = 0
    grown_bytes: int = 0
    adjusted: int = 0


def cost_of_nodes(kinds: Iterable[str], value: ir.Value, facts: Facts) -> Cost:
    """Return the cost of element-wise operators that map ``value``."""
    operations = [_operations(kind) for kind in kinds]
    passes = len(operations) * 2 * size_bytes(value, facts)
    return Cost(activation_bytes=passes, arithmetic=sum(operations))


def _operations(kind: str) -> int:
    return 2 if kind == "BatchNormalization" else 1


def size_bytes(value: ir.Value, facts: Facts) -> float:
    """Return the size of a value, free and unknown dimensions counted as one."""
    dims = facts.shape(value) or ()
    dtype = facts.dtype(value)
    width = 4.0 if dtype is None else dtype.bitwidth / 8
    return width * math.prod(max(dim, 1) for dim in dims if isinstance(dim, int))


def growth(edits: Sequence[Edit], facts: Facts) -> int:
    """Return how many bytes of weights would be written beside the old ones, in bytes."""
    copied = sum(_copied(old, group, facts) for old, group in _shared(edits).items())
    return copied + sum(_growth(edit) for edit in edits if isinstance(edit, SetQuantized))


def refuse_copies(edits: Sequence[Edit], facts: Facts) -> Refusal | None:
    """Refuse a fold after which a large constant would be there many times.

    Copies made before count too: forty readers may come one by one.
    """
    for old, group in _shared(edits).items():
        size = _size(group[0])
        added = _copied(old, group, facts)
        held = facts.copies.held(old) + added
        if added > 0 and held > max(size, _FREE_BYTES):
            why = (
                f"{old.name!r} is read by {len(uses_of(old))} nodes, copies of it would take"
                f" {held} bytes"
            )
            return Refusal(Code.SHARED_VALUE, name_of(group[0].node), why)
    return None


def _shared(edits: Iterable[Edit]) -> dict[ir.Value, list[SetConstant]]:
    """Return what is written in place of constants that more than one node reads."""
    found: dict[ir.Value, list[SetConstant]] = {}
    for edit in edits:
        if not isinstance(edit, SetConstant) or edit.index >= len(edit.node.inputs):
            continue
        old = edit.node.inputs[edit.index]
        if old is not None and not _is_read_once(old):
            found.setdefault(old, []).append(edit)
    return found


def _copied(old: ir.Value, edits: Sequence[SetConstant], facts: Facts) -> int:
    """Return by how many bytes edits let the copies of a constant grow.

    Those that write the same share one; and if no reader is left, the old one goes.
    """
    different: list[SetConstant] = []
    for edit in edits:
        known = facts.copies.find(old, edit.expression, edit.dtype, edit.node.graph)
        if known is None and not any(_is_same(edit, other) for other in different):
            different.append(edit)
    grown = sum(_size(edit) for edit in different)
    all_of_them = len(edits) == len(uses_of(old)) and not old.is_graph_output()
    return grown - _size(edits[0]) if all_of_them else grown


def _is_same(one: SetConstant, other: SetConstant) -> bool:
    return (
        one.dtype == other.dtype
        and one.node.graph is other.node.graph
        and one.expression.equals(other.expression)
    )


def _growth(edit: Edit) -> int:
    match edit:
        case SetConstant():
            old = edit.node.inputs[edit.index] if edit.index < len(edit.node.inputs) else None
            return 0 if old is None or _is_read_once(old) else _size(edit)
        case SetQuantized():
            shared = not _is_read_once(edit.source.outputs[0])
            return sum(_size(part) if shared else _growth(part) for part in edit.parts)
        case _:
            return 0


def _is_read_once(value: ir.Value) -> bool:
    return is_used_once(value) and not value.is_graph_output()


def _size(edit: SetConstant) -> int:
    return math.prod(edit.expression.shape) * edit.dtype.bitwidth // 8
