"""Operators of ONNX Runtime's own domain, com.microsoft."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from bnfold.evidence.reference.arrays import Array
from bnfold.evidence.reference.call import Call, Kernel
from bnfold.evidence.reference.kernels import quantized
from bnfold.evidence.reference.kernels.activations import gelu, sigmoid, tanh_gelu
from bnfold.evidence.reference.kernels.conv import conv
from bnfold.evidence.reference.kernels.products import gemm

_ACTIVATIONS: Final[dict[str, Callable[[Array, Sequence[float]], Any]]] = {
    "": lambda y, _: y,
    "Relu": lambda y, _: np.maximum(y, 0),
    "Sigmoid": lambda y, _: sigmoid(y),
    "Tanh": lambda y, _: np.tanh(y),
    "LeakyRelu": lambda y, p: np.where(y < 0, p[0] * y, y),
    "Clip": lambda y, p: np.clip(y, p[0], p[1]),
    "HardSigmoid": lambda y, p: np.clip(p[0] * y + p[1], 0, 1),
}


def _activated(call: Call, y: Array, parameters: Sequence[float]) -> Array:
    name = call.text("activation", "")
    if name not in _ACTIVATIONS:
        raise call.no_kernel(f"the activation {name!r} is unknown")
    return np.asarray(_ACTIVATIONS[name](y, parameters))


def _fused_conv(call: Call) -> Array:
    """A Conv, a tensor that is added, and an activation."""
    attribute = call.node.attributes.get("activation_params")
    y, added = conv(call), call.maybe(3)
    y = y if added is None else y + added
    return _activated(call, y, () if attribute is None else tuple(attribute.as_floats()))


def _fused_gemm(call: Call) -> Array:
    names = ("activation_alpha", "activation_beta")
    return _activated(call, gemm(call), [call.number(name, 0.0) for name in names])


def _fused_mat_mul(call: Call) -> Array:
    """alpha·A'·B' with the last two axes, or the batch axes too, transposed."""
    sides = []
    for x, letter in zip(call.x, "AB", strict=True):
        if call.integer(f"transBatch{letter}", 0):
            raise call.no_kernel("it transposes batch axes")
        flip = call.integer(f"trans{letter}", 0) and x.ndim > 1
        sides.append(x.swapaxes(-1, -2) if flip else x)
    return np.asarray(call.number("alpha", 1.0) * np.matmul(*sides))


def _fast_gelu(call: Call) -> Array:
    bias = call.maybe(1)
    return tanh_gelu(call.x[0] if bias is None else call.x[0] + bias)


def _quick_gelu(call: Call) -> Array:
    x = call.x[0]
    return np.asarray(x * sigmoid(call.number("alpha", float(np.float32(1.702))) * x))


def _skip_layer_norm(call: Call) -> Any:
    """LayerNormalization of the sum of two tensors and a bias."""
    x = call.x[0] + call.x[1]
    shift, bias = call.maybe(3), call.maybe(4)
    x = x if bias is None else x + bias
    centred = x - x.mean(-1, keepdims=True)
    y = centred * _inverse(call, centred) * call.x[2]
    return _with_sum(call, y if shift is None else y + shift, x)


def _skip_rms_norm(call: Call) -> Any:
    """RMSNormalization of the sum of two tensors and a bias."""
    x, bias = call.x[0] + call.x[1], call.maybe(3)
    x = x if bias is None else x + bias
    return _with_sum(call, x * _inverse(call, x) * call.x[2], x)


def _inverse(call: Call, x: Array) -> Array:
    epsilon = call.number("epsilon", float(np.float32(1e-12)))
    return np.asarray(1 / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon))


def _with_sum(call: Call, y: Array, total: Array) -> tuple[Array | None, ...]:
    """The fourth output is the sum; the second and third are for training."""
    if any(output.name for output in call.node.outputs[1:3]):
        raise call.no_kernel("its statistics are outputs")
    return (y, None, None, total)[: len(call.node.outputs)]


KERNELS: Final[dict[str, Kernel]] = {
    "FusedConv": _fused_conv,
    "FusedGemm": _fused_gemm,
    "FusedMatMul": _fused_mat_mul,
    "Gelu": lambda c: gelu(c.x[0]),
    "BiasGelu": lambda c: gelu(c.x[0] + c.x[1]),
    "FastGelu": _fast_gelu,
    "QuickGelu": _quick_gelu,
    "SkipLayerNormalization": _skip_layer_norm,
    "SkipSimplifiedLayerNormalization": _skip_rms_norm,
    "QuantizeLinear": quantized.KERNELS["QuantizeLinear"],
    "DequantizeLinear": quantized.KERNELS["DequantizeLinear"],
}
"""Operators of com.microsoft."""
