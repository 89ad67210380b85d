"""A fold that was made under an assumption is told as such, and never passes silently."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import bnfold
from bnfold.assumed_fold import with_assumption
from bnfold.model.io import opened
from bnfold.records import CONSTANT_INPUTS, INFERENCE, ProofReport, Verdict, VerifyReport
from tests.cli import calling

_F = TensorProto.FLOAT


def _info(name: str, sizes: list) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, _F, sizes)


def _model(nodes, inputs, stored) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(a.astype(np.float32), n) for n, a in stored.items()]
    graph = helper.make_graph(nodes, "g", inputs, [_info("y", ["b", 4, 6, 6])], tensors)
    imports = [helper.make_opsetid("", 15)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def _training(rng: np.random.Generator) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node(
            "BatchNormalization", ["c", *"sbmv"], ["y", "rm", "rv"], name="bn", training_mode=1
        ),
    ]
    stored = {"w": rng.normal(size=(4, 3, 3, 3))}
    stored |= {name: rng.uniform(0.5, 2.0, 4) for name in "sbmv"}
    return _model(nodes, [_info("x", ["b", 3, 8, 8])], stored)


def _overridable(rng: np.random.Generator) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("Mul", ["c", "s"], ["y"], name="mul"),
    ]
    stored = {"w": rng.normal(size=(4, 3, 3, 3)), "s": rng.uniform(0.5, 2.0, (4, 1, 1))}
    inputs = [_info("x", ["b", 3, 8, 8]), _info("w", [4, 3, 3, 3]), _info("s", [4, 1, 1])]
    return _model(nodes, inputs, stored)


_CASES = pytest.mark.parametrize(
    ("make", "option", "assumption"),
    [
        (_training, "assume_inference", INFERENCE),
        (_overridable, "assume_constant_inputs", CONSTANT_INPUTS),
    ],
)


@_CASES
@pytest.mark.parametrize("run", [False, True])
def test_without_certificate_the_report_says_which_option_allows_the_fold(
    make, option, assumption, run, rng
):
    model = make(rng)
    result = bnfold.fold(model, **{option: True})
    assert result.report.steps
    report = bnfold.verify(model, result, run=run)
    assert not report.passed
    assert f"--{option.replace('_', '-')}" in report.why
    assert assumption in report.why
    assert "--certificate" in report.why


@_CASES
def test_with_certificate_the_report_warns_of_what_it_holds_under(
    make, option, assumption, rng
):
    model = make(rng)
    result = bnfold.fold(model, certificate=True, **{option: True})
    warning = f"this holds only if {assumption}"
    assert result.check is not None
    assert warning in result.check.warnings
    for run in (None, True):
        report = bnfold.verify(model, result, certificate=result.certificate, run=run)
        assert report.passed, report.why
        assert warning in report.warnings


@_CASES
def test_a_wrong_fold_is_not_told_to_be_one_that_an_option_allows(
    make, option, assumption, rng
):
    model = make(rng)
    wrong = bnfold.fold(model, verify=False, **{option: True}).to_proto()
    (weight,) = (
        one for one in wrong.graph.initializer if one.name == "w" or len(one.dims) == 4
    )
    spoiled = numpy_helper.to_array(weight).copy()
    spoiled[1, 0, 0, 0] *= 1.01
    weight.CopyFrom(numpy_helper.from_array(spoiled, weight.name))
    report = bnfold.verify(model, wrong, run=False)
    assert not report.passed
    assert assumption not in report.why


@_CASES
def test_what_a_run_alone_finds_alike_does_not_pass_as_such_a_fold(
    make, option, assumption, rng
):
    model = make(rng)
    result = bnfold.fold(model, verify=False, **{option: True})
    proof = ProofReport(Verdict.NOT_JUDGED, why="the time was up")
    ran = VerifyReport(Verdict.PASSED, proof=proof)
    report = with_assumption(ran, opened(model), opened(result.to_proto()))
    assert report.verdict is Verdict.NOT_JUDGED
    assert assumption in report.why


def test_a_fold_that_assumes_nothing_is_told_to_assume_nothing(rng):
    model = _overridable(rng)
    del model.graph.input[1:]
    result = bnfold.fold(model, verify=False)
    report = bnfold.verify(model, result)
    assert report.passed
    assert not any("holds only" in one for one in report.warnings)


def test_the_command_says_it_too(tmp_path, rng):
    onnx.save(_training(rng), tmp_path / "a.onnx")
    paths = [tmp_path / name for name in ("a.onnx", "b.onnx", "c.json")]
    options = ["--assume-inference", "--certificate", paths[2]]
    assert calling.run("fold", paths[0], "-o", paths[1], *options).returncode == 0
    done = calling.run("verify", *paths[:2])
    assert done.returncode == 1
    assert "because: it is the fold that --assume-inference allows" in done.stderr
    done = calling.run("verify", *paths[:2], "--certificate", paths[2])
    assert done.returncode == 0
    assert done.stderr.count(f"holds only if {INFERENCE}") == 1
