"""Maps far from a weight: attention, LayerScale, shared values, several ways out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import onnx

from tests.battery.graphs import Case, Net, apply, folds, stays

D, HEADS, WIDTH = 8, 2, 4
TOKENS = 5


def _linear(net: Net, x: str, c_in: int, c_out: int, *, bias: bool = True) -> str:
    y = net.node("MatMul", [x, net.const(net.weight(c_in, c_out))])
    return net.node("Add", [y, net.const(net.shift(c_out))]) if bias else y


def _heads(net: Net, x: str, *, transposed: bool = False) -> str:
    """[N, T, D] → [N, H, T, W], or [N, H, W, T]."""
    y = net.node("Reshape", [x, net.ints(0, TOKENS, HEADS, WIDTH)])
    return net.node("Transpose", [y], perm=[0, 2, 3, 1] if transposed else [0, 2, 1, 3])


def _scalar(net: Net, x: str, op: str = "Mul") -> str:
    value = WIDTH**-0.5 if op == "Mul" else WIDTH**0.5
    return net.node(op, [x, net.const(value)])


def _attend(net: Net, q: str, k: str, v: str, scale: str) -> str:
    """Softmax(q · kᵀ) · v with the scale on q, on k, on both or on the scores."""
    q = _scalar(net, q) if scale in ("q", "both") else q
    k = _scalar(net, k) if scale in ("k", "both") else k
    scores = net.node("MatMul", [q, k])
    if scale in ("scores", "scores_div"):
        scores = _scalar(net, scores, "Div" if scale == "scores_div" else "Mul")
    return net.node("MatMul", [net.node("Softmax", [scores], axis=-1), v])


def separate_projections(scale: str, *, bias: bool = True) -> onnx.ModelProto:
    net = Net(f"attention{scale}{bias}")
    x = net.node("Tanh", [net.input(["N", TOKENS, D])])
    q, k, v = (_linear(net, x, D, D, bias=bias) for _ in range(3))
    y = _attend(net, _heads(net, q), _heads(net, k, transposed=True), _heads(net, v), scale)
    net.output(y)
    return net.model()


def fused_projection(cut: str, scale: str) -> onnx.ModelProto:
    """One projection to q, k and v, cut by Split, Gather or Slice behind a Transpose."""
    net = Net(f"fused{cut}{scale}")
    x = net.node("Tanh", [net.input([2, TOKENS, D])])
    y = _linear(net, x, D, 3 * D)
    y = net.node("Reshape", [y, net.ints(2, TOKENS, 3, HEADS, WIDTH)])
    y = net.node("Transpose", [y], perm=[2, 0, 3, 1, 4])
    parts: Sequence[str]
    if cut == "Gather":
        parts = [
            net.node("Gather", [y, net.const(np.asarray(i), dtype="int64")], axis=0)
            for i in range(3)
        ]
    elif cut == "Sequence":
        sequence = net.node("SplitToSequence", [y, net.ints(1, 1, 1)], axis=0)
        places = [net.const(np.asarray(i), dtype="int64") for i in (0, 1, -1)]
        pieces = [net.node("SequenceAt", [sequence, place]) for place in places]
        parts = [net.node("Squeeze", [p, net.ints(0)]) for p in pieces]
    elif cut == "Split":
        split = net.nodes_out(
            "Split", [y], [net.fresh("p") for _ in range(3)], "", {"axis": 0}
        )
        parts = [net.node("Squeeze", [p, net.ints(0)]) for p in split]
    else:
        pieces = [
            net.node("Slice", [y, net.ints(i), net.ints(i + 1), net.ints(0)]) for i in range(3)
        ]
        parts = [net.node("Squeeze", [p, net.ints(0)]) for p in pieces]
    q, k, v = parts
    k = net.node("Transpose", [k], perm=[0, 1, 3, 2])
    net.output(_attend(net, q, k, v, scale))
    return net.model()


def layer_scale(kind: str) -> onnx.ModelProto:
    """x + γ · f(x) behind Gemm-like layers: DINOv2, CaiT, ConvNeXt."""
    net = Net(f"layer_scale{kind}")
    if kind == "convnext":  # pointwise layers as MatMul over the last axis, γ on channels
        x = net.node("Tanh", [net.input(["N", 4, 4, D])])
        y = net.node("Relu", [_linear(net, x, D, 2 * D)])
        y = net.node("Mul", [net.const(net.scale(D)), _linear(net, y, 2 * D, D)])
        y = net.node("Transpose", [y], perm=[0, 3, 1, 2])
        x = net.node("Transpose", [x], perm=[0, 3, 1, 2])
    elif kind == "conv":
        x = net.node("Tanh", [net.input(["N", D, 4, 4])])
        y = net.mul(net.conv(x, D, D, kernel=(1, 1)), D)
    else:
        x = net.node("Tanh", [net.input(["N", TOKENS, D])])
        y = net.node("Mul", [_linear(net, x, D, D), net.const(net.scale(D))])
    net.output(net.node("Add", [x, y]))
    return net.model()


def levit(source: str, *, by_shape: bool = False) -> onnx.ModelProto:
    """MatMul of rank 3 → Reshape to [N·T, D] → BatchNormalization → Reshape back."""
    net = Net(f"levit{source}{by_shape}")
    x = net.node("Tanh", [net.input([2, TOKENS, D])])
    y = _linear(net, x, D, D, bias=False)
    shape = net.node("Shape", [y]) if by_shape else net.ints(2, TOKENS, D)
    y = net.node("Flatten", [y], axis=2) if by_shape else y
    y = net.node("Reshape", [y, net.ints(2 * TOKENS, D)]) if not by_shape else y
    y = apply(net, source, y, D, 2)
    y = net.node("Relu", [net.node("Reshape", [y, shape])])
    net.output(y)
    return net.model()


def deep_operand(where: str) -> onnx.ModelProto:
    """A sum of sums: the shift has to find the one convolution at the bottom."""
    net = Net(f"deep{where}")
    x = net.input(["N", 6, 6, 4])
    leaves = [net.node(op, [x]) for op in ("Tanh", "Sigmoid", "Softplus")]
    place = {"first": 0, "middle": 1, "last": 2}[where]
    leaves.insert(place, net.conv(x, 6, 6, pads=[1] * 4))
    while len(leaves) > 1:
        leaves = [net.node("Add", leaves[:2]), *leaves[2:]]
    net.output(net.node("Add", [leaves[0], net.const(net.shift(6).reshape(-1, 1, 1))]))
    return net.model()


def adjusted_reader(reader: Callable[[Net, str], str], source: str) -> onnx.ModelProto:
    """A convolution read by the map and by another layer that can undo a scale."""
    net = Net(f"adjusted{source}")
    y = net.conv(net.input(["N", 4, 6, 6]), 4, 6)
    net.output(net.node("Tanh", [apply(net, source, y, 6)]), reader(net, y))
    return net.model()


def _padded(net: Net, y: str) -> str:
    return net.conv(y, 6, 3, pads=[1] * 4)


def _gate(net: Net, y: str) -> str:
    return net.node("Sigmoid", [y])


def cut_channels(source: str, *, overlap: bool) -> onnx.ModelProto:
    """The map reads some channels of a convolution; another reader only others."""
    net = Net(f"cut{source}{overlap}")
    y = net.conv(net.input(["N", 4, 6, 6]), 4, 6)
    a = net.node("Slice", [y, net.ints(0), net.ints(3), net.ints(1)])
    b = net.node("Slice", [y, net.ints(2 if overlap else 3), net.ints(6), net.ints(1)])
    net.output(apply(net, source, a, 3), net.node("Sigmoid", [b]))
    return net.model()


def meeting(op: str, *, equal: bool = True) -> onnx.ModelProto:
    """s·a + s·b = s·(a + b): two maps leave together, or not at all."""
    net = Net(f"meeting{op}{equal}")
    x = net.input(["N", 6, 6, 6])
    scale = np.abs(net.scale(6)).reshape(-1, 1, 1)
    other = scale if equal else scale + 0.5
    a = net.node("Mul", [net.node("Tanh", [x]), net.const(scale)])
    b = net.node("Mul", [net.node("Sigmoid", [x]), net.const(other)])
    if op == "Where":
        y = net.node(op, [net.input([1, 1, 6, 6], "mask", "bool"), a, b])
    else:
        y = net.node(op, [a, b])
    net.output(net.conv(y, 6, 3, pads=[1] * 4))
    return net.model()


def equal_readers(count: int, source: str) -> onnx.ModelProto:
    """All readers of a convolution apply the same map."""
    net = Net(f"equal{count}{source}")
    y = net.conv(net.input(["N", 4, 6, 6]), 4, 6)
    scale = net.const(net.scale(6).reshape(-1, 1, 1))
    ops = ("Tanh", "Sigmoid", "Softplus", "Abs")
    for op in ops[:count]:
        net.output(net.node(op, [net.node("Mul", [y, scale])]))
    return net.model()


def _attention_cases() -> list[Case]:
    scales = {"q": 0, "k": 0, "both": 0, "scores": 0, "scores_div": 0}
    return [
        *(
            folds(f"paths/attention/{s}", partial(separate_projections, s), 3, scope="issue3")
            for s in scales
        ),
        *(
            folds(
                f"paths/attention/{s}/no_bias",
                partial(separate_projections, s, bias=False),
                0,
                scope="issue3",
            )
            for s in scales
        ),
        *(
            folds(f"paths/qkv/{cut}/{s}", partial(fused_projection, cut, s), 1, scope="issue3")
            for cut in ("Split", "Gather", "Slice", "Sequence")
            for s in ("q", "k", "both", "scores")
        ),
    ]


def cases() -> list[Case]:
    return [
        *_attention_cases(),
        *(
            folds(
                f"paths/layer_scale/{kind}", partial(layer_scale, kind), None, scope="issue3"
            )
            for kind in ("tokens", "conv", "convnext")
        ),
        *(
            folds(f"paths/levit/{s}", partial(levit, s), None, scope="issue3")
            for s in ("mul", "bn")
        ),
        folds("paths/levit/shape", partial(levit, "bn", by_shape=True), 0, scope="issue3"),
        *(
            folds(f"paths/sum/{where}", partial(deep_operand, where), 0, scope="issue3")
            for where in ("first", "middle", "last")
        ),
        *(
            folds(f"paths/cut/{s}", partial(cut_channels, s, overlap=False), 0, scope="issue3")
            for s in ("bn", "mul_add")
        ),
        stays("paths/cut/overlap", partial(cut_channels, "bn", overlap=True)),
        *(
            folds(f"paths/meeting/{op}", partial(meeting, op), 0, scope="issue3")
            for op in ("Add", "Sub", "Max", "Where")
        ),
        *(
            stays(f"paths/meeting/{op}/differ", partial(meeting, op, equal=False))
            for op in ("Add", "Max", "Where")
        ),
        *(
            folds(f"paths/equal/{n}", partial(equal_readers, n, "mul"), 0, scope="issue3")
            for n in (2, 3, 4)
        ),
        folds(
            "paths/adjusted/conv", partial(adjusted_reader, _padded, "mul"), 0, scope="issue3"
        ),
        stays("paths/adjusted/gate", partial(adjusted_reader, _gate, "mul")),
        stays("paths/adjusted/shift", partial(adjusted_reader, _padded, "add")),
    ]
