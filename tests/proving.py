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
    """Both proofs pass the fold, and neither a wrong one; nothing is run."""
    for certificate in (result.certificate, None):
        report = bnfold.verify(model, result.to_proto(), certificate=certificate, run=False)
        assert report.verdict is Verdict.PASSED, report.why
        if wrong is not None:
            off = bnfold.verify(model, wrong, certificate=certificate, run=False)
            assert off.verdict is Verdict.FAILED


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
