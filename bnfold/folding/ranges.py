"""Can the storage types hold what a fold would write?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bnfold.model.constants import FLOATS
from bnfold.records import Code, Refusal
from bnfold.rules.base import Edit, SetConstant, SetQuantized, name_of
from bnfold.storable import range_fault


def check_ranges(edits: Iterable[Edit]) -> Refusal | None:
    """Refuse edits with a new tensor that its storage type cannot hold."""
    for edit in _tensors(edits):
        fault = range_fault(edit.expression, edit.dtype.numpy(), edit.channels, edit.alike)
        if fault:
            remedy = "store this layer in a wider type"
            return Refusal(Code.OUT_OF_RANGE, name_of(edit.node), fault, remedy)
    return None


def _tensors(edits: Iterable[Edit]) -> Iterator[SetConstant]:
    """Yield what is written as floats, and what is dequantised to floats at run time."""
    for edit in edits:
        if isinstance(edit, SetConstant):
            yield edit
        elif isinstance(edit, SetQuantized):
            yield edit.weight
            yield from (part for part in edit.parts if part.dtype in FLOATS)
