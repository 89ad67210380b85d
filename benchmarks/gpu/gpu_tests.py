"""The tests that need a GPU, in a process of their own with a limit on its time."""

from __future__ import annotations

import collections
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from benchmarks.arms import ROOT
from benchmarks.gpu import machine
from benchmarks.gpu.record import Context

SECTION: Final = "tests"
FOLDER: Final = "tests/gpu"
DRAWN: Final = "tests/train"
"""Tests of the kernels; they draw shapes, so they need hypothesis, which may be absent."""
_OUTCOME: Final = r"(?P<outcome>PASSED|FAILED|SKIPPED|ERROR|XFAIL|XPASS)"
_LINE: Final = re.compile(rf"^(?P<test>tests/\S+::\S.*?) {_OUTCOME}\b")
_LINE_OF_WORKER: Final = re.compile(
    rf"^\[gw\d+\] \[ *\d+%\] {_OUTCOME} (?P<test>tests/\S+::\S.*?) *$"
)
_COLLECTED: Final = re.compile(r"^(?P<test>tests/\S+::\S.*)$")
_TAIL: Final = 6000
_LEAST_S: Final = 30.0
_MOST_WORKERS: Final = 8
_BAD: Final = frozenset({"FAILED", "ERROR"})


def run(context: Context) -> None:
    """Run the tests (in a dry run: collect them) and record each one's outcome."""
    part = context.results(SECTION)
    collect = context.options.dry_run
    with tempfile.TemporaryFile() as output:
        code = _pytest(output, max(context.left_s, _LEAST_S), collect=collect)
        output.seek(0)
        text = output.read().decode("utf-8", "replace")
    found = collected(text) if collect else outcomes(text)
    part["tests"] = found
    part["folders"] = folders()
    part["counts"] = dict(collections.Counter(found.values()))
    part["exit_code"] = code
    part["output"] = text[-_TAIL:]
    part["verdict"] = verdict(found, code)


def folders() -> list[str]:
    """Name the folders whose tests can run here, the quick ones first."""
    drawn = [DRAWN] if importlib.util.find_spec("hypothesis") else []
    return [FOLDER, *drawn]


def workers() -> list[str]:
    """Options that share the tests out: what takes long is compiling kernels, on the CPU."""
    count = min(machine.cores() // 2, _MOST_WORKERS)
    return ["-n", str(count)] if count > 1 and importlib.util.find_spec("xdist") else []


def outcomes(text: str) -> dict[str, str]:
    """Read the outcome of every test out of what ``pytest -v`` says; a test cut off is one."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        match = _LINE.match(line) or _LINE_OF_WORKER.match(line)
        if match:
            found[match["test"]] = match["outcome"].lower()
    return found


def collected(text: str) -> dict[str, str]:
    """Read the names of tests out of what ``pytest --collect-only -q`` says."""
    matches = (_COLLECTED.match(line) for line in text.splitlines())
    return {match["test"]: "collected" for match in matches if match}


def verdict(found: dict[str, str], code: int | None) -> str:
    """Say in a word what the tests showed: all of them skipped is no pass."""
    kinds = {outcome.upper() for outcome in found.values()}
    if kinds & _BAD:
        return "failed"
    if code is None:
        return "cut off"
    if kinds == {"COLLECTED"}:
        return "collected only"
    if code != 0:
        return "failed"
    return "passed" if "PASSED" in kinds else "skipped"


def _pytest(output: Any, limit_s: float, *, collect: bool) -> int | None:
    """Run pytest; None when it had to be ended.

    Without hypothesis, the folder's own settings only (``--confcutdir``): those of all tests
    need it.
    Warnings of versions that the project is not pinned to are no errors here.
    """
    how = ["--collect-only", "-q"] if collect else ["-v", "--tb=short", *workers()]
    chosen = folders()
    settings = FOLDER if chosen == [FOLDER] else "tests"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "gpu",
        *chosen,
        f"--confcutdir={settings}",
    ]
    process = subprocess.Popen(
        [*command, *how, "-W", "default", "-p", "no:cacheprovider", "--color=no"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": _with_root(), "PYTEST_ADDOPTS": ""},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        # Its children too: a test's session left behind would disturb what is measured next.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _with_root() -> str:
    others = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join(filter(None, (str(Path(ROOT)), others)))
