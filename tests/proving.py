"""What a fold is held to by its proof, with its certificate and without."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

import bnfold
from bnfold.records import Verdict


def assert_proved(
    model: onnx.ModelProto, result: bnfold.FoldResult, wrong: onnx.ModelProto | None = None
) -> None:
    """Every proof passes the fold, and none a wrong one; nothing is run.

    With its certificate, with the fold made anew, and as of a fold made by others.
    """
    for certificate, refold in ((result.certificate, True), (None, True), (None, False)):
        asked = {"certificate": certificate, "refold": refold, "run": False}
        report = bnfold.verify(model, result.to_proto(), **asked)
        assert report.verdict is Verdict.PASSED, report.why
        if wrong is not None:
            assert bnfold.verify(model, wrong, **asked).verdict is Verdict.FAILED


def with_larger_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every floating tensor is a quarter larger: another function."""
    found = onnx.ModelProto()
    found.CopyFrom(proto)
    for tensor in found.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype.kind not in "iub":
            wider = (array.astype(np.float64) * 1.25).astype(array.dtype)
            tensor.CopyFrom(numpy_helper.from_array(wider, tensor.name))
    return found
