"""What of a constant a Where never picks, because its condition is a constant too.

``where(c, x, k)`` does not hang on k at the places where c is true: whatever stands there, the
result is the same bit by bit. No comparison can notice a change of it, and none has to.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.evidence.proof.sides import CannotEvaluateError, Side

Mask = NDArray[np.bool_]

_CONDITION: Final = 0
_IF_TRUE: Final = 1


def unpicked(
    node: ir.Node, value: ir.Value, side: Side, channels: NDArray[np.int64], count: int
) -> Mask:
    """Return which channels of a constant are read at no place.

    Args:
        node: Who reads it.
        value: The constant.
        side: The model.
        channels: The channel of each element, in a shape that broadcasts to the constant's.
        count: How many channels there are.
    """
    none = np.zeros(count, bool)
    if node.op_type != "Where" or node.domain not in ("", "ai.onnx"):
        return none
    slots = [slot for slot, one in enumerate(node.inputs) if one is value]
    condition = node.inputs[_CONDITION]
    if not slots or _CONDITION in slots or condition is None:
        return none
    if not side.is_constant(condition):
        return none
    try:
        chosen = np.asarray(side.constant(condition)).astype(bool)
        shape = np.asarray(side.constant(value)).shape
    except CannotEvaluateError:
        return none
    read = np.zeros(chosen.shape, bool)
    for slot in slots:
        read |= chosen if slot == _IF_TRUE else ~chosen
    places = np.broadcast_to(read, np.broadcast_shapes(read.shape, shape))
    is_read = none.copy()
    is_read[np.broadcast_to(channels, places.shape)[places]] = True
    return ~is_read
