"""Quantisation: the one place where this evaluator rounds, because the function does."""

from __future__ import annotations

from typing import Any, Final

import ml_dtypes
import numpy as np
import onnx_ir as ir

from bnfold.evidence.reference.arrays import Array
from bnfold.evidence.reference.call import Call, Kernel
from bnfold.evidence.reference.kernels.constants import converted
from bnfold.evidence.reference.kernels.conv import convolve
from bnfold.evidence.reference.kernels.windows import windows_of


def laid_out(call: Call, parameter: Array) -> Array:
    """A scale or zero point, laid along the axis or the blocks that it belongs to."""
    x, axis = call.x[0], call.integer("axis", 1)
    if parameter.size == 1 and parameter.ndim < 2:
        return parameter.reshape(())
    if block := call.integer("block_size", 0):
        wide = parameter.repeat(block, axis)
        return wide[tuple(slice(n) for n in x.shape)]
    shape = [1] * x.ndim
    shape[axis] = -1
    return parameter.reshape(shape)


def _dequantize(call: Call) -> Array:
    """(x − zero point) · scale, per tensor, along ``axis`` or by blocks."""
    scale, zero = laid_out(call, call.x[1]), call.maybe(2)
    wide = call.x[0].astype(np.float64)
    if zero is not None:
        wide = wide - laid_out(call, zero.astype(np.float64))
    return np.asarray(wide * scale)


def _quantize(call: Call) -> Array:
    """Saturate(round to even(x / scale) + zero point)."""
    zero = call.maybe(2)
    steps = call.x[0] / laid_out(call, call.x[1])
    offset = 0.0 if zero is None else laid_out(call, zero.astype(np.float64))
    kind = _stored_type(call, zero)
    if kind.is_floating_point():
        return converted(steps + offset, kind, saturate=bool(call.integer("saturate", 1)))
    return _saturated(np.rint(steps) + offset, kind.numpy())


def _stored_type(call: Call, zero: Array | None) -> ir.DataType:
    if named := call.integer("output_dtype", 0):
        return ir.DataType(named)
    if zero is None:
        return ir.DataType.UINT8
    if zero.dtype != np.float64:
        return ir.DataType.from_numpy(zero.dtype)
    value = call.node.inputs[2]
    declared = None if value is None else value.dtype
    if declared is None:
        raise call.no_kernel("the float type to quantise to is not declared")
    return declared


def _saturated(x: Array, kind: Any) -> Array:
    limits = ml_dtypes.iinfo(kind)  # type: ignore[no-untyped-call]  # it has no types
    return np.clip(x, int(limits.min), int(limits.max)).astype(kind)


def _dynamic(call: Call) -> tuple[Array, Array, Array]:
    """Scale and zero point that let 8 bits hold every element, and 0."""
    x = call.x[0]
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    scale = (high - low) / 255
    zero = np.clip(np.rint(-low / scale), 0, 255) if scale else np.float64(0)
    steps = np.rint(x / scale) if scale else np.zeros_like(x)
    stored = _saturated(steps + zero, np.uint8)
    return stored, np.array(scale), np.array(zero).astype(np.uint8)


def _centred(x: Array, zero: Array | None, shape: tuple[int, ...] | None = None) -> Array:
    wide = x.astype(np.float64)
    if zero is None:
        return wide
    offset = zero.astype(np.float64)
    return np.asarray(wide - (offset.reshape(shape) if shape and offset.size > 1 else offset))


def _mat_mul_integer(call: Call) -> Array:
    a, b = call.x[:2]
    rows = call.maybe(2)
    rows = rows[:, None] if rows is not None and rows.ndim == 1 and rows.size > 1 else rows
    exact = np.matmul(_centred(a, rows), _centred(b, call.maybe(3)))
    return np.asarray(exact.astype(np.int64).astype(np.int32))


def _q_linear_mat_mul(call: Call) -> Array:
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = call.x
    exact = np.matmul(_centred(a, a_zero), _centred(b, b_zero))
    return _saturated(np.rint(exact * (a_scale * b_scale / y_scale)) + y_zero, y_zero.dtype)


def _exact_conv(call: Call, x: Array, w: Array) -> Array:
    windows = windows_of(call, x.shape[2:], w.shape[2:])
    return convolve(x, w, None, windows, call.integer("group", 1))


def _conv_integer(call: Call) -> Array:
    x, w = call.x[:2]
    per_output = (-1, *[1] * (w.ndim - 1))
    wide = _centred(w, call.maybe(3), per_output)
    return (
        _exact_conv(call, _centred(x, call.maybe(2)), wide).astype(np.int64).astype(np.int32)
    )


def _q_linear_conv(call: Call) -> Array:
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = call.x[:8]
    bias, ones = call.maybe(8), [1] * (w.ndim - 2)
    exact = _exact_conv(call, _centred(x, x_zero), _centred(w, w_zero, (-1, 1, *ones)))
    exact = exact if bias is None else exact + bias.reshape(-1, *ones)
    factor = (x_scale * w_scale / y_scale).reshape(-1, *ones)
    return _saturated(np.rint(exact * factor) + y_zero, y_zero.dtype)


KERNELS: Final[dict[str, Kernel]] = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _dynamic,
    "MatMulInteger": _mat_mul_integer,
    "QLinearMatMul": _q_linear_mat_mul,
    "ConvInteger": _conv_integer,
    "QLinearConv": _q_linear_conv,
}
