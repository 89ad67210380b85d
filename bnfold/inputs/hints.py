"""What the first reader of an input tells about dimensions that the interface leaves open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir

from bnfold.inputs.signature import Dim, Slot


def with_hints(slots: Sequence[Slot], model: ir.Model) -> tuple[Slot, ...]:
    """The same inputs with rank and channels filled in where a weight decides them."""
    values = {value.name: value for value in model.graph.inputs}
    return tuple(_hinted(slot, values[slot.name]) for slot in slots)


def _hinted(slot: Slot, value: ir.Value) -> Slot:
    for use in value.uses():
        if use.idx == 0:
            slot = replace(slot, dims=_merged(slot.dims, _wanted(use.node)))
    return slot


def _wanted(node: ir.Node) -> tuple[Dim, ...] | None:
    """Dimensions that a weight asks of the first operand; None where it asks nothing."""
    operand = node.inputs[1] if len(node.inputs) > 1 else None
    shape = None if operand is None else operand.shape
    if shape is None or any(not isinstance(dim, int) for dim in shape):
        return None
    sizes = tuple(int(dim) for dim in shape if isinstance(dim, int))
    match node.op_type:
        case "Conv":
            group = node.attributes.get_int("group", 1)
            return (None, sizes[1] * group, *[None] * (len(sizes) - 2))
        case "ConvTranspose":
            return (None, sizes[0], *[None] * (len(sizes) - 2))
        case "Gemm" if not node.attributes.get_int("transA", 0):
            return (None, sizes[1 if node.attributes.get_int("transB", 0) else 0])
        case _:
            return None


def _merged(
    declared: tuple[Dim, ...] | None, wanted: tuple[Dim, ...] | None
) -> tuple[Dim, ...] | None:
    """Fixed dimensions stay as declared; the others take what is wanted."""
    if declared is None or wanted is None:
        return wanted if declared is None else declared
    if len(declared) != len(wanted):
        return declared
    pairs = zip(declared, wanted, strict=True)
    return tuple(ours if isinstance(ours, int) else theirs or ours for ours, theirs in pairs)
