"""Whether a result hangs on the elements of what it is computed from, or on a shape alone."""

from __future__ import annotations

from typing import Final

from bnfold.evidence.proof.sides import Segment
from bnfold.model.graphs import subgraphs_of

_SHAPE_ALONE: Final = frozenset(
    {("Shape", 0), ("Size", 0), ("EyeLike", 0), ("CastLike", 1), ("RandomNormalLike", 0)}
)
"""Operators, and the input of which they read no element: its shape, or its type."""


def reads_elements(segment: Segment, name: str) -> bool:
    """Return whether elements of the input ``name`` find a way to the result of a segment."""
    reached = {name}
    for node in segment.nodes:
        slots = [
            slot
            for slot, value in enumerate(node.inputs)
            if value is not None and (value.name or "") in reached
        ]
        captures = next(subgraphs_of(node), None) is not None  # perhaps one of these
        if captures or any((node.op_type, slot) not in _SHAPE_ALONE for slot in slots):
            # At inference the mask of a Dropout is all ones (Dropout-12).
            last = 1 if node.op_type == "Dropout" else len(node.outputs)
            reached |= {value.name or "" for value in node.outputs[:last]}
    return (segment.result.name or "") in reached


def reads_any_elements(segment: Segment) -> bool:
    """Return whether the result of a segment hangs on elements of any of its inputs."""
    return any(reads_elements(segment, name) for name in segment.inputs)
