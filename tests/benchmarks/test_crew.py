"""What becomes of a task when the worker that does it is lost."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.gpu import crew
from benchmarks.gpu.crew import Crew

_TASK = {"key": "k", "arms": ["eager", "ours"]}
_WORKER = """
import json, os, sys, time
def tell(**answer):
    print(json.dumps(answer), flush=True)
tell(ready={"torch": "none"})
for line in sys.stdin:
    lacking = json.loads(line)["lacking"]
    for arm in ("eager", "ours"):
        if arm in lacking:
            continue
        tell(doing=arm)
        if arm == "ours":
            %s
    tell(row={"failures": lacking, "pid": os.getpid()})
"""


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Let a script be the worker, which does this where ours is at work."""

    def write(does: str) -> None:
        path = tmp_path / "worker.py"
        path.write_text(_WORKER % does)
        monkeypatch.setattr(crew, "COMMAND", [sys.executable, str(path)])

    return write


def test_a_worker_does_task_after_task(worker):
    worker("pass")
    with Crew("cpu") as found:
        rows = [found.do(_TASK, 30, 60) for _ in range(2)]
    assert rows[0] == rows[1]
    assert rows[0]["failures"] == {}
    assert found.ready == {"torch": "none"}
    assert found.lost == 0


def test_after_retirement_another_one_comes(worker):
    worker("pass")
    with Crew("cpu") as found:
        first = found.do(_TASK, 30, 60)
        found.retire()
        assert found.do(_TASK, 30, 60)["pid"] != first["pid"]


@pytest.mark.parametrize(
    ("does", "why"),
    [
        ("print('bad', file=sys.stderr, flush=True); os._exit(3)", "ended with 3: bad"),
        ("tell(lost='illegal memory access', arm='ours'); sys.exit()", "illegal memory"),
        ("os.kill(os.getpid(), 11)", "ended with -11"),
    ],
    ids=["died", "said that the device is lost", "crashed"],
)
def test_the_arm_that_costs_a_worker_is_left_out(worker, does, why):
    worker(does)
    with Crew("cpu") as found:
        row = found.do(_TASK, 30, 60)
    assert why in row["failures"]["ours"]
    assert found.lost == 1


def test_the_arm_that_hangs_is_ended_and_left_out(worker):
    worker("time.sleep(60)")
    with Crew("cpu") as found:
        row = found.do(_TASK, 1.5, 60)
    assert row["failures"] == {"ours": "took too long, and was ended"}


def test_where_there_is_no_time_for_another_attempt_the_row_says_why(worker):
    worker("time.sleep(60)")
    with Crew("cpu") as found:
        row = found.do(_TASK, 60, 1.5)
    assert row == {"error": "ours: took too long, and was ended", "failures": {}}


def test_a_worker_that_does_not_start_is_a_row(monkeypatch):
    monkeypatch.setattr(
        crew, "COMMAND", [sys.executable, "-c", "raise SystemExit('no torch')"]
    )
    with Crew("cpu") as found:
        row = found.do(_TASK, 30, 60)
    assert row == {"error": "start: its process ended with 1: no torch", "failures": {}}
