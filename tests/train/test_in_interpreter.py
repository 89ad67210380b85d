"""The kernels' tests on this machine's CPU: triton's interpreter, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SUITE = (
    "test_arguments.py",
    "test_far_tiles.py",
    "test_kernels.py",
    "test_learning.py",
    "test_modules.py",
)
MINUTES = ("test_kernel_mutants.py", "test_memory.py")
"""Those that take minutes each: what memory is kept is also tested without kernels."""
OUTSIDE = os.environ.get("TRITON_INTERPRET") != "1"


@pytest.mark.skipif(not OUTSIDE, reason="already inside")
def test_suite_passes_in_the_interpreter():
    """All files in one process: each start of one loads torch, triton and its compiler."""
    run_in_interpreter(SUITE, "not gpu and not slow and not thorough")


@pytest.mark.thorough
@pytest.mark.skipif(not OUTSIDE, reason="already inside")
@pytest.mark.parametrize("name", MINUTES)
def test_what_takes_minutes_passes_in_the_interpreter(name):
    run_in_interpreter([name], "not gpu and not slow and not thorough")


@pytest.mark.thorough
@pytest.mark.skipif(not OUTSIDE, reason="already inside")
def test_every_mutant_is_seen_in_the_interpreter():
    run_in_interpreter(["test_kernel_mutants.py"], "thorough")


def run_in_interpreter(names, marks):
    pytest.importorskip("torch")
    pytest.importorskip("triton", reason="triton is not installed: no kernels to interpret")
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
            "-rfEp", "-m", marks, *(str(HERE / name) for name in names),
        ],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )  # fmt: skip
    said = done.stdout.partition("= PASSES =")[0][-6000:]
    assert done.returncode == 0, said + done.stderr[-2000:]
    for name in names:
        assert f"PASSED tests/train/{name}::" in done.stdout, f"no test of {name} ran"
