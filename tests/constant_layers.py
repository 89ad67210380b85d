"""What layers, reductions and activations are called with, on constants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

FLOAT = "float"
"""Marks an input whose type is the type under test."""


@dataclass(frozen=True)
class Call:
    """One operator on constants.

    Attributes:
        op: The operator.
        inputs: Arrays (float64 ones stand for the type under test), or None where absent.
        attributes: Its attributes.
        place: Which of its results is looked at.
        results: How many it gives.
        label: Tells the calls of an operator apart.
    """

    op: str
    inputs: tuple[Any, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    place: int = 0
    results: int = 1
    label: str = ""


def _rng() -> np.random.Generator:
    return np.random.default_rng(5)


def near_one(*shape: int) -> np.ndarray:
    """Numbers of both signs whose magnitudes are between 0.3 and 1.7, with few digits."""
    rng = _rng()
    size = rng.integers(3 * 64, 17 * 64 // 10 * 10, shape) / 640
    return np.asarray(size * rng.choice([-1.0, 1.0], shape))


def above_zero(*shape: int) -> np.ndarray:
    return np.abs(near_one(*shape))


def whole(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


Maker = Callable[[int], list[Call]]
TABLE: dict[str, Maker] = {}


def _unary(names: str, make: Callable[[], np.ndarray] = lambda: near_one(3, 4), **attributes):
    for name in names.split():
        TABLE[name] = lambda _, name=name: [Call(name, (make(),), dict(attributes))]


_unary(
    "Identity Neg Abs Exp Sigmoid Tanh Softplus Softsign Erf Relu Floor Ceil Round Sign Tan"
    " HardSigmoid HardSwish Elu Selu Celu Gelu Mish ThresholdedRelu Sin Cos Sinh Cosh Asinh"
    " Atan LeakyRelu Dropout Swish Softmax LogSoftmax Hardmax MeanVarianceNormalization"
)
_unary("Sqrt Reciprocal Log", lambda: above_zero(3, 4))
_unary("Acos Asin Atanh", lambda: near_one(3, 4) / 2)
_unary("Acosh", lambda: above_zero(3, 4) + 1)

_unary("MeanVarianceNormalization", lambda: near_one(2, 3, 4, 4))
_unary("GlobalAveragePool GlobalMaxPool GlobalLpPool", lambda: near_one(2, 3, 4, 5))
_unary("LRN", lambda: near_one(2, 5, 3, 3), size=3)
_unary("Det", lambda: near_one(3, 2, 2) + 2 * np.eye(2))
_unary("Flatten Transpose", lambda: near_one(2, 3, 4))
_unary("SpaceToDepth", lambda: near_one(1, 2, 4, 6), blocksize=2)
_unary("DepthToSpace", lambda: near_one(1, 8, 2, 3), blocksize=2)
_unary("EyeLike", lambda: near_one(3, 4), k=1)
_unary("Shrink", lambda: near_one(3, 4), lambd=0.7, bias=0.25)


def entry(name: str) -> Callable[[Maker], Maker]:
    def put(make: Maker) -> Maker:
        TABLE[name] = make
        return make

    return put


def _extend(name: str, make: Maker) -> None:
    before = TABLE[name]
    TABLE[name] = lambda opset: [*before(opset), *make(opset)]


for _op in ("Softmax", "LogSoftmax", "Hardmax"):
    _extend(_op, lambda _, op=_op: [Call(op, (near_one(2, 3, 4),), {"axis": 1}, label="1")])
TABLE["LpNormalization"] = lambda _: [
    Call("LpNormalization", (near_one(3, 4),)),
    *(
        Call("LpNormalization", (near_one(3, 4),), {"axis": 0, "p": p}, label=f"p{p}")
        for p in (1, 2)
    ),
]
_extend(
    "Gelu", lambda _: [Call("Gelu", (near_one(3, 4),), {"approximate": "tanh"}, label="t")]
)
_extend(
    "DepthToSpace",
    lambda o: [Call("DepthToSpace", (near_one(1, 8, 2, 3),), {"blocksize": 2, "mode": "CRD"},
                    label="crd")] if o >= 11 else [],
)  # fmt: skip

for _op in ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", "PRelu"):
    TABLE[_op] = lambda _, op=_op: [
        Call(op, (above_zero(3, 4) if op == "Pow" else near_one(3, 4), near_one(4)))
    ]
TABLE["Mod"] = lambda _: [Call("Mod", (near_one(3, 4), near_one(4)), {"fmod": 1})]
TABLE["Where"] = lambda _: [Call("Where", (near_one(3, 4) > 0, near_one(3, 1), near_one(4)))]

_AXES_INPUT_SINCE = {"ReduceSum": 13}
for _op in (
    "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
    "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp",
):  # fmt: skip

    def _reduced(opset: int, op: str = _op) -> list[Call]:
        data = above_zero(3, 4, 2) if op == "ReduceLogSum" else near_one(3, 4, 2)
        if opset >= _AXES_INPUT_SINCE.get(op, 18):
            return [
                Call(op, (data, whole(1, 2)), {"keepdims": 1}),
                Call(op, (data,), {"keepdims": 0}, label="all"),
                Call(op, (data,), {"noop_with_empty_axes": 1}, label="none"),
            ]
        return [
            Call(op, (data,), {"axes": [1, 2], "keepdims": 1}),
            Call(op, (data,), {"keepdims": 0}, label="all"),
        ]

    TABLE[_op] = _reduced


@entry("MatMul")
def _(_opset):
    return [
        Call("MatMul", (near_one(3, 4), near_one(4, 2))),
        Call("MatMul", (near_one(2, 3, 4), near_one(4)), label="vector"),
    ]


@entry("Gemm")
def _(opset):
    full = {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 0.25}
    calls = [Call("Gemm", (near_one(4, 3), near_one(2, 4), near_one(2)), full)]
    if opset >= 11:
        calls.append(Call("Gemm", (near_one(3, 4), near_one(4, 2)), label="no C"))
    return calls


@entry("Einsum")
def _(_opset):
    return [
        Call("Einsum", (near_one(3, 4), near_one(4, 2)), {"equation": "ij,jk->ki"}),
        Call("Einsum", (near_one(3, 4),), {"equation": "...i->..."}, label="dots"),
    ]


@entry("Conv")
def _(_opset):
    return [
        Call("Conv", (near_one(1, 4, 5, 5), near_one(6, 2, 3, 3), near_one(6)),
             {"group": 2, "pads": [1, 0, 2, 1], "strides": [2, 1], "dilations": [1, 2]}),
        Call("Conv", (near_one(2, 3, 6), near_one(2, 3, 3)), {"auto_pad": "SAME_LOWER"},
             label="1d"),
    ]  # fmt: skip


@entry("ConvTranspose")
def _(_opset):
    return [
        Call("ConvTranspose", (near_one(1, 4, 3, 3), near_one(4, 3, 3, 2), near_one(6)),
             {"group": 2, "pads": [1, 0, 0, 1], "strides": [2, 1], "output_padding": [1, 0]}),
        Call("ConvTranspose", (near_one(2, 3, 4), near_one(3, 2, 3)), label="1d"),
    ]  # fmt: skip


@entry("AveragePool")
def _(opset):
    data = near_one(1, 2, 6, 6)
    return [
        Call("AveragePool", (data,), {"kernel_shape": [3, 3], "pads": [1, 1, 0, 2],
                                      "strides": [2, 1]}),
        Call("AveragePool", (data,), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1],
                                      "count_include_pad": 1}, label="counted"),
        *([Call("AveragePool", (data,), {"kernel_shape": [3, 3], "ceil_mode": 1,
                                         "strides": [2, 2]}, label="ceil")]
          if opset >= 10 else []),
        *([Call("AveragePool", (data,), {"kernel_shape": [2, 2], "dilations": [2, 2]},
                label="dilated")] if opset >= 19 else []),
    ]  # fmt: skip


@entry("MaxPool")
def _(opset):
    data = near_one(1, 2, 6, 6)
    return [
        Call("MaxPool", (data,), {"kernel_shape": [3, 3], "pads": [1, 1, 0, 2],
                                  "strides": [2, 1]}),
        Call("MaxPool", (data,), {"kernel_shape": [2, 2]}, results=2, label="indices"),
        *([Call("MaxPool", (data,), {"kernel_shape": [3, 3], "ceil_mode": 1,
                                     "dilations": [2, 1], "strides": [2, 2]}, label="ceil")]
          if opset >= 10 else []),
    ]  # fmt: skip


@entry("LpPool")
def _(_opset):
    data = near_one(1, 2, 6, 6)
    return [Call("LpPool", (data,), {"kernel_shape": [2, 2], "pads": [1, 1, 0, 0], "p": 2})]


@entry("MaxUnpool")
def _(_opset):
    data = near_one(1, 1, 2, 2)
    places = np.array([[[[5, 7], [13, 15]]]], np.int64)
    return [Call("MaxUnpool", (data, places), {"kernel_shape": [2, 2], "strides": [2, 2]})]


@entry("MaxRoiPool")
def _(_opset):
    rois = np.array([[0, 0, 0, 3, 3], [0, 1, 1, 4, 4]], float)
    return [Call("MaxRoiPool", (near_one(1, 2, 6, 6), rois), {"pooled_shape": [2, 2]})]


@entry("RoiAlign")
def _(_opset):
    rois = np.array([[0, 0, 3, 3], [1, 1, 4, 5]], float)
    words = {"output_height": 2, "output_width": 2, "sampling_ratio": 2}
    return [Call("RoiAlign", (near_one(1, 2, 6, 6), rois, whole(0, 0)), words)]


@entry("BatchNormalization")
def _(opset):
    inputs = (near_one(2, 3, 4), near_one(3), near_one(3), near_one(3), above_zero(3))
    calls = [Call("BatchNormalization", inputs, {"epsilon": 0.01})]
    if opset >= 14:
        words = {"epsilon": 0.01, "training_mode": 1}
        calls.append(Call("BatchNormalization", inputs, words, results=3, label="training"))
    return calls


@entry("InstanceNormalization")
def _(_opset):
    inputs = (near_one(2, 3, 4, 2), near_one(3), near_one(3))
    return [Call("InstanceNormalization", inputs, {"epsilon": 0.01})]


@entry("GroupNormalization")
def _(opset):
    size = 2 if opset < 21 else 4
    inputs = (near_one(2, 4, 3, 2), near_one(size), near_one(size))
    return [Call("GroupNormalization", inputs, {"num_groups": 2, "epsilon": 0.01})]


@entry("LayerNormalization")
def _(_opset):
    inputs = (near_one(3, 4, 2), near_one(4, 2), near_one(4, 2))
    return [
        Call("LayerNormalization", inputs, {"axis": 1}),
        Call("LayerNormalization", (near_one(3, 4), near_one(4)), label="no bias"),
        Call("LayerNormalization", inputs, {"axis": 1}, place=2, results=3, label="deviation"),
    ]


@entry("RMSNormalization")
def _(_opset):
    return [Call("RMSNormalization", (near_one(3, 4, 2), near_one(4, 2)), {"axis": 1})]
