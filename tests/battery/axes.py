"""Maps along another axis than the channels, maps that stretch, integers."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
from onnx import TensorProto

from tests.battery.graphs import Case, Net, apply, first_conv, folds, stays

C = 6
FLOAT = TensorProto.FLOAT


def last_axis(c: int, width: int, rank: int = 4) -> onnx.ModelProto:
    """A [C] constant lies along the last axis, not along the channels."""
    net = Net(f"last_axis{c}{width}{rank}")
    y = net.conv(net.input([2, 4, c, width]), 4, c, pads=[1, 1, 1, 1])
    net.output(net.node("Mul", [y, net.const(net.scale(width))]))
    return net.model()


def height_axis(op: str) -> onnx.ModelProto:
    net = Net(f"height{op}")
    y = net.conv(net.input([2, 4, C, C]), 4, C, pads=[1, 1, 1, 1])
    net.output(net.node(op, [y, net.const(net.scale(C).reshape(C, 1))]))
    return net.model()


def batch_axis() -> onnx.ModelProto:
    """[N, 1, 1, 1] with N equal to C."""
    net = Net("batch_axis")
    y = net.conv(net.input([C, 4, 5, 5]), 4, C)
    net.output(net.node("Mul", [y, net.const(net.scale(C).reshape(C, 1, 1, 1))]))
    return net.model()


def two_axes() -> onnx.ModelProto:
    net, y = first_conv("two_axes")
    net.output(net.node("Mul", [y, net.const(net.rng.uniform(0.3, 2, (C, 5, 1)))]))
    return net.model()


def two_axes_that_agree() -> onnx.ModelProto:
    """Written out over the pixels, but the same everywhere: one value per channel."""
    net, y = first_conv("agree")
    k = np.broadcast_to(net.scale(C).reshape(C, 1, 1), (C, 5, 4))
    net.output(net.node("Mul", [y, net.const(k)]))
    return net.model()


def expands_rank() -> onnx.ModelProto:
    """A [1, 1, C, 1, 1] constant makes a rank 5 result."""
    net, y = first_conv("expands_rank")
    net.output(net.node("Mul", [y, net.const(net.scale(C).reshape(1, 1, C, 1, 1))]))
    return net.model()


def expands_size(*, channels: bool) -> onnx.ModelProto:
    """The value has size 1 where the constant has more."""
    net = Net(f"expands_size{channels}")
    c = 1 if channels else C
    y = net.conv(net.input(["N", 4, 7, 3]), 4, c)
    shape = (C, 1, 1) if channels else (1, 4)
    net.output(net.node("Add", [y, net.const(net.rng.uniform(0.3, 2, shape))]))
    return net.model()


def expands_batch() -> onnx.ModelProto:
    net = Net("expands_batch")
    y = net.conv(net.input([1, 4, 7, 6]), 4, C)
    net.output(net.node("Mul", [y, net.const(net.rng.uniform(0.3, 2, (3, 1, 1, 1)))]))
    return net.model()


def unknown_rank() -> onnx.ModelProto:
    """Nobody knows the rank of y: a [6, 1, 1] constant may lie along any axis."""
    net = Net("unknown_rank")
    x, shape = net.input(["N"]), net.input(["R"], "shape", "int64")
    y = net.node("Reshape", [x, shape])
    y = net.node("Mul", [y, net.const(net.scale(C).reshape(C, 1, 1))])
    net.output(net.node("Reshape", [y, net.ints(-1)]), shape=["M"])
    return net.model()


def unknown_spatial(source: str) -> onnx.ModelProto:
    net = Net(f"unknown_spatial{source}")
    y = net.conv(net.input(["N", 4, "H", "W"]), 4, C, pads=[1, 1, 1, 1])
    net.output(apply(net, source, y, C))
    return net.model()


def unknown_input_rank() -> onnx.ModelProto:
    """The rank follows from the conv's weight although x says nothing."""
    net = Net("no_rank")
    x, shape = net.input(["N"]), net.input(["R"], "shape", "int64")
    y = net.bn(net.conv(net.node("Reshape", [x, shape]), 4, C), C)
    net.output(net.node("Reshape", [y, net.ints(-1)]), shape=["M"])
    return net.model()


def with_value_info(source: str) -> onnx.ModelProto:
    net, y = first_conv(f"value_info{source}")
    net.output(net.node("Relu", [apply(net, source, y, C)]))
    return net.model(infer=True)


def unknown_size_meets_one() -> onnx.ModelProto:
    """Width is free: were it 1, the [5] constant would stretch it."""
    net = Net("free_width")
    y = net.conv(net.input(["N", 4, 5, "V"]), 4, 1, kernel=(1, 1))
    net.output(net.node("Mul", [y, net.const(net.scale(5))]))
    return net.model()


def integers(op: str) -> onnx.ModelProto:
    net = Net(f"integers{op}")
    x = net.input(["N", C], "x", "int64")
    k = net.const(np.arange(1, C + 1), dtype="int64")
    y = net.node(op, [net.node(op, [x, k]), k])
    net.output(y)
    return net.model()


def integer_division() -> onnx.ModelProto:
    """(x / 3) * 3 is not x."""
    net = Net("integer_division")
    three = net.const(3, dtype="int32")
    y = net.node("Div", [net.input(["N", C], "x", "int32"), three])
    net.output(net.node("Mul", [y, three]))
    return net.model()


def shape_arithmetic() -> onnx.ModelProto:
    """Integer Mul on a shape next to a fold that is fine."""
    net, y = first_conv("shape_arithmetic")
    y = net.bn(y, C)
    size = net.node("Shape", [y])
    n = net.node("Slice", [size, net.ints(0), net.ints(1)])
    rows = net.node("Mul", [n, net.ints(5)])
    shape = net.node("Concat", [rows, net.ints(-1)], axis=0)
    net.output(net.node("Reshape", [y, shape]))
    return net.model()


def _axis_cases() -> list[Case]:
    fixed = [
        ("last_axis/equal", partial(last_axis, 6, 6)),
        ("last_axis/other", partial(last_axis, 6, 5)),
        ("height/mul", partial(height_axis, "Mul")),
        ("height/add", partial(height_axis, "Add")),
        ("batch", batch_axis),
        ("two_axes", two_axes),
        ("expands_rank", expands_rank),
        ("expands_channels", partial(expands_size, channels=True)),
        ("expands_width", partial(expands_size, channels=False)),
        ("expands_batch", expands_batch),
        ("unknown_rank", unknown_rank),
        ("free_width", unknown_size_meets_one),
    ]
    return [
        *(stays(f"guards/axis/{n}", b, 1, untouched=True) for n, b in fixed),
        folds("guards/axis/agree", two_axes_that_agree, None),
        *(
            folds(f"guards/axis/unknown_spatial/{s}", partial(unknown_spatial, s), 0)
            for s in ("bn", "mul_add", "spelled")
        ),
        folds("guards/axis/unknown_input_rank", unknown_input_rank, 0),
        *(
            folds(f"guards/value_info/{s}", partial(with_value_info, s), 0)
            for s in ("bn", "mul_add")
        ),
        *(
            stays(f"guards/integers/{op}", partial(integers, op), 0, untouched=True)
            for op in ("Mul", "Add", "Sub", "Div")
        ),
        stays("guards/integers/division", integer_division, 0, untouched=True),
        folds("guards/integers/shape", shape_arithmetic, 0),
    ]


def cases() -> list[Case]:
    return [*_axis_cases()]
