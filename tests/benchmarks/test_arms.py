from __future__ import annotations

import json

import pytest

from benchmarks import arms
from bnfold.records import Ending
from tests.benchmarks.documents import document


def test_a_row_has_a_cell_for_every_column():
    (row,) = arms.rows_of("net", document())
    assert len(row) == len(arms.COLUMNS)
    cells = dict(zip(arms.COLUMNS, row, strict=True))
    assert cells["nodes run"] == "3 → 1"
    assert cells["affine nodes left"] == "1 → 0"
    assert cells["folded / original"] == "0.800 [0.790, 0.810] faster"
    assert cells["unfused / original"] == "1.200 not measured"
    assert cells["null run"] == "1.001 [0.991, 1.011] ="
    assert cells["smallest detectable"] == "1.3 %"
    assert cells["session creation"] == "0.50"


def test_a_document_without_samples_makes_the_same_row_and_is_smaller():
    whole = document()
    small = arms.without_samples(whole)
    assert list(arms.rows_of("net", small)) == list(arms.rows_of("net", whole))
    assert len(json.dumps(small)) < len(json.dumps(whole))
    (case,) = small["cases"]
    assert sum(one["calls"] for one in case["series"]) == 48
    assert small["graphs"][0]["affine_share"] == 0.25
    assert whole["cases"][0]["series"][0]["turns"][0]["calls_ns"]


def test_a_missing_arm_or_number_is_a_dash():
    found = document()
    found["starts"] = []
    found["graphs"] = []
    found["cases"][0]["comparisons"] = []
    (row,) = arms.rows_of("net", found)
    assert row[2:] == ("– → –", "– → –", "–", "–", "–", "–", "–")


def test_an_arm_that_failed_says_so():
    case = document()["cases"][0]
    case["comparisons"] = []
    case["failures"] = {"folded": "no kernel"}
    assert arms.ratio_cell(case, "folded") == "failed"


@pytest.mark.parametrize(
    ("ending", "said"), [(Ending.INTERRUPTED, True), (Ending.OUT_OF_TIME, False)]
)
def test_an_interrupted_benchmark_is_told_from_a_short_one(ending, said):
    assert arms.was_interrupted(document(ending=ending)) is said
    assert arms.was_interrupted({**document(), "cases": []})


def test_the_page_names_what_failed():
    results = {
        "made": {"date": "2026-11-25", "command": "c"},
        "networks": [
            {"network": "good", "error": "", "document": document()},
            {"network": "bad", "error": "RuntimeError: no", "document": None},
        ],
    }
    page = arms.report_text(results)
    assert "| good | 1 |" in page
    assert "- bad: RuntimeError: no" in page
    assert "160 timed calls" in page


def test_pipes_and_line_ends_do_not_break_a_table():
    table = arms.markdown_table(("a", "b"), [("x|y", "two\nlines")])
    assert table.splitlines()[2] == "| x\\|y | two lines |"


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "new" / "file.json"
    arms.write_whole(path, "one")
    arms.write_whole(path, "two")
    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]


def test_why_an_export_is_missing(tmp_path):
    path = tmp_path / "net.dynamo.onnx"
    assert arms.export_failure(path) == "the exporter wrote nothing"
    path.with_suffix(".log").write_text("Traceback\nModuleNotFoundError: torch\n")
    assert arms.export_failure(path) == "ModuleNotFoundError: torch"
    path.with_suffix(".failed.txt").write_text("ValueError: no\nmore\n")
    assert arms.export_failure(path) == "ValueError: no"
