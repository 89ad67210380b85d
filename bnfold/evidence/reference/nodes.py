"""Evaluate one node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from bnfold.evidence.reference.arrays import Array, widen_result
from bnfold.evidence.reference.by_onnx import run_by_onnx
from bnfold.evidence.reference.call import Call
from bnfold.evidence.reference.kernels import BY_DOMAIN


def evaluate_node(
    node: ir.Node, inputs: Sequence[Array | None], opset: int
) -> list[Array | None]:
    """Evaluate one node without subgraphs; results may share memory with the inputs.

    Args:
        node: The node; its attributes must be values, not references.
        inputs: Its inputs; float tensors are float64; None where absent.
        opset: Version of the operator set that the node's domain is read in.

    Raises:
        NoKernelError: If there is no float64 kernel for it.
    """
    kernel = BY_DOMAIN.get(node.domain, {}).get(node.op_type)
    results: Any
    with np.errstate(all="ignore"):
        if kernel is None:
            results = tuple(run_by_onnx(node, inputs, opset))
        else:
            results = kernel(Call(node, inputs, opset))
    if type(results) is not tuple:  # a list is a sequence, one value
        return [widen_result(results)]
    return [widen_result(result) for result in results]
