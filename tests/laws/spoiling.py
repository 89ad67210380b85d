"""A fold that writes what a test spoils: a law has to notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx

import bnfold


def spoiled_by(spoil: Callable[[onnx.ModelProto], None]) -> Callable[..., Any]:
    """Return a ``bnfold.fold`` whose models are spoiled as they are handed out."""
    right = bnfold.fold

    class Spoiled:
        def __init__(self, model: onnx.ModelProto, **options: Any) -> None:
            self.result = right(model, **options)
            self.report = self.result.report

        def to_proto(self) -> onnx.ModelProto:
            proto = self.result.to_proto()
            if self.report.steps:
                spoil(proto)
            return proto

    return Spoiled
