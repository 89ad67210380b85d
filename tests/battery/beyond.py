"""Graphs of later work: a fold may or may not take them, but never wrongly."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
import onnx

from tests.battery.graphs import Case, Net, apply, folds, stays

C = 6
Step = Callable[[Net, str], str]


def _conv(net: Net, x: str, c_in: int = 4, c_out: int = C, **attributes: Any) -> str:
    return net.conv(x, c_in, c_out, pads=[1, 1, 1, 1], **attributes)


def _clip(net: Net, x: str) -> str:
    return net.node("Clip", [x, net.const(-0.4), net.const(0.9)])


def _pad(net: Net, x: str, mode: str = "constant", value: float = 0.0) -> str:
    pads = net.ints(0, 0, 1, 0, 0, 0, 0, 2)
    inputs = [x, pads, net.const(value)] if mode == "constant" else [x, pads]
    return net.node("Pad", inputs, mode=mode)


def _channel_pad(net: Net, x: str) -> str:
    return net.node("Pad", [x, net.ints(0, 0, 0, 0, 0, 2, 0, 0), net.const(0.0)])


def _resize(net: Net, x: str, mode: str) -> str:
    scales = net.const(np.array([1, 1, 2, 2.0]))
    return net.node("Resize", [x, "", scales], mode=mode)


def _prelu(net: Net, x: str) -> str:
    return net.node("PRelu", [x, net.const(net.rng.uniform(0.1, 0.5, (C, 1, 1)))])


def _reduce_mean(net: Net, x: str) -> str:
    return net.node("ReduceMean", [x], axes=[2, 3])


def _slice(net: Net, x: str) -> str:
    return net.node("Slice", [x, net.ints(0), net.ints(2), net.ints(3)])


def _tile(net: Net, x: str) -> str:
    return net.node("Tile", [x, net.ints(1, 1, 2, 1)])


def _pool(op: str, **attributes: Any) -> Step:
    return lambda net, x: net.node(op, [x], **attributes)


# steps that keep the channels on axis 1 and rank 4
STEPS: Final[dict[str, Step]] = {
    "relu": _pool("Relu"),
    "leaky_relu": _pool("LeakyRelu", alpha=0.2),
    "prelu": _prelu,
    "clip": _clip,
    "sigmoid": _pool("Sigmoid"),
    "hard_sigmoid": _pool("HardSigmoid"),
    "max_pool": _pool("MaxPool", kernel_shape=[2, 2]),
    "max_pool_padded": _pool("MaxPool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "average_pool": _pool("AveragePool", kernel_shape=[2, 2]),
    "average_pool_padded": _pool("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "average_pool_counts_padding": _pool(
        "AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1
    ),
    "global_average_pool": _pool("GlobalAveragePool"),
    "global_max_pool": _pool("GlobalMaxPool"),
    "reduce_mean": _reduce_mean,
    "pad_zero": _pad,
    "pad_value": partial(_pad, value=0.7),
    "pad_reflect": partial(_pad, mode="reflect"),
    "pad_edge": partial(_pad, mode="edge"),
    "resize_nearest": partial(_resize, mode="nearest"),
    "resize_linear": partial(_resize, mode="linear"),
    "slice": _slice,
    "tile": _tile,
}


def up(step: str, source: str) -> onnx.ModelProto:
    net = Net(f"{step}{source}beyond_up")
    y = STEPS[step](net, _conv(net, net.input(["N", 4, 6, 4])))
    net.output(apply(net, source, y, C))
    return net.model()


def down(step: str, source: str) -> onnx.ModelProto:
    net = Net(f"{step}{source}beyond_down")
    y = apply(net, source, net.input(["N", C, 6, 4]), C)
    net.output(net.conv(STEPS[step](net, y), C, 4, kernel=(1, 1)))
    return net.model()


def two_convs(op: str, source: str, **attributes: Any) -> onnx.ModelProto:
    """Two convs meet in Add, Mul, Sub, Max or Concat; the source comes after."""
    net = Net(f"{op}{source}two_convs")
    x = net.input(["N", 4, 6, 4])
    y = net.node(op, [_conv(net, x), _conv(net, x)], **attributes)
    c = 2 * C if op == "Concat" else C
    net.output(apply(net, source, y, c))
    return net.model()


def pre_activation_block() -> onnx.ModelProto:
    net = Net("pre_activation")
    x = net.input(["N", 4, 6, 6])
    y = net.node("Relu", [net.bn(x, 4)])
    y = net.node("Relu", [net.bn(_conv(net, y, 4, 4), 4)])
    net.output(net.node("Add", [x, _conv(net, y, 4, 4)]))
    return net.model()


def residual_block() -> onnx.ModelProto:
    net = Net("residual")
    x = net.input(["N", 4, 6, 6])
    y = net.node("Relu", [net.bn(_conv(net, x, 4, 4), 4)])
    y = net.bn(_conv(net, y, 4, 4), 4)
    net.output(net.node("Relu", [net.node("Add", [x, y])]))
    return net.model()


def residual_then_bn() -> onnx.ModelProto:
    net = Net("residual_bn")
    x = net.input(["N", 4, 6, 6])
    net.output(net.bn(net.node("Add", [x, _conv(net, x, 4, 4)]), 4))
    return net.model()


def dense_block() -> onnx.ModelProto:
    net = Net("dense")
    x = net.input(["N", 4, 6, 6])
    y = _conv(net, x, 4, 3)
    both = net.node("Concat", [x, y], axis=1)
    y = net.node("Relu", [net.bn(both, 7)])
    net.output(_conv(net, y, 7, 3))
    return net.model()


def concat_of_input(axis: int) -> onnx.ModelProto:
    net = Net(f"concat{axis}")
    x = net.input(["N", 4, 6, 6])
    y = net.node("Concat", [net.bn(x, 4), _conv(net, x, 4, 4)], axis=axis)
    net.output(net.conv(y, 8 if axis == 1 else 4, 3))
    return net.model()


def split_then_bns() -> onnx.ModelProto:
    net = Net("split")
    y = _conv(net, net.input(["N", 4, 6, 4]))
    a, b = net.nodes_out(
        "Split", [y, net.ints(2, 4)], [net.fresh("s"), net.fresh("s")], "", {"axis": 1}
    )
    net.output(net.bn(a, 2), net.bn(b, 4))
    return net.model()


def bn_then_split() -> onnx.ModelProto:
    net = Net("bn_split")
    y = net.bn(net.input(["N", 6, 6, 4]), 6)
    a, b = net.nodes_out(
        "Split", [y, net.ints(2, 4)], [net.fresh("s"), net.fresh("s")], "", {"axis": 1}
    )
    net.output(net.conv(a, 2, 3), net.conv(b, 4, 3))
    return net.model()


def depth_to_space(mode: str, source: str) -> onnx.ModelProto:
    net = Net(f"d2s{mode}{source}")
    y = _conv(net, net.input(["N", 4, 3, 3]), 4, 8)
    y = net.node("DepthToSpace", [y], blocksize=2, mode=mode)
    net.output(apply(net, source, y, 2))
    return net.model()


def space_to_depth() -> onnx.ModelProto:
    net = Net("s2d")
    y = net.bn(net.input(["N", 3, 6, 6]), 3)
    net.output(net.conv(net.node("SpaceToDepth", [y], blocksize=2), 12, 4))
    return net.model()


def repvgg_block() -> onnx.ModelProto:
    net = Net("repvgg")
    x = net.input(["N", 4, 6, 6])
    y = net.bn(net.conv(x, 4, 4, pads=[1, 1, 1, 1], bias=False), 4)
    z = net.bn(net.conv(x, 4, 4, kernel=(1, 1), bias=False), 4)
    y = net.node("Add", [net.node("Add", [y, z]), net.bn(x, 4)])
    net.output(net.node("Relu", [y]))
    return net.model()


def squeeze_excite() -> onnx.ModelProto:
    net = Net("squeeze_excite")
    y = net.bn(_conv(net, net.input(["N", 4, 6, 4])), C)
    gate = net.node("GlobalAveragePool", [y])
    gate = net.node("Sigmoid", [net.conv(gate, C, C, kernel=(1, 1))])
    y = net.node("Mul", [y, gate])
    net.output(net.bn(net.conv(y, C, 4, kernel=(1, 1)), 4))
    return net.model()


def hard_swish() -> onnx.ModelProto:
    net = Net("hard_swish")
    y = net.bn(_conv(net, net.input(["N", 4, 6, 4])), C)
    gate = net.node("Add", [y, net.const(3.0)])
    gate = net.node("Clip", [gate, net.const(0.0), net.const(6.0)])
    gate = net.node("Div", [gate, net.const(6.0)])
    net.output(net.bn(net.conv(net.node("Mul", [y, gate]), C, 4), 4))
    return net.model()


def swish() -> onnx.ModelProto:
    net = Net("swish")
    y = net.bn(_conv(net, net.input(["N", 4, 6, 4])), C)
    net.output(net.node("Mul", [y, net.node("Sigmoid", [y])]))
    return net.model()


def layer_norm_then_linear() -> onnx.ModelProto:
    net = Net("layer_norm")
    x = net.input(["N", 3, 4])
    scale, bias = net.const(net.scale(4)), net.const(net.shift(4))
    y = net.node("LayerNormalization", [x, scale, bias])
    y = net.node("MatMul", [y, net.const(net.weight(4, 5))])
    net.output(net.add(y, 5, 3, 2))
    return net.model()


def shift_before_layer_norm() -> onnx.ModelProto:
    net = Net("before_layer_norm")
    y = apply(net, "scalar_mul_add", net.input(["N", 3, 4]), 4, 3, 2)
    y = net.node("LayerNormalization", [y, net.const(net.scale(4)), net.const(net.shift(4))])
    net.output(apply(net, "mul_add", y, 4, 3, 2))
    return net.model()


def instance_norm(place: str) -> onnx.ModelProto:
    net = Net(f"instance_norm{place}")
    y = _conv(net, net.input(["N", 4, 6, 4]))
    y = apply(net, "mul_add", y, C) if place == "above" else y
    scale, bias = net.const(net.scale(C)), net.const(net.shift(C))
    y = net.node("InstanceNormalization", [y, scale, bias])
    net.output(apply(net, "mul_add", y, C) if place == "below" else y)
    return net.model()


def quantized_weight() -> onnx.ModelProto:
    net = Net("qdq")
    whole = net.rng.integers(-127, 128, (C, 4, 3, 3))
    w = net.node(
        "DequantizeLinear",
        [
            net.const(whole, dtype="int8"),
            net.const(net.rng.uniform(0.001, 0.01, C)),
            net.const(np.zeros(C), dtype="int8"),
        ],
        axis=0,
    )
    net.output(net.bn(net.conv(net.input(["N", 4, 6, 4]), 4, C, weight=w), C))
    return net.model()


def embedding() -> onnx.ModelProto:
    net = Net("embedding")
    ids = net.input(["N", 3], "ids", "int64")
    y = net.node("Gather", [net.const(net.weight(10, 4)), ids], axis=0)
    net.output(apply(net, "mul_add", y, 4, 3, 2))
    return net.model()


def gather_channels() -> onnx.ModelProto:
    net = Net("gather_channels")
    y = _conv(net, net.input(["N", 4, 6, 4]))
    y = net.node("Gather", [y, net.ints(3, 1, 0, 5)], axis=1)
    net.output(net.bn(y, 4))
    return net.model()


def where_of_convs() -> onnx.ModelProto:
    net = Net("where")
    x, mask = net.input(["N", 4, 6, 4]), net.input(["N", 1, 6, 4], "mask", "bool")
    y = net.node("Where", [mask, _conv(net, x), _conv(net, x)])
    net.output(net.bn(y, C))
    return net.model()


def linear_behind_linear() -> onnx.ModelProto:
    net = Net("linear_linear")
    y = net.node(
        "Gemm", [net.input(["N", 4]), net.const(net.weight(4, 8)), net.const(net.shift(8))]
    )
    y = net.bn(y, 8)
    net.output(net.node("Gemm", [y, net.const(net.weight(8, 3)), net.const(net.shift(3))]))
    return net.model()


def sum_of_maps() -> onnx.ModelProto:
    """x·a + x·b: two sites read one value and meet again."""
    net = Net("sum_of_maps")
    y = _conv(net, net.input(["N", 4, 6, 4]))
    net.output(net.node("Add", [net.mul(y, C), net.mul(y, C)]))
    return net.model()


def einsum_behind_bn() -> onnx.ModelProto:
    net = Net("einsum")
    y = net.bn(net.input(["N", 4, 6]), 4)
    k = net.const(net.weight(4, 5))
    net.output(net.node("Einsum", [y, k], equation="nct,cd->ndt"))
    return net.model()


def softmax_shift() -> onnx.ModelProto:
    """Softmax forgets a uniform shift, not a per-channel one."""
    net = Net("softmax")
    y = net.node("Gemm", [net.input(["N", 4]), net.const(net.weight(4, 5))])
    net.output(net.node("Softmax", [apply(net, "mul_add", y, 5, 2)], axis=1))
    return net.model()


def _step_cases() -> list[Case]:
    return [
        folds(f"beyond/{f.__name__}/{k}/{s}", partial(f, k, s), scope="issue3")
        for k in STEPS
        for f in (up, down)
        for s in ("bn", "mul")
    ]


def cases() -> list[Case]:
    rest = {
        "pre_activation": pre_activation_block,
        "residual": residual_block,
        "residual_then_bn": residual_then_bn,
        "dense": dense_block,
        "concat/channels": partial(concat_of_input, 1),
        "concat/height": partial(concat_of_input, 2),
        "split_bns": split_then_bns,
        "bn_split": bn_then_split,
        "depth_to_space/dcr/bn": partial(depth_to_space, "DCR", "bn"),
        "depth_to_space/crd/bn": partial(depth_to_space, "CRD", "bn"),
        "depth_to_space/crd/add": partial(depth_to_space, "CRD", "add"),
        "space_to_depth": space_to_depth,
        "repvgg": repvgg_block,
        "squeeze_excite": squeeze_excite,
        "hard_swish": hard_swish,
        "swish": swish,
        "layer_norm": layer_norm_then_linear,
        "around_layer_norm": shift_before_layer_norm,
        "instance_norm/above": partial(instance_norm, "above"),
        "instance_norm/below": partial(instance_norm, "below"),
        "quantized_weight": quantized_weight,
        "embedding": embedding,
        "gather_channels": gather_channels,
        "where": where_of_convs,
        "linear_linear": linear_behind_linear,
        "sum_of_maps": sum_of_maps,
        "softmax": softmax_shift,
    }
    meets = {
        f"meet/{op}/{s}": partial(two_convs, op, s, **({"axis": 1} if op == "Concat" else {}))
        for op in ("Add", "Sub", "Mul", "Max", "Concat")
        for s in ("bn", "mul", "scalar_add")
    }
    return [
        *_step_cases(),
        *(folds(f"beyond/{n}", b, scope="issue3") for n, b in {**rest, **meets}.items()),
        stays("beyond/einsum", einsum_behind_bn, 1, "an Add would stay", scope="issue3"),
    ]
