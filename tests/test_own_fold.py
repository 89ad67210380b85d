"""A fold without certificate is held against the fold that bnfold makes of the original."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import bnfold
import bnfold.verified
from bnfold.evidence.proof import certify
from bnfold.model.io import opened
from bnfold.records import Charge, Verdict
from tests.cli import calling

TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "float64": TensorProto.DOUBLE,
}
LAYERS = ("Conv", "Gemm", "MatMul", "ConvTranspose")
WIDE = 512


def _tensor(name: str, array: np.ndarray, kind: str) -> onnx.TensorProto:
    dtype = ml_dtypes.bfloat16 if kind == "bfloat16" else np.dtype(kind)
    return numpy_helper.from_array(array.astype(dtype), name)


def _wide(layer: str, kind: str, *, seed: int = 0) -> onnx.ModelProto:
    """A wide layer behind a Mul of its channels, and one beside it that nothing folds into."""
    rng = np.random.default_rng(seed)
    spatial = [3, 3] if layer.startswith("Conv") else []
    shape = {
        "Conv": [5, WIDE, 1, 1],
        "ConvTranspose": [WIDE, 5, 1, 1],
        "Gemm": [WIDE, 5],
        "MatMul": [WIDE, 5],
    }[layer]
    weight = rng.normal(0, 0.05, shape)
    scale = rng.uniform(0.5, 2, [WIDE, *(1 for _ in spatial)])
    tensors = [_tensor("w", weight, kind), _tensor("s", scale, kind)]
    tensors.append(_tensor("v", rng.normal(0, 0.4, [5, 4]), kind))
    nodes = [
        helper.make_node("Mul", ["x", "s"], ["scaled"], name="scale"),
        helper.make_node(layer, ["scaled", "w"], ["y"], name="layer"),
        helper.make_node("Tanh", ["y"], ["t"], name="tanh"),
    ]
    if spatial:
        nodes.append(
            helper.make_node("Transpose", ["t"], ["u"], perm=[0, 2, 3, 1], name="turn")
        )
    nodes.append(
        helper.make_node("MatMul", ["u" if spatial else "t", "v"], ["z"], name="last")
    )
    graph = helper.make_graph(
        nodes,
        "wide",
        [helper.make_tensor_value_info("x", TYPES[kind], [2, WIDE, *spatial])],
        [helper.make_tensor_value_info("z", TYPES[kind], None)],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)])


def _changed(model: onnx.ModelProto, name: str, change) -> onnx.ModelProto:
    found = onnx.ModelProto()
    found.CopyFrom(model)
    for tensor in found.graph.initializer:
        if tensor.name == name:
            array = numpy_helper.to_array(tensor).copy()
            tensor.CopyFrom(numpy_helper.from_array(change(array).astype(array.dtype), name))
    return found


def _next(array: np.ndarray, place: tuple[int, ...], steps: int) -> np.ndarray:
    """The array with one element so many numbers of its type further from zero."""
    raw = array.view({2: np.int16, 4: np.int32, 8: np.int64}[array.dtype.itemsize])
    raw[place] += steps
    return array


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("layer", LAYERS)
def test_a_fold_of_bnfold_is_compared_exactly_without_a_certificate(layer, kind):
    model = _wide(layer, kind)
    folded = bnfold.fold(model, verify=False)
    assert folded.report.steps
    report = bnfold.verify(model, folded, run=False)
    assert report.passed, report.why
    assert report.proof.refolded
    assert not report.proof.certified
    assert report.proof.tensors == 1
    assert not bnfold.verify(model, folded, run=False, refold=False).proof.refolded


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(("name", "node"), [("w", "layer"), ("v", "last")])
@pytest.mark.parametrize("steps", [2, 40])
def test_one_number_that_is_off_is_refused_by_name(layer, kind, name, node, steps):
    """Of a tensor that was folded into, and of one that was not."""
    model = _wide(layer, kind, seed=steps)
    folded = bnfold.fold(model, verify=False).to_proto()
    place = {"w": (3, 4) if layer == "Conv" else (300, 3), "v": (2, 1)}[name]
    wrong = _changed(folded, name, lambda a: _next(a, (*place, *(0,) * (a.ndim - 2)), steps))
    report = bnfold.verify(model, wrong, run=False)
    assert report.verdict is Verdict.FAILED
    assert node in {one.node for one in report.proof.findings}


def test_rounding_hides_such_a_number_from_a_comparison_that_does_not_fold(monkeypatch):
    """Negative control: it is the fold made anew that sees it."""
    model = _wide("Gemm", "bfloat16")
    folded = bnfold.fold(model, verify=False).to_proto()
    wrong = _changed(folded, "w", lambda a: _next(a, (300, 3), 8))
    assert bnfold.verify(model, wrong, run=False).verdict is Verdict.FAILED
    assert bnfold.verify(model, wrong, run=False, refold=False).passed
    monkeypatch.setattr(bnfold.verified, "own_fold", lambda *_: None)
    assert bnfold.verify(model, wrong, run=False).passed


def test_a_forged_certificate_that_is_silent_of_it_does_not_pass():
    model = _wide("MatMul", "bfloat16")
    result = bnfold.fold(model, verify=False, certificate=True)
    wrong = _changed(result.to_proto(), "w", lambda a: _next(a, (300, 3), 8))
    claim, _ = certify(opened(model), opened(wrong), result.report.steps, {})
    report = bnfold.verify(model, wrong, certificate=claim, run=False)
    assert report.verdict is Verdict.FAILED
    assert report.proof.findings[0].charge is Charge.TENSOR


def _two_layers(kind: str = "float32") -> onnx.ModelProto:
    rng = np.random.default_rng(7)
    tensors = [
        _tensor("s", rng.uniform(0.5, 2, 16), kind),
        _tensor("w", rng.normal(0, 0.3, [16, 16]), kind),
        _tensor("b", rng.normal(0, 0.3, 16), kind),
        _tensor("v", rng.normal(0, 0.3, [16, 8]), kind),
    ]
    nodes = [
        helper.make_node("Mul", ["x", "s"], ["scaled"], name="scale"),
        helper.make_node("Gemm", ["scaled", "w", "b"], ["y"], name="first"),
        helper.make_node("Relu", ["y"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "v"], ["z"], name="second"),
    ]
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("x", TYPES[kind], [2, 16])],
        [helper.make_tensor_value_info("z", TYPES[kind], [2, 8])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)])


def test_a_fold_of_the_same_graph_that_puts_factors_elsewhere_passes():
    """Positive factors go through a Relu: another right fold, of the very same graph."""
    model = _two_layers()
    folded = bnfold.fold(model, verify=False).to_proto()
    by = np.random.default_rng(1).uniform(0.5, 2, 16)
    other = _changed(folded, "w", lambda a: a * by)
    other = _changed(other, "b", lambda a: a * by)
    other = _changed(other, "v", lambda a: a / by[:, None])
    report = bnfold.verify(model, other, run=False)
    assert report.passed, report.why
    assert not report.proof.refolded


def test_a_fold_in_the_arithmetic_of_the_weights_passes():
    model = _two_layers("float16")
    folded = bnfold.fold(model, verify=False).to_proto()
    weights = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    by_hand = weights["w"] * (weights["s"] * np.float16(3.0))[:, None] / np.float16(3.0)
    other = _changed(folded, "w", lambda _: by_hand)
    assert (by_hand != numpy_helper.to_array(folded.graph.initializer[0])).any()
    report = bnfold.verify(model, other, run=False)
    assert report.passed, report.why


def test_a_fold_of_another_graph_is_compared_without():
    model = _two_layers()
    kept = bnfold.fold(model, verify=False, skip=["scale"])
    report = bnfold.verify(model, kept, run=False)
    assert report.passed
    assert not report.proof.refolded


def test_the_command_line_can_be_told_to_know_nothing_of_folds(tmp_path):
    onnx.save(_two_layers(), tmp_path / "a.onnx")
    bnfold.fold(_two_layers(), verify=False).save(tmp_path / "b.onnx")
    said = [
        calling.started("verify", tmp_path / "a.onnx", tmp_path / "b.onnx", "--no-run", *more)
        for more in ((), ("--no-refold",))
    ]
    assert [one.returncode for one in said] == [0, 0]
    assert "it is the fold that bnfold makes" in said[0].stderr
    assert "without certificate" in said[1].stderr
