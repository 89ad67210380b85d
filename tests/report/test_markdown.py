"""Markdown and plain text: the verdict first, tables that hold, nothing that breaks out."""

from __future__ import annotations

import re

import pytest

from bnfold.report.bench_text import bench_to_text
from bnfold.report.to_json import bench_document, fold_document, verify_document
from bnfold.report.to_markdown import (
    bench_to_markdown,
    fold_to_markdown,
    verify_to_markdown,
)
from tests.report import made

BENCHES = [
    made.cpu_report,
    made.cuda_report,
    made.partial_report,
    made.empty_report,
    made.single_process_report,
    made.hostile_report,
]
CHECKS = [made.passed_check, made.failed_check, made.unjudged_check]


def check_tables(text):
    """Every table has as many cells in each row as in its head."""
    width = 0
    for line in text.splitlines():
        if not line.startswith("|"):
            width = 0
            continue
        cells = len(re.findall(r"(?<!\\)\|", line)) - 1
        width = width or cells
        assert cells == width, line
    for behind in re.findall(r"</summary>\n(.*)\n", text):
        assert behind == "", "Markdown behind a summary needs an empty line first"


@pytest.mark.parametrize("report", BENCHES)
def test_a_benchmark_in_markdown(report):
    text = bench_to_markdown(bench_document(report()))
    check_tables(text)
    assert text.count("<details>") == text.count("</details>")
    assert "<script" not in text
    assert text.startswith("**")
    assert "nan" not in text.split()


def test_the_verdict_of_a_benchmark_comes_first_and_warnings_stand_out():
    lines = bench_to_markdown(bench_document(made.cuda_report())).splitlines()
    assert lines[0] == "**✅ faster at 2 of 3 batch sizes**"
    assert lines[2].startswith("Folded is 1.15× as fast")
    assert any(line.startswith("> ⚠️ the device's clocks") for line in lines)


@pytest.mark.parametrize("check", [*CHECKS, lambda: None])
def test_a_fold_in_markdown(check):
    text = fold_to_markdown(fold_document(made.fold_report("a|b"), check(), (), "m|n.onnx"))
    check_tables(text)
    assert "m\\|n.onnx: 18 maps folded" in text
    assert "| BatchNormalization | 19 | 2 | −17 |" in text


@pytest.mark.parametrize("check", CHECKS)
def test_a_comparison_in_markdown(check):
    report = check()
    text = verify_to_markdown(verify_document(report, "a.onnx", "b.onnx"))
    check_tables(text)
    mark = {"passed": "✅", "failed": "❌", "not-judged": "⚠️"}[report.verdict]
    assert text.startswith(f"**{mark} a.onnx and b.onnx: ")


@pytest.mark.parametrize("report", BENCHES)
def test_plain_text_is_aligned_and_has_no_nan(report):
    text = bench_to_text(report())
    assert "nan" not in text.split()
    tables = re.findall(r"^    arm .*?(?=\n    \S+ \d+×|\n    \d+ timed)", text, re.M | re.S)
    assert len(tables) == len(report().cases)
    if report is made.cpu_report:
        for table in tables:
            rows = table.splitlines()
            ends = {
                row.index(found.group()) + len(found.group())
                for row in rows[1:]
                for found in [re.match(r" +\S+ +[\d.]+", row)]
            }
            assert len(ends) == 1


def test_plain_text_says_why_and_warns():
    lines = bench_to_text(made.cuda_report()).splitlines()
    assert lines[0] == "model.onnx and folded.onnx: faster at 2 of 3 batch sizes"
    assert any(line.startswith("  because: the runtime removed") for line in lines)
    assert any(line.startswith("  warning: the device's clocks") for line in lines)
    assert "NVIDIA H100" in lines[-1]
