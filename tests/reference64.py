"""The product's float64 evaluator, for models that are protobuf."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir

from bnfold.evidence.reference import Evaluator, Fallback, NoKernelError
from bnfold.model.io import from_proto

Array = np.ndarray


def drop_nothing(
    node: ir.Node, inputs: Sequence[Array | None], _opset: int
) -> list[Array | None]:
    """Dropout that trains is random; these tests read it as inference."""
    if node.domain == "" and node.op_type == "Dropout":
        return [inputs[0], np.ones(inputs[0].shape, bool)][: len(node.outputs)]
    raise NoKernelError(f"{node.domain}.{node.op_type}")


def run64(
    model: onnx.ModelProto, inputs: Mapping[str, Array], fallback: Fallback = drop_nothing
) -> dict[str, Array]:
    """Evaluate the model in float64; ``fallback`` computes foreign operators."""
    return Evaluator(from_proto(model), fallback=fallback).run(inputs)
