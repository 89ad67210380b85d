"""`bnfold.verify` with what `bnfold.fold` returns, and within its time."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from onnx import numpy_helper

import bnfold
from bnfold.errors import ModelError, UsageError
from bnfold.records import Verdict
from tests.evidence.proof.models import changed, conv_bn, linear, stored
from tests.small import two_layers


@pytest.fixture(scope="module")
def result() -> bnfold.FoldResult:
    return bnfold.fold(two_layers(), verify=False, certificate=True)


def test_the_certificate_that_fold_returns_is_taken_as_it_is(result, tmp_path) -> None:
    result.save(tmp_path / "folded.onnx")
    (tmp_path / "c.json").write_text(result.certificate.to_json(), encoding="utf-8")
    reports = [
        bnfold.verify(two_layers(), result, certificate=result.certificate),
        bnfold.verify(two_layers(), result.to_proto(), certificate=result.certificate),
        bnfold.verify(two_layers(), tmp_path / "folded.onnx", certificate=tmp_path / "c.json"),
        bnfold.verify(two_layers(), result, certificate=result.certificate.to_json()),
    ]
    for report in reports:
        assert report.passed, report.why
        assert report.proof.certified
        assert report.proof.passed
        assert report.why == ""
    assert len({report.proof for report in reports}) == 1


def test_either_model_may_be_what_fold_returned(result) -> None:
    sides = (two_layers(), result)
    for original, folded in product(sides, repeat=2):
        report = bnfold.verify(original, folded, run=False)
        assert report.passed, report.why
        assert "nothing was run" in report.warnings[0]


def test_a_fold_of_another_model_is_refused_with_its_own_certificate(result) -> None:
    wrong = changed(two_layers(), {"w2": 2 * stored(two_layers())["w2"]})
    report = bnfold.verify(wrong, result, certificate=result.certificate)
    assert report.verdict is Verdict.FAILED
    assert report.why


def test_a_result_without_a_certificate_is_compared_without_one() -> None:
    plain = bnfold.fold(two_layers(), verify=False)
    assert plain.certificate is None
    report = bnfold.verify(two_layers(), plain, certificate=plain.certificate, run=False)
    assert report.passed
    assert not report.proof.certified


@pytest.mark.parametrize("wrong", [3, b"{}", {"schema": "x"}, ["c.json"], two_layers()])
def test_what_is_no_certificate_is_a_usage_error_with_a_remedy(wrong) -> None:
    with pytest.raises(UsageError, match="this is no certificate") as caught:
        bnfold.verify(two_layers(), two_layers(), certificate=wrong)
    assert type(wrong).__name__ in caught.value.why
    assert "FoldResult.certificate" in caught.value.remedy


def test_another_document_is_no_certificate(result) -> None:
    """Whether it has a text of its own or none: it is not the one of a certificate."""
    with pytest.raises((ModelError, UsageError), match="certificate"):
        bnfold.verify(two_layers(), two_layers(), certificate=result.report)


@pytest.mark.parametrize("certified", [False, True])
@pytest.mark.parametrize("spoil", [False, True])
def test_a_proof_that_has_no_time_decides_nothing(certified, spoil) -> None:
    original = conv_bn(7, 32, c=8)
    result = bnfold.fold(original, verify=False, certificate=True)
    folded = result.to_proto()
    if spoil and not certified:  # with one, the files alone convict, before any time is spent
        folded = changed(folded, {"w": -3 * stored(folded)["w"]})
    certificate = result.certificate if certified else None
    report = bnfold.verify(
        original, folded, certificate=certificate, max_time=0.001, run=False
    )
    assert report.verdict is Verdict.NOT_JUDGED
    assert report.proof.verdict is Verdict.NOT_JUDGED
    assert report.proof.findings == ()
    assert "the time was up" in report.proof.why
    assert report.why == report.proof.why


def test_a_fold_whose_check_has_no_time_is_not_called_wrong() -> None:
    check = bnfold.fold(linear("Gemm"), max_time=0.001).check
    assert check.verdict is not Verdict.FAILED
    assert check.proof.verdict is Verdict.NOT_JUDGED
    assert "the time was up" in check.proof.why


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.0, Verdict.PASSED), (1.01, Verdict.FAILED)]
)
def test_models_that_there_is_no_time_to_run_are_judged_by_the_proof_alone(
    monkeypatch, factor, verdict
):
    monkeypatch.setattr("bnfold.evidence.verdict._RUN_PER_S", 1e-3)
    original = two_layers()
    result = bnfold.fold(original)
    assert result.check is not None
    assert result.check.verdict is Verdict.PASSED
    assert not result.check.outputs
    assert "no time to run" in result.check.warnings[0]
    folded = result.to_proto()
    tensor = next(one for one in folded.graph.initializer if len(one.dims) > 1)
    elements = numpy_helper.to_array(tensor) * np.float32(factor)
    tensor.CopyFrom(numpy_helper.from_array(elements, tensor.name))
    report = bnfold.verify(original, folded)
    assert report.verdict is verdict
    assert bool(report.outputs) is (verdict is Verdict.FAILED)  # a fault is shown by a run too
