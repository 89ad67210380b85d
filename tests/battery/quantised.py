"""Weights stored as integers: maps go into their scales and signs, never into floats."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
from onnx import TensorProto

from tests.battery.graphs import Case, Net, apply, folds, stays

C = 6
KINDS = {
    "int8": (TensorProto.INT8, np.int8, (-127, 127)),
    "uint8": (TensorProto.UINT8, np.uint8, (1, 255)),
    "int16": (TensorProto.INT16, np.int16, (-32767, 32767)),
    "uint16": (TensorProto.UINT16, np.uint16, (1, 65535)),
    "int32": (TensorProto.INT32, np.int32, (-9000, 9000)),
    "int4": (TensorProto.INT4, None, (-7, 7)),
}


def store(net: Net, integers: np.ndarray, kind: str) -> str:
    """An initializer of any integer type."""
    name = net.fresh("q")
    shape = integers.shape
    values = integers.reshape(-1).tolist()
    tensor = onnx.helper.make_tensor(name, KINDS[kind][0], shape, values)
    net.initializers.append(tensor)
    return name


def dequantised(
    net: Net,
    shape: tuple[int, ...],
    kind: str = "int8",
    axis: int | None = None,
    zero: int = 0,
) -> str:
    """A constant weight of that shape: one scale, or one for each slice along ``axis``."""
    low, high = KINDS[kind][2]
    low, high = max(low, 2 * zero - high), min(high, 2 * zero - low)
    integers = net.rng.integers(low, high + 1, shape)
    count = () if axis is None else (shape[axis],)
    step = net.rng.uniform(0.4, 0.9, count) / (high - zero)
    inputs = [store(net, integers, kind), net.const(step)]
    if zero or kind.startswith("u"):
        inputs.append(store(net, np.full(count, zero), kind))
    attributes = {} if axis is None else {"axis": axis}
    return net.node("DequantizeLinear", inputs, **attributes)


def conv(net: Net, x: str, weight: str, bias: str | None = None, **attributes) -> str:
    return net.node("Conv", [x, weight, *([] if bias is None else [bias])], **attributes)


def behind_conv(
    source: str, kind: str = "int8", axis: int | None = None, zero: int = 0, opset: int = 17
) -> onnx.ModelProto:
    net = Net(f"q{source}{kind}{axis}{zero}{opset}", opset)
    x = net.input(["N", 4, 7, 6])
    y = conv(net, x, dequantised(net, (C, 4, 3, 3), kind, axis, zero), net.const(net.shift(C)))
    net.output(apply(net, source, y, C))
    return net.model()


def in_front_of_conv(
    source: str, kind: str = "int8", axis: int | None = None, zero: int = 0
) -> onnx.ModelProto:
    net = Net(f"f{source}{kind}{axis}{zero}")
    x = apply(net, source, net.input(["N", 4, 7, 6]), 4)
    net.output(conv(net, x, dequantised(net, (C, 4, 3, 3), kind, axis, zero)))
    return net.model()


def linear(op: str, source: str, side: str, axis: int | None, *, turned: bool = False):
    """MatMul or Gemm with an integer right factor [5, C]; turned: stored as [C, 5]."""
    net = Net(f"{op}{source}{side}{axis}{turned}")
    x = net.input(["N", 5])
    if side == "below":
        x = apply(net, source, x, 5, 2, 1)
    w = dequantised(net, (C, 5) if turned else (5, C), "int8", axis)
    if turned:
        w = net.node("Transpose", [net.node("Identity", [w])], perm=[1, 0])
    y = net.node(op, [x, w])
    net.output(apply(net, source, y, C, 2, 1) if side == "above" else y)
    return net.model()


def conv_transpose(source: str, side: str, axis: int | None) -> onnx.ModelProto:
    net = Net(f"ct{source}{side}{axis}")
    x = net.input(["N", 4, 5, 6])
    x = apply(net, source, x, 4) if side == "below" else x
    y = net.node("ConvTranspose", [x, dequantised(net, (4, C, 2, 2), "int8", axis)])
    net.output(apply(net, source, y, C) if side == "above" else y)
    return net.model()


def shared(what: str) -> onnx.ModelProto:
    """Two convolutions share a scale, the integers, or all of the weight."""
    net = Net(f"shared{what}")
    x = net.input(["N", 4, 7, 6])
    one = dequantised(net, (C, 4, 3, 3), "int8", 0)
    if what == "all":
        two = one
    else:
        other = dequantised(net, (C, 4, 3, 3), "int8", 0)
        node = next(n for n in net.nodes if n.output[0] == other)
        first = next(n for n in net.nodes if n.output[0] == one)
        place = 0 if what == "integers" else 1
        gone = node.input[place]
        node.input[place] = first.input[place]
        net.initializers = [t for t in net.initializers if t.name != gone]
        two = other
    y = apply(net, "bn", conv(net, x, one), C)
    net.output(y, net.node("Relu", [conv(net, x, two)]))
    return net.model()


def integer_bias(source: str, axis: int | None = None) -> onnx.ModelProto:
    net = Net(f"bias{source}{axis}")
    x = net.input(["N", 4, 7, 6])
    whole = net.rng.integers(-20000, 20000, C)
    step = net.rng.uniform(1e-4, 2e-4, () if axis is None else (C,))
    bias = net.node("DequantizeLinear", [store(net, whole, "int32"), net.const(step)], axis=0)
    y = conv(net, x, dequantised(net, (C, 4, 3, 3), "int8", axis), bias)
    net.output(apply(net, source, y, C))
    return net.model()


def activations(source: str, *, bias: bool, side: str = "above") -> onnx.ModelProto:
    """The whole network is quantised, as a static quantiser leaves it."""
    net = Net(f"qdq{source}{bias}{side}")
    x = net.input(["N", 4, 7, 6])

    def through(value: str, step: float) -> str:
        parts = [net.const(step), store(net, np.array(128), "uint8")]
        value = net.node("QuantizeLinear", [value, *parts])
        return net.node("DequantizeLinear", [value, *parts])

    x = through(x, 0.05)
    x = apply(net, source, x, 4) if side == "below" else x
    whole, step = net.rng.integers(-2000, 2000, C), 0.05 * 0.002
    b = net.node("DequantizeLinear", [store(net, whole, "int32"), net.const(step)])
    w = store(net, net.rng.integers(-127, 128, (C, 4, 3, 3)), "int8")
    w = net.node("DequantizeLinear", [w, net.const(0.002)])
    y = conv(net, x, w, b if bias else None)
    y = apply(net, source, y, C) if side == "above" else y
    net.output(through(y, 0.3))
    return net.model()


def fake_quantised(source: str) -> onnx.ModelProto:
    """A float weight behind QuantizeLinear and DequantizeLinear: what training leaves."""
    net = Net(f"fake{source}")
    x = net.input(["N", 4, 7, 6])
    w = net.weight(C, 4, 3, 3)
    parts = [net.const(np.abs(w).max((1, 2, 3)) / 127), store(net, np.zeros(C, int), "int8")]
    q = net.node("QuantizeLinear", [net.const(w), *parts], axis=0)
    y = conv(net, x, net.node("DequantizeLinear", [q, *parts], axis=0))
    net.output(apply(net, source, y, C))
    return net.model()


def lowest(source: str) -> onnx.ModelProto:
    """An int8 weight with a −128 in every channel has no mirror image."""
    net = Net(f"lowest{source}")
    x = net.input(["N", 4, 7, 6])
    whole = net.rng.integers(-127, 128, (C, 4, 3, 3))
    whole[:, 0, 0, 0] = -128
    step = net.const(net.rng.uniform(0.004, 0.008, C))
    w = net.node("DequantizeLinear", [store(net, whole, "int8"), step], axis=0)
    net.output(apply(net, source, conv(net, x, w), C))
    return net.model()


def table() -> onnx.ModelProto:
    net = Net("table")
    rows = net.input(["N", 5], "rows", "int64")
    y = net.node("Gather", [dequantised(net, (9, C), "int8", 1), rows])
    net.output(net.mul(y, C, 3, 2))
    return net.model()


def block(opset: int = 21) -> onnx.ModelProto:
    net = Net("block", opset, ir=10)
    x = net.input(["N", 4])
    w = store(net, net.rng.integers(-127, 128, (4, C)), "int8")
    step = net.const(net.rng.uniform(0.004, 0.008, (2, C)))
    w = net.node("DequantizeLinear", [w, step], axis=0, block_size=2)
    net.output(net.mul(net.node("MatMul", [x, w]), C, 2, 1))
    return net.model()


def _case(name: str, build, left: int = 0) -> Case:
    return folds(f"quantised/{name}", build, left, scope="issue3")


def _kept(name: str, build, left: int | None = None) -> Case:
    return stays(f"quantised/{name}", build, left, scope="issue3")


def cases() -> list[Case]:
    found = [
        _case(f"behind/{s}/{k}/{a}/{z}", partial(behind_conv, s, k, a, z, o))
        for s in ("bn", "mul", "neg", "scalar_mul_add")
        for k, a, z, o in (
            ("int8", None, 0, 17),
            ("int8", 0, 0, 13),
            ("int8", None, 5, 17),
            ("uint8", 0, 128, 17),
            ("uint8", None, 120, 19),
            ("int16", 0, 0, 21),
            ("uint16", None, 30000, 21),
            ("int32", 0, 0, 17),
            ("int4", 0, 0, 21),
        )
    ]
    found += [
        _case("behind/opset10/scalar", partial(behind_conv, "scalar_mul_add", opset=10)),
        _case("behind/opset10/neg", partial(behind_conv, "neg", opset=10)),
        _kept("behind/opset10/mul", partial(behind_conv, "mul", opset=10), 1),
        _case("front/bn", partial(in_front_of_conv, "bn")),
        _case("front/uniform/per_output", partial(in_front_of_conv, "scalar_mul_add", axis=0)),
        _kept("front/mul/per_output", partial(in_front_of_conv, "mul", axis=0), 1),
        _case("front/mul/per_input", partial(in_front_of_conv, "mul", axis=1)),
    ]
    found += [
        _case(f"{op}/{side}/{a}/{t}", partial(linear, op, "mul_add", side, a, turned=t))
        for op in ("MatMul", "Gemm")
        for side in ("above", "below")
        for t in (False, True)
        for a in (None, (1 if side == "above" else 0) ^ t)
    ]
    found += [
        _case("conv_transpose/above", partial(conv_transpose, "bn", "above", 1)),
        _case("conv_transpose/below", partial(conv_transpose, "mul", "below", 0)),
        *(
            _case(f"shared/{what}", partial(shared, what))
            for what in ("scale", "integers", "all")
        ),
        _case("bias/mul", partial(integer_bias, "mul", 0)),
        _case("bias/scalar_mul", partial(integer_bias, "scalar_mul")),
        _kept("bias/bn", partial(integer_bias, "bn", 0), 1),
        _case("activations/bn", partial(activations, "bn", bias=False)),
        _case("activations/mul", partial(activations, "mul", bias=True)),
        _kept(
            "activations/front/mul", partial(activations, "mul", bias=False, side="below"), 1
        ),
        _case("activations/front/neg", partial(activations, "neg", bias=False, side="below")),
        _kept(
            "activations/front/bias", partial(activations, "neg", bias=True, side="below"), 1
        ),
        _case("fake/bn", partial(fake_quantised, "bn")),
        _case("fake/neg", partial(fake_quantised, "neg")),
        _kept("lowest/mul", partial(lowest, "mul"), 1),
        _kept("lowest/neg", partial(lowest, "neg"), 1),
        _case("table", table),
        _kept("block", block, 1),
    ]
    return found
