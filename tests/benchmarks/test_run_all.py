"""The entry point of all GPU work, walked on a CPU."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.arms import ROOT
from benchmarks.gpu import machine, nets, run_all
from benchmarks.gpu.record import SCHEMA

_SCRIPT = "benchmarks/gpu/run_all.py"
_HAS_TORCH = importlib.util.find_spec("torch") is not None
_RUN_S = 60


def _run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=_RUN_S,
        check=False,
    )


@pytest.mark.slow
def test_a_dry_run_writes_what_a_run_on_a_gpu_would(tmp_path):
    """One run for all claims: it takes long, and workers of xdist share no fixture."""
    names = ["tiny_free", *(["tiny_ocr"] if _HAS_TORCH else []), "absent.onnx"]
    options = ("--dry-run", "--minutes", "0.3", "--nets", ",".join(names))
    out = tmp_path / "out"
    done = _run(_SCRIPT, *options, "--out", str(out), "--cache", str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    document, page = (Path(line) for line in done.stdout.splitlines())
    result = json.loads(document.read_text(encoding="utf-8"))
    assert document.name == f"{result['date'][:10]}-cpu-dry-run.json"
    assert page == document.with_suffix(".md")
    assert document.with_suffix(".samples.jsonl.gz").exists()
    _nobody_mistakes_it(result, page)
    _the_head_says_what_it_rests_on(result)
    _the_sections_say_how_they_ended(result)
    _every_case_has_its_line_in_a_table(result, page)
    _a_network_that_is_not_there_is_a_row(result)
    if _HAS_TORCH:
        _a_network_of_torch_is_exported_and_folded(result)


def _nobody_mistakes_it(result: dict, page: Path) -> None:
    assert result["device"] == machine.DRY
    assert result["dry_run"] is True
    assert "measures nothing" in page.read_text(encoding="utf-8")


def _the_head_says_what_it_rests_on(result: dict) -> None:
    assert result["schema"] == "bnfold/gpu-run/3"
    assert result["ended"] == "done"
    assert result["environment"]["versions"]["onnxruntime"]
    assert result["environment"]["cores"] >= 1
    assert [one["step"] for one in result["log"]].count("section inference") == 1
    assert all({"step", "at_s", "seconds", "outcome"} <= one.keys() for one in result["log"])


def _the_sections_say_how_they_ended(result: dict) -> None:
    sections = result["sections"]
    assert sections["inference"]["status"] == "done"
    assert sections["tests"]["verdict"] == "collected only"
    assert sections["tests"]["tests"]
    assert sections["training"]["status"] == "done"
    assert bool(sections["training"]["rows"]) is _HAS_TORCH


def _every_case_has_its_line_in_a_table(result: dict, page: Path) -> None:
    part = result["sections"]["inference"]
    measured = [row for row in part["rows"] if row["outcome"] == "measured"]
    assert measured
    for row in measured:
        assert row["elapsed_s"] > 0
        assert [case["batch"] for case in row["document"]["cases"]] == row["batches"] == [1, 4]
        assert bool(row["document"]["graphs"]) is row["details"]
    first = measured[0]
    assert (first["net"], first["dtype"], first["details"]) == ("tiny_free", "model", True)
    float32 = page.read_text(encoding="utf-8").split("### float32")[1].split("\n#")[0]
    for batch in (1, 4):
        assert float32.count(f"| tiny_free | {batch} |") == 1
    assert len(part["not_reached"]) == part["planned"] - 2 * len(measured)


def _a_network_that_is_not_there_is_a_row(result: dict) -> None:
    rows = result["sections"]["inference"]["rows"]
    (row,) = [row for row in rows if row["net"] == "absent.onnx"]
    assert row["outcome"] == "failed"
    assert "not exported" in row["why"]


def _a_network_of_torch_is_exported_and_folded(result: dict) -> None:
    found = result["sections"]["inference"]["nets"]["tiny_ocr"]
    assert found["error"] == ""
    assert found["folds"] > 0


@pytest.mark.slow
def test_ctrl_c_leaves_what_there_is(tmp_path):
    out = tmp_path / "out"
    options = ("--dry-run", "--only", "inference", "--nets", "tiny_free", "--minutes", "5")
    options += ("--cache", str(tmp_path / "cache"))
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.gpu.run_all", *options, "--out", str(out)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    until = time.monotonic() + _RUN_S
    while not list(out.glob("*.json")) and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=_RUN_S)
    assert process.returncode == 130, said
    (path,) = out.glob("*.json")
    assert json.loads(path.read_text(encoding="utf-8"))["ended"] == "interrupted"


@pytest.mark.skipif(bool(machine.gpu_name()), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path):
    done = _run(_SCRIPT, "--out", str(tmp_path / "out"))
    assert done.returncode == 4
    assert "no GPU here" in done.stderr
    assert "--dry-run" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(bool(machine.gpu_name()), reason="there is a GPU")
def test_without_a_gpu_nothing_heavy_is_imported():
    code = (
        "import sys; from benchmarks.gpu import run_all; code = run_all.main([]); "
        "heavy = {'torch', 'numpy', 'onnx', 'onnxruntime', 'bnfold'} & set(sys.modules); "
        "sys.exit(code if not heavy else str(heavy))"
    )
    done = _run("-c", code)
    assert done.returncode == 4, done.stderr


@pytest.mark.skipif(bool(machine.gpu_name()), reason="there is a GPU")
def test_without_the_gpu_build_of_the_runtime_it_says_what_is_missing(tmp_path):
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text("#!/bin/sh\necho Imaginary GPU 9000\n")
    smi.chmod(0o755)
    path = os.pathsep.join((str(smi.parent), os.environ["PATH"]))
    done = _run(_SCRIPT, "--out", str(tmp_path / "out"), PATH=path)
    assert done.returncode == 4, done.stderr
    assert "CUDAExecutionProvider" in done.stderr
    assert "bnfold[gpu]" in done.stderr
    assert not (tmp_path / "out").exists()


def test_training_needs_no_gpu_build_of_the_runtime(monkeypatch):
    """The image of a GPU machine may have the CPU's build only."""
    asked = []
    monkeypatch.setattr(run_all.machine, "gpu_name", lambda: "Imaginary GPU 9000")
    monkeypatch.setattr(run_all, "_lacking_provider", lambda name: asked.append(name) or "no")
    monkeypatch.setattr(run_all, "_run", lambda *_: 0)
    assert run_all.main(["--only", "training", "--only", "tests"]) == 0
    assert asked == []
    assert run_all.main(["--only", "inference"]) == 4
    assert asked == ["cuda"]


def test_sections_that_are_not_run_again_stay_as_they_were(tmp_path):
    earlier = tmp_path / "earlier.json"
    sections = {
        "inference": {"rows": [{"key": "a"}], "nets": {}, "not_reached": []},
        "training": {"rows": [{"key": "b"}]},
    }
    head = {"device": machine.DRY, "schema": SCHEMA, "sections": sections}
    earlier.write_text(json.dumps(head), encoding="utf-8")
    options = run_all._options(["--dry-run", "--only", "training", "--resume", str(earlier)])
    found = run_all._earlier(options, machine.DRY)
    assert found["sections"] == {"inference": sections["inference"]}
    kept = {"training": [{"from": str(earlier), "key": "b"}]}
    assert found["resumed_rows"] == kept


def test_an_unknown_section_is_a_usage_error():
    assert _run(_SCRIPT, "--only", "nonsense").returncode == 2


def test_results_of_another_device_are_not_gone_on_with(tmp_path):
    other = tmp_path / "other.json"
    other.write_text('{"device": "Imaginary GPU 9000"}')
    done = _run(_SCRIPT, "--dry-run", "--resume", str(other), "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "Imaginary GPU 9000" in done.stderr


def test_results_of_another_version_are_not_gone_on_with(tmp_path):
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"device": machine.DRY, "schema": "bnfold/gpu-run/1"}))
    done = _run(_SCRIPT, "--dry-run", "--resume", str(other), "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "bnfold/gpu-run/1" in done.stderr


def test_a_dry_run_takes_what_this_machine_can_make():
    assert nets.FREE in nets.dry_nets()
    assert ("tiny_ocr" in nets.dry_nets()) is _HAS_TORCH
