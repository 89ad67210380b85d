"""The product's float64 evaluator, for models that are protobuf."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from bnfold.evidence.reference import Evaluator, Fallback
from bnfold.evidence.reference.arrays import Array
from bnfold.model.io import from_proto


def run64(
    model: onnx.ModelProto, inputs: Mapping[str, Array], fallback: Fallback | None = None
) -> dict[str, Array]:
    """Evaluate the model in float64; ``fallback`` computes foreign operators."""
    return Evaluator(from_proto(model), fallback=fallback).run(inputs)
