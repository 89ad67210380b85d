"""A runtime that does not load, and a disk that is full: what is missing is said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from tests.attacks.bombs import conv, model_of, sizes, tensor
from tests.attacks.watching import faults_of
from tests.small import conv_bn

BROKEN = {
    "a library is missing": "raise ImportError('libfoo.so: cannot open it\\nand more')",
    "a syntax error": "def f(:\n",
    "it ends": "import sys; sys.exit(0)",
    "it dies": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "half of it is gone": "__version__ = '1.0'",
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    path.write_bytes(conv_bn().SerializeToString())
    return path


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_runtime_is_exit_code_4(how, model, tmp_path, watcher):
    fake = tmp_path / "fake" / "onnxruntime"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text(BROKEN[how])
    variables = {"PYTHONPATH": str(fake.parent)}
    out = tmp_path / "out.onnx"
    commands = [("fold", model, "-o", out, "--verify")]
    if how == "a library is missing":
        commands += [
            ("fold", model, "-o", out),
            ("verify", model, model),
            ("bench", model, "--max-time", "1"),
            ("bench", model, "--max-time", "1", "--dtype", "float16"),
        ]
    for argv in commands:
        seen = watcher.run(*argv, variables=variables)
        assert seen.exit_code == 4, seen.text
        assert faults_of(seen) == [], seen.text
        assert seen.stderr.count("error:") == 1
        assert "does not load" in seen.stderr
        if how == "a library is missing":
            assert "libfoo.so: cannot open it" in seen.stderr
        assert not out.exists()
    seen = watcher.run("fold", model, "-o", out, "--no-verify", variables=variables)
    assert seen.exit_code == 0
    assert watcher.run("inspect", model, variables=variables).exit_code == 0


@pytest.mark.parametrize("size", [1500, 3000])
def test_a_full_disk_ends_the_check(size, model, tmp_path, watcher):
    """Whatever is written first, here or in a child: no hang, and no output."""
    out = tmp_path / "out.onnx"
    seen = watcher.run("fold", model, "-o", out, "--verify", seconds=30, file_size=size)
    assert seen.exit_code == 3, seen.text
    assert faults_of(seen, most_s=15) == [], seen.text
    assert "disk" in seen.stderr or "space" in seen.stderr or "File too large" in seen.stderr
    assert not out.exists()


def test_a_full_disk_ends_verify_and_bench(model, watcher):
    for argv in (("verify", model, model, "--run"), ("bench", model, "--max-time", "1")):
        seen = watcher.run(*argv, seconds=40, file_size=1500)
        assert seen.exit_code == 3, seen.text
        assert faults_of(seen, most_s=20) == [], seen.text


def test_a_disk_that_fills_up_in_a_child_ends_the_check(tmp_path, watcher):
    """What goes in is small, what comes out is not: the child cannot write it."""
    layers, weights = conv()
    nodes = [
        *layers,
        helper.make_node("Mul", ["c", "k"], ["m"], name="site"),
        helper.make_node("Tile", ["m", "times"], ["y"]),
    ]
    stored = [tensor(np.full((3, 1, 1), 2.0), "k"), sizes(1, 1, 30, 30, name="times")]
    path = tmp_path / "m.onnx"
    path.write_bytes(model_of(nodes, [*weights, *stored]).SerializeToString())
    out = tmp_path / "out.onnx"
    seen = watcher.run("fold", path, "-o", out, "--verify", file_size=200_000)
    assert seen.exit_code == 3, seen.text
    assert "on the way" in seen.stderr
    assert not out.exists()
    assert watcher.run("fold", path, "-o", out, "--verify").exit_code == 0


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_full_stdout_is_said_in_words(options):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    command = [sys.executable, "-m", "bnfold", "inspect", "models/digits_cnn.onnx", *options]
    with full.open("w") as stdout:
        done = subprocess.run(
            command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 3
    assert "standard output" in done.stderr
    assert "Traceback" not in done.stderr
