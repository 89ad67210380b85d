"""Numbers at the edge of what a type can store."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
from onnx import TensorProto

from tests.battery.graphs import Case, Net, first_conv, folds, stays

C = 6
FLOAT = TensorProto.FLOAT


def number(scale: object, shift: object = 0.5, dtype: str = "fp32") -> onnx.ModelProto:
    """Conv → Mul → Add with given numbers (one entry, or one for every channel)."""
    net, y = first_conv(f"number{scale}{shift}{dtype}", 17, dtype)
    values = np.broadcast_to(np.asarray(scale, np.float64).reshape(-1, 1, 1), (C, 1, 1))
    y = net.node("Mul", [y, net.const(values)])
    net.output(net.node("Add", [y, net.const(shift)]))
    return net.model()


def zero_scale_above() -> onnx.ModelProto:
    net = Net("zero_above")
    scale = net.scale(4)
    scale[1] = 0
    y = net.node("Mul", [net.input(["N", 4, 7, 6]), net.const(scale.reshape(4, 1, 1))])
    net.output(net.conv(y, 4, C, pads=[1, 1, 1, 1]))
    return net.model()


def overflow_then_fine(dtype: str, *, rescued: bool = False) -> onnx.ModelProto:
    """The first product leaves the type's range (``rescued``: a map above brings it back).

    The second fold is harmless.
    """
    net = Net(f"overflow{dtype}", 22 if dtype == "bf16" else 17, dtype)
    x = net.input(["N", 4, 7, 6])
    big = {"fp16": 3e4, "bf16": 3e38, "fp32": 3e38}[dtype]
    w = net.const(np.full((C, 4, 1, 1), big / 6) * np.sign(net.weight(C, 4, 1, 1)))
    x = net.node("Mul", [x, net.const(1e-4)]) if rescued else x
    y = net.node("Conv", [x, w])
    y = net.node("Mul", [y, net.const(np.full((C, 1, 1), 900.0))])
    y = net.node("Sigmoid", [y])
    net.output(net.bn(net.conv(y, C, 4), 4))
    return net.model()


def bias_overflow() -> onnx.ModelProto:
    """Only the new bias would leave fp16; the scale alone fits."""
    net = Net("bias_overflow", 17, "fp16")
    w = net.const(net.weight(C, 4, 3, 3))
    y = net.node("Conv", [net.input(["N", 4, 7, 6]), w, net.const(np.full(C, 6e4))])
    net.output(net.mul(net.node("Mul", [y, net.const(np.full((C, 1, 1), 1.75))]), C))
    return net.model()


def subnormal() -> onnx.ModelProto:
    """Weights of 1e-3 times 1e-3 fall under fp16's normal range."""
    net = Net("subnormal", 17, "fp16")
    w = net.const(1e-3 * np.sign(net.weight(C, 4, 3, 3)))
    y = net.node("Conv", [net.input(["N", 4, 7, 6]), w])
    net.output(net.node("Mul", [y, net.const(np.full((C, 1, 1), 1e-3))]))
    return net.model()


def tiny_variance(dtype: str, param: str | None) -> onnx.ModelProto:
    """Variance 0 with epsilon 1e-12: the factor is 1e6, beyond fp16."""
    net, y = first_conv(f"tiny_variance{dtype}{param}", 22 if dtype == "bf16" else 15, dtype)
    var = np.zeros(C)
    var[:3] = net.rng.uniform(0.5, 1.5, 3)
    params = [net.scale(C), net.shift(C), net.shift(C), var]
    inputs = [y, *(net.const(p, dtype=param or dtype) for p in params)]
    y = net.node("BatchNormalization", inputs, epsilon=1e-12)
    net.output(net.bn(net.conv(net.node("Sigmoid", [y]), C, 4), 4))
    return net.model()


def small_scale_small_variance() -> onnx.ModelProto:
    """A dead channel as training leaves it: variance 1e-14, scale 1e-9, in fp32."""
    net, y = first_conv("dead_channel")
    scale, var = net.scale(C), net.rng.uniform(0.5, 1.5, C)
    scale[1], var[1] = 1e-9, 1e-14
    params = [scale, net.shift(C), net.shift(C) * 1e-3, var]
    inputs = [y, *(net.const(p) for p in params)]
    net.output(net.node("BatchNormalization", inputs, epsilon=1e-12))
    return net.model()


def identity_map() -> onnx.ModelProto:
    """Mul by one and Add of zero."""
    net, y = first_conv("identity_map")
    y = net.node("Add", [net.node("Mul", [y, net.const(1.0)]), net.const(0.0)])
    net.output(y)
    return net.model()


def _number_cases() -> list[Case]:
    mixed = (1.0, -2.0, 0.0, 0.5, -0.25, 3.0)
    return [
        folds("guards/number/zero", partial(number, 0.0), None),
        folds("guards/number/some_zero", partial(number, mixed), 0),
        folds("guards/number/negative", partial(number, (-1.5,) * 6), 0),
        folds("guards/number/huge", partial(number, 1e30), 0),
        folds("guards/number/tiny", partial(number, 1e-30), 0),
        stays("guards/number/subnormal_fp32", partial(number, 1e-39), None),
        *(
            folds(f"guards/number/overflow/{d}", partial(overflow_then_fine, d), 1)
            for d in ("fp32", "fp16", "bf16")
        ),
        *(
            folds(
                f"guards/number/overflow_rescued/{d}",
                partial(overflow_then_fine, d, rescued=True),
                2,
            )
            for d in ("fp32", "fp16")
        ),
        stays("guards/number/inf_fp32", partial(number, np.inf), None, ort=False),
        stays("guards/number/nan_fp32", partial(number, np.nan), None, ort=False),
        folds("guards/number/zero_above", zero_scale_above, 0),
        folds("guards/number/bias_overflow_fp16", bias_overflow, 1),
        stays("guards/number/subnormal_fp16", subnormal, 1),
        folds("guards/number/tiny_variance_fp16", partial(tiny_variance, "fp16", None), 1),
        folds(
            "guards/number/tiny_variance_fp16_fp32",
            partial(tiny_variance, "fp16", "fp32"),
            1,
        ),
        folds("guards/number/tiny_variance_fp32", partial(tiny_variance, "fp32", None), 0),
        folds("guards/number/tiny_variance_bf16", partial(tiny_variance, "bf16", "fp32"), 0),
        folds("guards/number/dead_channel", small_scale_small_variance, 0),
        folds("guards/number/identity", identity_map, 0),
    ]


def cases() -> list[Case]:
    return [*_number_cases()]
