"""Axes declared to be of size 0: compared at other sizes, and once as declared."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import bnfold
from bnfold.records import Verdict

_F = TensorProto.FLOAT


def _info(name: str, sizes: list) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, _F, sizes)


def _model(nodes, inputs, outputs, stored) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in stored.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    imports = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def _conv_and_norm(rng: np.random.Generator, sizes: list, made: list) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("BatchNormalization", ["c", *"sbmv"], ["y"], name="bn"),
    ]
    stored = {"w": rng.normal(size=(4, 3, 2, 2)).astype(np.float32)}
    stored |= {name: rng.uniform(0.5, 2.0, 4).astype(np.float32) for name in "sbmv"}
    return _model(nodes, [_info("x", sizes)], [_info("y", made)], stored)


_EMPTY = pytest.mark.parametrize(
    ("sizes", "made"),
    [
        ([0, 3, 4, 4], [0, 4, 3, 3]),
        ([0, 3, "h", "w"], [0, 4, None, None]),
        ([0, 3, 0, 0], [0, 4, None, None]),
    ],
)


@_EMPTY
def test_a_right_fold_of_an_empty_batch_is_proved(sizes, made, rng):
    model = _conv_and_norm(rng, sizes, made)
    result = bnfold.fold(model, certificate=True)
    assert result.check is not None
    assert result.check.passed, result.check.why
    for certificate in (None, result.certificate):
        report = bnfold.verify(model, result, certificate=certificate, run=False)
        assert report.passed, report.why
        assert report.proof is not None
        assert report.proof.elements
        assert report.proof.shown == report.proof.channels > 0


@_EMPTY
def test_a_wrong_fold_of_an_empty_batch_is_inconclusive(sizes, made, rng):
    """No input shows it, so it is no other function; and it is not proved either."""
    model = _conv_and_norm(rng, sizes, made)
    wrong = bnfold.fold(model, verify=False).to_proto()
    weight = next(one for one in wrong.graph.initializer if len(one.dims) == 4)
    spoiled = numpy_helper.to_array(weight).copy()
    spoiled[2] *= 1.01
    weight.CopyFrom(numpy_helper.from_array(spoiled, weight.name))
    report = bnfold.verify(model, wrong, run=False, refold=False)
    assert report.verdict is Verdict.NOT_JUDGED
    assert "other sizes than the declared 0" in report.why


def _summed(rng: np.random.Generator, *, counted: bool) -> onnx.ModelProto:
    """``y = Σ_batch x·s``, plus one if there is no batch and ``counted``."""
    nodes = [
        helper.make_node("Mul", ["x", "s"], ["m"], name="mul"),
        helper.make_node("ReduceSum", ["m", "axes"], ["r"], name="sum", keepdims=0),
    ]
    stored = {"s": rng.uniform(1, 2, 4).astype(np.float32), "axes": np.array([0])}
    if counted:
        nodes += [
            helper.make_node("Size", ["x"], ["n"], name="size"),
            helper.make_node("Equal", ["n", "zero"], ["e"], name="equal"),
            helper.make_node("Cast", ["e"], ["f"], name="cast", to=_F),
            helper.make_node("Add", ["r", "f"], ["y"], name="add"),
        ]
        stored["zero"] = np.array(0)
    else:
        nodes.append(helper.make_node("Identity", ["r"], ["y"], name="add"))
    return _model(nodes, [_info("x", [0, 4])], [_info("y", [4])], stored)


def test_what_is_alike_at_other_sizes_alone_does_not_pass():
    pair = [_summed(np.random.default_rng(1), counted=counted) for counted in (True, False)]
    for before, after in (pair, pair[::-1]):
        assert not bnfold.verify(before, after, run=False).passed
        assert bnfold.verify(before, before, run=False).passed


def test_an_empty_cache_beside_others_is_compared_as_declared(rng):
    """What a model computes for a past of length 0 may fit no other length."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["k"], name="keys"),
        helper.make_node("Mul", ["k", "s"], ["scaled"], name="scale"),
        helper.make_node("Concat", ["past", "scaled"], ["all"], name="concat", axis=1),
        helper.make_node("Add", ["all", "position"], ["y"], name="add"),
    ]
    stored = {
        "w": rng.normal(size=(4, 4)).astype(np.float32),
        "s": rng.uniform(1, 2, 4).astype(np.float32),
        "position": rng.normal(size=(1, 5, 4)).astype(np.float32),
    }
    inputs = [_info("x", [2, 5, 4]), _info("past", [2, 0, 4])]
    model = _model(nodes, inputs, [_info("y", [2, 5, 4])], stored)
    result = bnfold.fold(model, certificate=True, verify=False)
    assert result.report.steps
    for certificate in (None, result.certificate):
        assert bnfold.verify(model, result, certificate=certificate, run=False).passed
