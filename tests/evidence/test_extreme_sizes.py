"""Numbers whose squares are beyond float64: no wrong fold passes, nothing ends in an error."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import bnfold
from bnfold.evidence.proof.links import fits
from bnfold.evidence.proof.mutations import _typical
from bnfold.records import Verdict

ort = pytest.importorskip("onnxruntime")


def _model(size: float) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    stored = [
        numpy_helper.from_array(rng.normal(size=(8, 6)) * size, "w"),
        numpy_helper.from_array(rng.uniform(0.5, 1.5, 6), "s"),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="matmul"),
        helper.make_node("Mul", ["m", "s"], ["y"], name="mul"),
    ]
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, ["N", width])
        for name, width in (("x", 8), ("y", 6))
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _spoiled(folded: onnx.ModelProto) -> onnx.ModelProto:
    for tensor in folded.graph.initializer:
        elements = numpy_helper.to_array(tensor).copy()
        if elements.ndim == 2:
            elements[:, 0] *= 1.1
            tensor.CopyFrom(numpy_helper.from_array(elements, tensor.name))
    return folded


@pytest.mark.parametrize("size", [1e-200, 1e160])
def test_no_wrong_fold_passes_however_large_numbers_are(size):
    model = _model(size)
    result = bnfold.fold(model, certificate=True)
    assert result.check is not None
    assert result.check.verdict is Verdict.PASSED  # by the certificate where no run can tell
    folded = result.to_proto()
    assert bnfold.verify(model, folded).verdict is not Verdict.FAILED
    assert bnfold.verify(model, folded, certificate=result.certificate).passed
    wrong = _spoiled(folded)
    assert bnfold.verify(model, wrong).verdict is not Verdict.PASSED
    judged = bnfold.verify(model, wrong, certificate=result.certificate)
    assert judged.verdict is Verdict.FAILED


@pytest.mark.parametrize("size", [1e-200, 1.0, 1e200])
def test_maps_are_found_at_any_size(size):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4, 3, 5)) * size
    scale, shift = rng.uniform(0.5, 2, (3, 1)), rng.normal(size=(3, 1)) * size
    found = [link for link in fits(x, x * scale + shift) if link.axis == 1]
    np.testing.assert_allclose(found[0].scale, scale[:, 0], rtol=1e-9)
    np.testing.assert_allclose(found[0].shift, shift[:, 0], rtol=1e-9)


def test_what_is_typical_of_a_weight_is_of_its_own_size():
    weight = np.random.default_rng(2).normal(size=100)
    for size in (1e-300, 1.0, 1e200):
        assert _typical(weight * size) == pytest.approx(_typical(weight) * size)
    masked = np.concatenate([weight, np.full(50, -3.4e38)])
    assert _typical(masked) == pytest.approx(_typical(weight), rel=0.5)
    assert _typical(np.zeros(3)) == 1.0
