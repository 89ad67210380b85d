"""What a map costs where it is, and what a way out costs: plans are compared by it.

An element-wise operator reads a value and writes it again; next to that its arithmetic is
free. So passes over activations count first, in bytes, then arithmetic, then weights that had
to be copied, then readers that had to be adjusted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

from bnfold.model.facts import Facts
from bnfold.model.uses import is_used_once
from bnfold.rules.base import Edit, SetConstant, SetQuantized


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


def growth(edits: Iterable[Edit]) -> int:
    """Return how many bytes of weights would be written beside the old ones, in bytes."""
    return sum(_growth(edit) for edit in edits)


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
