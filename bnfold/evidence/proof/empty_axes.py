"""Axes that are declared to be of size 0: compared at other sizes, and once as declared.

Nothing can be seen of arrays without elements. What computes with them is the same for arrays
of any size, so it is compared on some that have elements. That shows no more than it says:
what differs there may be the same at size 0, and what is the same may have been made for other
sizes. So no difference convicts, and both models are evaluated at the declared sizes too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.evidence.proof.comparer import Comparer
from bnfold.evidence.proof.given import given
from bnfold.evidence.proof.links import EXACT, gap
from bnfold.evidence.proof.segments import ROUNDINGS
from bnfold.evidence.proof.sides import CannotEvaluateError, Side
from bnfold.evidence.reference import widen
from bnfold.inputs.drawing import Case
from bnfold.inputs.signature import Dim, Slot

Array = NDArray[Any]


def as_declared(slots: Sequence[Slot], declared: Sequence[Slot]) -> tuple[Slot, ...]:
    """Return inputs with their axes of size 0, whatever else is known of these.

    Args:
        slots: The inputs as they are to be drawn.
        declared: The same as the model has them.
    """
    return tuple(_with_empty(one, other) for one, other in zip(slots, declared, strict=True))


def opened(slots: Sequence[Slot]) -> tuple[Slot, ...]:
    """Return inputs whose axes of size 0 are of any size."""
    return tuple(
        slot if not slot.dims else replace(slot, dims=tuple(map(_or_any, slot.dims)))
        for slot in slots
    )


def has_empty(slots: Sequence[Slot]) -> bool:
    """Return whether an axis of an input is of size 0."""
    return any(dim == 0 for slot in slots for dim in slot.dims or ())


def why_not_shown(comparer: Comparer, slots: Sequence[Slot], case: Case) -> str:
    """Return why equality at other sizes is none at these; empty if nothing speaks against it.

    Args:
        comparer: Both models.
        slots: The inputs with their axes of size 0.
        case: Their other sizes.
    """
    arrays = given(slots, case, comparer.seed)
    feeds = {name: widen(array) for name, array in arrays.items()}
    for value in comparer.folded.model.graph.outputs:
        name = value.name or ""
        try:
            one, other = (_whole(side, name, feeds) for side in _sides(comparer))
        except CannotEvaluateError as error:
            return f"at the sizes of 0 that are declared, {error}"
        if gap(one, other).size > max(EXACT, ROUNDINGS * comparer.noise.coarsest):
            return f"the models are alike at other sizes, but not {name!r} at a size of 0"
    return ""


def _sides(comparer: Comparer) -> tuple[Side, Side]:
    return comparer.original, comparer.folded


def _whole(side: Side, name: str, feeds: dict[str, Array]) -> Array:
    value: ir.Value = side.values[name]
    if side.is_constant(value):
        return side.constant(value)
    segment = side.segment(value, frozenset(), len(side.position))
    if segment is None:
        message = f"{name!r} is computed by no nodes of the main graph"
        raise CannotEvaluateError(message)
    with np.errstate(all="ignore"):
        return side.evaluate(segment, feeds)


def _or_any(dim: Dim) -> Dim:
    return None if dim == 0 else dim


def _with_empty(slot: Slot, declared: Slot) -> Slot:
    if slot.dims is None or declared.dims is None or len(slot.dims) != len(declared.dims):
        return slot
    pairs = zip(slot.dims, declared.dims, strict=True)
    return replace(slot, dims=tuple(0 if old == 0 else dim for dim, old in pairs))
