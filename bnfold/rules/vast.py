"""Addends so large that adding them rounds: they stay, and stay what they are.

``(x + 12582912) − 12582912`` is x in real numbers, and x rounded to a whole number in float32:
so quantisers without an operator for it are written. A scale in front says to multiples of
what, and a shift where they lie; a layer behind would take the one half and leave the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.records import Code, Refusal
from bnfold.rules.base import name_of

_Wide = NDArray[np.float64]

ADDING: Final = frozenset({"Add", "Sub", "Sum", "Mean"})
"""Operators whose constant operands are addends."""

_MOST: Final[Mapping[ir.DataType, float]] = {
    ir.DataType.BFLOAT16: 2.0**7,
    ir.DataType.FLOAT16: 2.0**10,
    ir.DataType.DOUBLE: 2.0**45,
}
_MOST_OF_FLOAT: Final = 2.0**16
"""Beside that, eight bits behind the point are left to float32, none to the 16-bit types.

Means of pictures (124 of 255) and usual biases lie below, 1.5 · 2ᵖ⁻¹ of p bits above.
"""


def is_vast(addend: _Wide, dtype: ir.DataType | None) -> bool:
    """Return whether adding this rounds what it is added to."""
    bound = _MOST.get(dtype, _MOST_OF_FLOAT) if dtype is not None else _MOST_OF_FLOAT
    with np.errstate(invalid="ignore"):
        return bool((np.abs(addend) > bound).any())


def refuse_vast_addend(
    node: ir.Node, addend: _Wide, dtype: ir.DataType | None
) -> Refusal | None:
    """Refuse to read an addition as a map if it rounds."""
    if not is_vast(addend, dtype):
        return None
    largest = float(np.abs(addend).max())
    why = f"beside {largest:.3g} its values are rounded, which may be what it is for"
    return Refusal(Code.OUT_OF_RANGE, name_of(node), why)


def refuse_to_change(
    node: ir.Node, held: _Wide, dtype: ir.DataType, scale: _Wide, shift: _Wide
) -> Refusal | None:
    """Refuse ``scale · held + shift`` of a vast addend; a scale of a power of two is exact."""
    stretched = ~np.isin(np.abs(np.frexp(scale)[0]), (0.0, 0.5)).all()
    if not (stretched or shift.any()):
        return None
    return refuse_vast_addend(node, held, dtype)
