"""Reasons name operators and nodes; what Python says of its own code reaches no user."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import bnfold
from bnfold.errors import ModelError
from bnfold.evidence.proof import proved
from bnfold.evidence.proof.lockstep import Lockstep
from bnfold.evidence.proof.mutations import Mutation
from bnfold.evidence.proof.sides import CannotEvaluateError, Segment, Side
from bnfold.records import ProofReport, Verdict

_F = TensorProto.FLOAT
_PYTHON = ("object has no", "Error", "Exception", "ndarray", "broadcast together")


def _info(name: str, sizes: list[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, _F, sizes)


def _model(nodes, inputs, outputs, stored=(), opset=18, ir_version=8) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(stored))
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version)


def _optional(name: str) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Optional", [name], ["o"], name="made"),
        helper.make_node("OptionalGetElement", ["o"], ["y"], name="taken"),
    ]
    return _model(nodes, [_info("x", [2, 4]), _info("z", [2, 4])], [_info("y", [2, 4])])


def _attention(**numbers: float) -> onnx.ModelProto:
    node = helper.make_node("Attention", ["q", "k", "v"], ["y"], name="attn", **numbers)
    inputs = [_info(name, [1, 2, 3, 4]) for name in "qkv"]
    return _model([node], inputs, [_info("y", [1, 2, 3, 4])], (), 23, 10)


def _joined_sequence(name: str) -> onnx.ModelProto:
    nodes = [
        helper.make_node("SplitToSequence", ["x"], ["sq"], name="split", axis=0, keepdims=0),
        helper.make_node("SequenceInsert", ["sq", name], ["so"], name="insert"),
        helper.make_node("ConcatFromSequence", ["so"], ["y"], name="joined", axis=0),
    ]
    inputs = [_info("x", [2, 4, 6]), _info("a", [4, 6]), _info("b", [4, 6])]
    return _model(nodes, inputs, [_info("y", [12, 6])])


def test_another_optional_is_another_function():
    report = bnfold.verify(_optional("x"), _optional("z"), run=False)
    assert report.verdict is Verdict.FAILED
    assert not any(word in report.why for word in _PYTHON)
    assert bnfold.verify(_optional("x"), _optional("x"), run=False).passed


def test_another_tensor_in_a_sequence_is_another_function():
    """A sequence has no numbers of its own; what is made of it is compared."""
    report = bnfold.verify(_joined_sequence("a"), _joined_sequence("b"), run=False)
    assert report.verdict is Verdict.FAILED
    assert "'y'" in report.why


def test_another_number_of_an_operator_that_onnx_computes_is_seen():
    report = bnfold.verify(_attention(scale=0.5), _attention(scale=0.51), run=False)
    assert report.verdict is Verdict.FAILED
    assert "attn" in report.why


def test_a_node_with_other_numbers_gives_results():
    """A node that took another's place had results without names: nobody computed them."""
    model = ir.from_proto(_attention(scale=0.5))
    (node,) = model.graph
    side = Side(model)
    segment = Segment(node.outputs[0], (node,), ("q", "k", "v"))
    rng = np.random.default_rng(1)
    feeds = {name: rng.normal(size=(1, 2, 3, 4)) for name in "qkv"}
    other = [ir.AttrFloat32("scale", 0.7)]
    copy = ir.Node("", "Attention", (), other, num_outputs=1)
    found = Mutation(nodes={node: copy}).evaluate(side, segment, feeds)
    assert not np.allclose(found, side.evaluate(segment, feeds))
    scores = 0.7 * feeds["q"] @ feeds["k"].swapaxes(2, 3)
    parts = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    np.testing.assert_allclose(found, parts @ feeds["v"], rtol=1e-6)


def test_an_operator_that_cannot_be_evaluated_is_named_with_what_it_read():
    node = helper.make_node("MatMul", ["x", "z"], ["y"], name="product")
    model = ir.from_proto(
        _model([node], [_info("x", [2, 3]), _info("z", [3, 2])], [_info("y", [2, 2])])
    )
    (product,) = model.graph
    segment = Segment(product.outputs[0], (product,), ("x", "z"))
    feeds = {"x": np.ones((2, 3)), "z": np.ones((4, 5))}
    with pytest.raises(CannotEvaluateError) as caught:
        Side(model).evaluate(segment, feeds)
    assert str(caught.value) == "MatMul 'product' cannot be evaluated on inputs of 2×3 and 4×5"


def test_what_nobody_foresaw_is_said_without_what_python_says(monkeypatch):
    def broken(*_: object) -> None:
        raise AttributeError("'list' object has no attribute 'dtype'")

    monkeypatch.setattr(Lockstep, "_found", broken)
    model, other = _attention(scale=0.5), _attention(scale=0.51)
    report = bnfold.verify(model, other, run=False)
    assert report.verdict is Verdict.NOT_JUDGED
    assert "Attention 'attn'" in report.why
    assert not any(word in report.why for word in _PYTHON)


@pytest.mark.parametrize("error", [ValueError("operands"), KeyError("x"), TypeError("a list")])
def test_no_error_of_python_passes_the_proof(error):
    def attempt() -> ProofReport:
        raise error

    report = proved(attempt, certified=False)
    assert report.verdict is Verdict.NOT_JUDGED
    assert not any(word in report.why for word in (*_PYTHON, *error.args))


def test_a_certificate_is_written_though_nothing_can_be_compared(monkeypatch, rng):
    def broken(*_: object) -> None:
        raise AttributeError("'list' object has no attribute 'dtype'")

    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("Mul", ["c", "s"], ["y"], name="mul"),
    ]
    arrays = {"w": rng.normal(size=(4, 3, 2, 2)), "s": rng.uniform(1, 2, (4, 1, 1))}
    stored = [numpy_helper.from_array(a.astype(np.float32), n) for n, a in arrays.items()]
    model = _model(nodes, [_info("x", [1, 3, 4, 4])], [_info("y", [1, 4, 3, 3])], stored)
    monkeypatch.setattr(Lockstep, "run", broken)
    result = bnfold.fold(model, certificate=True)
    assert result.certificate is not None
    assert result.certificate.tensors
    monkeypatch.undo()
    report = bnfold.verify(model, result, certificate=result.certificate)
    assert report.passed
    assert report.proof is not None
    assert report.proof.certified


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[1]", "it is a list, not an object"),
        ("{}", "'schema' is missing"),
        ('{"schema": "bnfold/certificate/1", "header": 3}', "'header' is a number"),
    ],
)
def test_what_is_no_certificate_is_said_without_the_class_of_an_error(tmp_path, text, why):
    path = tmp_path / "c.json"
    path.write_text(text)
    model = _attention(scale=0.5)
    with pytest.raises(ModelError) as caught:
        bnfold.verify(model, model, certificate=path)
    assert why in caught.value.why
    assert "Error" not in caught.value.why
