"""Evaluate a node whose inputs are all constant, with onnx's reference implementation.

Floating arithmetic is done in float64 and stays unrounded, so that a map spelled out as
``gamma / sqrt(var + eps)`` costs one rounding like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.expression import Expression, round_once
from bnfold.model.constants import FLOATS, Constant
from bnfold.model.quantized import EXACT, dequantized, quantized

MAX_ELEMENTS: Final = 1 << 27
"""Larger results are left to the runtime: nothing worth folding is bigger."""

_CASTS: Final = frozenset({"Cast", "CastLike"})
_QUANTIZERS: Final = frozenset({"QuantizeLinear", "DequantizeLinear"})
# fmt: off
COMPUTES: Final = _CASTS | _QUANTIZERS | frozenset({
    "Identity", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Concat",
    "Gather", "Split", "Expand", "Tile", "Where", "Shape", "Size", "Range", "ConstantOfShape",
    "Add", "Sub", "Mul", "Div", "Mod", "Neg", "Abs", "Sqrt", "Reciprocal", "Pow", "Exp", "Log",
    "Min", "Max", "Sum", "Floor", "Ceil", "ReduceProd", "ReduceSum", "ReduceMean",
    "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "And", "Or", "Xor",
})
# fmt: on
"""Operators that compute a constant from constants."""


def evaluate(
    node: ir.Node, inputs: Sequence[Constant | None], opset: int, target: ir.DataType | None
) -> list[Constant] | None:
    """Return the outputs of ``node`` for constant inputs; None when it cannot be evaluated.

    Args:
        node: A node whose operator is in `COMPUTES`.
        inputs: Its inputs, None where absent.
        opset: Version of the default operator set.
        target: Element type of the result of a cast, if ``node`` is one.
    """
    if node.op_type in _CASTS:
        return None if inputs[0] is None else [_cast(inputs[0], target)]
    if node.op_type in _QUANTIZERS:
        return _quantize(node, inputs)
    known = [entry for entry in inputs if entry is not None]
    if _result_size(node, known) > MAX_ELEMENTS:
        return None
    arrays = [_elements(entry) for entry in known]
    try:
        results = _run(node, inputs, arrays, opset)
    except Exception:  # noqa: BLE001  the reference raises anything; a dynamic value is no error
        return None
    return [_constant(result, known) for result in results]


def _quantize(node: ir.Node, inputs: Sequence[Constant | None]) -> list[Constant] | None:
    if EXACT in node.meta:
        return [node.meta[EXACT]]
    value, scale, zero = (*inputs, None)[:3]
    if value is None or scale is None:
        return None
    convert = quantized if node.op_type == "QuantizeLinear" else dequantized
    result = convert(node, value, scale, zero)
    return None if result is None else [result]


def _elements(entry: Constant) -> NDArray[np.generic]:
    return entry.wide() if entry.is_float else entry.stored()


def _cast(source: Constant, target: ir.DataType | None) -> Constant:
    dtype = ir.DataType.UNDEFINED if target is None else target
    if source.dtype == dtype:
        return source
    if dtype in FLOATS:
        return Constant(Expression.of(round_once(source.wide(), dtype.numpy())), dtype)
    return Constant(Expression.of(_elements(source).astype(dtype.numpy())), dtype)


def _result_size(node: ir.Node, inputs: Sequence[Constant]) -> float:
    """Bound the number of elements of the result before anything is allocated."""
    if node.op_type in ("Expand", "ConstantOfShape", "Tile") and inputs:
        sizes = np.abs(inputs[-1].stored().astype(np.float64)).reshape(-1)
        base = float(np.prod(inputs[0].shape)) if node.op_type != "ConstantOfShape" else 1.0
        return float(np.prod(np.maximum(sizes, 1.0))) * max(base, 1.0)
    if node.op_type == "Range" and len(inputs) == 3:
        start, limit, delta = (float(entry.stored()) for entry in inputs)
        return abs((limit - start) / delta) if delta else float("inf")
    return float(sum(np.prod(entry.shape) for entry in inputs))


def _run(
    node: ir.Node,
    inputs: Sequence[Constant | None],
    arrays: Sequence[NDArray[np.generic]],
    opset: int,
) -> list[NDArray[np.generic]]:
    from onnx.reference import ReferenceEvaluator

    names = [f"i{place}" for place in range(len(arrays))]
    queue = iter(names)
    proto = ir.serde.serialize_node(node)
    del proto.input[:], proto.output[:]
    proto.input.extend("" if entry is None else next(queue) for entry in inputs)
    proto.output.extend(f"o{place}" for place in range(len(node.outputs)))
    graph = onnx.helper.make_graph(
        [proto],
        "constant",
        [onnx.helper.make_empty_tensor_value_info(name) for name in names],
        [onnx.helper.make_empty_tensor_value_info(name) for name in proto.output],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    results = ReferenceEvaluator(model).run(None, dict(zip(names, arrays, strict=True)))
    return [np.asarray(result) for result in results]


def _constant(result: NDArray[np.generic], inputs: Sequence[Constant]) -> Constant:
    """Name the element type: float64 results carry the floating type of the inputs."""
    floats = [entry.dtype for entry in inputs if entry.is_float]
    if floats and result.dtype == np.float64:
        return Constant(Expression.of(result), floats[-1])
    return Constant(Expression.of(result), ir.DataType.from_numpy(result.dtype))
