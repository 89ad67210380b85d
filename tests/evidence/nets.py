"""Hand-made originals and folds, honest or spoiled, that owe nothing to the folder.

A *branch* is a small net on its own output. All branches of a model read the same input, so
one check judges many of them at once, each by its own output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from bnfold.model.io import from_proto

TYPES = {
    "float32": (TensorProto.FLOAT, np.float32),
    "float16": (TensorProto.FLOAT16, np.float16),
    "bfloat16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
    "float64": (TensorProto.DOUBLE, np.float64),
}
CHANNELS = 4
EPSILON = 1e-3


@dataclass
class Part:
    """Nodes and constants of one branch."""

    nodes: list[onnx.NodeProto]
    constants: dict[str, np.ndarray]


@dataclass(frozen=True)
class Statistics:
    """What a BatchNormalization stores, and the affine map that it is."""

    gamma: np.ndarray
    beta: np.ndarray
    mean: np.ndarray
    variance: np.ndarray

    def scale(self, epsilon: float = EPSILON) -> np.ndarray:
        return self.gamma / np.sqrt(self.variance + epsilon)

    def shift(self, epsilon: float = EPSILON) -> np.ndarray:
        return self.beta - self.mean * self.scale(epsilon)

    def stored(self) -> dict[str, np.ndarray]:
        return {"g": self.gamma, "b": self.beta, "m": self.mean, "v": self.variance}


Fold = Callable[[np.ndarray, np.ndarray, Statistics], tuple[np.ndarray, np.ndarray]]


def statistics(rng: np.random.Generator, rounded: Callable[..., Any]) -> Statistics:
    """Statistics as training leaves them, already rounded to the storage type."""
    signs = np.where(np.arange(CHANNELS) % 2, -1.0, 1.0)
    drawn = (
        rng.uniform(0.3, 1.5, CHANNELS) * signs,
        rng.normal(0, 1, CHANNELS),
        rng.normal(0, 1, CHANNELS),
        np.concatenate(([0.01], rng.uniform(0.1, 2.0, CHANNELS - 1))),
    )
    return Statistics(*(rounded(one) for one in drawn))


def honest(w: np.ndarray, b: np.ndarray, bn: Statistics) -> tuple[np.ndarray, np.ndarray]:
    return w * _rows(bn.scale()), b * bn.scale() + bn.shift()


def wrong_axis(w: np.ndarray, b: np.ndarray, bn: Statistics) -> tuple[np.ndarray, np.ndarray]:
    return w * bn.scale().reshape(1, -1, 1, 1), b * bn.scale() + bn.shift()


def epsilon_forgotten(w: np.ndarray, b: np.ndarray, bn: Statistics) -> tuple[Any, Any]:
    return w * _rows(bn.scale(0.0)), b * bn.scale(0.0) + bn.shift(0.0)


def bias_scale_forgotten(w: np.ndarray, b: np.ndarray, bn: Statistics) -> tuple[Any, Any]:
    return w * _rows(bn.scale()), b + bn.shift()


def order_swapped(
    w: np.ndarray, b: np.ndarray, bn: Statistics
) -> tuple[np.ndarray, np.ndarray]:
    swapped = np.roll(bn.scale(), CHANNELS // 2)
    return w * _rows(swapped), b * swapped + bn.shift()


def sign_flipped(
    w: np.ndarray, b: np.ndarray, bn: Statistics
) -> tuple[np.ndarray, np.ndarray]:
    return w * _rows(abs(bn.scale())), b * bn.scale() + bn.shift()


def one_channel_off(w: np.ndarray, b: np.ndarray, bn: Statistics) -> tuple[Any, Any]:
    weight, bias = honest(w, b, bn)
    weight[2] *= 1.01
    return weight, bias


SPOILED: dict[str, Fold] = {
    "wrong_axis": wrong_axis,
    "epsilon_forgotten": epsilon_forgotten,
    "bias_scale_forgotten": bias_scale_forgotten,
    "order_swapped": order_swapped,
    "sign_flipped": sign_flipped,
    "one_channel_off": one_channel_off,
}


def conv_bn(name: str, dtype: str, fold: Fold, seed: int) -> tuple[Part, Part]:
    """Conv → BatchNormalization → Relu, and the same with the BatchNormalization folded."""
    rng = np.random.default_rng(seed)
    weight, bias, bn = _drawn(rng, dtype)
    before = Part(
        [
            helper.make_node(
                "Conv", ["x", f"{name}.w", f"{name}.c"], [f"{name}.t"], pads=[1] * 4
            ),
            _bn(f"{name}.t", f"{name}.n", name),
            helper.make_node("Relu", [f"{name}.n"], [name]),
        ],
        _named(name, {"w": weight, "c": bias, **bn.stored()}, dtype),
    )
    new_weight, new_bias = fold(weight, bias, bn)
    after = Part(
        [
            helper.make_node(
                "Conv", ["x", f"{name}.w", f"{name}.c"], [f"{name}.t"], pads=[1] * 4
            ),
            helper.make_node("Relu", [f"{name}.t"], [name]),
        ],
        _named(name, {"w": new_weight, "c": new_bias}, dtype),
    )
    return before, after


def bn_conv(name: str, dtype: str, seed: int, pad: int) -> tuple[Part, Part]:
    """BatchNormalization → Conv, shift folded into the bias: exact only without padding."""
    rng = np.random.default_rng(seed)
    weight, bias, bn = _drawn(rng, dtype)
    pads = [pad] * 4
    before = Part(
        [
            _bn("x", f"{name}.n", name),
            helper.make_node(
                "Conv", [f"{name}.n", f"{name}.w", f"{name}.c"], [name], pads=pads
            ),
        ],
        _named(name, {"w": weight, "c": bias, **bn.stored()}, dtype),
    )
    new_weight = weight * bn.scale().reshape(1, -1, 1, 1)
    new_bias = bias + np.einsum("oihw,i->o", weight, bn.shift())
    after = Part(
        [helper.make_node("Conv", ["x", f"{name}.w", f"{name}.c"], [name], pads=pads)],
        _named(name, {"w": new_weight, "c": new_bias}, dtype),
    )
    return before, after


def fan(parts: Mapping[str, Part], dtype: str) -> ir.Model:
    """One model of all branches, each on its own output; batch, height and width are open."""
    element = TYPES[dtype][0]
    nodes = [node for part in parts.values() for node in part.nodes]
    constants = [
        numpy_helper.from_array(array, name)
        for part in parts.values()
        for name, array in part.constants.items()
    ]
    shape = ["n", CHANNELS, "h", "w"]
    inputs = [helper.make_tensor_value_info("x", element, shape)]
    outputs = [helper.make_tensor_value_info(name, element, None) for name in parts]
    return model_of(nodes, inputs, outputs, constants)


def fans(pairs: Mapping[str, tuple[Part, Part]], dtype: str) -> tuple[ir.Model, ir.Model]:
    """Original and folded."""
    before = {name: pair[0] for name, pair in pairs.items()}
    after = {name: pair[1] for name, pair in pairs.items()}
    return fan(before, dtype), fan(after, dtype)


def model_of(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: list[onnx.TensorProto] | None = None,
    opset: int = 17,
) -> ir.Model:
    graph = helper.make_graph(nodes, "net", inputs, outputs, constants or [])
    opsets = [helper.make_opsetid("", opset)]
    return from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=8))


def _drawn(rng: np.random.Generator, dtype: str) -> tuple[np.ndarray, np.ndarray, Statistics]:
    kind = TYPES[dtype][1]
    weight = rng.normal(0, 0.2, (CHANNELS, CHANNELS, 3, 3)).astype(kind).astype(np.float64)
    bias = rng.normal(0, 1, CHANNELS).astype(kind).astype(np.float64)
    return weight, bias, statistics(rng, lambda one: one.astype(kind).astype(np.float64))


def _bn(source: str, target: str, name: str) -> onnx.NodeProto:
    stored = [f"{name}.{key}" for key in "gbmv"]
    return helper.make_node("BatchNormalization", [source, *stored], [target], epsilon=EPSILON)


def _named(name: str, arrays: dict[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    kind = TYPES[dtype][1]
    return {f"{name}.{key}": array.astype(kind) for key, array in arrays.items()}


def _rows(scale: np.ndarray) -> np.ndarray:
    return scale.reshape(-1, 1, 1, 1)
