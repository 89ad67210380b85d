"""How the section of inference works through its plan, where nothing is run."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from benchmarks.gpu import inference, inference_tables, machine, planner, rows
from benchmarks.gpu.inference import Files
from benchmarks.gpu.planner import Pass, Task
from benchmarks.gpu.record import Context, Options, Record, begin
from bnfold.errors import UsageError
from bnfold.records import Ending
from tests.benchmarks.documents import document

_PASS = Pass((1, 32), details=True)


@pytest.fixture
def context(tmp_path) -> Context:
    options = Options(1.0, tmp_path / "out", tmp_path / "cache", ("a", "b"), dry_run=True)
    ticks = count()
    head = begin(options, machine.DRY, "command")
    record = Record(head, options.out / "result", clock=lambda: next(ticks) / 10)
    return Context(options, record, until_s=100.0)


@pytest.fixture
def measure(context, monkeypatch) -> Callable[..., dict]:
    """Measure networks a and b, where ``answer(task)`` stands for the benchmark."""

    def measured(answer, passes=(_PASS,), earlier=()) -> dict:
        def benchmark(_context, _files, task, _share, *, details):
            found = answer(task)
            return found if details else {**found, "graphs": [], "starts": []}

        monkeypatch.setattr(inference, "_benchmark", benchmark)
        part = context.results("inference")
        part |= {"nets": {"a": {}, "b": {}}, "rows": list(earlier)}
        files = {net: Files(Path(net), Path(net)) for net in "ab"}
        inference._measure_all(context, part, passes, files)
        return part

    return measured


def _as_on_a_gpu(context: Context) -> None:
    """What a dry run does not ask for: six processes, time for them."""
    context.options.dry_run = False
    context.until_s = 500.0


def _whole(task: Task) -> dict:
    return document(batches=dict.fromkeys(task.how.batches, 6))


def _written(context: Context) -> dict:
    text = context.record.json_path.read_text(encoding="utf-8")
    return json.loads(text)["sections"]["inference"]


def _keys(part: dict) -> list[str]:
    return [row["key"] for row in part["rows"]]


def test_the_failure_of_one_network_is_its_row(context, measure):
    def answer(task):
        if task.net == "a":
            raise RuntimeError("no kernel")
        return _whole(task)

    part = measure(answer)
    assert [row["outcome"] for row in part["rows"]] == ["failed", "measured"]
    assert part["rows"][0]["why"] == "RuntimeError: no kernel"
    assert part["not_reached"] == ["a batch 1 model", "a batch 32 model"]
    assert len(_written(context)["rows"]) == 2


def test_the_failure_of_one_batch_size_leaves_the_other(measure):
    part = measure(lambda _: document(batches={1: 6, 32: 0}))
    assert [row["outcome"] for row in part["rows"]] == ["partly", "partly"]
    assert part["rows"][0]["why"] == "batch 32: original: out of memory"
    assert part["not_reached"] == ["a batch 32 model", "b batch 32 model"]
    page = "\n".join(inference_tables.parts(part))
    assert "| a | 1 | 2.000 | 0.800 [0.790, 0.810] faster |" in page
    assert "| a | 32 | – | failed |" in page
    assert "of 4: 2 faster, 2 failed" in page


def test_the_batch_size_that_had_too_little_time_is_measured_once_more(context, measure):
    _as_on_a_gpu(context)
    asked = []

    def answer(task):
        asked.append(task.key)
        return document(batches={1: 6, 32: 2}) if len(asked) == 1 else _whole(task)

    part = measure(answer)
    assert asked == ["a batch 1,32 model", "b batch 1,32 model", "a batch 32 model"]
    assert [row["batches"] for row in part["rows"]] == [[1], [1, 32], [32]]
    assert part["not_reached"] == []


def test_what_stays_too_short_is_not_tried_for_ever(context, measure):
    _as_on_a_gpu(context)
    part = measure(lambda task: document(batches=dict.fromkeys(task.how.batches, 2)))
    assert len(part["rows"]) == 2
    assert len(part["not_reached"]) == part["planned"] == 4


def test_the_better_one_of_two_measurements_stays_and_what_ran_with_it(context, measure):
    _as_on_a_gpu(context)
    asked = []

    def answer(task):
        asked.append(task.net)
        few = {0: 4, 2: 3}.get(len(asked) - 1, 6)
        return document(batches=dict.fromkeys(task.how.batches, few))

    part = measure(answer)
    assert asked == ["a", "b", "a"]
    (row,) = [row for row in part["rows"] if row["net"] == "a"]
    assert rows.processes(row, 32) == 4
    assert row["document"]["graphs"]


def test_a_longer_second_try_takes_over_what_the_first_one_saw(context, measure):
    _as_on_a_gpu(context)
    asked = []

    def answer(task):
        asked.append(task.net)
        return document(batches=dict.fromkeys(task.how.batches, 2 if asked == ["a"] else 6))

    part = measure(answer)
    assert [(row["net"], row["details"]) for row in part["rows"]] == [
        ("b", True),
        ("a", False),
    ]
    assert all(row["document"]["graphs"] for row in part["rows"])


def test_a_batch_size_that_the_model_refuses_costs_the_others_nothing(context, measure):
    _as_on_a_gpu(context)

    def answer(task):
        if 32 in task.how.batches:
            raise UsageError("the batch size is fixed at 1")
        return _whole(task)

    part = measure(answer)
    outcomes = {row["key"]: row["outcome"] for row in part["rows"]}
    assert outcomes == {
        "a batch 1 model": "measured",
        "a batch 32 model": "refused",
        "b batch 1 model": "measured",
        "b batch 32 model": "refused",
    }


def test_what_a_crash_took_with_it_is_tried_alone(context, measure):
    _as_on_a_gpu(context)

    def answer(task):
        found = _whole(task)
        if len(task.how.batches) > 1:
            found["cases"][0] |= {
                "latencies": [],
                "series": [],
                "ending": "failed",
                "failures": {"process 0": "killed by SIGSEGV"},
            }
        return found

    part = measure(answer)
    assert _keys(part) == [
        "a batch 1,32 model",
        "b batch 1,32 model",
        "a batch 1 model",
        "b batch 1 model",
    ]
    assert part["not_reached"] == []


def test_what_runs_is_looked_at_once_for_each_network_and_type(measure):
    passes = (_PASS, Pass((1,), cuda_graph=True), Pass((8,), details=True))
    part = measure(_whole, (*passes, Pass((8,), "float16", details=True)))
    looked = [row["key"] for row in part["rows"] if row["details"]]
    assert looked == [
        "a batch 1,32 model",
        "b batch 1,32 model",
        "a batch 8 float16",
        "b batch 8 float16",
    ]


def test_an_earlier_run_is_gone_on_with_case_by_case(measure):
    before = measure(lambda task: document(batches={1: 6, 32: 0 if task.net == "a" else 6}))
    asked = []

    def answer(task):
        asked.append(task.key)
        return _whole(task)

    part = measure(answer, earlier=rows.worth_keeping(before["rows"]))
    assert asked == ["a batch 32 model"]
    assert [row["batches"] for row in part["rows"]] == [[1], [1, 32], [32]]
    assert [row["why"] for row in part["rows"]] == ["", "", ""]
    assert (part["planned"], part["not_reached"]) == (4, [])


def test_an_earlier_run_tells_how_long_measurements_take(context, measure):
    before = measure(_whole)["rows"]
    before[0]["elapsed_s"] = 500.0
    _as_on_a_gpu(context)
    context.until_s = 50.0
    part = measure(_whole, (Pass((1, 32), "float16"),), earlier=before)
    assert _keys(part)[2:] == ["b batch 1,32 float16"]


def test_an_interrupted_benchmark_is_kept_and_ends_the_run(context, measure):
    with pytest.raises(KeyboardInterrupt):
        measure(lambda _: document(ending=Ending.INTERRUPTED, batches={1: 6, 32: 1}))
    (row,) = _written(context)["rows"]
    assert row["outcome"] == "measured"


def test_ctrl_c_in_a_benchmark_leaves_its_row(context, measure):
    def answer(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(answer)
    (row,) = _written(context)["rows"]
    assert row["why"] == "interrupted"


def test_every_sample_is_kept_beside_the_results(context, measure):
    measure(_whole)
    with gzip.open(context.record.samples_path, "rt", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    assert [line["key"] for line in lines] == ["a batch 1,32 model", "b batch 1,32 model"]
    assert lines[0]["document"]["cases"][0]["series"][0]["turns"][0]["calls_ns"]


def test_a_row_counts_samples_and_does_not_list_them(measure):
    row = measure(_whole)["rows"][0]
    series = row["document"]["cases"][0]["series"]
    assert series[0] == {
        "arm": "original",
        "processes": 6,
        "settled": 6,
        "warm_up_calls": 30,
        "turns": 6,
        "calls": 12,
    }
    assert len(series) == 4


def test_what_hangs_is_interrupted():
    with pytest.raises(KeyboardInterrupt), inference._alarm(0.05) as alarm:
        time.sleep(30)
    assert alarm.rang


def test_an_alarm_does_not_outlive_its_block():
    with inference._alarm(60) as alarm:
        pass
    assert not alarm.rang


def test_every_line_fills_every_column(measure):
    part = measure(_whole)
    tables = [text for text in inference_tables.parts(part) if text.startswith("| network")]
    times, runs = (table.splitlines() for table in tables)
    assert [line.count(" | ") + 1 for line in times] == [len(inference_tables.TIMES)] * 6
    assert [line.count(" | ") + 1 for line in runs] == [len(inference_tables.RUNS)] * 4
    assert runs[2] == "| a | float32 | 3 → 1 | 1 → 0 | 25.0 % | 0.50 |"


def test_a_reason_that_many_share_is_told_once(measure):
    def answer(task):
        if task.how.cuda_graph:
            raise RuntimeError("no graphs here")
        found = _whole(task)
        load = {"a": 3.8, "b": 4.0}[task.net]
        return {**found, "warnings": [f"batch 1, 32: busy (load {load} on 2 cores): wait"]}

    part = measure(answer, (_PASS, Pass((1,), cuda_graph=True)))
    page = "\n".join(inference_tables.parts(part))
    failed = "a batch 1 model graph; b batch 1 model graph"
    assert f"\n- {failed}: RuntimeError: no graphs here\n" in page
    assert "\n- 2×: busy: wait" in page


def test_the_tables_are_in_the_order_of_the_networks(measure):
    part = measure(_whole, (Pass((32,)), Pass((1,))))
    found = inference_tables._cases(part, "model", False)  # noqa: FBT003  no CUDA graph
    assert [(row["net"], batch) for row, batch in found] == [
        ("a", 1),
        ("a", 32),
        ("b", 1),
        ("b", 32),
    ]


class _Simulated:
    """A machine on which every process takes seconds by a clock of its own."""

    def __init__(self, process_s: float) -> None:
        self.now_s = 0.0
        self._process_s = process_s

    def answer(self, _context, _files, task, share_s, *, details) -> dict:
        batches = len(task.how.batches)
        begun_s = self.now_s
        if details:
            self.now_s += self._process_s * len(task.how.arms) * (batches + 1)
        each_s = self._process_s * (1 + batches / 2) + 0.3 * batches
        processes = max(int((share_s - self.now_s + begun_s) / each_s), 1)
        self.now_s += processes * each_s
        return document(batches=dict.fromkeys(task.how.batches, processes))


@pytest.mark.parametrize("process_s", [1.0, 2.0])
def test_ten_networks_are_all_reached_in_time(context, monkeypatch, process_s):
    machine_of_it = _Simulated(process_s)
    monkeypatch.setattr(inference, "_benchmark", machine_of_it.answer)
    context.options.dry_run = False
    context.options.samples = False
    context.record.clock = lambda: machine_of_it.now_s
    context.until_s = 420.0
    nets = [f"net{number}" for number in range(10)]
    part = context.results("inference") | {"rows": []}
    files = {net: Files(Path(net), Path(net)) for net in nets}
    inference._measure_all(context, part, planner.PASSES, files)
    assert machine_of_it.now_s <= 420.0
    done = rows.done(part["rows"], planner.NEEDED_PROCESSES)
    for net in nets:
        assert {f"{net} batch 1 model", f"{net} batch 32 model"} <= done
