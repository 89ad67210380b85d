"""A source right behind or right before a layer that can take it: convolutions."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import onnx

from tests.battery.graphs import (
    BN_SOURCES,
    SCALE_ONLY,
    SEVERAL_NODES,
    SOURCES,
    Case,
    Net,
    apply,
    folds,
)

SIZE: Final = {1: (9,), 2: (7, 6), 3: (5, 4, 5)}

# kind -> (spatial rank, channels in, channels out, arguments of Net.conv)
CONVS: Final[dict[str, tuple[int, int, int, dict[str, Any]]]] = {
    "padded": (2, 4, 6, {"pads": [1, 1, 1, 1]}),
    "bare": (2, 4, 6, {}),
    "no_bias": (2, 4, 6, {"bias": False, "pads": [1, 1, 1, 1]}),
    "empty_bias": (2, 4, 6, {"bias": None, "pads": [1, 1, 1, 1]}),
    "strided": (2, 4, 6, {"strides": [2, 1], "pads": [0, 1, 1, 0]}),
    "1d": (1, 4, 6, {"kernel": (3,), "pads": [1, 1]}),
    "3d": (3, 4, 6, {"kernel": (3, 2, 3), "pads": [1, 0, 1, 1, 1, 0]}),
    "1x1": (2, 4, 6, {"kernel": (1, 1)}),
    "grouped": (2, 4, 6, {"groups": 2, "pads": [1, 1, 1, 1]}),
    "depthwise": (2, 4, 4, {"groups": 4, "pads": [1, 1, 1, 1]}),
    "depth_multiplier": (2, 4, 8, {"groups": 4}),
    "dilated": (2, 4, 6, {"dilations": [2, 2], "pads": [2, 2, 2, 2]}),
    "same_upper": (2, 4, 6, {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "same_lower": (2, 4, 6, {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    "valid": (2, 4, 6, {"auto_pad": "VALID"}),
    "one_channel": (2, 1, 1, {"pads": [1, 1, 1, 1]}),
    "one_out": (2, 4, 1, {}),
}
# kinds through whose border no zero reaches the sum
UNPADDED: Final = {
    "bare": {},
    "no_bias": {"bias": False},
    "empty_bias": {"bias": None},
    "strided": {"strides": [2, 1]},
    "1d": {"kernel": (3,)},
    "3d": {"kernel": (3, 2, 3)},
    "1x1": {"kernel": (1, 1)},
    "grouped": {"groups": 2},
    "depthwise": {"groups": 4},
    "depth_multiplier": {"groups": 4},
    "dilated": {"dilations": [2, 2]},
    "valid": {"auto_pad": "VALID"},
    "same_1x1": {"auto_pad": "SAME_UPPER", "kernel": (1, 1)},
}
TRANSPOSED: Final[dict[str, tuple[int, int, int, dict[str, Any]]]] = {
    "plain": (2, 4, 6, {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "no_bias": (2, 4, 6, {"strides": [2, 2], "bias": False}),
    "empty_bias": (2, 4, 6, {"bias": None}),
    "grouped": (2, 4, 6, {"groups": 2, "strides": [2, 2]}),
    "grouped_square": (2, 4, 4, {"groups": 2, "strides": [2, 2]}),
    "depthwise": (2, 4, 4, {"groups": 4, "strides": [2, 2]}),
    "output_padding": (
        2,
        4,
        6,
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
    ),
    "output_shape": (
        2,
        4,
        6,
        {"kernel": (4, 4), "strides": [2, 2], "output_shape": [14, 12]},
    ),
    "same_upper": (2, 4, 6, {"kernel": (4, 4), "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    "dilated": (2, 4, 6, {"dilations": [2, 2]}),
    "1d": (1, 4, 6, {"kernel": (3,), "strides": [2]}),
    "3d": (3, 4, 6, {"kernel": (2, 3, 2), "strides": [2, 1, 2], "groups": 2}),
}


def conv_below(
    source: str,
    kind: str,
    opset: int = 17,
    dtype: str = "fp32",
    param: str | None = None,
    *,
    dynamic: bool = True,
) -> onnx.ModelProto:
    rank, c_in, c_out, arguments = CONVS[kind]
    net = Net(f"{source}{kind}{opset}{dtype}", opset, dtype, param=param)
    x = net.input(["N" if dynamic else 2, c_in, *SIZE[rank]])
    y = net.conv(x, c_in, c_out, **arguments)
    net.output(apply(net, source, y, c_out, rank + 2))
    return net.model()


def conv_above(
    source: str, kind: str, opset: int = 17, dtype: str = "fp32", param: str | None = None
) -> onnx.ModelProto:
    rank, c_in, c_out, _ = CONVS.get(kind, (2, 4, 6, {}))
    arguments = UNPADDED[kind]
    net = Net(f"{source}{kind}{opset}{dtype}above", opset, dtype, param=param)
    x = net.input(["N", c_in, *SIZE[rank]])
    y = apply(net, source, x, c_in, rank + 2)
    net.output(net.conv(y, c_in, c_out, **arguments))
    return net.model()


def padded_above(source: str, kind: str) -> onnx.ModelProto:
    rank, c_in, c_out, arguments = CONVS[kind]
    net = Net(f"{source}{kind}padded")
    x = net.input(["N", c_in, *SIZE[rank]])
    y = apply(net, source, x, c_in, rank + 2)
    net.output(net.conv(y, c_in, c_out, **arguments))
    return net.model()


def transposed_below(source: str, kind: str, opset: int = 17) -> onnx.ModelProto:
    rank, c_in, c_out, arguments = TRANSPOSED[kind]
    net = Net(f"{source}{kind}{opset}transposed", opset)
    x = net.input(["N", c_in, *SIZE[rank]])
    y = net.conv_transpose(x, c_in, c_out, **arguments)
    net.output(apply(net, source, y, c_out, rank + 2))
    return net.model()


def transposed_above(source: str, kind: str) -> onnx.ModelProto:
    rank, c_in, c_out, arguments = TRANSPOSED[kind]
    net = Net(f"{source}{kind}transposed_above")
    x = net.input(["N", c_in, *SIZE[rank]])
    y = apply(net, source, x, c_in, rank + 2)
    net.output(net.conv_transpose(y, c_in, c_out, **arguments))
    return net.model()


def transposed_one_tap(source: str) -> onnx.ModelProto:
    """Kernel = stride = 1: every output sees the one tap, so a shift may pass."""
    net = Net(f"{source}one_tap")
    y = apply(net, source, net.input(["N", 4, 5, 5]), 4)
    net.output(net.conv_transpose(y, 4, 6, kernel=(1, 1)))
    return net.model()


def both_sides(above: str, below: str) -> onnx.ModelProto:
    net = Net(f"{above}{below}both")
    y = apply(net, above, net.input(["N", 4, 7, 6]), 4)
    net.output(apply(net, below, net.conv(y, 4, 6), 6))
    return net.model()


def between(source: str) -> onnx.ModelProto:
    """Between two convs: must go exactly once."""
    net = Net(f"{source}between")
    y = net.conv(net.input(["N", 4, 7, 6]), 4, 5, pads=[1, 1, 1, 1])
    y = apply(net, source, y, 5)
    net.output(net.conv(y, 5, 6, pads=[1, 1, 1, 1]))
    return net.model()


def stack_of_convs(depth: int) -> onnx.ModelProto:
    net = Net(f"stack{depth}")
    y = net.input(["N", 3, 8, 8])
    for level in range(depth):
        y = net.conv(y, 3, 3, pads=[1, 1, 1, 1])
        y = apply(net, "mul_add" if level % 2 else "bn", y, 3)
        y = net.node("Relu", [y])
    net.output(y)
    return net.model()


def default_epsilon(opset: int, *, explicit: bool) -> onnx.ModelProto:
    """Variances so small that the default of epsilon decides."""
    net = Net(f"default_epsilon{opset}", opset)
    y = net.conv(net.input(["N", 4, 7, 6]), 4, 6)
    params = [net.scale(6), net.shift(6), net.shift(6), net.rng.uniform(1e-6, 1e-4, 6)]
    attributes = {"epsilon": 1e-5} if explicit else {}
    net.output(
        net.node("BatchNormalization", [y, *(net.const(p) for p in params)], **attributes)
    )
    return net.model()


def _below_cases() -> list[Case]:
    out = [
        folds(f"direct/conv_below/{source}", partial(conv_below, source, "padded"), 0)
        for source in SOURCES
    ]
    kinds = [k for k in CONVS if k != "padded"]
    for source in ("bn", "sub_mul_add"):
        out += [
            folds(f"direct/conv_below/{source}/{k}", partial(conv_below, source, k), 0)
            for k in kinds
        ]
    out += [
        folds(f"direct/conv_below/{source}/{k}", partial(conv_below, source, k), 0)
        for source in ("scalar_mul", "scalar_add")
        for k in ("no_bias", "empty_bias", "grouped", "one_channel")
    ]
    out += [
        folds(
            f"direct/conv_below/bn/opset{opset}",
            partial(conv_below, "bn", "grouped", opset),
            0,
        )
        for opset in (7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 20, 22)
    ]
    return out


def _type_cases() -> list[Case]:
    out = [
        folds(
            f"direct/types/{dtype}/{source}/{place.__name__}",
            partial(place, source, "bare", 22 if dtype == "bf16" else 17, dtype),
            0,
        )
        for dtype in ("fp16", "bf16", "fp64")
        for source in ("bn", "sub_mul_add", "scalar_mul_add")
        for place in (conv_below, conv_above)
    ]
    return out + [
        folds(
            f"direct/types/{dtype}_with_fp32_parameters/{place.__name__}",
            partial(place, "bn", "no_bias", 22 if dtype == "bf16" else 17, dtype, "fp32"),
            0,
        )
        for dtype in ("fp16", "bf16")
        for place in (conv_below, conv_above)
    ]


def _above_cases() -> list[Case]:
    out = [
        folds(f"direct/conv_above/{source}", partial(conv_above, source, "bare"), 0)
        for source in SOURCES
    ]
    out += [
        folds(f"direct/conv_above/{source}/{k}", partial(conv_above, source, k), 0)
        for source in ("bn", "sub_mul_add")
        for k in UNPADDED
        if k != "bare"
    ]
    for source in SOURCES:
        free = source in SCALE_ONLY
        out.append(
            Case(
                f"direct/padded_conv_above/{source}",
                partial(padded_above, source, "padded"),
                0 if free else 1,
                "the scale goes, the shift meets the padding",
                foldable=free or source in SEVERAL_NODES,
            )
        )
    out += [
        Case(
            f"direct/padded_conv_above/{source}/{k}",
            partial(padded_above, source, k),
            0 if source in SCALE_ONLY else 1,
            foldable=source in SCALE_ONLY,
        )
        for source in ("mul", "bn", "scalar_mul")
        for k in ("same_upper", "same_lower", "grouped", "depthwise", "strided", "1d", "3d")
    ]
    return out


def _transposed_cases() -> list[Case]:
    out = [
        folds(
            f"direct/transposed_below/{source}/{k}",
            partial(transposed_below, source, k),
            0,
        )
        for source in ("bn", "sub_mul_add")
        for k in TRANSPOSED
    ]
    out += [
        folds(
            f"direct/transposed_below/bn/opset{v}",
            partial(transposed_below, "bn", "grouped", v),
            0,
        )
        for v in (7, 11, 22)
    ]
    out += [
        folds(f"direct/transposed_above/mul/{k}", partial(transposed_above, "mul", k), 0)
        for k in TRANSPOSED
    ]
    out += [
        Case(
            f"direct/transposed_above/{source}/{k}",
            partial(transposed_above, source, k),
            1,
            "outputs see different taps: the shift must stay",
            foldable=source not in BN_SOURCES | {"add"},
        )
        for source in ("bn", "add", "mul_add")
        for k in ("plain", "grouped", "output_padding")
    ]
    return out + [
        folds(f"direct/transposed_above/one_tap/{s}", partial(transposed_one_tap, s), None)
        for s in ("mul", "bn", "add")
    ]


def cases() -> list[Case]:
    pairs = [
        ("bn", "bn"),
        ("mul", "add"),
        ("scalar_mul_add", "spelled"),
        ("sub", "bn_mul_add"),
    ]
    return [
        *_below_cases(),
        *_type_cases(),
        *_above_cases(),
        *_transposed_cases(),
        *(folds(f"direct/both_sides/{a}_{b}", partial(both_sides, a, b), 0) for a, b in pairs),
        *(
            folds(f"direct/between/{s}", partial(between, s), 0)
            for s in ("bn", "mul", "add", "spelled", "scalar_sub_left")
        ),
        folds("direct/stack/2", partial(stack_of_convs, 2), 0),
        folds("direct/stack/9", partial(stack_of_convs, 9), 0),
        *(
            folds(
                f"direct/epsilon/opset{v}/{e}",
                partial(default_epsilon, v, explicit=e),
                0,
            )
            for v in (7, 9, 14, 15)
            for e in (False, True)
        ),
    ]
