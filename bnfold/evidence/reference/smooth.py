"""What rounding does to operators: which hand it on as it is, and which turn it into a step.

This list is the judge's own; the folder has another. What stands in none of the sets is
taken for a step, and for inexact.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

_DEFAULT: Final = ("", "ai.onnx")

# fmt: off
MOVES: Final = frozenset({
    "Identity", "Constant", "ConstantOfShape", "Reshape", "Flatten", "Squeeze", "Unsqueeze",
    "Transpose", "Concat", "Split", "Slice", "Gather", "GatherElements", "GatherND", "Scatter",
    "ScatterElements", "ScatterND", "Expand", "Tile", "Pad", "Where", "Compress", "Trilu",
    "EyeLike", "DepthToSpace", "SpaceToDepth", "ReverseSequence", "Max", "Min", "ReduceMax",
    "ReduceMin", "MaxPool", "GlobalMaxPool", "Abs", "Neg", "Relu", "Clip", "Dropout",
    "SequenceConstruct", "SequenceAt", "SequenceInsert", "SequenceErase", "SequenceEmpty",
    "SequenceLength", "SplitToSequence", "ConcatFromSequence", "Optional",
    "OptionalGetElement", "OptionalHasElement",
})
"""No number is computed: every element of the result is one of the inputs, or its negative."""
IEEE: Final = frozenset({
    "Add", "Sub", "Mul", "Div", "Sqrt", "LeakyRelu", "PRelu", "DequantizeLinear",
})
"""One operation for each element, which IEEE 754 wants correctly rounded."""
FOLDS: Final = frozenset({
    "Sum", "Mean", "ReduceSum", "ReduceMean", "ReduceProd", "ReduceL1", "ReduceL2",
    "ReduceSumSquare", "CumSum", "CumProd", "MatMul", "Gemm", "Einsum", "Conv",
    "ConvTranspose", "AveragePool", "GlobalAveragePool", "FusedMatMul", "FusedGemm",
    "FusedConv",
})
"""Many terms in an order that is nobody's promise."""
WINDOWS: Final = frozenset({
    "Einsum", "Conv", "ConvTranspose", "AveragePool", "GlobalAveragePool", "FusedConv",
})
"""Of these, those whose terms run along several axes."""
CURVES: Final = frozenset({"Exp", "Log", "Pow", "Reciprocal"})
"""Functions that are off by units in the last place of their result."""
SHAPES: Final = frozenset({
    "Sigmoid", "HardSigmoid", "Tanh", "Erf", "Elu", "Selu", "Celu", "Gelu", "FastGelu",
    "QuickGelu", "BiasGelu", "HardSwish", "Swish", "Mish", "Softplus", "Softsign", "Softmax",
    "LogSoftmax", "Sin", "Cos", "Sinh", "Cosh", "Asin", "Asinh", "Acos", "Atan", "Atanh",
    "ReduceLogSum", "ReduceLogSumExp", "BatchNormalization", "InstanceNormalization",
    "LayerNormalization", "GroupNormalization", "RMSNormalization", "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization", "SimplifiedLayerNormalization", "LRN",
    "LpNormalization", "MeanVarianceNormalization", "LpPool", "GlobalLpPool", "LSTM", "GRU",
    "RNN", "Attention", "MultiHeadAttention", "RotaryEmbedding", "GridSample", "DeformConv",
    "LinearAttention",
})
"""Smooth, with errors that are small beside 1 or beside the largest of their results."""
NORMALISATIONS: Final = frozenset({
    "BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization",
    "RMSNormalization", "LRN", "LpNormalization", "MeanVarianceNormalization", "LpPool",
    "GlobalLpPool",
})
"""Of these, those that divide by what they compute of all, by formulas that differ."""
WITHOUT_BOUND: Final = {
    "Div": 1, "Reciprocal": 0, "Sqrt": 0, "Pow": 0, "Log": 0, "ReduceLogSum": 0,
    "LpNormalization": 0, "MeanVarianceNormalization": 0, "LayerNormalization": 0,
    "RMSNormalization": 0, "InstanceNormalization": 0, "GroupNormalization": 0,
    "BatchNormalization": 0,
}
"""In one of their inputs, whose place this is: smooth, but as steep as one likes near 0, where
what is left of a difference that cancels is all rounding."""
SURE_STEPS: Final = frozenset({
    "Floor", "Ceil", "Round", "Sign", "Mod", "Cast", "CastLike", "Equal", "Less", "Greater",
    "LessOrEqual", "GreaterOrEqual", "And", "Or", "Xor", "Not", "IsNaN", "IsInf", "ArgMax",
    "ArgMin", "TopK", "NonZero", "Unique", "Hardmax", "OneHot", "Shrink", "ThresholdedRelu",
    "QuantizeLinear", "Shape", "Size", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor",
    "BitwiseNot", "Range",
})
"""Not continuous; what they make of the same numbers is the same everywhere."""
# fmt: on

_ALIKE: Final = (MOVES | IEEE | FOLDS | {"BatchNormalization", "Cast"}) - {
    "Clip", "Max", "Min", "Where",
}  # fmt: skip
SMOOTH: Final = MOVES | IEEE | FOLDS | CURVES | SHAPES

_DIGITS: Final = {
    ir.DataType.BFLOAT16: (8, 127),
    ir.DataType.FLOAT16: (11, 15),
    ir.DataType.FLOAT: (24, 127),
    ir.DataType.DOUBLE: (53, 1023),
}
"""Bits of the significand, largest exponent."""


def is_smooth(node: ir.Node) -> bool:
    """Return whether an operator, that is no cast, turns little into little."""
    return node.op_type in SMOOTH and node.domain in (*_DEFAULT, "com.microsoft")


def is_alike_at_all_sizes(node: ir.Node) -> bool:
    """Return whether large numbers show nothing of an operator that others do not.

    It adds, multiplies, moves, or bends at zero; where it bends elsewhere, or is cut off, what
    it does is not seen on numbers around 1.
    """
    return node.op_type in _ALIKE and node.domain in (*_DEFAULT, "com.microsoft")


def is_float(dtype: ir.DataType | None) -> bool:
    """Return whether a type stands for real numbers that a runtime computes with."""
    return dtype in _DIGITS


def fits_into(source: ir.DataType | None, target: ir.DataType | None) -> bool:
    """Return whether a float type has every number of another."""
    if source not in _DIGITS or target not in _DIGITS:
        return False
    assert source is not None
    assert target is not None
    pairs = zip(_DIGITS[source], _DIGITS[target], strict=True)
    return all(own <= other for own, other in pairs)


def last_place(dtype: ir.DataType) -> float:
    """Return the distance from 1 to the next number of a float type."""
    return float(np.ldexp(1.0, 1 - _DIGITS[dtype][0]))
