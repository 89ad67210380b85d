"""How the section of training works through its plan, where nothing is measured."""

from __future__ import annotations

import gzip
import importlib.util
import json
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from benchmarks.arms import ROOT
from benchmarks.gpu import machine, training
from benchmarks.gpu.record import Context, Options, Record, begin
from benchmarks.gpu.training_plan import Kernels, Net, plan, task_of
from tests.benchmarks.training_documents import row

_WHOLE = plan(dry_run=False)
_TASKS = [*_WHOLE[:30], _WHOLE[-1]]


@pytest.fixture
def context(tmp_path) -> Context:
    """A run on a device that there is not, whose every look at the clock takes 0.1 s."""
    options = Options(1.0, tmp_path / "out", tmp_path / "cache", ())
    ticks = count()
    head = begin(options, "Imaginary GPU 9000", "command")
    record = Record(head, options.out / "result", clock=lambda: next(ticks) / 10)
    return Context(options, record, until_s=1e9)


class _Crew:
    """Answers at once, and remembers what it was asked."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.asked: list[str] = []
        self.retired = 0
        self.ready, self.lost = {"torch": "2"}, 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def retire(self):
        self.retired += 1

    def do(self, told, attempt_s, limit_s):
        assert attempt_s > 0
        assert limit_s > 0
        self.asked.append(told["key"])
        task = task_of(told)
        if isinstance(task, Kernels):
            return {"kernels": {one.key: ["cudnn"] for one in task.layers}, "failures": {}}
        found = {k: v for k, v in row(task).items() if k not in told and k != "kernels"}
        return found | {"samples_ms": {"ours": {"step queued": [1.0]}}, "copied": [1.0]}


@pytest.fixture
def crew(monkeypatch) -> list[_Crew]:
    crews = []

    def make(device):
        crews.append(_Crew(device))
        return crews[-1]

    monkeypatch.setattr(training, "Crew", make)
    monkeypatch.setattr(training.training_plan, "plan", lambda **_: _TASKS)
    monkeypatch.setattr(training.importlib.util, "find_spec", lambda _name: True)
    return crews


def _written(context: Context) -> dict:
    text = context.record.json_path.read_text(encoding="utf-8")
    return json.loads(text)["sections"]["training"]


def test_everything_is_measured_judged_and_kept(context, crew):
    training.run(context)
    part = _written(context)
    assert [one["key"] for one in part["rows"]] == [one["key"] for one in part["planned"]]
    assert part["not_reached"] == []
    assert crew[0].device == "cuda"
    assert crew[0].retired == 1  # the process of the profiler
    assert context.results("training")["summary"] == "Of 5 targets with a bound: 5 met."
    assert "5 met" in context.record.page_path.read_text(encoding="utf-8")


def test_samples_go_to_their_own_file(context, crew):
    training.run(context)
    part = _written(context)
    assert not any("samples_ms" in one or "copied" in one for one in part["rows"])
    lines = gzip.decompress(context.record.samples_path.read_bytes()).decode().splitlines()
    assert len(lines) == len(part["rows"]) == len(crew[0].asked) - 1
    assert json.loads(lines[0])["document"]["samples_ms"]["ours"]


@pytest.mark.usefixtures("crew")
def test_rows_of_torch_name_its_kernels(context):
    training.run(context)
    rows = {one["key"]: one for one in _written(context)["rows"]}
    assert rows["bn 256x64x112x112 float16 channels_last"]["kernels"] == ["cudnn"]
    assert "kernels" not in rows[_TASKS[-1].key]


def test_what_is_too_long_leaves_room_for_what_is_shorter(context, crew):
    context.until_s = 60.0
    training.run(context)
    part = _written(context)
    (net,) = [task.key for task in _TASKS if isinstance(task, Net)]
    assert net in part["not_reached"]
    assert part["rows"][-1]["key"] == _TASKS[-1].key
    assert len(part["rows"]) + len(part["not_reached"]) == len(part["planned"])
    assert crew[0].asked[0].startswith("kernels")


def test_an_earlier_run_is_gone_on_with(context, crew):
    _, first, second, third, *_ = _TASKS
    now = training.code()
    context.record.document["resumed_rows"] = {
        "training": [
            row(first, code=now) | {"from": "earlier"},
            row(second, code="other kernels"),
            row(third, code=now, outcome="partly"),
        ]
    }
    training.run(context)
    asked = crew[0].asked
    assert first.key not in asked
    assert second.key in asked
    assert third.key in asked
    part = _written(context)
    assert part["rows"][0]["from"] == "earlier"
    assert len({one["key"] for one in part["rows"]}) == len(part["planned"])


@pytest.mark.usefixtures("crew")
def test_a_failure_is_a_row_and_the_rest_goes_on(context, monkeypatch):
    good = _Crew.do

    def do(self, told, attempt_s, limit_s):
        if len(self.asked) == 1:
            self.asked.append(told["key"])
            return {"error": "turns: took too long", "failures": {}}
        return good(self, told, attempt_s, limit_s)

    monkeypatch.setattr(_Crew, "do", do)
    training.run(context)
    first, *others = _written(context)["rows"]
    assert (first["outcome"], first["error"]) == ("failed", "turns: took too long")
    assert {one["outcome"] for one in others} == {"measured"}


def test_without_a_worker_it_ends_at_once(context, crew, monkeypatch):
    def do(self, told, attempt_s, limit_s):  # noqa: ARG001  # as of a crew
        self.asked.append(told["key"])
        self.ready = {}
        return {"error": "start: its process ended with 1: no CUDA", "failures": {}}

    monkeypatch.setattr(_Crew, "do", do)
    with pytest.raises(RuntimeError, match=r"no worker could be started: start: .* no CUDA"):
        training.run(context)
    assert len(crew[0].asked) == 1


def test_without_torch_it_says_so(context, monkeypatch):
    monkeypatch.setattr(training.importlib.util, "find_spec", lambda _name: None)
    training.run(context)
    part = context.results("training")
    assert part["why"] == "torch is not installed"
    assert len(part["not_reached"]) == len(part["planned"])


@pytest.mark.thorough  # the dry run of all sections goes through this one too
def test_a_dry_run_walks_the_whole_path(tmp_path):
    """Worker, kernels where triton is, targets, page; and nothing of it is a claim."""
    pytest.importorskip("torch")
    out = tmp_path / "out"
    command = [sys.executable, "benchmarks/gpu/run_all.py", "--dry-run", "--only", "training"]
    done = subprocess.run(
        [*command, "--minutes", "2", "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result, page = (Path(line).read_text(encoding="utf-8") for line in done.stdout.split())
    document = json.loads(result)
    part = document["sections"]["training"]
    assert document["device"] == machine.DRY
    assert part["not_reached"] == []
    for one in part["rows"]:
        assert one["outcome"] == "measured", one
        assert one["failures"] == {}
        assert "eager / ours" in one["ratios"]
    kernels_run = importlib.util.find_spec("triton") is not None
    for one in part["rows"][:-1]:
        assert one["correct"] is True or not kernels_run, one["errors"]
        assert set(one["of_copy"]["ours"]) == {"forward", "backward", "step"}
        assert one["backend"] == "native"
    net = part["rows"][-1]
    assert net["agrees"] == dict.fromkeys(net["arms"], True)
    assert net["fusions"] == {"relu": 3, "addition + relu": 1}
    assert net["saved_bytes"]["ours recompute"] < net["saved_bytes"]["ours"]
    assert part["kernels"]["failures"] == {}
    assert {one["verdict"] for one in part["targets"]} == {"not measured"}
    assert "5 not measured" in page
    assert "measures nothing" in page
