"""Attributes of nodes, with the defaults of the operator specification."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from bnfold.errors import ModelError


def int_attr(node: ir.Node, name: str, default: int) -> int:
    """Return an integer attribute, or its default when absent."""
    attribute = _get(node, name, ir.AttributeType.INT)
    return default if attribute is None else attribute.as_int()


def float_attr(node: ir.Node, name: str, default: float) -> float:
    """Return a float attribute, or its default when absent."""
    attribute = _get(node, name, ir.AttributeType.FLOAT)
    return default if attribute is None else attribute.as_float()


def string_attr(node: ir.Node, name: str, default: str) -> str:
    """Return a string attribute, or its default when absent."""
    attribute = _get(node, name, ir.AttributeType.STRING)
    return default if attribute is None else attribute.as_string()


def ints_attr(node: ir.Node, name: str, default: Sequence[int] = ()) -> tuple[int, ...]:
    """Return a list of integers, or its default when absent."""
    attribute = _get(node, name, ir.AttributeType.INTS)
    return tuple(default) if attribute is None else tuple(attribute.as_ints())


def _get(node: ir.Node, name: str, kind: ir.AttributeType) -> ir.Attr | None:
    attribute = node.attributes.get(name)
    if attribute is None or attribute.is_ref():
        return None
    if attribute.type != kind:
        raise ModelError(
            f"the attribute {name!r} has the wrong type",
            where=f"node {node.name or node.op_type!r} ({node.op_type})",
            why=f"it is {attribute.type.name}, {kind.name} is required",
            remedy="export the model again",
        )
    return attribute
