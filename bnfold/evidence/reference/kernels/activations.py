"""Activations: functions of one element, and the softmax family."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from bnfold.evidence.reference.arrays import Array
from bnfold.evidence.reference.call import Call, Kernel
from bnfold.evidence.reference.kernels.erf import erf


def _single(value: float) -> float:
    """The float32 that an attribute's default is."""
    return float(np.float32(value))


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(−x))."""
    return np.asarray(1 / (1 + np.exp(-x)))


def softplus(x: Array) -> Array:
    """ln(1 + exp(x)), without overflow."""
    return np.asarray(np.logaddexp(x, 0.0))


def gelu(x: Array) -> Array:
    """X · (1 + erf(x/√2)) / 2."""
    return np.asarray(0.5 * x * (1 + erf(x / math.sqrt(2))))


def tanh_gelu(x: Array) -> Array:
    """Gelu by the usual approximation with a tanh."""
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return np.asarray(0.5 * x * (1 + np.tanh(inner)))


def _gelu(call: Call) -> Array:
    approximate = call.text("approximate", "none") == "tanh"
    return tanh_gelu(call.x[0]) if approximate else gelu(call.x[0])


def _leaky_relu(call: Call) -> Array:
    x = call.x[0]
    return np.asarray(np.where(x < 0, x * call.number("alpha", _single(0.01)), x))


def _prelu(call: Call) -> Array:
    x, slope = call.x
    if call.opset < 7 and slope.ndim == 1 and slope.size > 1:
        slope = slope.reshape(-1, *[1] * (x.ndim - 2))
    return np.asarray(np.where(x < 0, x * slope, x))


def _elu(call: Call) -> Array:
    x = call.x[0]
    return np.asarray(
        np.where(x < 0, call.number("alpha", 1.0) * np.expm1(np.minimum(x, 0)), x)
    )


def _selu(call: Call) -> Array:
    x = call.x[0]
    alpha = call.number("alpha", _single(1.67326319217681884765625))
    gamma = call.number("gamma", _single(1.05070102214813232421875))
    return np.asarray(gamma * np.where(x <= 0, alpha * np.expm1(np.minimum(x, 0)), x))


def _celu(call: Call) -> Array:
    x, alpha = call.x[0], call.number("alpha", 1.0)
    return np.asarray(np.maximum(x, 0) + np.minimum(0, alpha * np.expm1(x / alpha)))


def _hard_sigmoid(call: Call) -> Array:
    alpha, beta = call.number("alpha", _single(0.2)), call.number("beta", 0.5)
    return np.asarray(np.clip(alpha * call.x[0] + beta, 0, 1))


def _hard_swish(call: Call) -> Array:
    return np.asarray(call.x[0] * np.clip(call.x[0] / 6 + 0.5, 0, 1))


def _swish(call: Call) -> Array:
    return np.asarray(call.x[0] * sigmoid(call.number("alpha", 1.0) * call.x[0]))


def _thresholded_relu(call: Call) -> Array:
    return np.where(call.x[0] > call.number("alpha", 1.0), call.x[0], 0)


def _shrink(call: Call) -> Array:
    x, limit, bias = call.x[0], call.number("lambd", 0.5), call.number("bias", 0.0)
    return np.where(x < -limit, x + bias, np.where(x > limit, x - bias, 0))


def _clip(call: Call) -> Array:
    """Bounds are attributes before version 11, inputs from there on."""
    x = call.x[0]
    low, high = call.maybe(1), call.maybe(2)
    if call.opset < 11:
        low = call.number("min", 0.0) if call.has("min") else None
        high = call.number("max", 0.0) if call.has("max") else None
    y = x if low is None else np.maximum(x, low)
    return np.asarray(y if high is None else np.minimum(y, high))


def _softmax_axes(call: Call) -> tuple[int, ...]:
    """Before version 13 all axes from ``axis`` on are normalised together."""
    ndim = call.x[0].ndim
    if call.opset >= 13:
        return (call.integer("axis", -1),)
    return tuple(range(call.integer("axis", 1) % ndim, ndim))


def _softmax(call: Call) -> Array:
    axes = _softmax_axes(call)
    y = call.x[0] - call.x[0].max(axes, keepdims=True)
    np.exp(y, out=y)
    y /= y.sum(axes, keepdims=True)
    return np.asarray(y)


def _log_softmax(call: Call) -> Array:
    axes = _softmax_axes(call)
    y = call.x[0] - call.x[0].max(axes, keepdims=True)
    return np.asarray(y - np.log(np.exp(y).sum(axes, keepdims=True)))


def _hardmax(call: Call) -> Array:
    x, axes = call.x[0], _softmax_axes(call)
    flat = x.reshape(*x.shape[: axes[0]], -1) if len(axes) > 1 else x
    axis = -1 if len(axes) > 1 else axes[0]
    y = np.zeros_like(flat)
    np.put_along_axis(y, flat.argmax(axis, keepdims=True), 1, axis)
    return np.asarray(y.reshape(x.shape))


KERNELS: Final[dict[str, Kernel]] = {
    "Relu": lambda c: np.maximum(c.x[0], 0),
    "LeakyRelu": _leaky_relu,
    "PRelu": _prelu,
    "ThresholdedRelu": _thresholded_relu,
    "Elu": _elu,
    "Selu": _selu,
    "Celu": _celu,
    "Gelu": _gelu,
    "Erf": lambda c: erf(c.x[0]),
    "Sigmoid": lambda c: sigmoid(c.x[0]),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Swish": _swish,
    "Mish": lambda c: c.x[0] * np.tanh(softplus(c.x[0])),
    "Softplus": lambda c: softplus(c.x[0]),
    "Softsign": lambda c: c.x[0] / (1 + np.abs(c.x[0])),
    "Shrink": _shrink,
    "Clip": _clip,
    "Softmax": _softmax,
    "LogSoftmax": _log_softmax,
    "Hardmax": _hardmax,
}
