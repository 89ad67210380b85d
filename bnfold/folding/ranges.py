"""Can the storage types hold what a fold would write?"""

from __future__ import annotations

from collections.abc import Iterable

from bnfold.expression import range_fault
from bnfold.records import Code, Refusal
from bnfold.rules.base import Edit, SetConstant, name_of


def check_ranges(edits: Iterable[Edit]) -> Refusal | None:
    """Refuse edits with a new tensor that its storage type cannot hold."""
    for edit in edits:
        if not isinstance(edit, SetConstant):
            continue
        fault = range_fault(edit.expression, edit.dtype.numpy(), edit.channels)
        if fault:
            remedy = "store this layer in a wider type"
            return Refusal(Code.OUT_OF_RANGE, name_of(edit.node), fault, remedy)
    return None
