"""Which output channel an element of a constant belongs to."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from bnfold.model.attributes import int_attr


def channel_of(
    node: ir.Node | None, slot: int, shape: Sequence[int], place: Sequence[int]
) -> int | None:
    """Return the output channel of the element at ``place`` of what a node reads at ``slot``.

    Constants other than the factors of linear operators run along one axis: the first that is
    longer than one.
    """
    if not place:
        return None
    kind = node.op_type if node is not None and slot < 2 and len(place) > 1 else ""
    if node is not None and kind == "Conv":
        return place[0]
    if node is not None and kind == "ConvTranspose":
        per_group = shape[0] // int_attr(node, "group", 1)
        return place[0] // per_group * shape[1] + place[1]
    if node is not None and kind in ("Gemm", "MatMul"):
        return place[_matrix_axis(node, slot)]
    return next((index for index, size in zip(place, shape, strict=True) if size > 1), 0)


def _matrix_axis(node: ir.Node, slot: int) -> int:
    """Return the axis of a constant factor that outputs run along."""
    turned = bool(int_attr(node, "transA" if slot == 0 else "transB", 0))
    return -2 if (slot == 1) == turned else -1
