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
@pytest.mark.parametrize("name", SUITE)
def test_suite_passes_in_the_interpreter(name):
    run_in_interpreter(name, "not gpu and not slow and not thorough")


@pytest.mark.thorough
@pytest.mark.skipif(not OUTSIDE, reason="already inside")
@pytest.mark.parametrize("name", MINUTES)
def test_what_takes_minutes_passes_in_the_interpreter(name):
    run_in_interpreter(name, "not gpu and not slow and not thorough")


@pytest.mark.thorough
@pytest.mark.skipif(not OUTSIDE, reason="already inside")
def test_every_mutant_is_seen_in_the_interpreter():
    run_in_interpreter("test_kernel_mutants.py", "thorough")


def run_in_interpreter(name, marks):
    pytest.importorskip("torch")
    pytest.importorskip("triton", reason="triton is not installed: no kernels to interpret")
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
            "-m", marks, str(HERE / name),
        ],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
