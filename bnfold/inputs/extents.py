"""Numbers in a graph that are sizes: 0, 1, 2 … up to one, and elements of a Shape."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.inputs.reading import Reading, kind_of
from bnfold.inputs.signature import Dim
from bnfold.model.attributes import int_attr

RESHAPES: Final = ("Unsqueeze", "Squeeze", "Reshape", "Flatten", "Expand", "Identity")
"""Operators that leave elements as they are, and in their order."""

_MOST_STEPS: Final = 100


def counted_up(value: ir.Value | None, reading: Reading) -> tuple[Dim, ...] | None:
    """Return the size of 0, 1, 2 …, empty if it is unknown; None for other elements."""
    elements = reading.elements(value)
    if elements is not None:
        flat = elements.reshape(-1)
        counted = flat.size > 1 and bool(np.all(np.diff(flat) == 1))
        return (flat.size,) if counted else None
    for _ in range(_MOST_STEPS):
        node = None if value is None else value.producer()
        if node is None or value is None:
            return None
        if node.op_type == "Range":
            return extent(node.inputs[1], reading)
        if kind_of(node) not in (*RESHAPES, "Cast"):
            return None
        value = node.inputs[0]
    return None


def extent(value: ir.Value | None, reading: Reading) -> tuple[Dim, ...]:
    """Return the size that a computed number is: an element of a Shape, or a constant."""
    picked = 0
    for _ in range(_MOST_STEPS):
        elements = reading.elements(value)
        if elements is not None:
            return (int(elements.reshape(-1)[0]),) if elements.size == 1 else ()
        node = None if value is None else value.producer()
        if node is None or not node.inputs:
            return ()
        if node.op_type == "Shape":
            dims = reading.dims(node.inputs[0]) or ()
            place = picked + int_attr(node, "start", 0)
            return (dims[place],) if -len(dims) <= place < len(dims) else ()
        if node.op_type in ("Gather", "Slice"):
            index = reading.elements(node.inputs[1])
            if index is None or index.size != 1:
                return ()
            picked = int(index.reshape(-1)[0])
        elif kind_of(node) not in (*RESHAPES, "Cast") and len(node.inputs) > 1:
            return ()
        value = node.inputs[0]
    return ()
