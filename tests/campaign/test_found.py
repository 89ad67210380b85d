"""Right folds that long campaigns found refused or inconclusive: each passes since."""

from __future__ import annotations

import pytest

from benchmarks.campaign import judges
from benchmarks.campaign.work import Task, case_of

FOUND = {
    "bodies/200012": "a branch of a Where that one sample of six numbers rarely takes",
    "bodies/200019": "channels of a function's Relu that few samples leave shut",
    "bodies/200032": "the same behind a Tanh, in bfloat16",
}


@pytest.mark.parametrize("key", FOUND)
def test_a_right_fold_passes_with_and_without_its_certificate(key: str) -> None:
    source, _, seed = key.rpartition("/")
    _, case = case_of(Task(source, int(seed)))
    fold = judges.certified(case.model, case.options)
    assert fold.result is not None
    assert fold.result.report.steps
    for certificate in (fold.certificate, None):
        said = judges.verified(case.model, fold.result.to_proto(), certificate)
        assert said.word == judges.PASSED, (FOUND[key], said.why)
