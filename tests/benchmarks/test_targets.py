from __future__ import annotations

import json

import pytest

from benchmarks.gpu import targets, training_tables
from benchmarks.gpu.training_plan import plan
from tests.benchmarks.training_documents import (
    LARGE,
    NET,
    PLAIN,
    SMALL,
    document,
    figure,
    row,
)

_ALL = (LARGE, SMALL, PLAIN, NET)


def _judged(*rows: dict, **changed) -> dict[str, dict]:
    return {one["target"]: one for one in targets.judge(document(rows, **changed))}


def _verdicts(*rows: dict, **changed) -> dict[str, str]:
    return {key: one["verdict"] for key, one in _judged(*rows, **changed).items()}


def test_all_met():
    found = _verdicts(*map(row, _ALL))
    assert found == {
        "copy bandwidth, forward": "met",
        "copy bandwidth, backward": "met",
        "torch eager": "met",
        "torch.compile": "met",
        "cuDNN": "met",
        "whole step, eager": "measured",
        "whole step, compiled": "measured",
        "peak memory, eager": "measured",
        "peak memory, compiled": "measured",
    }
    assert targets.summary(list(_judged(*map(row, _ALL)).values())) == (
        "Of 5 targets with a bound: 5 met."
    )


def test_a_line_for_each_target_and_one_for_all():
    judged = targets.judge(document([row(LARGE), row(SMALL, 1.3)], planned=(LARGE, SMALL)))
    *each, last = targets.lines(judged)
    assert len(each) == len(targets.TARGETS)
    assert f"torch eager: not met (1 met, 1 not met); lowest 1.300, {SMALL.key}" in each
    assert "cuDNN: not measured (no rows)" in each
    assert last == targets.summary(judged)


def test_the_whole_interval_must_meet_a_bound():
    speeds = {1.52: "met", 1.505: "undecided", 1.495: "undecided", 1.4: "not met"}
    for speed, verdict in speeds.items():
        assert _verdicts(row(SMALL, speed), planned=(SMALL,))["torch eager"] == verdict


def test_one_row_that_misses_is_the_verdict_and_is_named():
    found = _judged(row(LARGE), row(SMALL, 1.3), planned=(LARGE, SMALL))["torch eager"]
    assert found["verdict"] == "not met"
    assert found["counts"] == {"met": 1, "not met": 1}
    assert found["lowest"] == SMALL.key


def test_what_was_not_reached_is_said():
    found = _judged(row(LARGE), planned=(LARGE, SMALL))["torch eager"]
    assert found["verdict"] == "met, as far as measured"
    assert (
        found["rows"][1] | {"verdict": "not measured", "why": "not reached"}
        == (found["rows"][1])
    )
    assert set(_verdicts().values()) == {"not measured"}


def test_a_target_that_asks_for_nothing_planned_is_not_measured():
    assert set(_verdicts(planned=()).values()) == {"not measured"}
    nothing = targets.judge({"dry_run": False, "sections": {}})
    assert {one["verdict"] for one in nothing} == {"not measured"}


def test_small_tensors_are_not_judged_by_a_copy():
    found = _judged(row(LARGE), row(SMALL, copied=0.1), row(PLAIN))["copy bandwidth, forward"]
    assert [one["key"] for one in found["rows"]] == [LARGE.key, PLAIN.key]
    assert found["verdict"] == "met"


def test_a_call_from_python_has_a_verdict_of_its_own():
    found = _judged(row(SMALL, 2.0, called=0.9), planned=(SMALL,))["torch eager"]
    assert found["counts"] == {"met": 1}
    assert found["called"] == {"not met": 1}


def test_a_wrong_result_meets_nothing_however_fast():
    wrong = row(LARGE, 9.0, correct=False, errors={"y": 0.9, "dx": 3e4})
    found = _judged(wrong, planned=(LARGE,))
    for key in ("torch eager", "torch.compile", "copy bandwidth, backward"):
        assert found[key]["verdict"] == "not met"
        assert found[key]["rows"][0]["why"] == "ours is wrong: dx 3e+04"


def test_what_was_not_checked_meets_nothing():
    unchecked = row(LARGE, unchecked="out of memory")
    del unchecked["correct"]
    found = _judged(unchecked, planned=(LARGE,))["torch eager"]["rows"][0]
    assert found["verdict"] == "not measured"
    assert found["why"] == "ours was not checked: out of memory"


def test_a_failure_of_ours_is_a_miss_and_one_of_a_rival_is_not():
    ours = row(LARGE, failures={"ours": "no kernel"}, ratios={}, of_copy={})
    assert _verdicts(ours, planned=(LARGE,))["copy bandwidth, forward"] == "not met"
    rival = row(LARGE, failures={"compiled": "BackendCompilerFailed"})
    del rival["ratios"]["compiled / ours"]
    found = _judged(rival, planned=(LARGE,))
    assert found["torch eager"]["verdict"] == "met"
    assert found["torch.compile"]["verdict"] == "not measured"
    assert found["torch.compile"]["rows"][0]["why"] == "compiled failed: BackendCompilerFailed"


def test_a_row_that_failed_whole_is_not_measured():
    failed = {**row(LARGE), "ratios": {}, "of_copy": {}, "error": "turns: took too long"}
    found = _judged(failed, planned=(LARGE,))["torch eager"]["rows"][0]
    assert (found["verdict"], found["why"]) == ("not measured", "turns: took too long")


def test_cudnn_is_only_beaten_where_it_ran():
    native = row(PLAIN, kernels=["void at::native::batch_norm_transform_input_kernel"])
    found = _judged(native, planned=(PLAIN,))["cuDNN"]["rows"][0]
    assert (found["verdict"], found["why"]) == (
        "not measured",
        "torch did not run cuDNN here",
    )
    silent = row(PLAIN, backend="cudnn")
    del silent["kernels"]
    assert _verdicts(silent, planned=(PLAIN,))["cuDNN"] == "met"


def test_a_network_that_learns_something_else_is_a_miss():
    other = row(NET, agrees={"eager": True, "ours": False})
    assert _verdicts(other, planned=(NET,))["whole step, eager"] == "not met"


def test_too_few_turns_are_no_measurement():
    few = {"step queued": {"value": 2.0, "low": None, "high": None}}
    short = row(SMALL, ratios={"eager / ours": few})
    found = _judged(short, planned=(SMALL,))["torch eager"]["rows"][0]
    assert (found["verdict"], found["why"]) == (
        "not measured",
        "too few turns for an interval",
    )


def test_a_dry_run_meets_nothing():
    assert set(_verdicts(*map(row, _ALL), dry_run=True).values()) == {"not measured"}


def test_every_target_asks_for_something_of_the_real_plan():
    tasks = plan(dry_run=False)
    for target in targets.TARGETS:
        assert any(target.asks(task) for task in tasks), target.key
    compiled = next(one for one in targets.TARGETS if one.rival == "compiled")
    assert all("compiled" in task.arms for task in tasks if compiled.asks(task))


def test_the_page_has_targets_layers_networks_and_what_did_not_run():
    rows = [
        row(LARGE),
        row(SMALL, 1.2),
        row(PLAIN, absent={"apex": "not installed"}),
        row(NET),
    ]
    found = document(rows)
    part = found["sections"]["training"]
    part["targets"] = targets.judge(found)
    part["summary"] = targets.summary(part["targets"])
    page = "\n".join(training_tables.parts(json.loads(json.dumps(part))))
    assert "4 of 4 planned rows" in page
    assert "Of 5 targets with a bound: 4 met, 1 not met." in page
    assert f"- torch eager: {SMALL.key}: not met, 1.200 [1.190, 1.210]" in page
    assert "| bn+add+relu 256×256×56² | 411.0 | 1.0000 | 1.0000 | 1.0000 | 2.000" in page
    assert "3, 2, 1 | dx 1.2 |" in page
    assert "| resnet50 batch 256 bfloat16 autocast | ours | 100.00 | 2560 | – | 10.00" in page
    assert "part of a BatchNorm: 33 × relu, 16 × addition + relu." in page
    assert "- apex: not installed" in page


def test_the_page_of_rows_that_failed_can_be_made():
    empty = {"what": "layer", "error": "lost", "failures": {"ours": "lost"}}
    failed = [{**row(task), **empty} for task in (LARGE, SMALL)]
    for one in failed:
        for key in ("medians_ms", "ratios", "of_copy", "bytes", "peak_bytes", "errors"):
            del one[key]
    net = {k: v for k, v in row(NET).items() if k in ("what", "key", "failures")}
    part = document([*failed, net])["sections"]["training"]
    page = "\n".join(training_tables.parts(part))
    assert "| bn+relu 16×2048×7² | – | – |" in page
    assert "ours: lost" in page


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (None, "–"),
        ({"value": None, "low": None, "high": None}, "–"),
        ({"value": 1.5, "low": None, "high": None}, "1.500"),
        (figure(1.5), "1.500 [1.490, 1.510]"),
    ],
)
def test_figures_are_written_with_their_intervals(found, text):
    assert training_tables.figure(found) == text
