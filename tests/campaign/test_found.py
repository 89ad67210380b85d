"""Right folds that long campaigns found refused or inconclusive: each passes since."""

from __future__ import annotations

import pytest

from benchmarks.campaign import judges
from benchmarks.campaign.sketch import Array, Sketch
from benchmarks.campaign.work import Task, case_of, done

FOUND = {
    "bodies/200012": "a branch of a Where that one sample of six numbers rarely takes",
    "bodies/200019": "channels of a function's Relu that few samples leave shut",
    "bodies/200032": "the same behind a Tanh, in bfloat16",
}


@pytest.fixture(autouse=True)
def trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """These were found before networks were drawn that were never trained."""

    def shifts(sketch: Sketch, *shape: int, scale: float = 0.5) -> Array:
        return sketch.normal(*shape, scale=scale)

    monkeypatch.setattr(Sketch, "gains", Sketch.trained_gains)
    monkeypatch.setattr(Sketch, "variances", Sketch.trained_variances)
    monkeypatch.setattr(Sketch, "shifts", shifts)


@pytest.mark.parametrize("key", FOUND)
def test_a_right_fold_passes_with_and_without_its_certificate(key: str) -> None:
    source, _, seed = key.rpartition("/")
    _, case = case_of(Task(source, int(seed)))
    fold = judges.certified(case.model, case.options)
    assert fold.result is not None
    assert fold.result.report.steps
    for certificate, refold in ((fold.certificate, True), (None, True), (None, False)):
        folded = fold.result.to_proto()
        said = judges.verified(case.model, folded, certificate, refold=refold)
        assert said.word == judges.PASSED, (FOUND[key], refold, said.why)


def test_a_bias_that_is_off_behind_a_large_bound_does_not_pass():
    """Max with a larger constant hides one channel of a map for most numbers."""
    said = [one["said"] for one in done(Task("windows", 400011, mutants=1))["mutants"]]
    assert said
    for one in said:
        assert one["certificate"]["word"] == judges.REFUSED
        assert judges.PASSED not in {entry["word"] for entry in one.values()}


def test_a_channel_that_a_clip_hid_for_one_set_of_inputs_does_not_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A difference on shorter axes was unsaid by one draw of the real ones."""
    monkeypatch.undo()  # found among networks that were never trained
    said = [one["said"] for one in done(Task("windows", 960036, mutants=1))["mutants"]]
    assert said
    for one in said:
        assert judges.PASSED not in {entry["word"] for entry in one.values()}


def test_a_shift_beside_what_a_recurrence_grows_to_does_not_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What fits numbers of 10¹⁷ is the identity; small numbers were not held to it."""
    monkeypatch.undo()
    said = [one["said"] for one in done(Task("suite", 2000214, mutants=1))["mutants"]]
    assert said
    for one in said:
        assert {entry["word"] for entry in one.values()} == {judges.REFUSED}


def test_a_map_no_larger_than_rounding_refuses_no_fold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A scale of one ulp of float16 was lost on the way; its shift stood alone behind."""
    monkeypatch.undo()
    _, case = case_of(Task("chain", 9001212))
    fold = judges.certified(case.model, case.options)
    assert fold.result is not None
    for refold in (True, False):
        said = judges.verified(case.model, fold.result.to_proto(), None, refold=refold)
        assert said.word != judges.REFUSED, said.why


def test_a_choice_that_no_nudge_reaches_hides_no_weight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A weight of bfloat16 set to zero, behind a Where whose condition is an input."""
    monkeypatch.undo()
    said = [one["said"] for one in done(Task("chain", 9001222, mutants=1))["mutants"]]
    assert said
    for one in said:
        assert {entry["word"] for entry in one.values()} == {judges.REFUSED}


def test_a_missing_min_shows_for_three_numbers_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of three numbers may be below a bound: of one draw one in eight times."""
    monkeypatch.undo()
    said = [one["said"] for one in done(Task("suite", 881, mutants=2))["mutants"]]
    assert len(said) == 2
    for one in said:
        assert {entry["word"] for entry in one.values()} == {judges.REFUSED}


def test_one_number_among_thousands_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 3 × 4096 bfloat16 weights beside a bias that may have been rounded, one was off."""
    monkeypatch.undo()
    said = [one["said"] for one in done(Task("pre-activation", 218, mutants=1))["mutants"]]
    assert said
    for one in said:
        words = {one[judge]["word"] for judge in ("certificate", "alone", "rewritten")}
        assert words == {judges.REFUSED}


def test_a_fold_that_rounding_makes_look_like_another_passes_if_bnfold_makes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Weights of float16 a hundred times as large as before, behind a variance of 2e-5."""
    monkeypatch.undo()
    _, case = case_of(Task("windows", 332))
    fold = judges.certified(case.model, case.options)
    assert fold.result is not None
    said = judges.verified(case.model, fold.result.to_proto())
    assert said.word == judges.PASSED, said.why


def test_two_right_folds_of_one_graph_both_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `norms` and without, the graph is the same: a scale in front of a normalisation."""
    monkeypatch.undo()
    _, case = case_of(Task("chain", 71))
    for options in ({}, {"norms": True}):
        folded = judges.certified(case.model, options).result
        assert folded is not None
        said = judges.verified(case.model, folded.to_proto())
        assert said.word == judges.PASSED, said.why
