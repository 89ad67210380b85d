"""Which channels a linear operator lets through, where its result is a sum over all of them.

Behind a Conv that mixes its channels, a result that moves does not tell which channel moved
it. To move one after the other takes an evaluation each, of all channels: the square of their
number. But what one channel adds is the operator on that channel alone, and these summands
take one depthwise evaluation together: of each channel at the output that weighs it most.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.evidence.proof.by_rows import is_product
from bnfold.evidence.proof.sides import Segment, Side
from bnfold.model.attributes import float_attr, int_attr

Array = NDArray[Any]
Mask = NDArray[np.bool_]

_WINDOWS: Final = ("Conv", "ConvTranspose")
_MATRIX_AXES: Final = 2
_OUTPUTS: Final = 4
"""Of so many outputs, those that weigh a channel most, one has to see it; what none of them
sees is asked for by other means."""


def seen_alone(
    side: Side, segment: Segment, name: str, axis: int, moved: Array, least: Array
) -> Mask | None:
    """Return which channels move the result of a linear operator, each for itself.

    Args:
        side: The model that the segment is of.
        segment: What is asked; one node that reads the value, and a constant weight.
        name: The value.
        axis: Along which its channels lie.
        moved: By how much each of its numbers is moved.
        least: From which change on an element of the result counts as moved.

    Returns:
        One entry for each channel; None where the segment is no such operator.
    """
    weight = _weight(side, segment, name)
    if weight is None or moved.dtype != np.float64 or least.ndim != moved.ndim:
        return None
    node = segment.nodes[0]
    if node.op_type in _WINDOWS:
        found = _by_windows(side, node, weight) if axis == 1 else None
    else:
        found = (
            _by_rows(node, weight, moved.ndim) if axis == _summed(node, moved.ndim) else None
        )
    if found is None or len(found[0]) != moved.shape[axis]:
        return None
    kernels, outputs, alone = found
    along = 1 if node.op_type in _WINDOWS else least.ndim - 1
    return _noticed(
        kernels, outputs, alone, np.moveaxis(moved, axis, 0), np.moveaxis(least, along, 0)
    )


_Alone = Callable[[Array, Array], Array]
"""Gives what channels add, [channels, …], from what is in them and a kernel for each."""


def _noticed(
    kernels: Array, outputs: NDArray[np.int64], alone: _Alone, moved: Array, least: Array
) -> Mask:
    """Return which channels an output notices: the one that weighs it most, or the next."""
    peaks = np.abs(kernels).reshape(*kernels.shape[:2], -1).max(axis=2, initial=0.0)
    order = np.argsort(-peaks, axis=1, kind="stable")
    shown = np.zeros(len(kernels), bool)
    for turn in range(min(_OUTPUTS, kernels.shape[1])):
        asked = np.flatnonzero(~shown & (peaks.max(axis=1, initial=0.0) > 0.0))
        if not asked.size:
            break
        which = order[asked, turn]
        added = alone(moved[asked], kernels[asked, which])
        above = (np.abs(added) > least[outputs[asked, which]]) & np.isfinite(added)
        shown[asked] = above.reshape(len(asked), -1).any(axis=1)
    return shown


def _weight(side: Side, segment: Segment, name: str) -> Array | None:
    """Return the weight by which a single node multiplies the value; None for all others."""
    if len(segment.nodes) != 1:
        return None
    (node,) = segment.nodes
    if node.domain not in ("", "ai.onnx") or node.op_identifier() in side.model.functions:
        return None
    if node.op_type not in _WINDOWS and not is_product(node):
        return None
    data, weight = (*node.inputs, None, None)[:2]
    if data is None or weight is None or data.name != name or data in node.inputs[1:]:
        return None
    if not side.is_constant(weight) or (weight.name or "") in segment.inputs:
        return None
    found = None if side.rows(weight) is not None else side.constant(weight)
    return found if found is not None and found.dtype == np.float64 else None


def _by_windows(
    side: Side, node: ir.Node, weight: Array
) -> tuple[Array, NDArray[np.int64], _Alone] | None:
    """Return kernels [channels, outputs, *taps], whose output each is, and what adds."""
    groups = int_attr(node, "group", 1)
    if weight.ndim <= _MATRIX_AXES or groups < 1:
        return None
    if node.op_type == "Conv":  # [outputs, channels / groups, …]
        parts = weight.reshape(groups, -1, *weight.shape[1:]).swapaxes(1, 2)
        kernels = parts.reshape(-1, *parts.shape[2:])
    else:  # [channels, outputs / groups, …]
        kernels = weight
    channels, each = kernels.shape[:2]
    first = np.arange(channels) // max(channels // groups, 1) * each
    kept = [one for one in node.attributes.values() if one.name != "group"]

    def alone(data: Array, taps: Array) -> Array:
        group = ir.AttrInt64("group", len(data))
        one = ir.Node(node.domain, node.op_type, (), [*kept, group], num_outputs=1)
        return np.moveaxis(side.computed(one, [np.moveaxis(data, 0, 1), taps[:, None]]), 1, 0)

    return kernels, first[:, None] + np.arange(each), alone


def _by_rows(
    node: ir.Node, weight: Array, rank: int
) -> tuple[Array, NDArray[np.int64], _Alone] | None:
    """Return the rows of a matrix as kernels [channels, outputs], and what they add."""
    if weight.ndim != _MATRIX_AXES or rank < _MATRIX_AXES:
        return None
    is_gemm = node.op_type == "Gemm"
    kernels = weight.T if is_gemm and int_attr(node, "transB", 0) else weight
    factor = float_attr(node, "alpha", 1.0) if is_gemm else 1.0

    def alone(data: Array, rows: Array) -> Array:
        return np.asarray(factor * data * rows.reshape(-1, *(1,) * (data.ndim - 1)))

    outputs = np.broadcast_to(np.arange(kernels.shape[1]), kernels.shape)
    return kernels, outputs, alone


def _summed(node: ir.Node, rank: int) -> int:
    """Return the axis of the data of a matrix product that is summed over."""
    turned = node.op_type == "Gemm" and bool(int_attr(node, "transA", 0))
    return rank - 2 if turned else rank - 1
