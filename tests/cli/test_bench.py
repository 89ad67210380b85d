"""``bnfold bench``: exit codes, streams, gates, and being interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.measurement import oddities
from tests.small import conv_bn

QUICK = ("--max-time", "0.1", "--arms", "original,folded")


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "bnfold", "bench", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def model(tmp_path):
    return oddities.save(conv_bn(), tmp_path / "a model.onnx")


@pytest.fixture
def call(monkeypatch, capsys):
    """The command in this process: its exit code, stdout and stderr."""
    from bnfold.cli.main import main

    def called(*arguments):
        monkeypatch.setattr(sys, "argv", ["bnfold", "bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return (stop.value.code, *capsys.readouterr())

    return called


def test_text_goes_to_stderr_documents_to_stdout_and_files(model, tmp_path):
    page, summary = tmp_path / "r.html", tmp_path / "r.md"
    done = run(model, *QUICK, "--json", "--report", page, "--markdown", summary)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"].startswith("bnfold/bench-report/")
    assert document["command"].startswith("bnfold bench '")
    assert document["complete"] is True
    assert [arm["name"] for arm in document["arms"]] == ["original", "again", "folded"]
    calls = [turn["calls_ns"] for turn in document["cases"][0]["series"][0]["turns"]]
    assert all(ns > 0 for turn in calls for ns in turn)
    assert document["fold"] is not None
    assert "not measured" in done.stderr
    assert "warning: batch 1: the time was too short for an interval" in done.stderr
    assert "\x1b" not in done.stderr
    assert "<html" in page.read_text(encoding="utf-8")
    assert "| folded |" in summary.read_text(encoding="utf-8")
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["a model.onnx", "r.html", "r.md"]


def test_markdown_goes_to_stdout_for_a_dash(call, model):
    code, out, err = call(model, model, *QUICK, "--batch", "1,2", "--markdown", "-")
    assert code == 0, err
    assert out.startswith("**")
    assert "| 1 |" in out
    assert "| 2 |" in out
    assert "batch 2" in err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--batch", "0"], "not a list of sizes such as 1,8,32"),
        (["--batch", "1,x"], "not a list of sizes such as 1,8,32"),
        (["--batch", ","], "the list is empty"),
        (["--batch", "-1"], "not a list of sizes such as 1,8,32"),
        (["--arms", ""], "the list is empty"),
        (["--arms", "fast"], "there is no arm 'fast'"),
        (["--precision", "150%"], "not a share such as 2% or 0.02"),
        (["--precision", "nan"], "not a share such as 2% or 0.02"),
        (["--precision", "little"], "not a share such as 2% or 0.02"),
        (["--fail-if-slower", "-1%"], "not a share such as 2% or 0.02"),
        (["--fail-if-slower", "2"], "not a share such as 2% or 0.02"),
        (["--fail-if-slower", "2%", "--arms", "original"], "judges the arm 'folded'"),
        (["--max-time", "0"], "0.0 is not in the range"),
        (["--max-time", "nan"], "max_time_s nan makes no sense"),
        (["--max-time", "inf"], "max_time_s inf makes no sense"),
        (["--threads", "-1"], "threads -1 makes no sense"),
        (["--threads", "two"], "'two' is not a valid integer"),
        (["--seed", "-1"], "seed -1 makes no sense"),
        (["--dtype", "int8"], "'int8' is not one of"),
        (["--provider-option", "a"], "'a' is not KEY=VALUE"),
        (["--provider-option", "a=1"], "no option 'a'"),
        (["--cuda-graph"], "there are no CUDA graphs"),
        (["--prefer-nhwc"], "no such option"),
        (["--shape", "z=1"], "the model's inputs are 'x'"),
        (["--shape", "x=1x4x8x8"], "this shape cannot be used"),
        (["--turbo"], "No such option"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_call_that_makes_no_sense_exits_with_2(call, model, monkeypatch, options, words):
    monkeypatch.setattr("bnfold.measurement.lab.Lab.ask", None)
    code, out, err = call(model, *options)
    assert code == 2, err
    assert words in err
    assert out == ""


def test_a_model_must_be_named(call):
    code, _, err = call()
    assert code == 2
    assert "Missing argument 'MODEL'" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.onnx"], "none.onnx"),
        (["a model.onnx", "none.onnx"], "none.onnx"),
        (["a model.onnx", "broken.onnx"], "this is not an ONNX model"),
        (["a model.onnx", "other.onnx"], "the models read different inputs"),
        (["a model.onnx", "--inputs", "none.npz"], "there is no such file"),
        (["a model.onnx", "--report", "no/r.html"], "there is no folder"),
        (["a model.onnx", "--markdown", "no/r.md"], "there is no folder"),
        (["a model.onnx", "--report", "."], "."),
    ],
    ids=str,
)
def test_what_cannot_be_read_or_written_exits_with_3_before_measuring(
    call, model, tmp_path, monkeypatch, arguments, words
):
    oddities.save(oddities.negation(), tmp_path / "other.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    monkeypatch.chdir(model.parent)
    monkeypatch.setattr("bnfold.measurement.lab.Lab.ask", None)
    code, out, err = call(*arguments)
    assert code == 3, err
    assert words in err
    assert "does not know how to handle" not in err
    assert out == ""


def test_an_original_that_does_not_run_exits_with_3(call, tmp_path):
    foreign = oddities.save(oddities.foreign(), tmp_path / "foreign.onnx")
    code, out, err = call(foreign, *QUICK, "--json")
    assert code == 3
    assert "nowhere.else:Wonder" in err
    assert out == ""
    assert "does not know how to handle" not in err


@pytest.mark.parametrize("provider", ["cuda", "tensorrt", "NonsenseExecutionProvider"])
def test_an_absent_provider_exits_with_4(call, model, provider):
    from importlib import metadata

    if any(one.name == "onnxruntime-gpu" for one in metadata.distributions()):
        pytest.skip("this runtime may have it")
    code, out, err = call(model, *QUICK, "--provider", provider)
    assert code == 4
    assert "this ONNX Runtime has only" in err
    assert ("bnfold[gpu]" in err) is (provider != "NonsenseExecutionProvider")
    assert out == ""


def test_a_missing_runtime_exits_with_4(call, model, monkeypatch):
    monkeypatch.setattr("bnfold.runtime.sessions.available", lambda: False)
    code, _, err = call(model, *QUICK)
    assert code == 4
    assert "bnfold[cpu]" in err


@pytest.fixture
def hurried(monkeypatch):
    """Without --max-time an interval is insisted on; let that take seconds, not a minute."""
    monkeypatch.setattr("bnfold.benchmarked.call._SECONDS_PER_BATCH", 1.0)


@pytest.mark.slow
@pytest.mark.usefixtures("hurried")
def test_a_folded_model_that_is_slower_falls_at_the_gate(call, model, tmp_path):
    heavy = oddities.save(oddities.heavy(), tmp_path / "heavy.onnx")
    code, _, err = call(model, heavy, "--arms", "original,folded", "--fail-if-slower", "2%")
    assert code == 1, err
    assert "batch 1: slower by more than 2.0% (" in err


@pytest.mark.slow
@pytest.mark.usefixtures("hurried")
def test_a_copy_passes_the_gate(call, model, tmp_path):
    copy = oddities.save(conv_bn(), tmp_path / "copy.onnx")
    arms = ["--arms", "original,folded"]
    code, _, err = call(model, copy, *arms, "--fail-if-slower", "90%")
    assert code == 0, err
    assert "slower by more" not in err


def test_a_gate_that_could_not_be_judged_is_not_passed(call, model):
    code, _, err = call(model, *QUICK, "--fail-if-slower", "2%")
    assert code == 1
    assert "batch 1: whether it is slower was not measured: give more --max-time" in err


def test_a_folded_model_that_does_not_run_does_not_pass_the_gate(call, tmp_path):
    good = oddities.save(oddities.negation(), tmp_path / "good.onnx")
    bad = oddities.save(oddities.foreign(), tmp_path / "bad.onnx")
    code, _, err = call(good, bad, *QUICK, "--fail-if-slower", "2%")
    assert code == 1
    assert "whether it is slower was not measured: [ONNXRuntimeError]" in err
    assert "nowhere.else:Wonder" in err


def lines(folder: Path, pattern: str) -> str:
    """What the processes of a benchmark have told by now."""
    return "".join(path.read_text() for path in folder.glob(f"bnfold-bench-*/{pattern}"))


def children_of(folder: Path) -> list[str]:
    """Command lines of processes that work on files of a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if "bnfold.measurement" in words and str(folder) in words:
            found.append(words)
    return found


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("number", "awaited", "timed"),
    [
        (signal.SIGINT, '"turn"', True),
        pytest.param(signal.SIGTERM, '"turn"', True, marks=pytest.mark.slow),
        (signal.SIGINT, '"alone"', False),
    ],
    ids=["while sampling", "by SIGTERM", "while starting"],
)
def test_ctrl_c_gives_what_there_is_and_leaves_nothing(
    model, tmp_path, number, awaited, timed
):
    temporary, page = tmp_path / "tmp", tmp_path / "r.html"
    temporary.mkdir()
    begun = subprocess.Popen(
        [sys.executable, "-m", "bnfold", "bench", str(model), "--precision", "0%",
         "--max-time", "15", "--arms", "original", "--json", "--report", str(page)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )  # fmt: skip
    until = time.monotonic() + 60
    while awaited not in lines(temporary, "*.jsonl") and time.monotonic() < until:
        assert begun.poll() is None, begun.communicate()[1]
        time.sleep(0.02)
    begun.send_signal(number)
    out, err = begun.communicate(timeout=60)
    assert begun.returncode == 130, err
    document = json.loads(out)
    assert document["complete"] is False
    (case,) = document["cases"]
    assert case["ending"] == "interrupted"
    assert any(case["series"]) is timed
    assert "interrupted: these figures are what there was by then" in err
    assert "Traceback" not in err
    assert page.stat().st_size > 1000
    assert [path for path in temporary.iterdir() if path.name.startswith("bnfold")] == []
    assert children_of(temporary) == []


def test_help_tells_exit_codes_and_arms(call):
    code, out, _ = call("--help")
    assert code == 0
    for words in ("130", "--fail-if-slower", "unfused", "[FOLDED]"):
        assert words in out
