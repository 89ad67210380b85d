"""The JSON Schemas are up to date, say something, and real documents keep to them."""

from __future__ import annotations

import json

import pytest
from jsonschema import Draft202012Validator

from bnfold.checked import fold
from bnfold.report.to_json import bench_document, fold_document, verify_document
from docs.schemas import DOCUMENTS, written
from tests.report import made
from tests.small import conv_bn, two_layers

SAID_BESIDE = {"low", "high", "excess_low", "excess_high", "rule", "site", "refusals"}
"""Keys that are described with another one, or by the record as a whole."""
SCHEMAS = {path.name: json.loads(text) for path, text in written().items()}


def complaints(name, document):
    read = json.loads(json.dumps(document, allow_nan=False))
    return [one.message for one in Draft202012Validator(SCHEMAS[name]).iter_errors(read)]


def test_schemas_are_up_to_date():
    for path, text in written().items():
        assert path.read_text() == text, "run python -m docs.schemas"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_schemas_are_valid_and_describe_every_key(name):
    Draft202012Validator.check_schema(SCHEMAS[name])
    parts = [SCHEMAS[name], *SCHEMAS[name]["$defs"].values()]
    silent = {
        key
        for part in parts
        for key, entry in part.get("properties", {}).items()
        if "description" not in entry
    }
    assert silent <= SAID_BESIDE


@pytest.mark.parametrize(
    "report",
    [
        made.cpu_report,
        made.cuda_report,
        made.partial_report,
        made.empty_report,
        made.single_process_report,
        made.hostile_report,
    ],
)
def test_benchmarks_keep_to_the_schema(report):
    assert complaints("bench-report.json", bench_document(report())) == []


@pytest.mark.parametrize("model", [conv_bn, two_layers])
def test_real_folds_and_their_checks_keep_to_the_schema(model):
    result = fold(model(), verify=True)
    assert complaints("fold-report.json", fold_document(result.report, result.check)) == []
    assert complaints("verify-report.json", verify_document(result.check, "a", "b")) == []


def test_drawn_folds_and_every_verdict_keep_to_the_schema():
    report = made.fold_report()
    drawn = fold_document(report, made.failed_check(), made.pictures(report), "m.onnx")
    assert complaints("fold-report.json", drawn) == []
    for check in (made.passed_check(), made.failed_check(), made.unjudged_check()):
        assert complaints("verify-report.json", verify_document(check)) == []


def test_the_schema_notices_a_missing_key_and_a_wrong_type():
    document = bench_document(made.cpu_report())
    document["cases"][0]["comparisons"][0]["ratio"] = None
    del document["machine"]
    assert len(complaints("bench-report.json", document)) == 2
