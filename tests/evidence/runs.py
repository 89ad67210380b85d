"""Folds by hand that a judge of worst cases alone would refuse, and their mutants."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from tests.evidence.nets import model_of

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
Weights = dict[str, np.ndarray]
Pair = tuple[ir.Model, ir.Model]


def features(width: int, act: str, seed: int, spoil: float = 1.0) -> Pair:
    """MatMul, per-channel scale and shift, activation, at batch 1; and the fold of it."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(0, width**-0.5, (width, width)).astype(np.float32)
    scale = rng.uniform(0.5, 1.5, width).astype(np.float32)
    shift = rng.normal(size=width).astype(np.float32)
    folded = (weight.astype(np.float64) * scale).astype(np.float32)
    folded[:, 1] *= np.float32(spoil)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Mul", ["p", "s"], ["m"]),
        helper.make_node("Add", ["m", "t"], ["n"]),
        helper.make_node(act, ["n"], ["y"]),
    ]
    after = [nodes[0], helper.make_node("Add", ["p", "t"], ["n"]), nodes[3]]
    faces = [info("x", [1, width])], [info("y", [1, width])]
    before = model_of(nodes, *faces, stored({"w": weight, "s": scale, "t": shift}), 20)
    return before, model_of(after, *faces, stored({"w": folded, "t": shift}), 20)


def masked(low: float, spoil: float = 1.0, width: int = 16) -> Pair:
    """Attention with a mask (1 - mask) · low, a scale behind it; and the fold of it."""
    rng = np.random.default_rng(3)
    held: Weights = {
        name: rng.normal(0, width**-0.5, (width, width)).astype(np.float32)
        for name in ("q", "k", "v", "o")
    }
    scale = rng.uniform(0.5, 1.5, width).astype(np.float32)
    held |= {"one": np.float32(1), "low": np.float32(low), "ax": np.array([1])}
    nodes = [
        helper.make_node("Cast", ["mask"], ["mf"], to=FLOAT),
        helper.make_node("Sub", ["one", "mf"], ["inv"]),
        helper.make_node("Mul", ["inv", "low"], ["b0"]),
        helper.make_node("Unsqueeze", ["b0", "ax"], ["bias"]),
        *(helper.make_node("MatMul", ["x", name], [f"{name}x"]) for name in "qkv"),
        helper.make_node("Transpose", ["kx"], ["kt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["qx", "kt"], ["z"]),
        helper.make_node("Add", ["z", "bias"], ["zz"]),
        helper.make_node("Softmax", ["zz"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "vx"], ["c"]),
    ]
    tail = [helper.make_node("MatMul", ["c", "o"], ["u"])]
    tail += [helper.make_node("Mul", ["u", "s"], ["y"])]
    folded = (held["o"].astype(np.float64) * scale * spoil).astype(np.float32)
    faces = (
        [info("x", ["n", "t", width]), info("mask", ["n", "t"], INT64)],
        [info("y", ["n", "t", width])],
    )
    before = model_of([*nodes, *tail], *faces, stored(held | {"s": scale}))
    last = [helper.make_node("MatMul", ["c", "o"], ["y"])]
    return before, model_of([*nodes, *last], *faces, stored(held | {"o": folded}))


def quantised(spoil: Callable[[Weights], None] | None = None) -> Pair:
    """A quantised Conv, a scale and a shift, QuantizeLinear; the scale folded into that of
    the weights, as integers stay what they are.
    """
    rng = np.random.default_rng(5)
    scale = rng.uniform(0.5, 1.5, 8).astype(np.float32)
    held: Weights = {
        "sx": np.float32(0.04),
        "zx": np.int8(0),
        "sw": np.full(8, 0.01, np.float32),
        "zw": np.zeros(8, np.int8),
        "sy": np.float32(0.05),
        "zy": np.uint8(128),
        "w": rng.integers(-127, 128, (8, 3, 3, 3)).astype(np.int8),
        "s": scale.reshape(8, 1, 1),
        "t": rng.normal(size=(8, 1, 1)).astype(np.float32),
    }
    head = [
        helper.make_node("QuantizeLinear", ["x", "sx", "zx"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "sx", "zx"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "sw", "zw"], ["wd"], axis=0),
        helper.make_node("Conv", ["xd", "wd"], ["c"]),
    ]
    tail = [
        helper.make_node("QuantizeLinear", ["n", "sy", "zy"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "sy", "zy"], ["y"]),
    ]
    middle = [helper.make_node("Mul", ["c", "s"], ["m"])]
    middle += [helper.make_node("Add", ["m", "t"], ["n"])]
    faces = (
        [info("x", ["n", 3, 8, 8])],
        [info("y", ["n", 8, 6, 6]), info("yq", ["n", 8, 6, 6], TensorProto.UINT8)],
    )
    folded = held | {"sw": (held["sw"].astype(np.float64) * scale).astype(np.float32)}
    if spoil is not None:
        spoil(folded)
    last = [helper.make_node("Add", ["c", "t"], ["n"])]
    unused = {name: array for name, array in folded.items() if name != "s"}
    return (
        model_of([*head, *middle, *tail], *faces, stored(held)),
        model_of([*head, *last, *tail], *faces, stored(unused)),
    )


def stored(arrays: Weights) -> list:
    return [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]


def info(name: str, shape: list, kind: int = FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)
