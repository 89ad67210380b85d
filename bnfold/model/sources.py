"""What a computed constant is stored as: the tensors it hangs on, and how large they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import onnx_ir as ir

from bnfold import limits
from bnfold.model.constants import constant_node
from bnfold.model.graphs import subgraphs_of
from bnfold.model.uses import uses_of

_FREE_BYTES: Final = 1 << 18
"""A constant may grow by so much whatever the model stores: vectors that are filled in."""
_FREE_IF_NARROW_BYTES: Final = 1 << 12
"""The same where it is stored in a narrower type: a whole model of such weights would grow."""
_FEW: Final = 1 << 10
"""Integers in so small a number are sizes and indices, not weights."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What a constant is computed from.

    Attributes:
        stored_bytes: Of all tensors that it hangs on.
        is_narrow: Whether one of them holds many elements in a type of fewer bits, or many
            integers: several of four bits may be packed in each.
    """

    stored_bytes: int
    is_narrow: bool


def sources_of(value: ir.Value, dtype: ir.DataType) -> Sources:
    """Return what a constant of a type is computed from."""
    tensors = list(_tensors(value))
    narrow = any(_is_narrow(one.dtype, dtype) for one in tensors if one.size > _FEW)
    return Sources(sum(one.nbytes for one in tensors), narrow)


def _is_narrow(held: ir.DataType, dtype: ir.DataType) -> bool:
    return held.bitwidth < dtype.bitwidth or not held.is_floating_point()


def why_too_large(value: ir.Value, dtype: ir.DataType, size_bytes: int) -> str:
    """Say why a constant may not be stored as what is computed; empty if it may.

    Args:
        value: The constant.
        dtype: The type that it would be stored in.
        size_bytes: What it would take.
    """
    if size_bytes <= _FREE_IF_NARROW_BYTES or not is_computed(value):
        return ""
    found = sources_of(value, dtype)
    free = _FREE_IF_NARROW_BYTES if found.is_narrow else _FREE_BYTES
    if size_bytes - found.stored_bytes <= max(free, limits.current().growth_bytes):
        return ""
    kind = "a narrower type" if found.is_narrow else "fewer elements"
    return (
        f"it is computed from {found.stored_bytes} bytes in {kind},"
        f" and would take {size_bytes} bytes as a tensor of its own"
    )


def is_computed(value: ir.Value) -> bool:
    """Return whether a constant is computed by nodes, not stored as it is."""
    producer = value.producer()
    return producer is not None and producer.op_type != "Constant"


def _tensors(value: ir.Value) -> Iterator[ir.TensorProtocol]:
    """Yield the stored tensors that a value hangs on, each once."""
    pending, seen = [value], {value}
    while pending:
        current = pending.pop()
        found = _stored(current)
        if found is not None:
            yield found
            continue
        node = current.producer()
        inputs = () if node is None else (one for one in node.inputs if one is not None)
        fresh = [one for one in dict.fromkeys(inputs) if one not in seen]
        seen.update(fresh)
        pending.extend(fresh)


def _stored(value: ir.Value) -> ir.TensorProtocol | None:
    node = value.producer()
    if node is None:
        return value.const_value
    held = constant_node(node) if node.op_type == "Constant" else None
    base = None if held is None else held.expression.base
    if held is None or base is None:
        return None
    return base if isinstance(base, ir.TensorProtocol) else ir.Tensor(base.numpy())


def freed_bytes(value: ir.Value) -> int:
    """Return how many bytes of tensors go when a value loses the one reader it has, or all.

    What it is computed from goes too, as far as nothing else reads it.
    """
    if value.is_graph_output():
        return 0
    total, gone = 0, set[ir.Node]()
    pending, counted = [value], {value}
    while pending:
        current = pending.pop()
        found = _stored(current)
        if found is not None:
            total += 0 if current.is_graph_input() else found.nbytes
            continue
        node = current.producer()
        if node is None or not _goes_with(node, current):
            continue
        gone.add(node)
        for one in dict.fromkeys(node.inputs):
            if one is not None and one not in counted and _is_read_by_none_but(gone, one):
                counted.add(one)
                pending.append(one)
    return total


def _goes_with(node: ir.Node, value: ir.Value) -> bool:
    """Return whether nothing holds a node once one of its results is not read any more."""
    others = (one for one in node.outputs if one is not value)
    held = any(uses_of(one) or one.is_graph_output() for one in others)
    return not held and next(subgraphs_of(node), None) is None


def _is_read_by_none_but(nodes: set[ir.Node], value: ir.Value) -> bool:
    if value.is_graph_output():
        return False
    return all(reader in nodes for reader, _ in uses_of(value))
