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


@pytest.mark.parametrize("code", PYTHON)
def test_the_examples_run(code, tmp_path):
    (tmp_path / "models").symlink_to(ROOT / "models")
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    assert "BatchNormalization" in done.stdout
    assert (tmp_path / "folded.onnx").exists()


@pytest.mark.parametrize("page", ["measuring.md", "pipelines.md"])
def test_the_examples_of_the_docs_run(page, tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "models").symlink_to(ROOT / "models")
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    said = "nodes of the original" if page == "measuring.md" else ""
    assert said in done.stdout
    assert (tmp_path / "folded.onnx").exists() == (page == "pipelines.md")


def test_the_example_of_exporting_runs(tmp_path):
    for needed in ("torch", "onnxscript", "onnxruntime"):
        pytest.importorskip(needed)
    (code,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "exporting.md").read_text(), re.DOTALL
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    assert "passed" in done.stdout
    assert (tmp_path / "net.onnx").exists()


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
