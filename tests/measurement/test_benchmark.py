"""`bnfold.benchmark` on real models: little time, so no figure is believed here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import bnfold
from bnfold.benchmarked import benchmark
from bnfold.errors import BnfoldError, DataError, ModelError, UsageError
from bnfold.measurement.stats import FEWEST_PROCESSES
from bnfold.records import Ending, Speed
from bnfold.report.to_json import bench_to_json
from tests.measurement import oddities
from tests.small import conv_bn

BOTH = ("original", "folded")
DIGITS = Path(__file__).parents[2] / "models" / "digits_cnn.onnx"


@pytest.fixture
def quick():
    """A benchmark that takes as little as one can."""

    def run(model, folded=None, **choices):
        return benchmark(model, folded, **{"arms": BOTH, "max_time_s": 0.1, **choices})

    return run


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """One short run that many tests look at: two batch sizes, a further model."""
    folder = tmp_path_factory.mktemp("small")
    paths = []
    for name in ("one", "two"):
        (folder / name).mkdir()
        paths.append(oddities.save(conv_bn(), folder / name / "net.onnx"))
    model = conv_bn()
    before, stages = model.SerializeToString(), []
    report = benchmark(
        model,
        more=paths,
        arms=("folded", "unfused"),
        batch=(1, 2, 1),
        max_time_s=0.5,
        progress=stages.append,
    )
    assert model.SerializeToString() == before
    assert [list(path.parent.iterdir()) for path in paths] == [[path] for path in paths]
    return report, paths, stages


def test_the_base_comes_first_and_its_copy_beside_it(small):
    report, paths, _ = small
    assert [arm.name for arm in report.arms] == [
        "original", "again", "folded", "unfused", *map(str, paths)
    ]  # fmt: skip
    assert [arm.null for arm in report.arms] == [False, True, False, False, False, False]
    assert report.base.name == "original"
    assert report.arms[3].disabled_optimizers
    assert report.arms[0].model == "original (ModelProto)"
    assert report.arms[4].model == str(paths[0])
    assert all(arm.size_bytes > 0 for arm in report.arms)


def test_there_is_one_case_for_each_batch_size(small):
    report, _, _ = small
    assert [case.batch for case in report.cases] == [1, 2]
    assert [case.shapes for case in report.cases] == [{"x": (n, 3, 8, 8)} for n in (1, 2)]


def test_every_sample_is_kept(small):
    report, _, _ = small
    names = {arm.name for arm in report.arms}
    for case in report.cases:
        assert {one.arm for one in case.series} == names
        for latency in case.latencies:
            taken = [
                ns
                for one in case.series
                for turn in one.turns
                for ns in turn.calls_ns
                if one.arm == latency.arm
            ]
            assert latency.calls == len(taken) > 0
            assert min(taken) / 1e6 <= latency.p50_ms <= latency.p99_ms <= max(taken) / 1e6
        for one in case.series:
            assert [turn.turn for turn in one.turns] == list(range(len(one.turns)))
            assert len(one.turns) >= 4
        for turns in zip(*(one.turns for one in case.series), strict=True):
            assert sorted(turn.place for turn in turns) == list(range(len(names)))


def test_too_little_time_is_no_verdict_and_a_warning(small):
    report, _, _ = small
    for case in report.cases:
        assert case.ending is Ending.OUT_OF_TIME
        assert {one.arm for one in case.comparisons} == {a.name for a in report.arms[1:]}
        assert {one.verdict for one in case.comparisons} == {Speed.NOT_MEASURED}
        assert all(np.isnan(one.low) and np.isnan(one.high) for one in case.comparisons)
        assert {one.base for one in case.comparisons} == {"original"}
    assert "batch 1, 2: the time was too short for an interval: give more --max-time" in (
        report.warnings
    )
    assert report.complete
    assert report.slower(0.0) == ()


def test_what_ran_is_told_of_every_arm_but_the_copy(small):
    report, paths, _ = small
    graphs = {graph.arm: graph for graph in report.graphs}
    assert set(graphs) == {"original", "folded", "unfused", *map(str, paths)}
    assert graphs["original"].file_nodes == {"Conv": 1, "BatchNormalization": 1, "Relu": 1}
    assert graphs["folded"].file_nodes == {"Conv": 1, "Relu": 1}
    assert graphs["original"].nodes == graphs["folded"].nodes
    assert sum(graphs["unfused"].nodes.values()) > sum(graphs["original"].nodes.values())
    assert all(graph.node_time_ms and not graph.elsewhere for graph in report.graphs)
    assert "The runtime folds all 1 BatchNormalization" in report.why[0]


def test_starts_are_told_of_every_arm_and_batch(small):
    report, _, _ = small
    arms = {arm.name for arm in report.arms if not arm.null}
    for batch in (1, 2):
        assert {one.arm for one in report.starts if one.batch == batch} == arms
    assert all(one.session_ms > 0 and one.first_run_ms > 0 for one in report.starts)


def test_the_fold_that_was_made_for_it_is_reported(small):
    report, _, _ = small
    assert report.fold is not None
    assert [step.rule for step in report.fold.steps] == ["BatchNormalization"]
    assert all(case.outputs_differ["folded"] < 1e-5 for case in report.cases)
    assert all(case.outputs_differ["again"] == 0 for case in report.cases)
    assert "folded by bnfold" in report.arms[2].model


def test_progress_goes_forward_and_says_what_is_done(small):
    _, _, stages = small
    shares = [stage.done for stage in stages]
    assert shares == sorted(shares)
    assert 0 <= shares[0] <= shares[-1] <= 1
    said = " ".join(stage.doing for stage in stages)
    for words in ("reading", "batch 1: starting folded", "looking at what runs of unfused",
                  "batch 2: starting folded", "batch 1: measuring, process 1"):  # fmt: skip
        assert words in said
    assert "again" not in said


def test_it_can_be_written_as_json(small):
    report, _, _ = small

    def never(word):
        raise AssertionError(word)

    document = json.loads(bench_to_json(report), parse_constant=never)
    assert len(document["cases"]) == 2


@pytest.mark.usefixtures("hurried")
def test_an_interval_is_insisted_on_and_a_slow_model_is_found():
    ends = []
    report = benchmark(
        conv_bn(),
        conv_bn(),
        more={"heavy": oddities.heavy()},
        arms=BOTH,
        precision=0.9,
        progress=lambda stage: ends.append(stage.doing),
    )
    case = report.cases[0]
    assert len({one.process for one in case.series}) == FEWEST_PROCESSES
    assert case.ending is Ending.PRECISE
    heavy = report.comparison("heavy")
    assert heavy is not None
    assert heavy.verdict is Speed.SLOWER
    assert heavy.processes == FEWEST_PROCESSES
    assert 1.5 < heavy.low <= heavy.ratio <= heavy.high
    assert report.slower(0.5, "heavy") == (case,)
    assert report.fold is None
    assert case.outputs_differ["folded"] == 0


def test_models_in_memory_and_files_are_taken_and_left_alone(quick, tmp_path):
    data = tmp_path / "net.onnx"
    onnx.save(conv_bn(), data, save_as_external_data=True, location="w", size_threshold=0)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    report = quick(str(data), ir.from_proto(conv_bn()))
    assert report.arms[0].model == str(data)
    assert report.arms[0].size_bytes == sum(map(len, before.values()))
    assert report.arms[2].model == "folded (Model)"
    assert report.cases[0].outputs_differ["folded"] == 0
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.slow
def test_external_data_is_folded_too(quick, tmp_path):
    data = tmp_path / "net.onnx"
    onnx.save(conv_bn(), data, save_as_external_data=True, location="w", size_threshold=0)
    report = quick(data)
    assert report.cases[0].outputs_differ["folded"] < 1e-5
    assert report.graphs[1].file_nodes == {"Conv": 1, "Relu": 1}


@pytest.mark.parametrize("value", [pytest.param(3.0, marks=pytest.mark.slow), np.nan])
def test_a_spoiled_fold_is_told(quick, value):
    report = quick(conv_bn(), oddities.spoiled(conv_bn(), value))
    assert report.cases[0].outputs_differ["folded"] > 0.01
    assert any("judge them with bnfold verify" in said for said in report.warnings)
    assert json.loads(bench_to_json(report))["cases"]


@pytest.mark.slow
def test_the_users_own_inputs_are_run_at_every_batch_size(quick):
    given = {"x": np.full((2, 3, 8, 8), 3, np.float32)}
    report = quick(conv_bn(), arms=("original",), inputs=given, batch=(1, 3))
    assert [case.shapes["x"][0] for case in report.cases] == [1, 3]
    report = quick(conv_bn(), arms=("original",), inputs=given)
    assert report.cases[0].batch == 2


@pytest.mark.slow
def test_float16_converts_models_and_the_users_inputs(quick):
    given = {"x": np.ones((2, 3, 8, 8), np.float32)}
    report = quick(conv_bn(), dtype="float16", inputs=given)
    case = report.cases[0]
    assert case.shapes == {"x": (2, 3, 8, 8)}
    assert 0 < case.outputs_differ["folded"] < 0.01
    assert report.settings.dtype == "float16"
    assert report.arms[0].size_bytes < len(conv_bn().SerializeToString())
    assert any("float16 in float32, with casts" in said for said in report.warnings)


def test_a_shape_says_the_sizes_and_the_batch_the_first_axis(quick):
    report = quick(conv_bn(), shapes="x=1x3x8x8", batch=(2, 5))
    assert [case.shapes["x"] for case in report.cases] == [(2, 3, 8, 8), (5, 3, 8, 8)]


def test_sizes_that_the_model_leaves_open_can_be_given(quick):
    report = quick(oddities.spatial(), arms=("original",), shapes="x=2x3x9x7")
    assert report.cases[0].shapes == {"x": (2, 3, 9, 7)}
    assert report.cases[0].batch == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "choices", "batch", "shapes"),
    [
        ("spatial", {}, 1, {"x": (1, 3, 32, 32)}),
        ("embedding", {"batch": 3}, 3, {"ids": (3, 32)}),
        ("two_inputs", {"batch": 5}, 5, {"x": (5, 4), "w": (4, 3)}),
        ("scalar", {}, None, {"x": ()}),
        ("constant", {}, None, {}),
        ("sequence", {}, 1, {"x": (1, 2)}),
        ("text", {}, 1, {"x": (1, 2)}),
        ("nonzero", {"batch": 4}, 4, {"x": (4, 6)}),
        ("fixed_batch", {"batch": 2}, 2, {"x": (2, 3, 8, 8)}),
    ],
)
def test_odd_models_are_measured(quick, name, choices, batch, shapes):
    report = quick(getattr(oddities, name)(), **choices)
    (case,) = report.cases
    assert case.failures == {}
    assert (case.batch, case.shapes) == (batch, shapes)
    assert {one.arm for one in case.latencies} == {"original", "again", "folded"}
    assert all(far < 1e-5 for far in case.outputs_differ.values())
    assert [graph.arm for graph in report.graphs] == list(BOTH)


@pytest.mark.slow
def test_two_inputs_of_the_user_keep_a_fixed_axis(quick):
    given = {"x": np.ones((2, 4), np.float32), "w": np.ones((4, 3), np.float32)}
    report = quick(oddities.two_inputs(), arms=("original",), inputs=given, batch=7)
    assert report.cases[0].shapes == {"x": (7, 4), "w": (4, 3)}


def test_an_original_that_does_not_load_is_an_error_in_the_runtimes_words(quick):
    with pytest.raises(ModelError) as error:
        quick(oddities.foreign(), arms=("original",))
    assert "nowhere.else:Wonder" in error.value.why
    assert error.value.what == "the original does not run"


def test_an_original_that_kills_the_runtime_is_an_error_too(quick):
    with pytest.raises(ModelError, match="the original does not run") as error:
        quick(oddities.cube(deadly=True), arms=("plain",))
    assert error.value.why == "the runtime died by signal 11 (SIGSEGV)"


@pytest.mark.parametrize(
    ("original", "folded", "words"),
    [
        (oddities.negation(), oddities.foreign(), "nowhere.else:Wonder"),
        (oddities.cube(deadly=False), oddities.cube(deadly=True), "signal 11 (SIGSEGV)"),
    ],
    ids=["does not load", "kills the runtime"],
)
def test_a_folded_model_that_does_not_run_is_told_and_the_rest_measured(
    quick, original, folded, words
):
    report = quick(original, folded)
    (case,) = report.cases
    assert list(case.failures) == ["folded"]
    assert words in case.failures["folded"]
    assert {one.arm for one in case.latencies} == {"original", "again"}
    assert report.comparison("folded") is None
    assert [graph.arm for graph in report.graphs] == ["original"]
    assert any(said.startswith("batch 1: folded could not be run") for said in report.warnings)


def test_without_details_nothing_but_times_is_measured(quick):
    report = quick(oddities.negation(), oddities.foreign(), details=False)
    assert (report.starts, report.graphs, report.why) == ((), (), ())
    (case,) = report.cases
    assert {one.arm for one in case.latencies} == {"original", "again"}
    assert "nowhere.else:Wonder" in case.failures["folded"]


@pytest.mark.slow
def test_without_details_a_deadly_arm_still_has_an_answer(quick):
    good, deadly = oddities.cube(deadly=False), oddities.cube(deadly=True)
    with pytest.raises(ModelError, match="nothing could be timed") as error:
        quick(good, deadly, details=False)
    assert "signal 11 (SIGSEGV)" in error.value.why
    assert "with details each arm runs alone" in error.value.remedy


def test_arms_that_only_fail_together_are_not_called_a_bad_original(quick, monkeypatch):
    from bnfold.measurement.lab import Lab, Told
    from bnfold.runtime.children import End, Fate

    honest = Lab.ask

    def ask(self, task, *given, **asked):
        if task != "interleave":
            return honest(self, task, *given, **asked)
        return Told((), complete=False, end=End(Fate.DIED, "died by signal 9 (SIGKILL)"))

    monkeypatch.setattr(Lab, "ask", ask)
    with pytest.raises(ModelError, match="nothing could be timed") as error:
        quick(conv_bn(), arms=("original",))
    assert "SIGKILL" in error.value.why
    assert "smaller batch" in error.value.remedy


@pytest.mark.parametrize(
    ("choices", "kind", "words"),
    [
        ({"folded": oddities.negation()}, ModelError, "read different inputs"),
        ({"more": [oddities.negation()]}, ModelError, "read different inputs"),
        ({"more": {"folded": conv_bn()}}, UsageError, "is the name of an arm"),
        ({"more": {"again": conv_bn()}}, UsageError, "is the name of an arm"),
        ({"arms": ("original", "fast")}, UsageError, "there is no arm 'fast'"),
        ({"dtype": "int8"}, UsageError, "there is no dtype 'int8'"),
        ({"batch": 0}, UsageError, "at least 1"),
        ({"batch": ()}, UsageError, "at least 1"),
        ({"batch": 10**9}, UsageError, "larger than the machine's memory"),
        ({"shapes": "x=10000000x3x80x80"}, UsageError, "this shape cannot be used"),
        ({"shapes": "x=1000000000x3x8x8"}, UsageError, "larger than the machine's memory"),
        ({"shapes": "z=1"}, UsageError, "this shape cannot be used"),
        ({"seed": -1}, UsageError, "seed -1 makes no sense"),
        ({"threads": -1}, UsageError, "threads -1 makes no sense"),
        ({"precision": float("nan")}, UsageError, "precision nan makes no sense"),
        ({"precision": -0.1}, UsageError, "makes no sense"),
        ({"max_time_s": float("nan")}, UsageError, "makes no sense"),
        ({"max_time_s": float("inf")}, UsageError, "makes no sense"),
        ({"max_time_s": 0}, UsageError, "makes no sense"),
        ({"confidence": 1.0}, UsageError, "makes no sense"),
        ({"confidence": 95}, UsageError, "makes no sense"),
        ({"cuda_graph": True}, UsageError, "there are no CUDA graphs"),
        ({"prefer_nhwc": True}, UsageError, "prefer_nhwc"),
        ({"provider_options": {"a": "1"}}, UsageError, "no option 'a'"),
        ({"inputs": {"x": np.ones((1, 4, 8, 8), np.float32)}}, DataError, "x"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_before_anything_is_measured(
    monkeypatch, choices, kind, words
):
    monkeypatch.setattr("bnfold.measurement.lab.Lab.ask", None)
    with pytest.raises(BnfoldError) as error:
        benchmark(conv_bn(), **{"max_time_s": 0.1, **choices})
    assert type(error.value) is kind
    assert words in str(error.value)
    assert error.value.remedy or error.value.where


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (oddities.fixed_batch(2), "the batch size is fixed at 2"),
        (oddities.scalar(), "the model has no batch axis"),
        (oddities.constant(), "the model has no batch axis"),
    ],
)
def test_a_batch_size_that_the_model_cannot_take_is_refused(monkeypatch, model, words):
    monkeypatch.setattr("bnfold.measurement.lab.Lab.ask", None)
    with pytest.raises(UsageError) as error:
        benchmark(model, batch=3)
    assert error.value.what == words
    assert "leave --batch out" in error.value.remedy


def test_nothing_is_left_behind_and_the_parent_never_loads_the_runtime(tmp_path):
    program = (
        "import sys, bnfold\n"
        f"report = bnfold.benchmark({str(DIGITS)!r}, max_time_s=0.1, arms=('original',))\n"
        "assert report.cases[0].latencies\n"
        "assert 'onnxruntime' not in sys.modules and 'torch' not in sys.modules\n"
    )
    import os

    done = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        capture_output=True,
        text=True,
        cwd=DIGITS.parents[1],
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert [path for path in tmp_path.iterdir() if path.name.startswith("bnfold")] == []


def test_the_public_name_is_this_function():
    assert bnfold.benchmark is benchmark
