"""``bnfold verify``: exit codes, streams, messages."""

from __future__ import annotations

import json
import sys

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import bnfold
from tests.cli import calling
from tests.small import two_layers

KEYS = {
    "schema", "passed", "verdict", "outputs", "cases", "why", "warnings", "metrics",
    "referenced", "fell_back", "settings", "labels", "search", "proof",
    "made", "original", "folded", "runtime", "comparisons", "false_alarms", "only_accuracy",
    "contradicts",
}  # fmt: skip
METRICS = {
    "name", "max_abs", "max_rel", "max_ulp", "snr_db", "cosine", "tolerance", "changed",
    "reference",
}  # fmt: skip
REFERENCE = {
    "error_original", "error_folded", "ratio", "low", "high", "excess", "excess_low",
    "excess_high", "worst", "limit", "samples", "channels", "channel",
}  # fmt: skip


def run(*arguments):
    return calling.run("verify", *arguments)


@pytest.fixture
def models(tmp_path):
    """Original, honest fold, spoiled fold."""
    original, spoiled = two_layers(), two_layers()
    weight = numpy_helper.to_array(spoiled.graph.initializer[2]).copy()
    weight[2] *= 1.01
    spoiled.graph.initializer[2].CopyFrom(numpy_helper.from_array(weight, "w2"))
    onnx.save(original, tmp_path / "original.onnx")
    onnx.save(spoiled, tmp_path / "spoiled.onnx")
    bnfold.fold(original, verify=False).save(tmp_path / "folded.onnx")
    return [tmp_path / f"{name}.onnx" for name in ("original", "folded", "spoiled")]


def test_the_same_function_exits_with_0_and_tells_people_on_stderr(models):
    done = calling.started("verify", *models[:2], "--shape", "x=1..4x3")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    for words in (
        "the same function (passed)",
        "times the original's rounding noise",
        "error against float64: original",
        "smallest rtol = atol that passes",
        "it is the fold that bnfold makes): passed",
    ):
        assert words in done.stderr
    assert "\x1b" not in done.stderr


def test_another_function_exits_with_1_and_names_the_node(models):
    done = run(models[0], models[2])
    assert done.returncode == 1
    assert "NOT the same function (failed)" in done.stderr
    assert "the graphs part at node 'second'" in done.stderr


def test_json_is_the_only_thing_on_stdout_and_keeps_its_keys(models):
    done = run(*models[:2], "--json", "--seed", "3")
    report = json.loads(done.stdout)
    assert report["schema"] == "bnfold/verify-report/1"
    assert set(report) == KEYS
    (metrics,) = report["metrics"]
    assert set(metrics) == METRICS
    assert set(metrics["reference"]) == REFERENCE
    assert report["proof"]["verdict"] == "passed"
    assert report["passed"] is True
    again = json.loads(run(*models[:2], "--json", "--seed", "3").stdout)
    assert {**again, "made": None} == {**report, "made": None}


def test_inputs_and_labels(models, tmp_path):
    np.savez(tmp_path / "x.npz", x=np.eye(3, dtype=np.float32))
    (tmp_path / "labels.txt").write_text("0 1 1")
    given = ["--inputs", tmp_path / "x.npz"]
    done = run(*models[:2], *given, "--labels", tmp_path / "labels.txt")
    assert done.returncode == 0, done.stderr
    assert "accuracy over 3 samples" in done.stderr
    assert "McNemar p = 1" in done.stderr
    np.savez(tmp_path / "x.npz", x=np.eye(4, dtype=np.float32))
    done = run(*models[:2], *given)
    assert done.returncode == 3
    assert "the model reads N×3, given is 4×4" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--inputs", "none.npz"], 3, "there is no such file"),
        (["--inputs", "no_such_module:f"], 3, "cannot import the inputs"),
        (["--shape", "x=1x4"], 2, "the model reads N×3, not 1×4"),
        (["--labels", "l.npy"], 2, "give the samples with --inputs"),
        (["--level", "most"], 2, "'most' is not one of"),
        (["--provider", "Nonsense"], 4, "this ONNX Runtime has only"),
        (["--certificate", "none.json"], 3, "none.json"),
    ],
)
def test_what_cannot_be_done_is_said_with_its_own_code(models, options, code, words):
    done = run(*models[:2], *options)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("refold", ["--refold", "--no-refold"])
@pytest.mark.parametrize("certified", [False, True])
@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ("zz=1x3", ("where: zz", "the model's inputs are 'x'")),
        ("x=1x4", ("where: x", "the model reads N×3, not 1×4")),
        ("x=1x3x8", ("where: x", "the model reads N×3, not 1×3×8")),
    ],
)
def test_a_shape_that_does_not_fit_is_misuse_without_a_run_too(
    models, tmp_path, shape, words, certified, refold
):
    original, folded = models[0], tmp_path / "f.onnx"
    certificate = tmp_path / "c.json"
    made = calling.run("fold", original, "-o", folded, "--certificate", certificate)
    assert made.returncode == 0, made.stderr
    options = ["--certificate", certificate] if certified else []
    done = run(original, folded, "--no-run", refold, "--shape", shape, *options)
    assert done.returncode == 2, done.stderr
    for said in (*words, "write NAME=1x3x224x224"):
        assert said in done.stderr


def test_a_missing_runtime_exits_with_4(models, monkeypatch, capsys):
    from bnfold.cli.main import main

    monkeypatch.setattr("bnfold.runtime.sessions.available", lambda: False)
    monkeypatch.setattr("bnfold.verified.available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["bnfold", "verify", *map(str, models[:2])])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 4
    assert "bnfold[cpu]" in capsys.readouterr().err


def test_progress_is_shown_on_a_terminal_only(monkeypatch, capsys):
    from bnfold.report.progress import progress

    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    with progress() as tell:
        tell("working")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress() as tell:
        tell("working")
    assert "working" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "passed_on"),
    [([], {}), (["--max-time", "7"], {"max_time": 7.0})],
)
def test_the_time_that_the_user_gives_is_handed_on(models, monkeypatch, options, passed_on):
    from bnfold.cli.main import main
    from bnfold.records import Verdict, VerifyReport

    asked = {}

    def stub(*_, **choices):
        asked.update(choices)
        return VerifyReport(Verdict.PASSED)

    monkeypatch.setattr("bnfold.verified.verify", stub)
    monkeypatch.setattr(sys, "argv", ["bnfold", "verify", *map(str, models[:2]), *options])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    assert {name: asked[name] for name in ("max_time",) if name in asked} == passed_on
    assert asked["shapes"] == ()
    assert "reference_s" not in asked


def test_there_is_one_time_for_all(models):
    done = run(*models[:2], "--reference-seconds", "3")
    assert done.returncode == 2
    assert "No such option" in done.stderr
