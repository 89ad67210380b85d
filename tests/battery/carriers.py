"""A layout operator between the source and the layer that takes it, both ways round."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import onnx
from onnx import TensorProto

from tests.battery.graphs import Case, Net, apply, folds, stays

FLOAT = TensorProto.FLOAT
# each takes (net, value [N, 4 or 6, H, W]) and leaves the channel on axis 1 of a rank 4 value
Carrier = Callable[[Net, str], str]


def _transpose_back(net: Net, x: str) -> str:
    return net.node(
        "Transpose", [net.node("Transpose", [x], perm=[0, 2, 3, 1])], perm=[0, 3, 1, 2]
    )


def _unsqueeze_squeeze(net: Net, x: str) -> str:
    x = net.node("Unsqueeze", [x, net.ints(1)])
    return net.node("Squeeze", [x, net.ints(1)])


def _cast_up_and_down(net: Net, x: str) -> str:
    x = net.node("Cast", [x], to=TensorProto.DOUBLE)
    return net.node("Cast", [x], to=FLOAT)


def _dropout(net: Net, x: str) -> str:
    return net.node("Dropout", [x])


def _dropout_ratio(net: Net, x: str) -> str:
    return net.node("Dropout", [x, net.const(0.4)])


def _dropout_false(net: Net, x: str) -> str:
    return net.node("Dropout", [x, net.const(0.4), net.const(False, dtype="bool")])  # noqa: FBT003 - a tensor


def _reshape_there_and_back(net: Net, x: str) -> str:
    x = net.node("Reshape", [x, net.ints(0, 0, -1)])
    return net.node("Reshape", [x, net.ints(0, 0, 6, 4)])


CARRIERS: Final[dict[str, Carrier]] = {
    "identity": lambda net, x: net.node("Identity", [x]),
    "dropout": _dropout,
    "dropout_ratio": _dropout_ratio,
    "dropout_false": _dropout_false,
    "cast": _cast_up_and_down,
    "transpose": _transpose_back,
    "transpose_hw": lambda net, x: net.node("Transpose", [x], perm=[0, 1, 3, 2]),
    "unsqueeze_squeeze": _unsqueeze_squeeze,
    "reshape": _reshape_there_and_back,
    "two": lambda net, x: net.node("Identity", [net.node("Dropout", [x])]),
}


def up(carrier: str, source: str) -> onnx.ModelProto:
    """Conv → carrier → source."""
    net = Net(f"{carrier}{source}up")
    y = net.conv(net.input(["N", 4, 6, 4]), 4, 6, pads=[1, 1, 1, 1])
    net.output(apply(net, source, CARRIERS[carrier](net, y), 6))
    return net.model()


def down(carrier: str, source: str) -> onnx.ModelProto:
    """Source → carrier → conv."""
    net = Net(f"{carrier}{source}down")
    y = apply(net, source, net.input(["N", 4, 6, 4]), 4)
    net.output(net.conv(CARRIERS[carrier](net, y), 4, 6))
    return net.model()


def channels_last(source: str) -> onnx.ModelProto:
    """Conv → Transpose to NHWC → a map along the last axis."""
    net = Net(f"{source}nhwc")
    y = net.conv(net.input(["N", 4, 6, 6]), 4, 6, pads=[1, 1, 1, 1])
    y = net.node("Transpose", [y], perm=[0, 2, 3, 1])
    net.output(apply(net, source, y, 6, 4, 3))
    return net.model()


def channels_last_wrong_axis() -> onnx.ModelProto:
    """All sizes equal, the map lies along the height."""
    net = Net("wrong_axis")
    y = net.conv(net.input(["N", 4, 6, 6]), 4, 6, pads=[1, 1, 1, 1])
    y = net.node("Transpose", [y], perm=[0, 2, 3, 1])
    net.output(apply(net, "mul", y, 6, 4, 1))
    return net.model()


def default_perm(axis: int) -> onnx.ModelProto:
    """Transpose without perm reverses the axes; every size is equal."""
    net = Net(f"default_perm{axis}")
    w = net.const(net.weight(4, 6))
    y = net.node("Transpose", [net.node("Gemm", [net.input([6, 4]), w])])
    net.output(apply(net, "mul", y, 6, 2, axis))
    return net.model()


def flatten_to_gemm(source: str, axis: int = 1, trans_b: int = 0) -> onnx.ModelProto:
    """Channels merge with pixels: every channel becomes H·W rows of the weight."""
    net = Net(f"{source}{axis}flatten")
    y = apply(net, source, net.input(["N", 3, 2, 4]), 3)
    y = net.node("Flatten", [y], axis=axis)
    w = net.weight(5, 24) if trans_b else net.weight(24, 5)
    net.output(net.node("Gemm", [y, net.const(w), net.const(net.shift(5))], transB=trans_b))
    return net.model()


def reshape_to_gemm(source: str, shape: tuple[int, ...]) -> onnx.ModelProto:
    net = Net(f"{source}{shape}to_gemm")
    y = apply(net, source, net.input(["N", 3, 2, 4]), 3)
    y = net.node("Reshape", [y, net.ints(*shape)])
    net.output(net.node("Gemm", [y, net.const(net.weight(24, 5)), net.const(net.shift(5))]))
    return net.model()


def nhwc_flatten(source: str) -> onnx.ModelProto:
    net = Net(f"{source}nhwc_flatten")
    y = apply(net, source, net.input(["N", 3, 2, 4]), 3)
    y = net.node("Flatten", [net.node("Transpose", [y], perm=[0, 2, 3, 1])])
    net.output(net.node("Gemm", [y, net.const(net.weight(24, 5)), net.const(net.shift(5))]))
    return net.model()


def gemm_reshape_bn(source: str, shape: tuple[int, ...], rank: int) -> onnx.ModelProto:
    """Gemm → Reshape to [N, C, …] → source: a channel is several columns of the weight."""
    net = Net(f"{source}{shape}gemm_reshape")
    x = net.input(["N", 4])
    y = net.node("Gemm", [x, net.const(net.weight(4, 24)), net.const(net.shift(24))])
    y = net.node("Reshape", [y, net.ints(*shape)])
    net.output(apply(net, source, y, 6, rank))
    return net.model()


def gemm_bn1d(source: str) -> onnx.ModelProto:
    """Gemm → Unsqueeze → source → Squeeze → Gemm."""
    net = Net(f"{source}bn1d")
    y = net.node("Gemm", [net.input(["N", 4]), net.const(net.weight(4, 6))])
    y = net.node("Unsqueeze", [y, net.ints(2)])
    net.output(net.node("Squeeze", [apply(net, source, y, 6, 3), net.ints(2)]))
    return net.model()


def matmul_transpose_bn() -> onnx.ModelProto:
    """[N, T, C] → MatMul + Add → [N, C, T] → BatchNormalization → back."""
    net = Net("matmul_transpose_bn")
    y = net.node("MatMul", [net.input(["N", 3, 4]), net.const(net.weight(4, 6))])
    y = net.node("Transpose", [net.add(y, 6, 3, 2)], perm=[0, 2, 1])
    net.output(net.node("Transpose", [net.bn(y, 6)], perm=[0, 2, 1]))
    return net.model()


def matmul_reshape_bn() -> onnx.ModelProto:
    """[N, T, C] → MatMul → [N·T, C] → BatchNormalization → [N, T, C] (LeViT)."""
    net = Net("matmul_reshape_bn")
    y = net.node("MatMul", [net.input(["N", 3, 4]), net.const(net.weight(4, 6))])
    y = net.add(y, 6, 3, 2)
    y = net.node("Reshape", [y, net.ints(-1, 6)])
    net.output(net.node("Reshape", [net.bn(y, 6), net.ints(-1, 3, 6)]))
    return net.model()


def pixels_to_rows(source: str) -> onnx.ModelProto:
    """[N, C, H, W] → [N, C, H·W] → [N, H·W, C] → MatMul + Add."""
    net = Net(f"{source}patches")
    y = apply(net, source, net.input(["N", 4, 3, 2]), 4)
    y = net.node("Reshape", [y, net.ints(0, 4, 6)])
    y = net.node("Transpose", [y], perm=[0, 2, 1])
    y = net.node("MatMul", [y, net.const(net.weight(4, 5))])
    net.output(net.add(y, 5, 3, 2))
    return net.model()


def cast_between_types(
    first: str, second: str, source: str, *, below: bool
) -> onnx.ModelProto:
    """Conv in one type → Cast → source in the other, or the other way round."""
    net = Net(f"{first}{second}{source}{below}cast", 17, first)
    y = net.input(["N", 4, 6, 4])
    y = net.conv(y, 4, 6) if below else apply(net, source, y, 4)
    y = net.node("Cast", [y], to={"fp16": 10, "fp32": 1, "fp64": 11}[second])
    net.dtype = net.param = second
    net.output(apply(net, source, y, 6) if below else net.conv(y, 4, 6))
    return net.model()


def cast_to_integer() -> onnx.ModelProto:
    """A Cast through integers rounds: nothing may pass."""
    net = Net("cast_int")
    y = net.conv(net.input(["N", 4, 6, 4]), 4, 6)
    y = net.node("Cast", [net.node("Cast", [y], to=TensorProto.INT32)], to=FLOAT)
    net.output(net.bn(y, 6))
    return net.model()


def channel_shuffle() -> onnx.ModelProto:
    """Reshape → Transpose → Reshape permutes channels: a map may pass permuted or stay."""
    net = Net("shuffle")
    y = net.conv(net.input(["N", 4, 6, 4]), 4, 6)
    y = net.node("Reshape", [y, net.ints(0, 2, 3, 4, 2)])
    y = net.node("Transpose", [y], perm=[0, 2, 1, 3, 4])
    y = net.node("Reshape", [y, net.ints(0, 6, 4, 2)])
    net.output(net.bn(y, 6))
    return net.model()


def split_channels() -> onnx.ModelProto:
    """[N, 6, H, W] → [N, 2, 3, H, W] → one scale per group of three."""
    net = Net("split_channels")
    y = net.conv(net.input(["N", 4, 6, 4]), 4, 6)
    y = net.node("Reshape", [y, net.ints(0, 2, 3, 4, 2)])
    net.output(apply(net, "mul", y, 2, 5, 1))
    return net.model()


def mixing_reshape() -> onnx.ModelProto:
    """[N, 6, 4, 2] → [N, 4, 6, 2]: every new channel holds pieces of several."""
    net = Net("mixing")
    y = net.conv(net.input(["N", 4, 6, 4]), 4, 6)
    y = net.node("Reshape", [y, net.ints(0, 4, 6, 2)])
    net.output(net.bn(y, 4))
    return net.model()


def batch_merging_reshape() -> onnx.ModelProto:
    """[N, 6, 4, 2] → [N·6, 4, 2]: channels merge with an unknown batch."""
    net = Net("merging")
    y = net.conv(net.input(["N", 4, 6, 4]), 4, 6)
    y = net.node("Reshape", [y, net.ints(-1, 4, 2)])
    net.output(net.bn(y, 4))
    return net.model()


def computed_reshape() -> onnx.ModelProto:
    """The target comes from Shape and Concat, as exporters write it."""
    net = Net("computed_reshape")
    x = net.input(["N", 4, 6, 4])
    y = net.conv(x, 4, 6)
    n = net.node("Gather", [net.node("Shape", [x]), net.const(0, dtype="int64")], axis=0)
    n = net.node("Unsqueeze", [n, net.ints(0)])
    shape = net.node("Concat", [n, net.ints(6, 8)], axis=0)
    net.output(net.bn(net.node("Reshape", [y, shape]), 6))
    return net.model()


def squeeze_all(source: str) -> onnx.ModelProto:
    """Global pooling by a full-size conv, then Squeeze without axes on a static shape."""
    net = Net(f"{source}squeeze_all")
    y = net.conv(net.input([2, 4, 3, 3]), 4, 6)
    y = net.node("Squeeze", [y])
    net.output(apply(net, source, y, 6, 2))
    return net.model()


def old_squeeze() -> onnx.ModelProto:
    """Axes as an attribute (opset 11), negative."""
    net = Net("old_squeeze", 11)
    y = net.conv(net.input(["N", 4, 3, 3]), 4, 6)
    y = net.node("Squeeze", [y], axes=[-2, -1])
    y = net.bn(y, 6)
    y = net.node("Unsqueeze", [y], axes=[2, 3])
    net.output(net.conv(y, 6, 4, kernel=(1, 1)))
    return net.model()


def dropout_in_training() -> onnx.ModelProto:
    """training_mode is an input that says true: random, so it must stay as it is."""
    net = Net("dropout_training")
    y = net.conv(net.input(["N", 4, 6, 4]), 4, 6)
    flag = net.const(True, "flag", "bool")  # noqa: FBT003 - a tensor
    y = net.node("Dropout", [y, net.const(0.4), flag], seed=3)
    net.output(net.bn(y, 6))
    return net.model()


def dropout_mask_read() -> onnx.ModelProto:
    """The mask is a result of the model too."""
    net = Net("mask")
    y = net.conv(net.input(["N", 4, 6, 4]), 4, 6)
    y, mask = net.nodes_out("Dropout", [y], ["dropped", "mask"])
    net.output(net.bn(y, 6), mask)
    return net.model()


def dropout_opset(opset: int) -> onnx.ModelProto:
    net = Net(f"dropout{opset}", opset)
    y = net.conv(net.input(["N", 4, 6, 4]), 4, 6)
    net.output(net.bn(net.node("Dropout", [y], ratio=0.3), 6))
    return net.model()


def fan_out(*, agree: bool) -> onnx.ModelProto:
    """One source read by two convs: it goes down only into both."""
    net = Net(f"fan_out{agree}")
    y = net.bn(net.input(["N", 4, 6, 4]), 4)
    other = net.conv(y, 4, 3) if agree else net.node("Relu", [y])
    net.output(net.conv(y, 4, 6), other)
    return net.model()


def _layout_cases() -> list[Case]:
    return [
        *(
            folds(f"carriers/flatten_gemm/{s}", partial(flatten_to_gemm, s), 0)
            for s in ("bn", "mul", "sub_mul_add", "scalar_add")
        ),
        folds("carriers/flatten_gemm/trans_b", partial(flatten_to_gemm, "bn", 1, 1), 0),
        folds("carriers/flatten_gemm/axis_-3", partial(flatten_to_gemm, "bn", -3), 0),
        *(
            folds(f"carriers/reshape_gemm/{i}", partial(reshape_to_gemm, "bn", shape), 0)
            for i, shape in enumerate([(0, -1), (-1, 24), (0, 24)])
        ),
        folds("carriers/nhwc_flatten/bn", partial(nhwc_flatten, "bn"), 0),
        folds("carriers/nhwc_flatten/mul", partial(nhwc_flatten, "mul"), 0),
        *(
            folds(
                f"carriers/gemm_reshape/{s}/{i}",
                partial(gemm_reshape_bn, s, shape, len(shape)),
                0,
            )
            for s in ("bn", "mul_add")
            for i, shape in enumerate([(-1, 6, 4), (0, 6, 2, 2), (-1, 6, 2, 2)])
        ),
        folds("carriers/gemm_bn1d/bn", partial(gemm_bn1d, "bn"), 0),
        folds("carriers/gemm_bn1d/mul", partial(gemm_bn1d, "mul"), 0),
        folds("carriers/matmul_transpose_bn", matmul_transpose_bn, 1),
        folds("carriers/matmul_reshape_bn", matmul_reshape_bn, 1),
        folds("carriers/pixels_to_rows/bn", partial(pixels_to_rows, "bn"), 1),
        folds("carriers/pixels_to_rows/mul", partial(pixels_to_rows, "mul"), 1),
        folds("carriers/shuffle", channel_shuffle, None, scope="issue3"),
        folds("carriers/split_channels", split_channels, None),
        stays("carriers/mixing", mixing_reshape, 1, "channels mix"),
        stays("carriers/merging", batch_merging_reshape, 1),
        folds("carriers/computed_reshape", computed_reshape, None),
        folds("carriers/squeeze_all/mul_add", partial(squeeze_all, "mul_add"), 0),
        folds("carriers/squeeze_all/bn", partial(squeeze_all, "bn"), 0),
        folds("carriers/old_squeeze", old_squeeze, 0),
    ]


def _cast_cases() -> list[Case]:
    return [
        folds(
            f"carriers/cast/{a}_{b}/{s}/{'below' if below else 'above'}",
            partial(cast_between_types, a, b, s, below=below),
            0,
        )
        for a, b in (("fp16", "fp32"), ("fp32", "fp16"), ("fp32", "fp64"))
        for s in ("bn", "mul")
        for below in (True, False)
    ]


def cases() -> list[Case]:
    return [
        *(
            folds(f"carriers/up/{k}/{s}", partial(up, k, s), 0)
            for k in CARRIERS
            for s in ("bn", "mul_add")
        ),
        *(
            folds(f"carriers/down/{k}/{s}", partial(down, k, s), 0)
            for k in CARRIERS
            for s in ("bn", "scalar_mul_add")
        ),
        *(
            folds(f"carriers/channels_last/{s}", partial(channels_last, s), 0)
            for s in ("mul", "sub_mul_add", "spelled", "div")
        ),
        stays("carriers/channels_last/wrong_axis", channels_last_wrong_axis, 1),
        folds("carriers/default_perm/columns", partial(default_perm, 0), 0),
        stays("carriers/default_perm/rows", partial(default_perm, 1), 1),
        *_layout_cases(),
        *_cast_cases(),
        stays("carriers/cast_to_integer", cast_to_integer, 1, untouched=True),
        stays(
            "carriers/dropout_in_training",
            dropout_in_training,
            1,
            "random",
            untouched=True,
            ort=False,
        ),
        folds("carriers/dropout_mask", dropout_mask_read, None),
        *(folds(f"carriers/dropout/opset{v}", partial(dropout_opset, v), 0) for v in (7, 10)),
        folds("carriers/fan_out/agree", partial(fan_out, agree=True), 0),
        stays("carriers/fan_out/differ", partial(fan_out, agree=False), 1),
    ]
