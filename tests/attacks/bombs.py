"""Models of a few hundred bytes whose constants, or activations, are enormous."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Model = onnx.ModelProto
Node = onnx.NodeProto
BIG: Final = 1 << 26
HUGE: Final = 1 << 40


def tensor(array: object, name: str, kind: type = np.float32) -> TensorProto:
    return numpy_helper.from_array(np.asarray(array, kind), name)


def sizes(*dims: int, name: str = "sizes") -> TensorProto:
    return tensor(dims, name, np.int64)


def model_of(
    nodes: Sequence[Node],
    stored: Sequence[TensorProto] = (),
    *,
    x: Sequence[int | str] = (1, 3, 8, 8),
    y: Sequence[int | str] | None = None,
    opset: int = 17,
    functions: Sequence[onnx.FunctionProto] = (),
    opsets: Sequence[onnx.OperatorSetIdProto] = (),
    kind: int = TensorProto.FLOAT,
) -> Model:
    """x → … → y with these nodes and tensors."""
    graph = helper.make_graph(
        list(nodes),
        "attack",
        [helper.make_tensor_value_info("x", kind, list(x))],
        [helper.make_tensor_value_info("y", kind, None if y is None else list(y))],
        list(stored),
    )
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset), *opsets],
        ir_version=10,
        functions=list(functions),
    )


def conv(source: str = "x", result: str = "c") -> tuple[list[Node], list[TensorProto]]:
    """A convolution of three channels, which a map behind it may fold into."""
    w = np.random.default_rng(0).normal(size=(3, 3, 3, 3))
    node = helper.make_node("Conv", [source, "w"], [result], name="conv", pads=[1] * 4)
    return [node], [tensor(w, "w")]


def behind_a_conv(
    nodes: Sequence[Node], stored: Sequence[TensorProto], operand: str = "k", op: str = "Mul"
) -> Model:
    """x → Conv → Mul by a constant that ``nodes`` compute → y."""
    layers, weights = conv()
    last = helper.make_node(op, ["c", operand], ["y"], name="site")
    return model_of([*layers, *nodes, last], [*weights, *stored])


def summed(nodes: Sequence[Node], stored: Sequence[TensorProto], name: str = "big") -> Model:
    """The same with the sum of a large constant, which itself is small."""
    to_number = [
        helper.make_node("Cast", [name], [f"{name}_float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", [f"{name}_float"], ["k"], keepdims=0),
    ]
    return behind_a_conv([*nodes, *to_number], stored)


def _one(op: str, inputs: Sequence[str], **attributes: object) -> list[Node]:
    return [helper.make_node(op, list(inputs), ["big"], name="bomb", **attributes)]


def _doubled(op: str, times: int, **attributes: object) -> list[Node]:
    nodes = []
    last = "seed"
    for place in range(times):
        result = "big" if place == times - 1 else f"d{place}"
        nodes.append(helper.make_node(op, [last, last], [result], **attributes))
        last = result
    return nodes


def _constant_bombs() -> dict[str, tuple[list[Node], list[TensorProto]]]:
    n = BIG
    row, column = tensor(np.ones((1, 8192)), "row"), tensor(np.ones((8192, 1)), "column")
    one = tensor([1.0], "one")
    zeros = tensor(np.zeros(8192), "zeros", np.int64)
    return {
        "expand": (_one("Expand", ["one", "sizes"]), [one, sizes(n)]),
        "expand_huge": (_one("Expand", ["one", "sizes"]), [one, sizes(HUGE)]),
        "expand_overflow": (_one("Expand", ["one", "sizes"]), [one, sizes(1 << 62, 1 << 62)]),
        "expand_negative": (_one("Expand", ["one", "sizes"]), [one, sizes(-4, 1 << 30)]),
        "tile": (_one("Tile", ["one", "sizes"]), [one, sizes(n)]),
        "tile_negative": (_one("Tile", ["one", "sizes"]), [one, sizes(-n)]),
        "constant_of_shape": (_one("ConstantOfShape", ["sizes"]), [sizes(n)]),
        "constant_of_shape_zero": (
            _one("ConstantOfShape", ["sizes"]), [sizes(1 << 40, 0, 1 << 40)],
        ),
        "pad": (_one("Pad", ["one", "sizes"]), [one, sizes(0, n)]),
        "pad_edge": (_one("Pad", ["one", "sizes"], mode="edge"), [one, sizes(n, n)]),
        "range": (
            _one("Range", ["start", "limit", "delta"]),
            [tensor(0, "start", np.int64), tensor(n, "limit", np.int64),
             tensor(1, "delta", np.int64)],
        ),
        "range_of_floats": (
            _one("Range", ["start", "limit", "delta"]),
            [tensor(0, "start"), tensor(n / 4, "limit"), tensor(1, "delta")],
        ),
        "add_outer": (_one("Add", ["row", "column"]), [row, column]),
        "where_outer": (
            _one("Where", ["mask", "row", "column"]),
            [row, column, tensor([True], "mask", np.bool_)],
        ),
        "max_outer": (_one("Max", ["row", "column"]), [row, column]),
        "equal_outer": (_one("Equal", ["row", "column"]), [row, column]),
        "matmul_outer": (_one("MatMul", ["column", "row"]), [row, column]),
        "gemm_outer": (
            _one("Gemm", ["row", "row"], transA=1), [row],
        ),
        "einsum_outer": (
            _one("Einsum", ["zr", "zr"], equation="i,j->ij"), [tensor(np.ones(8192), "zr")],
        ),
        "einsum_slow": (
            _one("Einsum", ["zr"] * 5, equation="i,j,k,l,m->"),
            [tensor(np.ones(400), "zr")],
        ),
        "gather": (
            _one("Gather", ["row", "zeros"], axis=0), [row, zeros],
        ),
        "gather_nd": (
            _one("GatherND", ["row", "many"]),
            [row, tensor(np.zeros((8192, 1)), "many", np.int64)],
        ),
        "one_hot": (
            _one("OneHot", ["zeros", "depth", "pair"]),
            [zeros, tensor([8192], "depth", np.int64), tensor([0.0, 1.0], "pair")],
        ),
        "one_hot_huge": (
            _one("OneHot", ["zeros", "depth", "pair"]),
            [zeros, tensor([HUGE], "depth", np.int64), tensor([0.0, 1.0], "pair")],
        ),
        "resize": (
            _one("Resize", ["picture", "", "scales"], mode="nearest"),
            [tensor(np.ones((1, 1, 2, 2)), "picture"), tensor([1, 1, 4096, 4096], "scales")],
        ),
        "resize_cubic": (
            _one("Resize", ["picture", "", "", "sizes"], mode="cubic"),
            [tensor(np.ones((1, 1, 4, 4)), "picture"), sizes(1, 1, 8192, 8192)],
        ),
        "upsample": (
            _one("Upsample", ["picture", "scales"], mode="nearest"),
            [tensor(np.ones((1, 1, 2, 2)), "picture"), tensor([1, 1, 4096, 4096], "scales")],
        ),
        "conv_transpose": (
            _one("ConvTranspose", ["picture", "tap"], strides=[8000, 8000]),
            [tensor(np.ones((1, 1, 2, 2)), "picture"), tensor(np.ones((1, 1, 1, 1)), "tap")],
        ),
        "doubled_concat": (_doubled("Concat", 26, axis=0), [tensor([1.0], "seed")]),
        "doubled_concat_huge": (_doubled("Concat", 60, axis=0), [tensor([1.0], "seed")]),
        "random": (_one("RandomNormal", [], shape=[n]), []),
        "window": (_one("HannWindow", ["size"]), [tensor(n, "size", np.int64)]),
        "eye": (
            [*_one("ConstantOfShape", ["sizes"]),
             helper.make_node("EyeLike", ["big"], ["eye"])],
            [sizes(8192, 8192)],
        ),
        "mel": (
            _one("MelWeightMatrix", ["m", "m", "m", "low", "high"]),
            [tensor(8192, "m", np.int64), tensor(0.0, "low"), tensor(4000.0, "high")],
        ),
        "affine_grid": (
            _one("AffineGrid", ["theta", "sizes"]),
            [tensor(np.zeros((1, 2, 3)), "theta"), sizes(1, 1, 8192, 8192)],
        ),
    }  # fmt: skip


def _chains() -> dict[str, tuple[list[Node], list[TensorProto]]]:
    """Many constants of a moderate size, all held at once."""
    nodes = _one("ConstantOfShape", ["sizes"])
    for place in range(200):
        last = "big" if not place else f"s{place - 1}"
        nodes.append(helper.make_node("Sin", [last], [f"s{place}"]))
    nodes.append(helper.make_node("Identity", ["s199"], ["last"]))
    return {"chain_of_moderate": (nodes, [sizes(1 << 20)])}


def _opset_of(name: str) -> int:
    return 9 if name == "upsample" else 20 if name == "affine_grid" else 17


def constants() -> dict[str, Callable[[], Model]]:
    """Each bomb as an operand of its own, and behind a sum."""
    found: dict[str, Callable[[], Model]] = {}
    for name, (nodes, stored) in {**_constant_bombs(), **_chains()}.items():
        last = "last" if name.startswith("chain") else "big"

        def direct(nodes=nodes, stored=stored, last=last, name=name) -> Model:
            model = behind_a_conv(nodes, stored, last)
            model.opset_import[0].version = _opset_of(name)
            return model

        def behind(nodes=nodes, stored=stored, last=last, name=name) -> Model:
            model = summed(nodes, stored, last)
            model.opset_import[0].version = _opset_of(name)
            return model

        found[f"{name}/direct"], found[f"{name}/summed"] = direct, behind
    return found
