"""Numbers that a map puts into attributes, which hold float32 whatever the model's type."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import SetAttribute, name_of

_AS_WIDE: Final = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
"""Types beside which the rounding of a float32 is none, or that of any weight."""


def set_float(
    node: ir.Node, name: str, value: float, facts: Facts
) -> tuple[SetAttribute] | Refusal:
    """Return the edit that makes an attribute ``value``; refuse what float32 cannot hold.

    In a float64 model a number that is no float32 would be off by a part of up to 2⁻²⁴, where
    rounding a weight costs 2⁻⁵³.

    Args:
        node: The operator; its input 0 is the data.
        name: Its attribute.
        value: The number.
        facts: The model.
    """
    with np.errstate(over="ignore"):
        stored = float(np.float32(value))
    if not np.isfinite(stored):
        why = f"its {name} would become {value:.3g}, out of the range of float32"
        return Refusal(Code.OUT_OF_RANGE, name_of(node), why)
    data = node.inputs[0]
    dtype = None if data is None else facts.dtype(data)
    if stored != value and dtype not in _AS_WIDE:
        kind = "an unknown type" if dtype is None else dtype.name
        why = (
            f"its {name} would become {value!r}, which the attribute, a float32, holds as"
            f" {stored!r}: not exact enough in {kind}"
        )
        return Refusal(Code.OUT_OF_RANGE, name_of(node), why)
    return (SetAttribute(node, ir.AttrFloat32(name, stored)),)
