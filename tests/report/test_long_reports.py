"""Reports of very many maps stay short, and take time that grows with the graph alone."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

import bnfold
from benchmarks.long_graphs import PROMISED, long_graph
from bnfold.folding import pictures
from bnfold.folding.api import fold_unchecked
from bnfold.folding.pictures import pictures_of
from bnfold.inputs.checking import check_sizes
from bnfold.model.io import opened
from bnfold.report.to_html import to_html
from bnfold.report.to_json import fold_document, to_json
from bnfold.report.to_markdown import to_markdown
from bnfold.report.to_terminal import print_sites
from bnfold.report.to_text import fold_to_text
from bnfold.report.words import first_lines, listed
from tests.counting import calls, growth


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


def _inspect(kind: str) -> Callable[[int], Callable[[], object]]:
    def of_size(nodes: int) -> Callable[[], object]:
        model = opened(long_graph(kind, nodes))

        def inspect() -> None:
            sizes = check_sizes(model, ())
            result = fold_unchecked(model)
            with contextlib.redirect_stdout(io.StringIO()):
                print_sites(result.report, "model.onnx", sizes)

        return inspect

    return of_size


def _report(kind: str) -> Callable[[int], Callable[[], object]]:
    def of_size(nodes: int) -> Callable[[], object]:
        model = long_graph(kind, nodes)
        result = bnfold.fold(model, verify=False)

        def report() -> None:
            pictures = pictures_of(opened(model), result.model, result.report.steps)
            document = fold_document(result.report, None, pictures, "model.onnx")
            assert to_html(document)
            assert to_markdown(document)
            assert to_json(document)
            assert fold_to_text(result.report, None, "model.onnx", None)

        return report

    return of_size


@pytest.mark.parametrize("kind", PROMISED)
def test_calls_of_inspect_for_a_node_do_not_grow(kind: str):
    # A narrow fan takes other ways than a wide one.
    assert growth(_inspect(kind), 100 if kind == "concat fan-out" else 50) <= 1.3


@pytest.mark.parametrize("kind", ["mul chain", "conv-bn chain", "relu chain"])
def test_calls_of_the_reports_of_a_fold_for_a_node_do_not_grow(kind: str):
    assert growth(_report(kind), 50) <= 1.3


def _calls_per_step(nodes: int) -> float:
    model = long_graph("concat fan-out", nodes)
    result = bnfold.fold(model, verify=False)
    original = opened(model)
    return calls(lambda: pictures_of(original, result.model, result.report.steps)) / nodes


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
