"""The instrument itself is tested: it sees what is wrong, and counts what is said of it."""

from __future__ import annotations

import json
import warnings
from itertools import islice

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import bnfold
from benchmarks.campaign import drawn, judges, native, stream, truth
from benchmarks.campaign.counts import Counts, upper
from benchmarks.campaign.forgery import EDITS, WRITERS, Accused, forged
from benchmarks.campaign.mutation import MAKERS, mutants
from benchmarks.campaign.sketch import Case, named
from benchmarks.campaign.subject import Subject
from benchmarks.campaign.work import Task, done
from tests.small import conv_bn


def case_of(model: onnx.ModelProto) -> Case:
    return Case(named(model), "test", "fp32", ({"N": 2},))


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    return bnfold.fold(model, verify=False).to_proto()


def excess_of(case: Case, other: onnx.ModelProto) -> float:
    """How far a fold is off, as the campaign judges it."""
    before, after = truth.prepared(case.model), truth.prepared(other)
    feeds = truth.feeds_of(case, 0, 0)
    wanted, found = truth.run(before, feeds), truth.run(after, feeds)
    bound = truth.bounds(after, truth.written(case.model, other), feeds, found)
    return truth.excess(found, wanted, bound)


def rounded_index(factor: float) -> onnx.ModelProto:
    """A row of a table, chosen by Floor of a product that float32 rounds up to a whole."""
    rng = np.random.default_rng(0)
    stored = {
        "i": np.float32(10),
        "r": np.float32(factor),
        "t": rng.normal(size=(16, 3)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Mul", ["i", "r"], ["p"], name="p"),
        helper.make_node("Floor", ["p"], ["f"], name="f"),
        helper.make_node("Cast", ["f"], ["j"], to=TensorProto.INT64, name="j"),
        helper.make_node("Gather", ["t", "j"], ["w"], name="w"),
        helper.make_node("Mul", ["x", "w"], ["y"], name="y"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, [2, 3])],
        [helper.make_tensor_value_info("y", 1, [2, 3])],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_right_fold_is_within_the_bound_and_a_spoiled_one_is_not():
    case = case_of(conv_bn())
    fold = folded(case.model)
    assert excess_of(case, fold) < 1
    for tensor in fold.graph.initializer:
        if tensor.name == "w":
            array = numpy_helper.to_array(tensor).copy()
            array[0] *= np.float32(1.01)
            tensor.CopyFrom(numpy_helper.from_array(array, "w"))
    assert excess_of(case, fold) > 100


def test_constants_that_decide_have_the_value_that_float32_gives_them():
    model = rounded_index(0.7)
    row = numpy_helper.to_array(model.graph.initializer[2])[7]  # 10 · 0.7 is 7 in float32
    x = np.ones((2, 3), np.float32)
    found = truth.run(truth.prepared(model), {"x": x})["y"]
    np.testing.assert_allclose(found[0], row)
    np.testing.assert_allclose(found, ReferenceEvaluator(model).run(None, {"x": x})[0])


@pytest.mark.parametrize("family", sorted(drawn.FAMILIES))
def test_the_truth_agrees_with_the_reference_of_onnx(family):
    """In float32, where QuantizeLinear does not round half of the values to another step."""
    agreed = 0
    for seed in range(12):
        case = drawn.case_of(family, seed)
        nodes = {node.op_type for node in case.model.graph.node}
        opset = case.model.opset_import[0].version
        if case.kind != "fp32" or "QuantizeLinear" in nodes:
            continue
        if "BatchNormalization" in nodes and opset < 14:
            continue  # onnx.reference takes statistics of the batch there
        feeds = truth.feeds_of(case, 0, seed)
        found = truth.run(truth.prepared(case.model), feeds)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                wanted = ReferenceEvaluator(case.model).run(None, feeds)
        except Exception:  # noqa: BLE001 — it knows fewer operators than the campaign
            continue
        for array, other in zip(found.values(), wanted, strict=True):
            assert truth.largest(array, other.astype(np.float64)) <= 1e-3 * np.abs(other).max()
        agreed += 1
    assert agreed >= (0 if family == "quantised" else 1)


def test_every_kind_of_mutant_is_made_and_differs_from_the_fold():
    made = set()
    for seed in range(40):
        family = ("chain", "quantised", "windows", "bodies")[seed % 4]
        model = named(drawn.case_of(family, seed).model)
        fold = folded(model)
        subject = Subject(model, fold, np.random.default_rng(seed))
        for name, make in MAKERS.items():
            found = make(subject)
            if found is not None:
                made.add(name)
                assert found.model.SerializeToString() != fold.SerializeToString()
                assert found.nodes
    assert made >= set(MAKERS) - {"turned", "called"}  # functions with maps are written out


def test_an_operator_of_a_function_is_another_one():
    model = named(onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17, "own": 1]>
        g (float[2, 3] x) => (float[2, 3] y) { a = own.F (x) y = Sin (a) }
        <domain: "own", opset_import: ["": 17]>
        F (a) => (b) { c = Softplus (a) b = Max (c, a) }
    """))  # fmt: skip
    found = MAKERS["called"](Subject(model, model, np.random.default_rng(0)))
    assert found is not None
    assert found.nodes == (model.graph.node[0].name,)
    assert {node.op_type for node in found.model.functions[0].node} != {"Softplus", "Max"}


def test_every_forgery_can_be_written_for_a_spoiled_fold():
    model = named(conv_bn())
    result = bnfold.fold(model, certificate=True, verify=False)
    rng = np.random.default_rng(1)
    mutant = next(
        one for one in mutants(Subject(model, result.to_proto(), rng)) if one.tensors
    )
    accused = Accused(model, mutant, result, result.certificate.values)
    texts = {forged(accused, writer, None, rng) for writer in WRITERS}
    texts |= {forged(accused, "honest recipes", edit, rng) for edit in EDITS}
    assert len(texts) > len(EDITS)


def test_a_judge_that_acquits_everything_is_counted_as_wrong(monkeypatch):
    blind = judges.Said(judges.PASSED)
    monkeypatch.setattr(judges, "verified", lambda *_, **__: blind)
    counts = Counts()
    counts.add(done(Task("networks", 0, mutants=2, forgeries=2)))
    assert counts.mutants.words["alone"] == {"passed": 2}
    assert len(counts.mutants.faults["certificate: passed"]) == 2
    assert len(counts.forged.faults["forged: passed"]) >= 2


def test_a_judge_that_refuses_everything_is_counted_as_wrong(monkeypatch):
    strict = judges.Said(judges.REFUSED, "no")
    monkeypatch.setattr(judges, "verified", lambda *_, **__: strict)
    counts = Counts()
    counts.add(done(Task("networks", 0)))
    assert len(counts.right.faults["certificate: refused"]) == 1
    assert len(counts.right.faults["alone: refused"]) == 1


@pytest.mark.parametrize(
    ("hits", "of", "bound"),
    [(0, 100, 0.029513), (0, 10_000, 2.9953e-4), (1, 10, 0.394163), (5, 50, 0.198833)],
)
def test_upper_bounds_are_those_of_clopper_and_pearson(hits, of, bound):
    """Quantiles of the beta distribution, Beta(hits + 1, of − hits) at 95 %, by scipy."""
    assert upper(hits, of) == pytest.approx(bound, rel=1e-3)


def test_a_task_gives_the_same_line_whenever_it_is_done():
    task = Task("windows", 3, mutants=1, forgeries=1)
    one, two = (done(task) for _ in range(2))

    def timeless(line):
        text = json.dumps(line, default=str, sort_keys=True)
        return [p for p in text.split(",") if "seconds" not in p and "processor" not in p]

    assert timeless(one) == timeless(two)


def test_a_campaign_goes_on_where_it_was_stopped(tmp_path):
    path = tmp_path / "lines.jsonl"
    goal = stream.Goal(right=2, mutants=1, forged=0, run_each=0, packaged=False)
    first = next(stream.tasks(goal))
    path.write_text(json.dumps(done(first)) + "\n" + '{"key": "cut sho')
    told: list[Counts] = []
    counts = stream.campaign(goal, 1, 60.0, path, told.append)
    keys = [json.loads(line)["key"] for line in path.read_text().splitlines()[2:]]
    assert counts.progress()[0] >= 2
    assert first.key not in keys
    assert told


def test_the_second_opinion_contradicts_a_fold_that_truth_alone_would_have_to_see():
    model = named(conv_bn())
    right = folded(model)
    feeds = truth.feeds_of(case_of(model), 0, 0)
    assert native.opinion(model, right, "fp32", feeds) == "agrees"
    for tensor in right.graph.initializer:
        if tensor.name == "w":
            tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), "w"))
    assert native.opinion(model, right, "fp32", feeds) == "contradicts"


def test_tasks_are_the_same_each_time_and_as_many_mutants_as_are_wanted():
    goal = stream.Goal(right=1000, mutants=1000, forged=60, packaged=True)
    one, two = (list(islice(stream.tasks(goal), 2000)) for _ in range(2))
    assert one == two
    assert len({task.key for task in one}) == len(one)
    drawn_ones = [task for task in one if task.source in stream.SHARES]
    assert sum(task.mutants for task in drawn_ones) == pytest.approx(
        1.3 * len(drawn_ones), 0.01
    )
    assert {task.source for task in one if task.forgeries > 1} == set(stream.SHARES)
    assert {task.source for task in one} == {*stream.SHARES, "battery", "packaged"}
