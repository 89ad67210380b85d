"""Large matrices by rows: the same products, the same verdicts."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

import bnfold
from bnfold.evidence.proof import by_rows, sides, unrounded
from bnfold.evidence.proof.by_rows import Rows, is_product, multiplied, rows_of_tensor
from bnfold.evidence.reference.call import Call
from bnfold.evidence.reference.kernels.products import KERNELS
from bnfold.expression import Expression
from bnfold.model.constants import folded_tensor
from bnfold.records import Verdict

SIDES = st.integers(1, 9)


@pytest.fixture
def all_is_large(monkeypatch):
    """Whatever is a matrix is read by a few rows at a time."""
    monkeypatch.setattr(sides, "LARGE", 2)
    monkeypatch.setattr(by_rows, "_BLOCK", 40)
    monkeypatch.setattr(by_rows, "_ONE_THREAD", 100)
    monkeypatch.setattr(by_rows, "_FEWEST_ROWS", 2)
    monkeypatch.setattr(unrounded, "_ROOM", 2)
    monkeypatch.setattr(unrounded, "_BLOCK", 40)


def rows_of(array, monkeypatch):
    monkeypatch.setattr(by_rows, "_BLOCK", 3 * max(1, array.shape[-1]))
    return Rows(array.shape, array.__getitem__)


@settings(deadline=None)
@given(st.data())
def test_a_product_by_rows_is_the_product(data):
    m, k, n = (data.draw(SIDES) for _ in range(3))
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    is_gemm = data.draw(st.booleans())
    turned = [data.draw(st.booleans()) and is_gemm for _ in range(2)]
    x = rng.normal(size=(k, m) if turned[0] else (m, k))
    w = rng.normal(size=(n, k) if turned[1] else (k, n))
    addend = rng.normal(size=n) if is_gemm and data.draw(st.booleans()) else None
    attributes = [
        ir.AttrInt64("transA", int(turned[0])),
        ir.AttrInt64("transB", int(turned[1])),
        ir.AttrFloat32("alpha", data.draw(st.sampled_from([1.0, -0.5]))),
        ir.AttrFloat32("beta", data.draw(st.sampled_from([1.0, 0.25, 0.0]))),
    ]
    if not is_gemm and data.draw(st.booleans()):
        x = rng.normal(size=(*data.draw(st.sampled_from([(), (2,), (2, 3)])), k))
    inputs = [ir.Value(name=name) for name in "xwc"]
    kind = "Gemm" if is_gemm else "MatMul"
    node = ir.Node("", kind, inputs, attributes if is_gemm else ())
    assert is_product(node)
    given_ones = [x, w] if addend is None else [x, w, addend]
    expected = KERNELS[kind](Call(node, given_ones, 17))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(by_rows, "_ONE_THREAD", 20)
        patch.setattr(by_rows, "_FEWEST_ROWS", 2)
        found = multiplied(node, x, rows_of(w, patch), addend)
    assert found.shape == expected.shape
    assert np.allclose(found, expected, rtol=1e-12, atol=1e-12)


@given(st.data())
def test_what_exceeds_a_bound_and_samples_by_rows_are_those_of_the_whole(data):
    shape = tuple(data.draw(st.lists(SIDES, min_size=1, max_size=3)))
    whole = np.random.default_rng(data.draw(st.integers(0, 9))).normal(size=shape)
    kept = sorted(data.draw(st.sets(st.integers(0, len(shape) - 1))))
    most = data.draw(st.integers(1, 30))
    with pytest.MonkeyPatch.context() as patch:
        rows = rows_of(whole, patch)
        others = tuple(axis for axis in range(len(shape)) if axis not in kept)
        peaks = np.abs(whole).max(axis=others, keepdims=True) if others else np.abs(whole)
        patch.setattr(by_rows, "_HEAD", data.draw(st.integers(1, 20)))
        smallest = float(peaks.min())
        assert rows.exceed(kept, 0.999 * smallest)
        assert not rows.exceed(kept, smallest)
        fewest = data.draw(st.integers(1, 9))
        patch.setattr(by_rows, "_SAMPLED_ROWS", fewest)
        some = whole[:: max(shape[0] // fewest, 1)]
        step = max(some.size // most, 1)
        assert np.array_equal(rows.sample(most), some.reshape(-1)[::step])


def test_a_folded_tensor_by_rows_is_what_is_stored():
    base = np.random.default_rng(0).normal(size=(7, 5))
    expression = Expression.of(base).times(np.arange(7.0), (0,))
    for kind in (ir.DataType.FLOAT, ir.DataType.BFLOAT16):
        tensor = folded_tensor(expression, kind, None)
        assert rows_of_tensor(tensor) is None
        rows = rows_of_tensor(tensor, is_computed=True)
        assert np.array_equal(rows.read(slice(2, 6)), tensor.numpy()[2:6])


def chain(kind):
    """Three products with maps between them."""
    rng = np.random.default_rng(0)
    tensors = {
        name: numpy_helper.from_array(rng.uniform(0.5, 1.5, shape).astype(np.float32), name)
        for name, shape in {"a": (12, 9), "b": (9, 7), "c": (7, 7), "s": 9, "t": 7}.items()
    }
    turned = {}
    if kind == "Gemm":
        turned = {"transB": 1}
        for name in "abc":
            array = numpy_helper.to_array(tensors[name]).T.copy()
            tensors[name] = numpy_helper.from_array(array, name)
    nodes = [
        helper.make_node(kind, ["x", "a"], ["xa"], "one", **turned),
        helper.make_node("Mul", ["xa", "s"], ["m"], "scale"),
        helper.make_node("Tanh", ["m"], ["r"], "tanh"),
        helper.make_node(kind, ["r", "b"], ["rb"], "two", **turned),
        helper.make_node("Add", ["rb", "t"], ["p"], "shift"),
        helper.make_node("Sigmoid", ["p"], ["q"], "sigmoid"),
        helper.make_node(kind, ["q", "c"], ["y"], "three", **turned),
    ]
    x = helper.make_tensor_value_info("x", 1, ["n", 12])
    y = helper.make_tensor_value_info("y", 1, ["n", 7])
    graph = helper.make_graph(nodes, "g", [x], [y], list(tensors.values()))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.usefixtures("all_is_large")
@pytest.mark.parametrize("kind", ["MatMul", "Gemm"])
def test_verdicts_by_rows_are_right(kind):
    model = chain(kind)
    result = bnfold.fold(model, certificate=True, verify=False, max_time=100)
    assert result.report.steps
    folded = result.to_proto()
    choices = {"certificate": result.certificate, "run": False}
    assert bnfold.verify(model, folded, **choices).verdict is Verdict.PASSED
    for place, tensor in enumerate(folded.graph.initializer):
        if tensor.name not in ("a", "b", "c"):
            continue
        wrong = onnx.ModelProto()
        wrong.CopyFrom(folded)
        array = numpy_helper.to_array(tensor).copy()
        array[-1, 0] *= np.float32(1.01)
        wrong.graph.initializer[place].CopyFrom(numpy_helper.from_array(array, tensor.name))
        assert bnfold.verify(model, wrong, **choices).verdict is Verdict.FAILED
        assert bnfold.verify(model, wrong, run=False).verdict is Verdict.FAILED


@pytest.mark.usefixtures("all_is_large")
def test_no_large_matrix_is_held(monkeypatch):
    """Whoever asks for one as a whole gets it; a certificate is checked without."""
    asked = []
    constant = sides.Side.constant

    def noted(self, value):
        found = constant(self, value)
        asked.append((value.name, found.size))
        return found

    monkeypatch.setattr(sides.Side, "constant", noted)
    model = chain("MatMul")
    result = bnfold.fold(model, certificate=True, verify=False, max_time=100)
    assert bnfold.verify(model, result, certificate=result.certificate).passed
    assert {name for name, size in asked if size > 9} == set()
