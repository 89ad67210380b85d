"""Small models of the kinds that evidence got wrong on 2026-11-30, and wrong folds of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import bnfold
from bnfold.evidence.proof import prove, read_certificate
from bnfold.evidence.proof.certificate import Certificate, TensorChange
from bnfold.evidence.proof.changes import changed_nodes, changed_tensors
from bnfold.evidence.proof.contents import contents_of
from bnfold.model.io import opened
from bnfold.records import ProofReport

N = helper.make_node
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
BN = ["g", "b", "m", "v"]
KINDS = {
    "float32": (FLOAT, np.float32),
    "float16": (TensorProto.FLOAT16, np.float16),
    "bfloat16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
    "float64": (TensorProto.DOUBLE, np.float64),
}
Arrays = Mapping[str, Any]


def model(
    nodes: Sequence[onnx.NodeProto],
    stored: Arrays,
    inputs: Sequence[tuple[Any, ...]],
    outputs: Sequence[tuple[Any, ...]],
    opset: int = 17,
    dtype: str = "float32",
) -> onnx.ModelProto:
    """A model; inputs and outputs are (name, shape) or (name, shape, element type)."""
    element, kind = KINDS[dtype]

    def faces(entries: Sequence[tuple[Any, ...]]) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(name, *(rest or (element,)), shape)
            for name, shape, *rest in entries
        ]

    def typed(array: Any) -> np.ndarray:
        held = np.asarray(array)
        return held.astype(kind) if held.dtype == np.float64 else held

    tensors = [numpy_helper.from_array(typed(a), name) for name, a in stored.items()]
    graph = helper.make_graph(list(nodes), "g", faces(inputs), faces(outputs), tensors)
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8 if opset < 19 else 10)


def bn(rng: np.random.Generator, c: int) -> dict[str, np.ndarray]:
    """What a BatchNormalization stores."""
    return {
        "g": rng.uniform(0.5, 1.5, c),
        "b": rng.normal(size=c),
        "m": rng.normal(size=c),
        "v": rng.uniform(0.3, 2, c),
    }


def conv_bn(
    k: int, size: int, stride: int = 1, c: int = 3, dtype: str = "float32", seed: int = 0
) -> onnx.ModelProto:
    """An unpadded window, and a BatchNormalization behind it."""
    rng = np.random.default_rng(seed)
    stored = {**bn(rng, c), "w": rng.normal(size=(c, c, k, k)) / k, "c": rng.normal(size=c)}
    nodes = [
        N("Conv", ["x", "w", "c"], ["a"], strides=[stride] * 2, name="conv"),
        N("BatchNormalization", ["a", *BN], ["y"], name="bn"),
    ]
    faces = [("x", [1, c, size, size])], [("y", [None] * 4)]
    return model(nodes, stored, *faces, dtype=dtype)


def linear(op: str, dtype: str = "float32", seed: int = 0) -> onnx.ModelProto:
    """A Gemm, MatMul or grouped ConvTranspose, and a scale and a shift behind it."""
    rng = np.random.default_rng(seed)
    if op == "ConvTranspose":
        stored = {"w": rng.normal(size=(4, 3, 3, 3)), "c": rng.normal(size=6)}
        first = N(op, ["x", "w", "c"], ["a"], group=2, strides=[2, 2], name="lin")
        shape, along = [2, 4, 5, 5], (6, 1, 1)
    else:
        stored = {"w": rng.normal(size=(5, 6))} | (
            {"c": rng.normal(size=6)} if op == "Gemm" else {}
        )
        first = N(op, ["x", *stored], ["a"], name="lin")
        shape, along = [2, 5], (6,)
    stored |= {"s": rng.uniform(0.5, 1.5, along), "t": rng.normal(size=along)}
    nodes = [first, N("Mul", ["a", "s"], ["p"]), N("Add", ["p", "t"], ["y"])]
    return model(nodes, stored, [("x", shape)], [("y", [None] * len(shape))], dtype=dtype)


def conv_then(
    middle: Sequence[onnx.NodeProto], more: Arrays, size: int = 16, seed: int = 0
) -> onnx.ModelProto:
    """Conv 1×1 to a, what makes p of it, BatchNormalization."""
    rng = np.random.default_rng(seed)
    stored = {**bn(rng, 3), "w": rng.normal(size=(3, 3, 1, 1)), "c": rng.normal(size=3)}
    nodes = [
        N("Conv", ["x", "w", "c"], ["a"], name="conv"),
        *middle,
        N("BatchNormalization", ["p", *BN], ["y"], name="bn"),
    ]
    faces = [("x", [1, 3, size, size])], [("y", [None] * 4)]
    return model(nodes, {**stored, **more}, *faces)


def patch_embedding(patch: int, size: int, seed: int = 0) -> onnx.ModelProto:
    """A map of pixels, and patches in a row behind Reshape and Transpose."""
    rng = np.random.default_rng(seed)
    stored = {
        "s": rng.uniform(0.5, 2, (3, 1, 1)),
        "t": rng.normal(size=(3, 1, 1)),
        "w": rng.normal(size=(8, 3, patch, patch)) / patch,
        "c": rng.normal(size=8),
        "rs": np.array([0, 8, -1]),
        "q": rng.uniform(0.5, 2, 8),
    }
    nodes = [
        N("Mul", ["x", "s"], ["x1"]),
        N("Add", ["x1", "t"], ["x2"]),
        N("Conv", ["x2", "w", "c"], ["a"], strides=[patch] * 2, kernel_shape=[patch] * 2),
        N("Reshape", ["a", "rs"], ["r"]),
        N("Transpose", ["r"], ["z"], perm=[0, 2, 1]),
        N("Mul", ["z", "q"], ["y"]),
    ]
    faces = [("x", ["N", 3, size, size])], [("y", ["N", None, 8])]
    return model(nodes, stored, *faces)


def bn_pool_conv(size: int, k: int, s: int, pad: int = 0, seed: int = 0) -> onnx.ModelProto:
    """BatchNormalization, AveragePool, Conv."""
    rng = np.random.default_rng(seed)
    stored = {**bn(rng, 3), "w": rng.normal(size=(3, 3, 1, 1)), "c": rng.normal(size=3)}
    pool = {"kernel_shape": [k, k], "strides": [s, s], "pads": [pad] * 4}
    nodes = [
        N("BatchNormalization", ["x", *BN], ["a"]),
        N("AveragePool", ["a"], ["p"], **pool),
        N("Conv", ["p", "w", "c"], ["y"]),
    ]
    faces = [("x", [1, 3, size, size])], [("y", [None] * 4)]
    return model(nodes, stored, *faces, opset=22)


def identity_skip(kind: str, seed: int = 0) -> onnx.ModelProto:
    """Factors of one and addends of zero beside the value that they leave alone."""
    rng = np.random.default_rng(seed)
    along = (1, 4, 1, 1)
    stored = {"o": np.ones(along), "z": np.zeros(along), "w": rng.normal(size=(4, 4, 1, 1))}
    relu = N("Relu", ["x"], ["a"])
    nodes = {
        "add": [relu, N("Mul", ["a", "o"], ["b"]), N("Add", ["a", "b"], ["y"])],
        "max": [relu, N("Mul", ["a", "o"], ["b"]), N("Max", ["a", "b"], ["y"])],
        "gate": [
            N("Conv", ["x", "w"], ["c"]),
            N("Relu", ["c"], ["a"]),
            N("Add", ["a", "z"], ["b"]),
            N("Sigmoid", ["b"], ["s"]),
            N("Mul", ["a", "s"], ["y"]),
        ],
        "residual": [
            relu,
            N("Mul", ["a", "o"], ["b"]),
            N("Conv", ["b", "w"], ["c"]),
            N("Add", ["a", "c"], ["y"]),
        ],
    }[kind]
    read = {name for node in nodes for name in node.input}
    kept = {name: array for name, array in stored.items() if name in read}
    return model(nodes, kept, [("x", [1, 4, 8, 8])], [("y", [1, 4, 8, 8])])


def scale_through_cast(kind: str, d: int = 80, seed: int = 0) -> onnx.ModelProto:
    """A scale that constants compute, through Casts that change nothing, or an integer."""
    w = np.random.default_rng(seed).normal(size=(8, 6))
    held: dict[str, Any] = {"w": w, "k": np.float32(d / 1000)}
    if kind == "cast":
        front = [N("Sqrt", ["k"], ["s0"]), N("Cast", ["s0"], ["s"], to=FLOAT)]
    elif kind == "castlike":
        front = [N("Sqrt", ["k"], ["s0"]), N("CastLike", ["s0", "k"], ["s"])]
    else:
        held = {"w": w, "d": np.array(d), "one": np.float32(1)}
        front = [
            N("Cast", ["d"], ["df"], to=FLOAT),
            N("Sqrt", ["df"], ["sq"]),
            N("Div", ["one", "sq"], ["s0"]),
            N("Cast", ["s0"], ["s"], to=FLOAT),
        ]
    nodes = [*front, N("MatMul", ["x", "w"], ["q"]), N("Mul", ["q", "s"], ["y"])]
    return model(nodes, held, [("x", [2, 8])], [("y", [2, 6])])


def wide(width: int, act: str, batch: int = 1, seed: int = 7) -> onnx.ModelProto:
    """A feature vector of many channels with one value in each, and an activation."""
    rng = np.random.default_rng(seed)
    stored = {**bn(rng, width), "w": rng.normal(size=(width, width)) / width**0.5}
    nodes = [
        N("MatMul", ["x", "w"], ["p"]),
        N("BatchNormalization", ["p", *BN], ["n"]),
        N(act, ["n"], ["y"]),
    ]
    faces = [("x", [batch, width])], [("y", [batch, width])]
    return model(nodes, stored, *faces, opset=20)


def qdq(op: str, c: int = 8, seed: int = 5, *, bias: bool = False) -> onnx.ModelProto:
    """A quantised layer, BatchNormalization, Relu and QuantizeLinear."""
    rng = np.random.default_rng(seed)
    stored: dict[str, Any] = {
        **bn(rng, c),
        "sx": np.float32(0.04),
        "zx": np.int8(0),
        "sw": np.float32(0.01),
        "sy": np.float32(0.05),
        "zy": np.uint8(0),
    }
    shape, axes = ((c, 3, 3, 3), ["n", 3, 8, 8]) if op == "Conv" else ((24, c), ["n", 24])
    stored["w"] = rng.integers(-127, 128, shape).astype(np.int8)
    reads = ["xd", "wd"]
    if bias:
        stored["cb"] = rng.normal(size=c)
        reads.append("cb")
    nodes = [
        N("QuantizeLinear", ["x", "sx", "zx"], ["xq"]),
        N("DequantizeLinear", ["xq", "sx", "zx"], ["xd"]),
        N("DequantizeLinear", ["w", "sw", "zx"], ["wd"]),
        N(op, reads, ["c"], name="layer"),
        N("BatchNormalization", ["c", *BN], ["nn"]),
        N("Relu", ["nn"], ["rr"]),
        N("QuantizeLinear", ["rr", "sy", "zy"], ["yq"], name="quantize"),
        N("DequantizeLinear", ["yq", "sy", "zy"], ["y"]),
    ]
    return model(nodes, stored, [("x", axes)], [("y", [None] * len(axes))])


# ------------------------------------------------------------------------ folds and proofs


def folded(original: onnx.ModelProto) -> bnfold.FoldResult:
    """The fold, with its certificate, and without a run; it has done something."""
    result = bnfold.fold(original, verify=False, certificate=True)
    assert result.report.steps
    return result


def proofs(original: onnx.ModelProto, result: bnfold.FoldResult) -> list[ProofReport]:
    """What the certificate and what the walk alone say."""
    certificate = read_certificate(result.certificate.to_json())
    return [
        prove(opened(original), opened(result.to_proto()), one) for one in (certificate, None)
    ]


def changed(proto: onnx.ModelProto, arrays: Arrays) -> onnx.ModelProto:
    """The model with other elements in some of its tensors."""
    found = onnx.ModelProto.FromString(proto.SerializeToString())
    for tensor in found.graph.initializer:
        if tensor.name in arrays:
            kind = numpy_helper.to_array(tensor).dtype
            array = np.asarray(arrays[tensor.name]).astype(kind)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return found


def stored(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The tensors of a model, floats in float64."""
    found = {one.name: numpy_helper.to_array(one) for one in proto.graph.initializer}
    return {
        name: array if array.dtype.kind in "iub" else array.astype(np.float64)
        for name, array in found.items()
    }


def spoiled(proto: onnx.ModelProto, what: str) -> onnx.ModelProto:
    """A wrong fold: weights of rank two and more times −3, one of their taps, or one bias."""
    changes = {}
    for name, array in stored(proto).items():
        if array.dtype.kind != "f":
            continue
        if what == "all" and array.ndim >= 2 and array.size > array.shape[0]:
            changes[name] = -3 * array
        elif what == "tap" and array.ndim >= 2 and array.size > array.shape[0]:
            array[(1, 1, *[-1] * (array.ndim - 2))] += 1.0
            changes[name] = array
        elif what == "bias" and array.ndim == 1 and array.size > 1:
            array[1] += 0.5
            changes[name] = array
    assert changes, what
    return changed(proto, changes)


def forged(
    original: onnx.ModelProto,
    wrong: onnx.ModelProto,
    recipes: Mapping[str, Mapping[str, Any]],
    honest: Certificate,
    assumptions: tuple[str, ...] = (),
) -> Certificate:
    """A certificate that fits a wrong fold in all but the function."""
    before, after = contents_of(opened(original)), contents_of(opened(wrong))
    changes = changed_tensors(before, after)
    made = replace(
        honest,
        original=before.digest,
        folded=after.digest,
        header=(before.header, after.header),
        nodes=changed_nodes(before, after),
        tensors=tuple(TensorChange(one, recipes.get(one.name)) for one in changes),
        assumptions=assumptions,
    )
    return read_certificate(made.to_json())
