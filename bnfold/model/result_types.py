"""Which floating type an operator gives its results, by the schemas of the specification."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import onnx
import onnx_ir as ir

from bnfold.model.attributes import int_attr

_NAMED_BY: Final = ("dtype", "output_dtype", "output_datatype")
"""Attributes that say the type of a result."""


def result_types(
    node: ir.Node, given: Sequence[ir.DataType | None], opset: int
) -> list[ir.DataType | None]:
    """Return the type of every result; None where it follows from something else.

    Args:
        node: An operator of the default domain.
        given: Types of its inputs, None where absent.
        opset: Version of the default operator set.
    """
    named = next((int_attr(node, name, 0) for name in _NAMED_BY if name in node.attributes), 0)
    if named:
        return [ir.DataType(named)] * len(node.outputs)
    variables, inputs = _variables(node.op_type, opset)
    found: dict[str, ir.DataType] = {}
    for place, dtype in enumerate(given):
        if dtype is not None and inputs:
            found.setdefault(inputs[min(place, len(inputs) - 1)], dtype)
    if "stash_type" in node.attributes or node.op_type == "LayerNormalization":
        found.setdefault("U", ir.DataType(int_attr(node, "stash_type", ir.DataType.FLOAT)))
    last = len(variables) - 1
    return [
        found.get(variables[min(place, last)]) if variables else None
        for place in range(len(node.outputs))
    ]


@lru_cache(maxsize=512)
def _variables(op_type: str, opset: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the type variables of the results and of the inputs of an operator."""
    try:
        schema = onnx.defs.get_schema(op_type, opset, "")
    except onnx.defs.SchemaError:
        return (), ()
    results = tuple(one.type_str for one in schema.outputs)
    return results, tuple(one.type_str for one in schema.inputs)
