"""Long rows of operators that hand every map on or refuse it: what stands at their ends.

A map that walks up such a row one operator after the other may find a graph input there. In a
network of n maps with such operators between them, each would walk past those that the one
before it walked past.
"""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from bnfold.model.facts import Facts

_PASSERS: Final = frozenset(
    {
        "AveragePool",
        "Cast",
        "Dropout",
        "Flatten",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Identity",
        "LeakyRelu",
        "MaxPool",
        "Relu",
        "Reshape",
        "Slice",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)
"""Operators of one value that take no map that goes up into constants, nor end it: a Slice
drops channels of what goes down, and going up completes the map with the identity."""


def row_above(value: ir.Value, facts: Facts) -> tuple[int, ir.Value]:
    """Return how many such operators stand in front of a value, and what the first reads.

    A row grows while a fold takes maps out of it, and never shrinks: so what is known of a
    value says where to look on.
    """
    met: list[tuple[ir.Value, int]] = []
    top: ir.Node | None = None
    current = value
    while True:
        count, node = facts.rows.get(current) or (1, _passer(current, facts))
        first = None if node is None else node.inputs[0]
        if node is None or first is None:
            break
        met.append((current, count))
        current, top = first, node
    total = 0
    for passed, count in reversed(met):
        total += count
        if top is not None:
            facts.rows[passed] = total, top
    return total, current


def _passer(value: ir.Value, facts: Facts) -> ir.Node | None:
    node = value.producer()
    known = node is not None and node.op_type in _PASSERS and facts.is_standard(node)
    return node if known else None
