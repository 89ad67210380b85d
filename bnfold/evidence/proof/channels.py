"""Which output channel an element of a constant belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.model.attributes import int_attr

_RECURRENT: Final = frozenset({"LSTM", "GRU", "RNN"})


def channel_of(
    node: ir.Node | None, slot: int, shape: Sequence[int], place: Sequence[int]
) -> int | None:
    """Return the output channel of the element at ``place`` of what a node reads at ``slot``.

    Constants other than the factors of linear operators run along one axis: the first that is
    longer than one.
    """
    if not place:
        return None
    channels = channels_of(node, slot, shape)
    pairs = zip(place, channels.shape, strict=True)
    return int(channels[tuple(index if size > 1 else 0 for index, size in pairs)])


def channels_of(node: ir.Node | None, slot: int, shape: Sequence[int]) -> NDArray[np.int64]:
    """Return the output channel of every element, in a shape that broadcasts to ``shape``."""
    kind = node.op_type if node is not None and slot < 2 and len(shape) > 1 else ""
    if node is not None and kind == "ConvTranspose":
        return _transposed(shape, int_attr(node, "group", 1))
    axis = _axis(node, kind, slot, shape)
    if axis is None:
        return np.zeros((1,) * len(shape), np.int64)
    along = [-1 if place == axis % len(shape) else 1 for place in range(len(shape))]
    return np.arange(shape[axis]).reshape(along)


def _transposed(shape: Sequence[int], groups: int) -> NDArray[np.int64]:
    """A weight [C, M/group, …]: rows of one group all write the channels of that group."""
    group = np.arange(shape[0]) // max(shape[0] // groups, 1)
    channels = group[:, None] * shape[1] + np.arange(shape[1])
    return channels.reshape(*channels.shape, *(1,) * (len(shape) - 2))


def _axis(node: ir.Node | None, kind: str, slot: int, shape: Sequence[int]) -> int | None:
    if kind == "Conv":
        return 0
    if node is not None and kind in ("Gemm", "MatMul"):
        return _matrix_axis(node, slot)
    if kind in _RECURRENT and len(shape) > 2:
        return 1  # [directions, gates · hidden, inputs]
    axes = [axis for axis, size in enumerate(shape) if size > 1]
    if node is not None and kind == "Gather" and slot == 0:
        # Rows are picked along its axis: what stays of each is a channel.
        picked = int_attr(node, "axis", 0) % len(shape)
        axes = [axis for axis in reversed(axes) if axis != picked] or axes
    return axes[0] if axes else None


def _matrix_axis(node: ir.Node, slot: int) -> int:
    """Return the axis of a constant factor that outputs run along."""
    turned = bool(int_attr(node, "transA" if slot == 0 else "transB", 0))
    return -2 if (slot == 1) == turned else -1
