"""Which integers may be of any size: those that are only ever reckoned with.

A model that casts its integers to eight bits on the way is another one, which numbers below 8
do not show. But an integer that is an index, a size or a count has to be small, or the model
does not run, or takes all the memory there is. So each reader must be known to do neither.
"""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from bnfold.inputs.reading import Reading, kind_of

_MOST_STOPS: Final = 1000

_ANY: Final = frozenset({-1})
_RECKON: Final = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Max", "Min", "Sum", "Mean"), _ANY),
    **dict.fromkeys(("Neg", "Abs", "Sign", "Identity", "Cast", "CastLike"), frozenset({0})),
    **dict.fromkeys(("Floor", "Ceil", "Round", "Div"), frozenset({0})),
    **dict.fromkeys(("Where", "Concat"), _ANY),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), frozenset({0})),
    **dict.fromkeys(("Transpose", "Expand", "Tile", "Slice", "Split"), frozenset({0})),
    **dict.fromkeys(("BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot"), _ANY),
    **dict.fromkeys(("ReduceMax", "ReduceMin", "ReduceSum", "ReduceMean"), frozenset({0})),
}
"""Operators that hand the number on, and by which operands; -1 stands for all of them."""

_END: Final = frozenset(
    {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "IsNaN", "IsInf"}
    | {"MatMul", "Gemm", "Conv", "MatMulInteger", "ConvInteger", "BatchNormalization"}
    | {"LayerNormalization", "Softmax", "LogSoftmax", "Relu", "Sigmoid", "Tanh", "Sin", "Cos"}
)
"""Operators whose results are no longer the number: a choice, or something computed."""


def is_free(value: ir.Value, reading: Reading) -> bool:
    """Return whether the elements of a value are nothing but reckoned with.

    Args:
        value: An input of the main graph.
        reading: What is known of it.
    """
    waiting, seen = [value], {value}
    while waiting and len(seen) < _MOST_STOPS:
        value = waiting.pop()
        if reading.owner(value) is not None:
            return False
        for node, index in value.uses():
            kind = kind_of(node)
            if node.domain:
                return False
            if kind in _END:
                continue
            places = _RECKON.get(kind, frozenset[int]())
            if places is not _ANY and index not in places:
                return False
            fresh = [one for one in node.outputs if one not in seen]
            waiting += fresh
            seen.update(fresh)
    return not waiting
