"""Maps of a few channels on their way through operators that make billions of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper

from tests.attacks.bombs import model_of, sizes, tensor

Model = onnx.ModelProto
FAR = 1 << 28


def _scaled(rank: int = 4, channels: int = 4) -> tuple[onnx.NodeProto, onnx.TensorProto]:
    shape = [1] * rank
    shape[1] = channels
    scale = tensor(np.linspace(0.5, 2.0, channels).reshape(shape), "scale")
    return helper.make_node("Mul", ["x", "scale"], ["m"], name="site"), scale


def behind(op: str, stored: list[onnx.TensorProto], x=(1, 4, 8, 8), **attributes) -> Model:
    """x → Mul by a scale → an operator → Relu → y."""
    site, scale = _scaled(len(x), x[1])
    inputs = ["m", *(one.name for one in stored)]
    node = helper.make_node(op, inputs, ["t"], **attributes)
    end = helper.make_node("Relu", ["t"], ["y"])
    return model_of([site, node, end], [scale, *stored], x=x)


def before(
    op: str, stored: list[onnx.TensorProto], scale: np.ndarray, x, **attributes
) -> Model:
    """x → an operator → Mul by a scale → y."""
    node = helper.make_node(op, ["x", *(one.name for one in stored)], ["t"], **attributes)
    site = helper.make_node("Mul", ["t", "scale"], ["y"], name="site")
    return model_of([node, site], [tensor(scale, "scale"), *stored], x=x)


def pair_of_convolutions(dilation: int, taps: int = 3) -> Model:
    """Two branches that would be one convolution, whose taps are far from each other."""
    rng = np.random.default_rng(0)
    w, v = rng.normal(size=(4, 4, taps, taps)), rng.normal(size=(4, 4, 1, 1))
    pad = dilation * (taps // 2)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], dilations=[dilation] * 2, pads=[pad] * 4),
        helper.make_node("Conv", ["x", "v"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    return model_of(nodes, [tensor(w, "w"), tensor(v, "v")], x=(1, 4, 8, 8))


def grouped(channels: int) -> Model:
    """Depthwise branches: as dense matrices they are channels² numbers."""
    rng = np.random.default_rng(0)
    stored = [
        tensor(rng.normal(size=(channels, 1, 1, 1)), "w"),
        tensor(rng.normal(size=(channels, 1, 1, 1)), "v"),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], group=channels),
        helper.make_node("Conv", ["a", "v"], ["y"], group=channels),
    ]
    return model_of(nodes, stored, x=(1, channels, 2, 2))


def declared(*dims: int) -> Model:
    """An input of an enormous size, and a map of it."""
    site = helper.make_node("Mul", ["x", "scale"], ["m"], name="site")
    layer = helper.make_node("Conv", ["m", "w"], ["y"])
    w = np.random.default_rng(0).normal(size=(2, 4, 1, 1))
    scale = tensor(np.linspace(0.5, 2, 4).reshape(1, 4, 1, 1), "scale")
    return model_of([site, layer], [scale, tensor(w, "w")], x=dims)


def ALL() -> dict[str, Callable[[], Model]]:  # noqa: N802  a table
    four = np.linspace(0.5, 2, 4).reshape(1, 4, 1, 1)
    return {
        "tile_channels": lambda: behind("Tile", [sizes(1, FAR, 1, 1)]),
        "tile_all": lambda: behind("Tile", [sizes(FAR, FAR, FAR, FAR)]),
        "flatten": lambda: behind("Flatten", [], x=(1, 4, 1 << 16, 1 << 16)),
        "reshape": lambda: behind("Reshape", [sizes(1, -1)], x=(1, 4, 1 << 16, 1 << 16)),
        "reshape_back": lambda: behind("Reshape", [sizes(1, -1, 2, 2)], x=(1, 4, 1 << 20, 4)),
        "depth_to_space": lambda: behind(
            "DepthToSpace", [], x=(1, 4, 8, 8), blocksize=1 << 20
        ),
        "space_to_depth": lambda: behind(
            "SpaceToDepth", [], x=(1, 4, 1 << 20, 1 << 20), blocksize=1 << 16
        ),
        "pad_channels": lambda: behind("Pad", [sizes(0, FAR, 0, 0, 0, FAR, 0, 0)]),
        "pad_edge": lambda: behind("Pad", [sizes(0, FAR, 0, 0, 0, FAR, 0, 0)], mode="edge"),
        "pad_wrap": lambda: behind("Pad", [sizes(0, FAR, 0, 0, 0, FAR, 0, 0)], mode="wrap"),
        "expand": lambda: behind("Expand", [sizes(FAR, 4, 8, 8)]),
        "resize_channels": lambda: behind(
            "Resize", [tensor([], "roi"), tensor([1, FAR, 1, 1], "scales")], mode="nearest"
        ),
        "upsample": lambda: behind("Upsample", [tensor([1, FAR, 1, 1], "scales")]),
        "slice_far": lambda: behind(
            "Slice",
            [sizes(0, name="starts"), sizes(1 << 62, name="ends"), sizes(1, name="axes")],
        ),
        "gather_back": lambda: before(
            "Gather", [sizes(0, 1, 2, 3)], four, x=(1, 1 << 40, 8, 8), axis=1
        ),
        "slice_back": lambda: before(
            "Slice",
            [sizes(0, name="starts"), sizes(4, name="ends"), sizes(1, name="axes")],
            four,
            x=(1, 1 << 40, 8, 8),
        ),
        "split_back": lambda: before("Split", [], four, x=(1, 1 << 33, 8, 8), axis=1),
        "global_pool": lambda: behind("GlobalAveragePool", [], x=(1, 4, 1 << 30, 1 << 30)),
        "group_norm": lambda: behind("LpNormalization", [], x=(1, 4, 1 << 30, 8)),
        "max_pool": lambda: behind(
            "MaxPool", [], x=(1, 4, 8, 8), kernel_shape=[1 << 30, 1 << 30], pads=[1 << 29] * 4
        ),
        "average_pool": lambda: behind(
            "AveragePool", [], x=(1, 4, 8, 8), kernel_shape=[1 << 20] * 2, pads=[1 << 19] * 4
        ),
        "conv_pads": lambda: _padded(),
        "dilated_pair": lambda: pair_of_convolutions(1 << 28),
        "dilated_pair_even": lambda: pair_of_convolutions(1 << 14),
        "grouped": lambda: grouped(2048),
        "declared_batch": lambda: declared(1 << 40, 4, 8, 8),
        "declared_image": lambda: declared(1, 4, 1 << 20, 1 << 20),
        "declared_overflow": lambda: declared(1 << 62, 4, 1 << 62, 1 << 62),
        "declared_rank": lambda: _of_rank(80),
        "open_rank": lambda: _of_rank(20, "N"),
    }


def _padded() -> Model:
    model = declared(1, 4, 8, 8)
    model.graph.node[1].attribute.append(helper.make_attribute("pads", [1 << 28] * 4))
    return model


def _of_rank(rank: int, size: int | str = 1) -> Model:
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["m"], name="site"),
        helper.make_node("Mul", ["m", "two"], ["y"], name="other"),
    ]
    return model_of(nodes, [tensor([2.0], "two")], x=[size] * rank)
