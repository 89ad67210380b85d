"""Reports of very many maps stay short, and take time that grows with the graph alone."""

from __future__ import annotations

import cProfile
import pstats
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

import bnfold
from benchmarks.long_graphs import long_graph
from bnfold.folding import pictures
from bnfold.folding.pictures import pictures_of
from bnfold.model.io import opened
from bnfold.report.words import first_lines, listed


def test_a_long_row_of_names_shows_both_ends_and_how_many_lie_between():
    names = [f"n{place}" for place in range(100_000)]
    said = listed(names, " → ")
    assert said.startswith("n0 → n1 → ")
    assert said.endswith(" → n99998 → n99999")
    assert " → … 99984 more … → " in said
    assert listed(names[:16]) == ", ".join(names[:16])
    assert listed(iter(["a", "b"])) == "a, b"
    assert listed([]) == ""


def test_many_lines_are_cut_behind_the_first_ones():
    assert first_lines(["a", "b"]) == ["a", "b"]
    assert first_lines(["a"] * 20) == ["a"] * 16 + ["… 4 more: --json lists all"]


@pytest.mark.parametrize("kind", ["mul chain", "concat fan-out", "many outputs"])
def test_inspect_of_thousands_of_maps_is_some_hundred_lines(kind: str, tmp_path: Path):
    path = tmp_path / "model.onnx"
    onnx.save(long_graph(kind, 3000), path)
    command = [sys.executable, "-m", "bnfold", "inspect", str(path)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr
    assert len(found.stdout.splitlines()) < 2500
    assert len(found.stdout) < 300_000
    assert ("not shown: " in found.stdout) == (kind != "mul chain")


def _calls_per_step(nodes: int) -> float:
    model = long_graph("concat fan-out", nodes)
    result = bnfold.fold(model, verify=False)
    original = opened(model)
    profile = cProfile.Profile()
    profile.enable()
    found = pictures_of(original, result.model, result.report.steps)
    profile.disable()
    assert found
    return pstats.Stats(profile).total_calls / nodes  # type: ignore[attr-defined]  # its stub leaves it out


def test_pictures_of_maps_that_pass_one_wide_node_take_no_square_of_its_inputs():
    assert _calls_per_step(1600) <= 1.3 * _calls_per_step(200)


def test_the_first_picture_is_there_however_wide_its_nodes_are(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(pictures, "_MOST_VALUES", 4)
    model = long_graph("concat fan-out", 100)
    result = bnfold.fold(model, verify=False)
    assert len(result.report.steps) > 1
    found = pictures_of(opened(model), result.model, result.report.steps)
    assert [one.step for one in found] == [0]
