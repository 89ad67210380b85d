"""Forks of the tests end, speak and are ended as the processes do that they stand for."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from bnfold.runtime import Job, children, run, write_arrays
from bnfold.runtime.children import Fate, run_child
from tests.small import conv_bn

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(params=["process", "fork"])
def kind(request, forks, monkeypatch):
    stand_in = forks if request.param == "fork" else subprocess
    monkeypatch.setattr(children, "subprocess", stand_in)
    before = forks.count
    yield request.param
    assert (forks.count > before) == (request.param == "fork")


def test_a_model_is_run(kind, tmp_path):
    onnx.save(conv_bn(), tmp_path / "m.onnx")
    write_arrays(tmp_path / "in", {"x": np.ones((1, 3, 8, 8), np.float32)})
    (one,) = run(Job(tmp_path / "m.onnx", (tmp_path / "in",), tmp_path))
    assert one.ran, (kind, one.message)
    assert one.outputs()["y"].shape == (1, 4, 8, 8)


@pytest.mark.usefixtures("kind")
def test_what_a_child_says_last_is_told():
    end = run_child(("-m", "bnfold.runtime.child", "no such file"), 60)
    assert end.fate is Fate.FAILED
    assert "no such file" in end.message
    assert end.exit_code == 1


@pytest.mark.usefixtures("kind")
def test_a_child_that_takes_too_long_is_ended(tmp_path):
    os.mkfifo(tmp_path / "never")
    begun = time.monotonic()
    end = run_child(("-m", "bnfold.runtime.child", str(tmp_path / "never")), 2)
    assert end.fate is Fate.TIMED_OUT
    assert time.monotonic() - begun < 30


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
def test_a_fork_that_dies_is_told_and_the_next_one_works(forks, monkeypatch, tmp_path):
    """One that waits for ever is killed by somebody else."""
    monkeypatch.setattr(children, "subprocess", forks)
    os.mkfifo(tmp_path / "never")
    with monkeypatch.context() as waiting:
        waiting.setattr("tests.forks.select.select", lambda *_: killed(forks))
        end = run_child(("-m", "bnfold.runtime.child", str(tmp_path / "never")), 60)
    assert end.fate is Fate.DIED
    assert "signal 9 (SIGKILL)" in end.message
    end = run_child(("-m", "bnfold.runtime.child", "no such file"), 60)
    assert end.fate is Fate.FAILED


def killed(forks):
    tasks = Path(f"/proc/{forks._server.pid}/task")
    (child,) = (tasks / str(forks._server.pid) / "children").read_text().split()
    os.kill(int(child), signal.SIGKILL)
    return [forks], [], []


def test_what_python_or_a_library_reads_at_its_start_takes_a_process(forks, monkeypatch):
    monkeypatch.setattr(children, "subprocess", forks)
    monkeypatch.setenv("PYTHONNODEBUGRANGES", "1")
    before = forks.count
    assert run_child(("-m", "bnfold.runtime.child", "no such file"), 60).fate is Fate.FAILED
    assert forks.count == before
