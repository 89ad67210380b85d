"""One verdict of proof and run, cell by cell, and no report that contradicts itself."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bnfold
import bnfold.checked as checked
import bnfold.evidence
import bnfold.evidence.proof
from bnfold.errors import CheckFailedError
from bnfold.evidence.verdict import by_proof, findings_of, one_verdict
from bnfold.records import Charge, Finding, OutputCheck, ProofReport, Verdict, VerifyReport
from tests.small import conv_bn

PASSED, FAILED, OPEN = Verdict.PASSED, Verdict.FAILED, Verdict.NOT_JUDGED
FOUND = Finding(Charge.VALUE, "conv", "c", "it differs by 0.5", 1)
TABLE = {
    (PASSED, PASSED): PASSED,
    (PASSED, FAILED): FAILED,
    (PASSED, OPEN): PASSED,
    (FAILED, PASSED): FAILED,
    (FAILED, FAILED): FAILED,
    (FAILED, OPEN): FAILED,
    (OPEN, PASSED): PASSED,
    (OPEN, FAILED): FAILED,
    (OPEN, OPEN): OPEN,
}


def proof_of(verdict: Verdict, *, certified: bool = False) -> ProofReport:
    """A report as `prove` makes them."""
    if verdict is FAILED:
        return ProofReport(FAILED, (FOUND,), certified=certified)
    why = "the time was up" if verdict is OPEN else ""
    return ProofReport(verdict, certified=certified, why=why)


def run_of(verdict: Verdict) -> VerifyReport:
    """A report as a run makes them."""
    ratio = 9.0 if verdict is FAILED else 1.0
    check = OutputCheck("y", ratio, 5.0, 1e-3, 1e-4, None, verdict is not FAILED)
    outputs = () if verdict is OPEN else (check,)
    why = {PASSED: "", FAILED: "output 'y' is 9 times its noise away", OPEN: "it is blind"}
    return VerifyReport(verdict, outputs, why=why[verdict])


@pytest.mark.parametrize("certified", [False, True])
@pytest.mark.parametrize(("proof", "run"), TABLE)
def test_every_cell_of_the_table(proof, run, certified):
    held = proof_of(proof, certified=certified)
    report = one_verdict(held, run_of(run))
    assert report.verdict is TABLE[proof, run]
    assert report.proof is held
    assert bool(report.why) == (report.verdict is not PASSED)


def test_what_decided_is_said() -> None:
    alone = one_verdict(proof_of(PASSED), run_of(OPEN))
    assert alone.warnings == ("judged by the proof alone: it is blind",)
    run_alone = one_verdict(proof_of(OPEN), run_of(PASSED))
    assert "judged by the run alone" in run_alone.warnings[0]
    assert "the time was up" in run_alone.warnings[0]
    blind = one_verdict(proof_of(FAILED), run_of(PASSED))
    assert blind.why.startswith("the graphs part at node 'conv', 'c', channel 1")
    assert blind.why.endswith("the inputs that were run do not show it")
    both_open = one_verdict(proof_of(OPEN), run_of(OPEN))
    assert both_open.why == "it is blind; the proof is inconclusive: the time was up"


@pytest.mark.parametrize("verdict", list(Verdict))
def test_a_proof_without_a_run(verdict: Verdict) -> None:
    report = by_proof(proof_of(verdict), "nothing was run")
    assert report.verdict is verdict
    assert bool(report.why) == (verdict is not PASSED)
    assert report.warnings == ("nothing was run",)


FINDINGS = st.builds(
    Finding,
    st.sampled_from(list(Charge)),
    st.sampled_from(["", "conv"]),
    st.sampled_from(["y", "w"]),
    st.just("it differs"),
    st.sampled_from([None, 2]),
)


@st.composite
def proof_reports(draw: st.DrawFn) -> ProofReport:
    """Reports as `prove` may make them: its verdict fits its findings and its reason."""
    held = proof_of(draw(st.sampled_from(list(Verdict))), certified=draw(st.booleans()))
    channels = draw(st.integers(0, 9))
    shown = channels if held.passed else draw(st.integers(0, channels))
    if held.verdict is FAILED:
        held = replace(held, findings=tuple(draw(st.lists(FINDINGS, min_size=1, max_size=3))))
    if held.verdict is OPEN and shown < channels:
        held = replace(held, unshown=("1 of 3 channels of 'w'",))
    return replace(held, channels=channels, shown=shown)


@given(proof_reports(), st.sampled_from(list(Verdict)), st.lists(st.text(max_size=5)))
def test_no_report_contradicts_itself(
    proof: ProofReport, run: Verdict, warnings: list[str]
) -> None:
    ran = replace(run_of(run), warnings=tuple(warnings))
    report = one_verdict(proof, ran)
    assert report.passed == (report.why == "")
    assert set(warnings) <= set(report.warnings)
    if report.passed:
        assert report.proof.verdict is not FAILED
        assert not report.proof.findings
        assert all(check.passed for check in report.outputs)
    if report.proof.findings:
        assert report.verdict is FAILED
    if any(not check.passed for check in report.outputs):
        assert report.verdict is FAILED
        assert ran.why in report.why
    if report.verdict is OPEN:
        assert ran.verdict is proof.verdict is OPEN
    assert 0.0 <= report.proof.share <= 1.0


@given(proof_reports())
def test_findings_in_a_sentence(proof: ProofReport) -> None:
    assert bool(findings_of(proof)) == (not proof.passed)


# ------------------------------------------------------- what an error of `fold` blames

BLAME = "fault of bnfold"


def failure(monkeypatch: pytest.MonkeyPatch, proof: Verdict, run: Verdict) -> CheckFailedError:
    """The error of a fold whose proof and run come out so."""

    def certified(*_, **__):
        return None, proof_of(proof, certified=True)

    monkeypatch.setattr(bnfold.evidence.proof, "certify", certified)
    monkeypatch.setattr(bnfold.evidence, "check_fold", lambda *_, **__: run_of(run))
    with pytest.raises(CheckFailedError) as caught:
        bnfold.fold(conv_bn(), verify=True)
    return caught.value


@pytest.mark.parametrize("run", list(Verdict))
def test_only_a_proof_that_fails_is_a_fault_of_bnfold(monkeypatch, run: Verdict) -> None:
    error = failure(monkeypatch, FAILED, run)
    assert BLAME in error.remedy
    assert "computes another function" in str(error)
    assert "it differs by 0.5" in error.why


@pytest.mark.parametrize("proof", [PASSED, OPEN])
def test_a_run_that_fails_blames_what_the_proof_left(monkeypatch, proof: Verdict) -> None:
    error = failure(monkeypatch, proof, FAILED)
    assert BLAME not in f"{error} {error.why} {error.remedy}"
    if proof is PASSED:
        assert "less accurately" in str(error)
        assert "the function is proved to be the same" in error.remedy.replace("\n", " ")
    else:
        assert "the proof is inconclusive: the time was up" in error.why


def test_a_run_that_contradicts_the_proof_is_a_fault_of_bnfold(monkeypatch) -> None:
    """Nobody is sent to --skip, nor told that accuracy is lost."""
    ran = replace(run_of(FAILED), contradicts=True)
    monkeypatch.setattr("tests.evidence.test_verdict.run_of", lambda _: ran)
    error = failure(monkeypatch, PASSED, FAILED)
    assert BLAME in error.remedy
    assert "computes another function" in str(error)
    assert "--skip" not in error.remedy
    assert "accurate" not in f"{error} {error.why}"


def test_a_run_that_contradicts_the_proof_is_not_softened() -> None:
    ran = replace(run_of(FAILED), contradicts=True)
    report = one_verdict(proof_of(PASSED), ran)
    assert report.verdict is FAILED
    assert report.why == ran.why


@pytest.mark.parametrize("proof", [PASSED, OPEN])
@pytest.mark.parametrize("run", [PASSED, OPEN])
def test_no_error_where_neither_fails(monkeypatch, proof: Verdict, run: Verdict) -> None:
    def certified(*_, **__):
        return None, proof_of(proof, certified=True)

    monkeypatch.setattr(bnfold.evidence.proof, "certify", certified)
    monkeypatch.setattr(bnfold.evidence, "check_fold", lambda *_, **__: run_of(run))
    check = bnfold.fold(conv_bn(), verify=True).check
    assert check.verdict is TABLE[proof, run]


def test_fold_says_fault_of_bnfold_for_a_wrong_fold_that_is_its_own(monkeypatch) -> None:
    """Nothing patched but the folder: its weights come out 1 % off in one channel."""
    own = checked.fold_unchecked

    def wrong(*args, **choices):
        result = own(*args, **choices)
        weight = result.model.graph.initializers["w"]
        array = weight.const_value.numpy().copy()
        array[2] *= 1.01
        weight.const_value = ir.tensor(array, name="w")
        return result

    monkeypatch.setattr(checked, "fold_unchecked", wrong)
    with pytest.raises(CheckFailedError) as caught:
        bnfold.fold(conv_bn())
    assert BLAME in caught.value.remedy
    assert "conv" in caught.value.where
