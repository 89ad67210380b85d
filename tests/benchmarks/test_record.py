from __future__ import annotations

import gzip
import json
import time
from itertools import count
from pathlib import Path

import pytest

from benchmarks.gpu import gpu_tests, inference, machine, nets, tables
from benchmarks.gpu.inference import Files
from benchmarks.gpu.planner import Pass, plan
from benchmarks.gpu.record import Context, Options, Record, begin, free_stem
from bnfold.records import Ending
from tests.benchmarks.documents import document


@pytest.fixture
def options(tmp_path) -> Options:
    return Options(1.0, tmp_path / "out", tmp_path / "cache", ("a", "b"), dry_run=True)


@pytest.fixture
def record(options) -> Record:
    ticks = count()
    head = begin(options, machine.DRY, "command")
    return Record(head, options.out / "result", clock=lambda: next(ticks) / 10)


@pytest.fixture
def context(options, record) -> Context:
    return Context(options, record, until_s=100.0)


def _written(record: Record) -> dict:
    return json.loads(record.json_path.read_text(encoding="utf-8"))


def test_an_error_is_logged_and_costs_nothing_else(record):
    with record.step("bad"):
        raise ValueError("no")
    with record.step("good"):
        pass
    outcomes = [one["outcome"] for one in _written(record)["log"]]
    assert outcomes == ["ValueError: no", "ok"]
    assert "ValueError: no" in record.page_path.read_text(encoding="utf-8")


def test_ctrl_c_passes_through_a_step_and_leaves_the_files(record):
    with pytest.raises(KeyboardInterrupt), record.step("long"):
        raise KeyboardInterrupt
    assert _written(record)["log"][0]["outcome"] == "interrupted"


def test_a_page_that_cannot_be_made_costs_no_result(record):
    record.document["sections"]["inference"] = {"rows": [{"net": "half"}]}
    record.save()
    assert _written(record)["sections"]["inference"]
    assert "could not be made" in record.page_path.read_text(encoding="utf-8")


def test_no_result_is_overwritten(tmp_path):
    assert free_stem(tmp_path, "a").name == "a"
    (tmp_path / "a.json").touch()
    assert free_stem(tmp_path, "a").name == "a-2"
    (tmp_path / "a-2.samples.jsonl.gz").touch()
    assert free_stem(tmp_path, "a").name == "a-3"


def _measure(context: Context, answer, monkeypatch) -> dict:
    """Measure networks a and b, where ``answer(net)`` stands for the benchmark."""
    monkeypatch.setattr(
        inference, "_benchmark", lambda _context, _files, task, _share: answer(task.net)
    )
    part = context.results("inference")
    tasks = plan(["a", "b"], [Pass(1)])
    part |= {"nets": {}, "rows": [], "not_reached": [task.key for task in tasks]}
    files = {net: Files(Path(net), Path(net)) for net in "ab"}
    inference._measure_all(context, part, tasks, files)
    return part


def test_the_failure_of_one_network_is_its_row(context, record, monkeypatch):
    def answer(net):
        if net == "a":
            raise RuntimeError("no kernel")
        return document()

    part = _measure(context, answer, monkeypatch)
    assert [row["outcome"] for row in part["rows"]] == ["failed", "measured"]
    assert part["rows"][0]["why"] == "RuntimeError: no kernel"
    assert part["not_reached"] == ["a batch 1 model"]
    assert len(_written(record)["sections"]["inference"]["rows"]) == 2


def test_what_had_too_little_time_is_measured_once_more(context, monkeypatch):
    context.options.dry_run = False
    context.until_s = 500.0
    asked = []

    def answer(net):
        asked.append(net)
        return document(processes=2 if asked == ["a"] else 6)

    part = _measure(context, answer, monkeypatch)
    assert asked == ["a", "b", "a"]
    assert [row["net"] for row in part["rows"]] == ["b", "a"]
    assert part["not_reached"] == []


def test_an_interrupted_benchmark_is_kept_and_ends_the_run(context, record, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        _measure(context, lambda _: document(ending=Ending.INTERRUPTED), monkeypatch)
    (row,) = _written(record)["sections"]["inference"]["rows"]
    assert row["outcome"] == "measured"


def test_ctrl_c_in_a_benchmark_leaves_its_row(context, record, monkeypatch):
    def answer(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _measure(context, answer, monkeypatch)
    (row,) = _written(record)["sections"]["inference"]["rows"]
    assert row["why"] == "interrupted"


def test_every_sample_is_kept_beside_the_results(context, record, monkeypatch):
    _measure(context, lambda _: document(), monkeypatch)
    with gzip.open(record.samples_path, "rt", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    assert [line["key"] for line in lines] == ["a batch 1 model", "b batch 1 model"]
    assert lines[0]["document"]["cases"][0]["series"][0]["turns"][0]["calls_ns"]


def test_what_hangs_is_interrupted():
    with pytest.raises(KeyboardInterrupt), inference._alarm(0.05) as alarm:
        time.sleep(30)
    assert alarm.rang


def test_an_alarm_does_not_outlive_its_block():
    with inference._alarm(60) as alarm:
        pass
    assert not alarm.rang


def test_every_row_fills_every_column(context, monkeypatch):
    def answer(net):
        if net == "a":
            raise RuntimeError("no kernel")
        return document()

    part = _measure(context, answer, monkeypatch)
    rows = list(tables.inference_rows(part))
    assert len(rows) == 2
    assert {len(row) for row in rows} == {len(tables.COLUMNS)}
    assert rows[1][6:8] == ("2.000", "0.800 [0.790, 0.810] faster")
    assert "failed" in rows[0]


def test_outcomes_are_read_from_pytest():
    text = (
        "tests/gpu/test_a.py::test_x PASSED   [ 50%]\n"
        "tests/gpu/test_a.py::test_y[a-1] SKIPPED (no CUDA) [100%]\n"
        "FAILED tests/gpu/test_a.py::test_z - no\n"
    )
    found = gpu_tests.outcomes(text)
    assert found == {
        "tests/gpu/test_a.py::test_x": "passed",
        "tests/gpu/test_a.py::test_y[a-1]": "skipped",
    }


@pytest.mark.parametrize(
    ("outcomes", "code", "said"),
    [
        (["passed", "skipped"], 0, "passed"),
        (["skipped"], 0, "skipped"),
        (["passed", "failed"], 1, "failed"),
        (["error"], 1, "failed"),
        (["passed"], None, "cut off"),
        ([], 4, "failed"),
        ([], 5, "failed"),
        (["collected"], 0, "collected only"),
    ],
)
def test_what_the_tests_showed(outcomes, code, said):
    found = {str(index): outcome for index, outcome in enumerate(outcomes)}
    assert gpu_tests.verdict(found, code) == said


def test_a_device_name_becomes_a_file_name():
    assert machine.slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"


def test_a_network_that_was_not_exported_says_why(tmp_path):
    exports = nets.Exports(tmp_path, [])
    path = nets.path_of("ocr_svtr", tmp_path)
    path.with_suffix(".log").write_text("ModuleNotFoundError: No module named 'torch'\n")
    assert "No module named 'torch'" in exports.why_missing("ocr_svtr")
    path.touch()
    assert exports.why_missing("ocr_svtr") == ""
    assert "not exported" in exports.why_missing(str(tmp_path / "absent.onnx"))
