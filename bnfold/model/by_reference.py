"""Run one operator on constants: by a kernel of ours, or by onnx's reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx
import onnx_ir as ir

from bnfold.model.attributes import int_attr
from bnfold.model.kernels64 import KERNELS
from bnfold.model.native import Array, UndecidedError
from bnfold.model.versions import NEWEST

_NUMPY_BROADCAST_SINCE: Final = 7
"""Older versions broadcast by attributes, which onnx's reference does not read."""
_COMPOSED: Final = frozenset({"ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceSumSquare"})
_SAME_AS: Final = {"Scatter": ("ScatterElements", 11)}
"""Another name for an operator, and the operator set to read that in."""


def run_operator(node: ir.Node, arrays: Sequence[Array | None], opset: int) -> list[Array]:
    """Return the results of an operator on arrays in which every float is float64.

    Raises:
        UndecidedError: If runtimes or versions are known to differ in it.
    """
    if why := _why_not(node, arrays, opset):
        raise UndecidedError(why)
    kernel = KERNELS.get(node.op_type)
    if kernel is not None:
        return kernel(node, arrays, opset)
    return _by_reference(node, arrays, opset)


def _why_not(node: ir.Node, arrays: Sequence[Array | None], opset: int) -> str:
    name = f"{node.op_type} of operator set {opset}"
    if opset > NEWEST:
        return f"{name} is newer than {NEWEST}, the newest that is known"
    if opset < _NUMPY_BROADCAST_SINCE and int_attr(node, "broadcast", 0):
        return f"{name} broadcasts by attributes, which is not computed here"
    if node.op_type in _COMPOSED and int_attr(node, "noop_with_empty_axes", 0):
        axes = arrays[1] if len(arrays) > 1 else None
        if axes is None or not axes.size:
            # the specification still asks for |x|, x² or log x; ONNX Runtime 1.32 gives x
            return f"runtimes differ in what {node.op_type} over no axes computes"
    return ""


def _by_reference(node: ir.Node, arrays: Sequence[Array | None], opset: int) -> list[Array]:
    from onnx.reference import ReferenceEvaluator

    given = {f"i{k}": array for k, array in enumerate(arrays) if array is not None}
    proto = ir.serde.serialize_node(node)
    proto.op_type, opset = _SAME_AS.get(node.op_type, (node.op_type, opset))
    del proto.input[:], proto.output[:]
    proto.input.extend(f"i{k}" if f"i{k}" in given else "" for k in range(len(arrays)))
    proto.output.extend(f"o{place}" for place in range(len(node.outputs)))
    graph = onnx.helper.make_graph(
        [proto],
        "constant",
        [onnx.helper.make_empty_tensor_value_info(name) for name in given],
        [onnx.helper.make_empty_tensor_value_info(name) for name in proto.output],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    return [np.asarray(result) for result in ReferenceEvaluator(model).run(None, given)]
