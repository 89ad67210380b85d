"""The README says what is so: its code runs, its table is the rules', its options exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.rule_table import updated

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_table_of_rules_is_up_to_date():
    assert updated(README) == README, "run python -m docs.rule_table"


def run(code, folder):
    """Run an example in a folder of its own, beside the models; return what it printed."""
    (folder / "models").symlink_to(ROOT / "models")
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def example_of(page):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    return code


def hurried(code):
    """The same with a second for what is measured: no figure is believed here."""
    found, times = re.subn(r"max_time_s=\d+", "max_time_s=1", code)
    assert times == 1
    return found


@pytest.mark.parametrize("code", PYTHON)
def test_the_examples_run(code, tmp_path):
    assert "BatchNormalization" in run(code, tmp_path)
    assert (tmp_path / "folded.onnx").exists()


def test_the_example_of_measuring_runs(tmp_path):
    pytest.importorskip("onnxruntime")
    assert "nodes of the original" in run(hurried(example_of("measuring.md")), tmp_path)


def test_the_example_of_limits_runs(tmp_path):
    assert "folds" in run(example_of("limits.md"), tmp_path)


def test_the_example_of_verifying_runs(tmp_path):
    said = run(example_of("verifying.md"), tmp_path)
    assert said.startswith("passed")
    shown, channels = re.search(r"(\d+) of (\d+) channels shown", said).groups()
    assert shown == channels != "0"


def test_the_example_of_pipelines_runs(tmp_path):
    pytest.importorskip("onnxruntime")
    run(hurried(example_of("pipelines.md")), tmp_path)
    assert (tmp_path / "folded.onnx").exists()


def test_the_example_of_exporting_runs(tmp_path):
    for needed in ("torch", "onnxscript", "onnxruntime"):
        pytest.importorskip(needed)
    assert "passed" in run(example_of("exporting.md"), tmp_path)
    assert (tmp_path / "net.onnx").exists()


def test_the_example_of_training_runs(tmp_path):
    for needed in ("torch", "onnxscript", "onnxruntime"):
        pytest.importorskip(needed)
    said = run(example_of("training.md"), tmp_path)
    assert "passed" in said
    assert "Conv" in said
    assert "BatchNormalization" not in said


def test_every_option_named_exists():
    shown = "".join(
        subprocess.run(
            [sys.executable, "-m", "bnfold", command, "--help"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for command in ("fold", "verify", "bench", "export")
    )
    named = set(re.findall(r"`(--[a-z-]+)", README))
    assert named
    assert [option for option in sorted(named - {"--check"}) if option not in shown] == []
