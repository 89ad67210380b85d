"""Inputs that no numbers are drawn for: only what hangs on them cannot be compared."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import bnfold
from bnfold.records import Verdict

_F = TensorProto.FLOAT


def _stored(name: str, array: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(array.astype(np.float32), name)


def _info(name: str, sizes: list[int], kind: int = _F) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, sizes)


def _conv_and_norm(rng: np.random.Generator) -> tuple[list, list]:
    """``d = bn(conv(x))`` of four channels."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("BatchNormalization", ["c", *"sbmv"], ["d"], name="bn"),
    ]
    stored = [_stored("w", rng.normal(size=(4, 3, 2, 2)))]
    stored += [_stored(name, rng.uniform(0.5, 2.0, 4)) for name in "sbmv"]
    return nodes, stored


def _model(nodes: list, inputs: list, outputs: list, stored: list) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", inputs, outputs, stored)
    imports = [helper.make_opsetid("", 19)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


def _with_sequence(rng: np.random.Generator) -> onnx.ModelProto:
    nodes, stored = _conv_and_norm(rng)
    nodes.append(helper.make_node("SequenceInsert", ["sq", "d"], ["sq2"], name="insert"))
    given = helper.make_tensor_sequence_value_info("sq", _F, [2, 4, 3, 3])
    made = helper.make_tensor_sequence_value_info("sq2", _F, [2, 4, 3, 3])
    return _model(nodes, [_info("x", [2, 3, 4, 4]), given], [made], stored)


def _with_optional(rng: np.random.Generator) -> onnx.ModelProto:
    nodes, stored = _conv_and_norm(rng)
    nodes.append(helper.make_node("OptionalGetElement", ["o"], ["e"], name="get"))
    nodes.append(helper.make_node("Add", ["d", "e"], ["y"], name="add"))
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(_F, [2, 4, 3, 3]))
    given = helper.make_value_info("o", kind)
    inputs = [_info("x", [2, 3, 4, 4]), given]
    return _model(nodes, inputs, [_info("y", [2, 4, 3, 3])], stored)


def _with_text(rng: np.random.Generator) -> onnx.ModelProto:
    nodes, stored = _conv_and_norm(rng)
    word = helper.make_tensor("", TensorProto.STRING, [1], [b"a"])
    nodes.append(helper.make_node("Constant", [], ["k"], value=word))
    nodes.append(helper.make_node("Equal", ["t", "k"], ["e"], name="equal"))
    nodes.append(helper.make_node("Cast", ["e"], ["f"], name="cast", to=_F))
    inputs = [_info("x", [2, 3, 4, 4]), _info("t", [3], TensorProto.STRING)]
    return _model(nodes, inputs, [_info("d", [2, 4, 3, 3]), _info("f", [3])], stored)


@pytest.mark.parametrize("make", [_with_sequence, _with_optional, _with_text])
def test_a_fold_beside_such_an_input_is_proved(make, rng):
    model = make(rng)
    result = bnfold.fold(model, certificate=True)
    assert result.certificate is not None
    assert [node.op_type for node in result.to_proto().graph.node].count("Conv") == 1
    assert result.check is not None
    assert result.check.passed
    assert result.check.proof is not None
    assert result.check.proof.passed
    assert result.check.proof.windows
    for certificate in (None, result.certificate):
        report = bnfold.verify(model, result, certificate=certificate, run=False)
        assert report.passed, report.why


@pytest.mark.parametrize("make", [_with_sequence, _with_optional, _with_text])
def test_a_wrong_fold_beside_such_an_input_is_none(make, rng):
    model = make(rng)
    wrong = bnfold.fold(model, verify=False).to_proto()
    (weight,) = (one for one in wrong.graph.initializer if len(one.dims) == 4)
    spoiled = numpy_helper.to_array(weight).copy()
    spoiled[1] *= 1.01
    weight.CopyFrom(numpy_helper.from_array(spoiled, weight.name))
    report = bnfold.verify(model, wrong, run=False)
    assert not report.passed
    assert report.proof is not None


def test_what_hangs_on_such_an_input_is_inconclusive_with_the_reason():
    def made(word: bytes) -> onnx.ModelProto:
        text = helper.make_tensor("", TensorProto.STRING, [1], [word])
        nodes = [
            helper.make_node("Constant", [], ["k"], name="word", value=text),
            helper.make_node("Equal", ["t", "k"], ["e"], name="equal"),
            helper.make_node("Cast", ["e"], ["y"], name="cast", to=_F),
        ]
        return _model(nodes, [_info("t", [3], TensorProto.STRING)], [_info("y", [3])], [])

    report = bnfold.verify(made(b"a"), made(b"b"), run=False)
    assert report.verdict is Verdict.NOT_JUDGED
    assert report.why == "input 't' holds STRING, for which no numbers are drawn"


def test_the_run_says_that_it_cannot_make_such_an_input(rng):
    model = _with_sequence(rng)
    result = bnfold.fold(model, verify=False)
    report = bnfold.verify(model, result, run=True)
    assert report.passed
    said = "input 'sq' is a sequence, for which no numbers are drawn"
    assert any(said in one for one in report.warnings)
