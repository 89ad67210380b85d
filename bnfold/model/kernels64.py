"""Float64 kernels for constants, where onnx's reference is wrong or is not float64.

Found by comparing it with ONNX Runtime, operator by operator and version by version
(`tests/model/test_constant_operators.py`): onnx 1.23 computes Erf in float32, LpNormalization
of p = 1 without magnitudes, BatchNormalization before version 14 and Softmax before version
13 along other axes, MaxPool with other windows (ceil_mode, SAME_LOWER, uneven pads), and knows
neither grouped ConvTranspose nor attributes of old versions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from bnfold.model.attributes import float_attr, int_attr, ints_attr, string_attr
from bnfold.model.native import Array, UndecidedError

Inputs = Sequence[Any]
Kernel = Callable[[ir.Node, Inputs, int], list[Array]]
"""Computes a node of an operator set on arrays in which every float is float64."""

_ALONG_AN_AXIS_SINCE: Final = 13
"""Softmax and its like flatten what is behind their axis before."""
_TRAINING_MODE_SINCE: Final = 14
_IS_TEST_UNTIL: Final = 6
_PER_CHANNEL_SINCE: Final = 21
_SPATIAL_UNTIL: Final = 8
_EPSILON: Final = float(np.float32(1e-5))
"""Defaults of the specification are float32, like attributes."""
_MOMENTUM: Final = float(np.float32(0.9))
_ALPHA: Final = float(np.float32(1e-4))
_ERF: Final = np.vectorize(math.erf, otypes=[np.float64])


def _erf(_node: ir.Node, x: Inputs, _opset: int) -> list[Array]:
    return [np.asarray(_ERF(x[0]), np.float64)]


def _gelu(node: ir.Node, x: Inputs, _opset: int) -> list[Array]:
    if string_attr(node, "approximate", "none") == "tanh":
        inner = math.sqrt(2 / math.pi) * (x[0] + 0.044715 * x[0] ** 3)
        return [np.asarray(0.5 * x[0] * (1 + np.tanh(inner)))]
    return [np.asarray(0.5 * x[0] * (1 + _ERF(x[0] / math.sqrt(2))))]


def _hard_swish(_node: ir.Node, x: Inputs, _opset: int) -> list[Array]:
    return [np.asarray(x[0] * np.clip(x[0] / 6 + 0.5, 0.0, 1.0))]


def _swish(node: ir.Node, x: Inputs, _opset: int) -> list[Array]:
    return [np.asarray(x[0] / (1 + np.exp(-float_attr(node, "alpha", 1.0) * x[0])))]


def _as_rows(node: ir.Node, x: Array, opset: int) -> Array:
    """Lay out what is normalised together as the last axis of a matrix or a stack of rows."""
    if opset >= _ALONG_AN_AXIS_SINCE:
        return np.moveaxis(x, int_attr(node, "axis", -1), -1)
    axis = int_attr(node, "axis", 1)
    return x.reshape(math.prod(x.shape[: axis % max(x.ndim, 1)]), -1)


def _from_rows(node: ir.Node, rows: Array, x: Array, opset: int) -> list[Array]:
    if opset >= _ALONG_AN_AXIS_SINCE:
        return [np.moveaxis(rows, -1, int_attr(node, "axis", -1))]
    return [rows.reshape(x.shape)]


def _log_softmax(node: ir.Node, x: Inputs, opset: int) -> list[Array]:
    rows = _as_rows(node, x[0], opset)
    rows = rows - rows.max(axis=-1, keepdims=True)
    rows = rows - np.log(np.exp(rows).sum(axis=-1, keepdims=True))
    return _from_rows(node, rows, x[0], opset)


def _softmax(node: ir.Node, x: Inputs, opset: int) -> list[Array]:
    rows = _as_rows(node, x[0], opset)
    rows = np.exp(rows - rows.max(axis=-1, keepdims=True))
    return _from_rows(node, rows / rows.sum(axis=-1, keepdims=True), x[0], opset)


def _hardmax(node: ir.Node, x: Inputs, opset: int) -> list[Array]:
    """1 at the first of the largest."""
    rows = _as_rows(node, x[0], opset)
    first = rows.argmax(axis=-1)[..., None]
    ones = (np.arange(rows.shape[-1]) == first).astype(np.float64)
    return _from_rows(node, ones, x[0], opset)


def _per_channel(vector: Array, x: Array) -> Array:
    return vector.reshape(-1, *[1] * (x.ndim - 2)) if x.ndim > 1 else vector


def _batch_norm(node: ir.Node, x: Inputs, opset: int) -> list[Array]:
    """``scale · (x − mean) / √(var + epsilon) + B``, by stored or by its own statistics."""
    data, scale, shift, mean, var = x
    if opset <= _SPATIAL_UNTIL and not int_attr(node, "spatial", 1):
        message = f"{node.op_type} with spatial=0 is not computed here"
        raise UndecidedError(message)
    epsilon = float_attr(node, "epsilon", _EPSILON)
    statistics = [mean, var]
    if _by_batch(node, opset):
        axes = tuple(axis for axis in range(data.ndim) if axis != 1)
        statistics = [data.mean(axes), data.var(axes)]
    slope = scale / np.sqrt(statistics[1] + epsilon)
    y = (data - _per_channel(statistics[0], data)) * _per_channel(slope, data)
    y = y + _per_channel(shift, data)
    kept = float_attr(node, "momentum", _MOMENTUM)
    old = zip((mean, var), statistics, strict=True)
    running = [a * kept + b * (1 - kept) for a, b in old]
    return [y, *running][: len(node.outputs)]


def _by_batch(node: ir.Node, opset: int) -> bool:
    if opset >= _TRAINING_MODE_SINCE:
        return bool(int_attr(node, "training_mode", 0))
    if opset <= _IS_TEST_UNTIL and not int_attr(node, "is_test", 0):
        message = f"{node.op_type} of operator set {opset} trains without is_test"
        raise UndecidedError(message + ", and no runtime computes it")
    if any(value.name for value in node.outputs[1:]):
        # whether the outputs of training count, or that somebody reads them, is read both ways
        message = f"{node.op_type} of operator set {opset} with outputs of training"
        raise UndecidedError(message + " is read differently by runtimes")
    return False


def _group_norm(node: ir.Node, x: Inputs, opset: int) -> list[Array]:
    """Scale and bias are per group in version 18, per channel since version 21."""
    data, scale, shift = x
    groups = int_attr(node, "num_groups", 1)
    parts = data.reshape(data.shape[0], groups, -1)
    centred = parts - parts.mean(axis=2, keepdims=True)
    variance = np.square(centred).mean(axis=2, keepdims=True)
    normal = centred / np.sqrt(variance + float_attr(node, "epsilon", _EPSILON))
    each = data.shape[1] // groups if opset < _PER_CHANNEL_SINCE else 1
    slope, offset = (np.repeat(one, each) for one in (scale, shift))
    y = normal.reshape(data.shape) * _per_channel(slope, data) + _per_channel(offset, data)
    return [y]


def _lp_normalization(node: ir.Node, x: Inputs, _opset: int) -> list[Array]:
    """``x / ‖x‖ₚ``, and 0 where the norm is 0."""
    axis, p = int_attr(node, "axis", -1), int_attr(node, "p", 2)
    norm = (np.abs(x[0]) ** p).sum(axis=axis, keepdims=True) ** (1.0 / p)
    return [np.divide(x[0], norm, out=np.zeros_like(x[0]), where=norm != 0)]


def _mean_variance_normalization(node: ir.Node, x: Inputs, _opset: int) -> list[Array]:
    axes = ints_attr(node, "axes", (0, 2, 3))
    centred = x[0] - x[0].mean(axes, keepdims=True)
    deviation = np.sqrt(np.square(centred).mean(axes, keepdims=True))
    return [centred / (deviation + 1e-9)]


def _global_lp_pool(node: ir.Node, x: Inputs, _opset: int) -> list[Array]:
    p, axes = int_attr(node, "p", 2), tuple(range(2, x[0].ndim))
    return [(np.abs(x[0]) ** p).sum(axes, keepdims=True) ** (1.0 / p)]


def _lrn(node: ir.Node, x: Inputs, _opset: int) -> list[Array]:
    size = int_attr(node, "size", 1)
    alpha, beta = float_attr(node, "alpha", _ALPHA), float_attr(node, "beta", 0.75)
    front = (size - 1) // 2
    around = [(0, 0), (front, size - 1 - front), *[(0, 0)] * (x[0].ndim - 2)]
    squares = np.pad(np.square(x[0]), around)
    count = x[0].shape[1]
    total = np.sum([squares[:, start : start + count] for start in range(size)], axis=0)
    return [x[0] / (float_attr(node, "bias", 1.0) + alpha / size * total) ** beta]


def _dropout(node: ir.Node, x: Inputs, opset: int) -> list[Array]:
    """Hand on what is read, unless it may drop something."""
    trains = len(x) > 2 and x[2] is not None and bool(np.any(x[2]))
    if trains or (opset <= _IS_TEST_UNTIL and not int_attr(node, "is_test", 0)):
        message = "Dropout in training is random"
        raise UndecidedError(message)
    return [x[0], np.ones(x[0].shape, bool)][: len(node.outputs)]


def _pad(node: ir.Node, x: Inputs, opset: int) -> list[Array]:
    """Cut off where a width is negative, then pad."""
    by_inputs = opset >= 11
    data, rank = x[0], x[0].ndim
    given = x[1] if by_inputs else ints_attr(node, "pads") or ints_attr(node, "paddings")
    found = [int(one) for one in np.asarray(given).reshape(-1)]
    axes = range(rank) if len(x) <= 3 or x[3] is None else x[3].tolist()
    widths = np.zeros((rank, 2), int)
    for place, axis in enumerate(axes):
        widths[axis] = found[place], found[place + len(found) // 2]
    mode = string_attr(node, "mode", "constant")
    if mode != "constant" and (widths < 0).any():
        message = (
            f"{node.op_type} that cuts off and pads by mode {mode!r} is not computed here"
        )
        raise UndecidedError(message)
    for axis, (front, back) in enumerate(widths):
        kept = slice(max(-front, 0), data.shape[axis] - max(-back, 0))
        data = data[(slice(None),) * axis + (kept,)]
    around = [tuple(one) for one in np.maximum(widths, 0).tolist()]
    if mode != "constant":
        return [np.pad(data, around, _PAD_MODES[mode])]
    absent = len(x) <= 2 or x[2] is None or not x[2].size
    filled = float_attr(node, "value", 0.0) if not by_inputs or absent else x[2].reshape(())
    return [np.pad(data, around, constant_values=filled)]


_PAD_MODES: Final[dict[str, Any]] = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}


def _max_pool(node: ir.Node, x: Inputs, _opset: int) -> list[Array]:
    """The largest of each window; what is padded is never it."""
    data, kernel = x[0], ints_attr(node, "kernel_shape")
    ones, none = (1,) * len(kernel), (0,) * len(kernel)
    strides, dilations = (ints_attr(node, n, ones) for n in ("strides", "dilations"))
    pads = ints_attr(node, "pads", none * 2)
    spans = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    chosen = string_attr(node, "auto_pad", "NOTSET") != "NOTSET" or int_attr(
        node, "ceil_mode", 0
    )
    outside = any(pad >= span for pad, span in zip(pads, spans * 2, strict=True))
    if chosen or outside or data.dtype != np.float64:
        message = "MaxPool that chooses its own windows, or of integers, is not computed here"
        raise UndecidedError(message)
    around = [(0, 0), (0, 0), *zip(pads[: len(kernel)], pads[len(kernel) :], strict=True)]
    padded = np.pad(data, around, constant_values=-np.inf)
    axes = tuple(range(2, 2 + len(kernel)))
    views = np.lib.stride_tricks.sliding_window_view(padded, spans, axes)
    every: list[Any] = [slice(None, None, step) for step in (*strides, *dilations)]
    return [views[:, :, *every].max(axis=tuple(axis + len(kernel) for axis in axes))]


def _conv_transpose(node: ir.Node, x: Inputs, _opset: int) -> list[Array]:
    """Spread every input element over the output, tap by tap of the kernel."""
    data, weight, bias = (*x, None)[:3]
    if string_attr(node, "auto_pad", "NOTSET") != "NOTSET" or ints_attr(node, "output_shape"):
        message = "ConvTranspose that chooses its own padding is not computed here"
        raise UndecidedError(message)
    group, size = int_attr(node, "group", 1), data.shape[2:]
    ones, none = (1,) * len(size), (0,) * len(size)
    strides, dilations = (ints_attr(node, n, ones) for n in ("strides", "dilations"))
    pads = ints_attr(node, "pads", none * 2)
    more = ints_attr(node, "output_padding", none)
    kernel, each = weight.shape[2:], weight.shape[1]
    whole = [
        (n - 1) * s + (k - 1) * d + 1 + m
        for n, s, k, d, m in zip(size, strides, kernel, dilations, more, strict=True)
    ]
    y = np.zeros((data.shape[0], group, each, *whole))
    parts = data.reshape(data.shape[0], group, -1, *size)
    taps = weight.reshape(group, -1, each, *kernel)
    for tap in product(*map(range, kernel)):
        at: tuple[Any, ...] = tuple(
            slice(t * d, t * d + (n - 1) * s + 1, s)
            for t, d, n, s in zip(tap, dilations, size, strides, strict=True)
        )
        spread = np.einsum("ngi...,gio->ngo...", parts, taps[..., *tap])
        y[..., *at] += spread
    y = y.reshape(data.shape[0], group * each, *whole)
    if bias is not None:
        y += _per_channel(bias, y)
    ends = (n - back for n, back in zip(whole, pads[len(size) :], strict=True))
    kept: list[Any] = [slice(*pair) for pair in zip(pads, ends, strict=False)]
    return [y[..., *kept]]


KERNELS: Final[dict[str, Kernel]] = {
    "Erf": _erf,
    "Gelu": _gelu,
    "HardSwish": _hard_swish,
    "Swish": _swish,
    "Softmax": _softmax,
    "LogSoftmax": _log_softmax,
    "Hardmax": _hardmax,
    "BatchNormalization": _batch_norm,
    "GroupNormalization": _group_norm,
    "LpNormalization": _lp_normalization,
    "MeanVarianceNormalization": _mean_variance_normalization,
    "GlobalLpPool": _global_lp_pool,
    "LRN": _lrn,
    "Dropout": _dropout,
    "Pad": _pad,
    "MaxPool": _max_pool,
    "ConvTranspose": _conv_transpose,
}
"""By operator of the default domain."""
