"""Normalisations."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from bnfold.evidence.reference.arrays import Array
from bnfold.evidence.reference.call import Call, Kernel

_EPSILON: Final = float(np.float32(1e-5))
"""The default of the specification is a float32."""


def _epsilon(call: Call) -> float:
    return call.number("epsilon", _EPSILON)


def _per_channel(v: Array, x: Array) -> Array:
    return v.reshape(-1, *[1] * (x.ndim - 2)) if x.ndim > 1 else v


def _standardised(x: Array, axes: tuple[int, ...], epsilon: float) -> tuple[Array, ...]:
    """(x − mean) / √(var + epsilon), the mean, and the inverse of the root."""
    mean = x.mean(axes, keepdims=True)
    y = x - mean
    inverse = 1 / np.sqrt(np.square(y).mean(axes, keepdims=True) + epsilon)
    y *= inverse
    return y, mean, inverse


def _by_batch(call: Call) -> bool:
    """Whether it normalises by the statistics of the batch.

    From version 14 on an attribute says so; from 7 on it does where outputs behind the first
    are read; before, unless ``is_test``.
    """
    if call.opset >= 14:
        return bool(call.integer("training_mode", 0))
    if call.opset < 7 and not call.integer("is_test", 0):
        return True
    rest = call.node.outputs[1:]
    return any(v.name and (v.uses() or v.is_graph_output()) for v in rest)


def batch_norm(call: Call) -> Any:
    """Y = scale·(x − mean)/√(var + epsilon) + bias, by stored or by batch statistics."""
    x, scale, bias, mean, var = call.x
    if call.opset < 9 and not call.integer("spatial", 1):
        return scale * (x - mean) / np.sqrt(var + _epsilon(call)) + bias
    if not _by_batch(call):
        return _normalised(call, mean, var)
    axes = tuple(i for i in range(x.ndim) if i != 1)
    momentum = call.number("momentum", float(np.float32(0.9)))
    batch_mean, batch_var = x.mean(axes), x.var(axes)
    y = _normalised(call, batch_mean, batch_var)
    running = [
        mean * momentum + batch_mean * (1 - momentum),
        var * momentum + batch_var * (1 - momentum),
    ]
    return call.outputs(y, *running, *running)


def _normalised(call: Call, mean: Array, var: Array) -> Array:
    x, scale, bias = call.x[:3]
    factor = scale / np.sqrt(var + _epsilon(call))
    y = np.asarray(x - _per_channel(mean, x))
    y *= _per_channel(factor, x)
    y += _per_channel(bias, x)
    return y


def layer_norm(call: Call) -> Any:
    """Scale · (x − mean)/√(var + epsilon) + bias over the axes from ``axis`` on."""
    x, scale, bias = call.x[0], call.x[1], call.maybe(2)
    axes = tuple(range(call.integer("axis", -1) % x.ndim, x.ndim))
    y, mean, inverse = _standardised(x, axes, _epsilon(call))
    y = y * scale
    return call.outputs(y if bias is None else y + bias, mean, inverse)


def rms_norm(call: Call) -> Array:
    """Scale · x / √(mean(x²) + epsilon) over the axes from ``axis`` on (version 23)."""
    x, scale = call.x[:2]
    axes = tuple(range(call.integer("axis", -1) % x.ndim, x.ndim))
    return np.asarray(x / np.sqrt((x**2).mean(axes, keepdims=True) + _epsilon(call)) * scale)


def mean_variance_norm(call: Call) -> Array:
    """(x − mean) / (√(mean(x²) − mean²) + 1e-9)."""
    x, axes = call.x[0], call.integers("axes", (0, 2, 3))
    y = x - x.mean(axes, keepdims=True)
    return np.asarray(y / (np.sqrt((y**2).mean(axes, keepdims=True)) + 1e-9))


def group_norm(call: Call) -> Array:
    """Scale and bias per group (version 18) or per channel (version 21)."""
    x, scale, bias = call.x
    groups = call.integer("num_groups", 1)
    parts = x.reshape(x.shape[0], groups, -1)
    y = _standardised(parts, (2,), _epsilon(call))[0].reshape(x.shape)
    if call.opset < 21:
        each = x.shape[1] // groups
        scale, bias = np.repeat(scale, each), np.repeat(bias, each)
    return y * _per_channel(scale, x) + _per_channel(bias, x)


def instance_norm(call: Call) -> Array:
    """Every channel of every sample by its own mean and variance."""
    x, scale, bias = call.x
    y = _standardised(x, tuple(range(2, x.ndim)), _epsilon(call))[0]
    return y * _per_channel(scale, x) + _per_channel(bias, x)


def lp_norm(call: Call) -> Array:
    """X / ‖x‖ₚ along one axis; 0 where the norm is 0."""
    x, axis, p = call.x[0], call.integer("axis", -1), call.integer("p", 2)
    norm = (np.abs(x) ** p).sum(axis, keepdims=True) ** (1 / p)
    return np.asarray(np.divide(x, norm, out=np.zeros_like(x), where=norm != 0))


def lrn(call: Call) -> Array:
    """X / (bias + alpha/size · sum of squares of the neighbouring channels)^beta."""
    x, size = call.x[0], call.integer("size", 1)
    alpha = call.number("alpha", float(np.float32(1e-4)))
    beta = call.number("beta", 0.75)
    low, high = (size - 1) // 2, size - 1 - (size - 1) // 2
    squares = np.pad(x**2, [(0, 0), (low, high), *[(0, 0)] * (x.ndim - 2)])
    total = sum(squares[:, start : start + x.shape[1]] for start in range(size))
    return np.asarray(x / (call.number("bias", 1.0) + alpha / size * total) ** beta)


KERNELS: Final[dict[str, Kernel]] = {
    "BatchNormalization": batch_norm,
    "LayerNormalization": layer_norm,
    "RMSNormalization": rms_norm,
    "MeanVarianceNormalization": mean_variance_norm,
    "GroupNormalization": group_norm,
    "InstanceNormalization": instance_norm,
    "LpNormalization": lp_norm,
    "LRN": lrn,
}
