from __future__ import annotations

import json
from itertools import count

import pytest

from benchmarks.gpu import gpu_tests, machine, nets
from benchmarks.gpu.record import Options, Record, begin, free_stem


@pytest.fixture
def options(tmp_path) -> Options:
    return Options(1.0, tmp_path / "out", tmp_path / "cache", ("a", "b"), dry_run=True)


@pytest.fixture
def record(options) -> Record:
    ticks = count()
    head = begin(options, machine.DRY, "command")
    return Record(head, options.out / "result", clock=lambda: next(ticks) / 10)


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


def test_outcomes_are_read_from_pytest():
    text = (
        "tests/gpu/test_a.py::test_x PASSED   [ 50%]\n"
        "tests/gpu/test_a.py::test_y[a-1] SKIPPED (no CUDA) [100%]\n"
        "FAILED tests/gpu/test_a.py::test_z - no\n"
        "tests/gpu/test_b.py::test_w[c d] \n"
        "[gw1] [ 75%] FAILED tests/gpu/test_b.py::test_w[c d] \n"
    )
    found = gpu_tests.outcomes(text)
    assert found == {
        "tests/gpu/test_a.py::test_x": "passed",
        "tests/gpu/test_a.py::test_y[a-1]": "skipped",
        "tests/gpu/test_b.py::test_w[c d]": "failed",
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
