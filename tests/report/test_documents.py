"""Documents hold everything: what is read back from JSON is what went in."""

from __future__ import annotations

import json
import math

import pytest

from bnfold.errors import BnfoldError
from bnfold.report.documents import BenchDocument, FoldDocument
from bnfold.report.encoding import decode
from bnfold.report.to_json import bench_document, fold_document, to_json
from tests.report import made

BENCHES = {
    "cpu": made.cpu_report,
    "cuda": made.cuda_report,
    "one process": made.single_process_report,
    "hostile": made.hostile_report,
}


def through_json(document):
    return json.loads(json.dumps(document, allow_nan=False))


@pytest.mark.parametrize("name", BENCHES)
def test_a_benchmark_is_read_back_whole(name):
    report = BENCHES[name]()
    read = decode(BenchDocument, through_json(bench_document(report, "bnfold bench m.onnx")))
    without_fold = read.report
    assert (read.fold is None) == (report.fold is None)
    for one in ("arms", "cases", "starts", "graphs", "why", "machine", "settings", "warnings"):
        assert getattr(without_fold, one) == getattr(report, one)


def test_a_fold_is_read_back_whole():
    report = made.fold_report()
    drawn = made.pictures(report)
    read = decode(FoldDocument, through_json(fold_document(report, None, drawn, "m.onnx")))
    assert read.report == report
    assert read.pictures == drawn
    assert read.model == "m.onnx"


def test_what_is_no_number_becomes_a_word_and_comes_back():
    document = through_json(bench_document(made.partial_report()))
    told = document["cases"][1]["comparisons"][0]
    assert (told["ratio"], told["high"]) == ("nan", "inf")
    read = decode(BenchDocument, document).report.cases[1].comparisons[0]
    assert math.isnan(read.ratio)
    assert math.isinf(read.high)


def test_unknown_keys_are_passed_over_and_missing_ones_are_named():
    document = fold_document(made.fold_report(), None)
    assert decode(FoldDocument, {**document, "later": 1}).folded
    del document["folded"]
    with pytest.raises(BnfoldError, match="folded"):
        decode(FoldDocument, document)


def test_documents_say_who_made_them_and_when():
    told = fold_document(made.fold_report(), None)["made"]
    assert set(told) == {"bnfold", "python", "date"}
    assert told["date"].endswith("+00:00")


def test_samples_stand_in_one_line_and_the_text_is_the_document():
    document = bench_document(made.cpu_report((1,)), "a [\n1,\n2\n] b")
    text = to_json(document)
    assert json.loads(text) == document
    calls = document["cases"][0]["series"][0]["turns"][0]["calls_ns"]
    assert f"[ {', '.join(map(str, calls))} ]" in text
