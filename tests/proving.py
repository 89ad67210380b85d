"""What a fold is held to by its proof, with its certificate and without."""

from __future__ import annotations

import onnx

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
