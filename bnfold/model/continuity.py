"""Which operators may compute in unrounded numbers, and which read what the graph rounded.

A continuous operator turns a small change of its inputs into a small change of its results:
float64 in place of the graph's own type changes nothing that one rounding at the end would
not. Any other operator turns the last bit of an input into a step: it must read the numbers
that the graph's own types give. What is in none of the lists counts as not continuous and
as not exact, which is safe for every operator.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

import onnx_ir as ir

from bnfold.model.constants import FLOATS


class Precision(Enum):
    """How well runtimes agree on the result of an operator in a floating type."""

    EXACT = auto()
    """Correctly rounded everywhere: IEEE 754 asks for it, or nothing is computed at all."""
    REDUCTION = auto()
    """Sums of what is reduced, in whatever order: off by terms · eps · Σ |term|."""
    PRODUCT = auto()
    """Sums along one axis of the inputs: the same, the longest axis counts."""
    RELATIVE = auto()
    """Some units in the last place of the result."""
    ABSOLUTE = auto()
    """The same, and some units of 1: approximations, and what is subtracted from 1."""
    WINDOW = auto()
    """Sums over a window, or over several axes: what one element of the result reads."""
    LOOSE = auto()
    """Divided by what was computed of all: nothing is promised of its last bits."""


@dataclass(frozen=True, slots=True)
class Nature:
    """What is known of an operator.

    Attributes:
        continuous: Whether a small change of its inputs changes its results little.
        precision: How well runtimes agree on its results.
    """

    continuous: bool
    precision: Precision


# fmt: off
_EXACT: Final = frozenset({
    "Constant", "Identity", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice",
    "Concat", "Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND", "Split",
    "Expand", "Tile", "Where", "Pad", "Trilu", "DepthToSpace", "SpaceToDepth", "EyeLike",
    "ConstantOfShape", "Add", "Sub", "Mul", "Div", "Neg", "Abs", "Sqrt", "Min", "Max", "Relu",
    "Clip", "ReduceMax", "ReduceMin", "LeakyRelu", "PRelu", "DequantizeLinear", "Compress",
    "Scatter", "MaxPool", "GlobalMaxPool", "Dropout",
})
"""+ − · ÷ √ are correctly rounded (IEEE 754, 5.4); the others hand numbers on as they are."""
_REDUCTIONS: Final = frozenset({
    "Sum", "Mean", "ReduceSum", "ReduceMean", "ReduceL1", "ReduceSumSquare", "ReduceL2",
    "ReduceProd",
})
_PRODUCTS: Final = frozenset({"CumSum", "MatMul", "Gemm"})
_WINDOWS: Final = frozenset({
    "Einsum", "Conv", "ConvTranspose",
})
_RELATIVE: Final = frozenset({"Reciprocal", "Exp", "Log", "Pow"})
_ABSOLUTE: Final = frozenset({
    "Erf", "Tanh", "Sigmoid", "Softmax", "LogSoftmax", "Softplus", "Softsign", "HardSigmoid",
    "HardSwish", "Elu", "Selu", "Celu", "Gelu", "Mish", "Sin", "Cos", "Atan", "Asinh", "Sinh",
    "Cosh", "ReduceLogSum", "ReduceLogSumExp", "Swish",
})
_STEPS: Final = frozenset({
    "Floor", "Ceil", "Round", "Sign", "Mod", "Cast", "CastLike", "Equal", "Greater",
    "GreaterOrEqual", "Less", "LessOrEqual", "Not", "And", "Or", "Xor", "IsInf", "IsNaN",
    "ArgMax", "ArgMin", "TopK", "NonZero", "Hardmax", "OneHot", "ThresholdedRelu", "Shrink",
    "Unique", "BitShift", "QuantizeLinear", "Range", "Shape", "Size", "BitwiseAnd",
    "BitwiseOr", "BitwiseXor", "BitwiseNot",
})
"""Not continuous, and exact: the same inputs give the same result everywhere."""
_LAYERS: Final = frozenset({
    "AveragePool", "GlobalAveragePool", "DeformConv", "LpPool", "GlobalLpPool",
    "BatchNormalization", "LayerNormalization", "InstanceNormalization",
    "GroupNormalization", "RMSNormalization", "LRN",
    "LpNormalization", "MeanVarianceNormalization", "LSTM", "GRU", "RNN", "Attention",
    "RotaryEmbedding", "GridSample",
})
"""What mostly reads constants as its weights; of constants alone: weight standardisation."""
# fmt: on

NATURES: Final[dict[str, Nature]] = {
    **dict.fromkeys(_EXACT, Nature(continuous=True, precision=Precision.EXACT)),
    **dict.fromkeys(_REDUCTIONS, Nature(continuous=True, precision=Precision.REDUCTION)),
    **dict.fromkeys(_PRODUCTS, Nature(continuous=True, precision=Precision.PRODUCT)),
    **dict.fromkeys(_RELATIVE, Nature(continuous=True, precision=Precision.RELATIVE)),
    **dict.fromkeys(_WINDOWS, Nature(continuous=True, precision=Precision.WINDOW)),
    **dict.fromkeys(_LAYERS, Nature(continuous=True, precision=Precision.LOOSE)),
    **dict.fromkeys(_ABSOLUTE, Nature(continuous=True, precision=Precision.ABSOLUTE)),
    **dict.fromkeys(_STEPS, Nature(continuous=False, precision=Precision.EXACT)),
}
"""What is known of the operators of the ONNX specification."""

STEEP: Final = {
    "Div": 1, "Reciprocal": 0, "Sqrt": 0, "Pow": 0, "Log": 0, "ReduceLogSum": 0,
    "LpNormalization": 0, "MeanVarianceNormalization": 0, "LayerNormalization": 0,
    "RMSNormalization": 0, "InstanceNormalization": 0, "GroupNormalization": 0,
    "BatchNormalization": 0,
}  # fmt: skip
"""In which input they are: continuous, but beyond every bound near 0. √(10 · 0.7f − 7) is 0 in
float32, and 3.5e-4 of unrounded numbers. Where rounding shows as much as that, the graph's own
numbers are right."""

UNKNOWN: Final = Nature(continuous=False, precision=Precision.ABSOLUTE)
"""What is assumed of any other."""


def nature_of(op_type: str) -> Nature:
    """Return what is known of an operator of the ONNX specification."""
    return NATURES.get(op_type, UNKNOWN)


_HOLDS: Final = {
    ir.DataType.FLOAT16: frozenset({ir.DataType.FLOAT16}),
    ir.DataType.BFLOAT16: frozenset({ir.DataType.BFLOAT16}),
    ir.DataType.FLOAT: FLOATS - {ir.DataType.DOUBLE},
    ir.DataType.DOUBLE: FLOATS,
}


def holds(target: ir.DataType, source: ir.DataType) -> bool:
    """Return whether every number of the type ``source`` is one of the float ``target``."""
    return source in _HOLDS.get(target, ())
