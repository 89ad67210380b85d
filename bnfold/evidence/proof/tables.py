"""Indices that read every row of a table that changed, an embedding above all.

Drawn indices meet a few rows of thousands. Where an input of the model does nothing but pick
rows of a changed table, it is given all of them in turn, so that no row is left uncompared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.evidence.proof.sides import CannotEvaluateError, Segment, Side
from bnfold.model.attributes import int_attr

Array = NDArray[Any]

_AT_ONCE: Final = 1 << 23
"""Elements of a table that are gathered at once: 64 MiB of float64."""

_HAND_ON: Final = frozenset({"Cast", "Identity", "Unsqueeze", "Squeeze"})


def sweeps(
    segment: Segment,
    side: Side,
    inputs: Mapping[str, Array],
    is_changed: Callable[[ir.Value], bool],
) -> tuple[dict[str, Array], ...]:
    """Return arrays for the index inputs of a segment that together read every row.

    Empty where no input of the segment picks rows of a constant table.

    Args:
        segment: Of the folded model.
        side: That model.
        inputs: Arrays for the inputs of the model; their shapes are kept behind axis 0.
        is_changed: Says of a constant whether it is new in the folded model.
    """
    found: dict[str, tuple[int, int]] = {}
    for node in segment.nodes:
        if node.op_type != "Gather" or node.inputs[0] is None:
            continue
        name = _origin(node.inputs[1], segment)
        table = node.inputs[0]
        if name not in inputs or not side.is_constant(table) or not is_changed(table):
            continue
        size = _rows(node, table, side)
        if size is not None:
            found[name] = max(found.get(name, (0, 0)), size)
    return _arrays(found, inputs)


def _origin(index: ir.Value | None, segment: Segment) -> str:
    """Return the name of the input that an index comes from; empty if it is computed."""
    while index is not None and (index.name or "") not in segment.inputs:
        node = index.producer()
        if node is None or node.op_type not in _HAND_ON:
            return ""
        index = node.inputs[0]
    return "" if index is None else index.name or ""


def _rows(node: ir.Node, table: ir.Value, side: Side) -> tuple[int, int] | None:
    """Return how many rows a table has, and how many elements."""
    try:
        elements = side.constant(table)
    except CannotEvaluateError:
        return None
    if not elements.ndim:
        return None
    return elements.shape[int_attr(node, "axis", 0)], elements.size


def _arrays(
    found: Mapping[str, tuple[int, int]], inputs: Mapping[str, Array]
) -> tuple[dict[str, Array], ...]:
    """Count through the largest table; smaller ones start over, which reads them all too."""
    if len(found) != 1:
        return ()  # several tables at once: each of its own length, they would not fit
    ((name, (rows, elements)),) = found.items()
    like = inputs[name]
    if not like.ndim or rows <= 0:
        return ()
    width = int(np.prod(like.shape[1:]))
    lines = -(-rows // max(width, 1))
    at_once = max(_AT_ONCE // max(elements // rows, 1) // max(width, 1), 1)
    numbers = np.arange(lines * width) % rows
    table = numbers.reshape(lines, *like.shape[1:]).astype(like.dtype)
    return tuple({name: table[start : start + at_once]} for start in range(0, lines, at_once))
