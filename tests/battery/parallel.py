"""Parallel branches: sums of linear maps of one value, and linear behind linear."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.battery.graphs import Case, Net, folds

C = 6
PADS = [1, 1, 1, 1]


def _start(seed: str, dtype: str = "fp32", opset: int = 17) -> tuple[Net, str]:
    net = Net(seed, opset, dtype)
    return net, net.node("Relu", [net.input(["N", C, 7, 5])])


def _total(net: Net, *terms: str) -> str:
    first, *rest = terms
    for term in rest:
        first = net.node("Add", [first, term])
    return first


def _conv_bn(net: Net, x: str, kernel: int, groups: int = 1) -> str:
    pads = [kernel // 2] * 4
    y = net.conv(x, C, C, kernel=(kernel, kernel), pads=pads, groups=groups, bias=False)
    return net.bn(y, C)


def _end(net: Net, y: str) -> onnx.ModelProto:
    net.output(net.node("Relu", [y]))
    return net.model()


def repvgg(dtype: str = "fp32", blocks: int = 2) -> onnx.ModelProto:
    net, x = _start("repvgg", dtype)
    for _ in range(blocks):
        y = _total(net, _conv_bn(net, x, 3), _conv_bn(net, x, 1), net.bn(x, C))
        x = net.node("Relu", [y])
    return _end(net, x)


def mobile_one(dtype: str = "fp32") -> onnx.ModelProto:
    """Depthwise with several equal branches, then pointwise with the same."""
    net, x = _start("mobile_one", dtype)
    wide = [_conv_bn(net, x, 3, C) for _ in range(3)]
    y = net.node("Relu", [_total(net, net.bn(x, C), _conv_bn(net, x, 1, C), *wide)])
    points = [_conv_bn(net, y, 1) for _ in range(3)]
    return _end(net, _total(net, net.bn(y, C), *points))


def fast_vit(dtype: str = "fp32") -> onnx.ModelProto:
    """RepMixer: x + γ · (mixer(x) − norm(x))."""
    net, x = _start("fast_vit", dtype)
    mixer = _total(net, _conv_bn(net, x, 3, C), _conv_bn(net, x, 1, C), net.bn(x, C))
    y = net.node("Sub", [mixer, net.bn(x, C)])
    return _end(net, net.node("Add", [x, net.mul(y, C)]))


def rep_vit(dtype: str = "fp32") -> onnx.ModelProto:
    """RepVGGDW: bn(bn(conv3(x)) + conv1(x) + x)."""
    net, x = _start("rep_vit", dtype)
    point = net.conv(x, C, C, kernel=(1, 1), groups=C)
    return _end(net, net.bn(_total(net, _conv_bn(net, x, 3, C), point, x), C))


Block = tuple[Callable[[str], onnx.ModelProto], dict[str, int]]
BLOCKS: Final[dict[str, Block]] = {
    "repvgg": (repvgg, {"Conv": 2, "Relu": 4}),
    "mobile_one": (mobile_one, {"Conv": 2, "Relu": 3}),
    "fast_vit": (fast_vit, {"Conv": 1, "Relu": 2}),
    "rep_vit": (rep_vit, {"Conv": 1, "Relu": 2}),
}


def dilated() -> onnx.ModelProto:
    """A kernel of 5 takes one of 3 with dilation 2."""
    net, x = _start("dilated")
    wide = net.conv(x, C, C, kernel=(5, 5), pads=[2] * 4)
    return _end(net, _total(net, wide, net.conv(x, C, C, dilations=[2, 2], pads=[2] * 4)))


def strided() -> onnx.ModelProto:
    net, x = _start("strided")
    a = net.conv(x, C, 4, strides=[2, 2], pads=PADS)
    b = net.conv(x, C, 4, kernel=(1, 1), strides=[2, 2])
    return _end(net, _total(net, a, b))


def same_padding(kind: str, stride: int) -> onnx.ModelProto:
    net, x = _start(f"{kind}{stride}")
    a = net.conv(x, C, 4, auto_pad=kind, strides=[stride] * 2)
    b = net.conv(x, C, 4, kernel=(1, 1), auto_pad=kind, strides=[stride] * 2)
    return _end(net, _total(net, a, b))


def with_a_residual(op: str) -> onnx.ModelProto:
    """A term in the middle of the sum that does not belong."""
    net, x = _start(f"residual{op}")
    other = net.node("Sigmoid", [x])
    inner = net.node(op, [net.conv(x, C, C, pads=PADS), other])
    return _end(net, net.node("Add", [inner, net.node("Sub", [x, _conv_bn(net, x, 1)])]))


def sum_is_the_result() -> onnx.ModelProto:
    net, x = _start("result")
    net.output(_total(net, x, net.conv(x, C, C, pads=PADS)))
    return net.model()


def sites(rank: int) -> onnx.ModelProto:
    """x · a + x · b + x: one map."""
    net = Net(f"sites{rank}")
    x = net.node("Sigmoid", [net.input([2, C, 7, 5][:rank])])
    y = _total(net, net.mul(x, C, rank), net.add(net.mul(x, C, rank), C, rank), x)
    net.output(net.node("Sigmoid", [y]))
    return net.model()


def products(rank: int) -> onnx.ModelProto:
    net = Net(f"products{rank}")
    x = net.node("Sigmoid", [net.input(["N", 5, C][3 - rank :])])
    one, two = (net.node("MatMul", [x, net.const(net.weight(C, C))]) for _ in range(2))
    y = _total(net, one, net.add(two, C, rank, rank - 1), x, net.mul(x, C, rank, rank - 1))
    net.output(net.node("Sigmoid", [y]))
    return net.model()


def in_a_branch() -> onnx.ModelProto:
    """The whole sum, and x from outside, in a branch of an If that stays."""
    net, x = _start("inside")
    condition = net.input([], "condition", "bool")
    graphs = []
    for name in ("then", "other"):
        inner = Net(f"in_{name}", prefix=f"{name}_")
        y = _total(inner, inner.conv(x, C, C, pads=PADS), inner.bn(x, C), x)
        info = helper.make_tensor_value_info(y, TensorProto.FLOAT, None)
        graphs.append(
            helper.make_graph(inner.nodes, name, [], [info], inner.initializer_list())
        )
    y = net.node("If", [condition], then_branch=graphs[0], else_branch=graphs[1])
    net.output(net.node("Relu", [y]), shape=["N", C, 7, 5])
    return net.model()


def border_shift() -> onnx.ModelProto:
    """A 1×1 with a bias in front of zero padding, in a sum: only the sum merges."""
    net, x = _start("border")
    y = net.conv(x, C, C, kernel=(1, 1), bias=True)
    return _end(net, _total(net, net.conv(y, C, C, pads=PADS), net.bn(y, C)))


def broadcast_term() -> onnx.ModelProto:
    """A term that is broadcast beside one that leaves."""
    net, x = _start("broadcast")
    small = net.node("GlobalAveragePool", [net.node("Sigmoid", [x])])
    one = net.node("Add", [net.conv(x, C, C, pads=PADS), small])
    two = net.node("Add", [net.bn(x, C), net.node("Tanh", [small])])
    return _end(net, net.node("Add", [one, two]))


def cancels() -> onnx.ModelProto:
    """The same convolution on both sides: zeros are left, and a bias."""
    net, x = _start("cancels", "fp16")
    w = net.const(net.weight(C, C, 3, 3) * np.float64(1e-4))
    a, b = (net.conv(x, C, C, weight=w, pads=PADS) for _ in range(2))
    return _end(net, net.node("Sub", [a, b]))


def cases() -> list[Case]:
    case = partial(folds, scope="issue3")
    kinds = [("SAME_UPPER", 1), ("SAME_LOWER", 1), ("SAME_UPPER", 2), ("SAME_LOWER", 2)]
    return [
        *(
            case(f"parallel/{name}/{dtype}", partial(build, dtype), 0)
            for name, (build, _) in BLOCKS.items()
            for dtype in ("fp32", "fp16", "bf16", "fp64")
        ),
        case("parallel/dilated", dilated, foldable=False),
        case("parallel/strided", strided, foldable=False),
        *(
            case(f"parallel/auto_pad/{k}/{s}", partial(same_padding, k, s), foldable=False)
            for k, s in kinds
        ),
        *(
            case(f"parallel/residual/{op}", partial(with_a_residual, op), 0)
            for op in ("Add", "Sub")
        ),
        case("parallel/result", sum_is_the_result, foldable=False),
        *(case(f"parallel/sites/{rank}", partial(sites, rank)) for rank in (2, 3, 4)),
        *(case(f"parallel/products/{rank}", partial(products, rank)) for rank in (2, 3)),
        case("parallel/in_a_branch", in_a_branch, 0),
        case("parallel/border_shift", border_shift),
        case("parallel/broadcast", broadcast_term),
        case("parallel/cancels", cancels, foldable=False),
    ]
