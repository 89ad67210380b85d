"""Whole graphs: scopes, weights, memory and what was asked for."""

from __future__ import annotations

import gc
import weakref

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnfold.errors import UsageError
from bnfold.evidence.reference import Evaluator, widen
from bnfold.model.io import from_proto, load
from tests.evidence.reference.nodes import close


def parsed(text):
    return from_proto(onnx.parser.parse_model(text))


CHAIN = """
<ir_version: 8, opset_import: ["" : 17]>
chain (float[N] x) => (float[N] y)
<float[2] w = {0.5, 0.25}> {
    a = Add(x, w)
    b = Mul(a, a)
    y = Sub(b, w)
}
"""


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float8_e4m3fn", "float32"])
def test_widening_is_exact(kind, rng):
    narrow = rng.standard_normal(50).astype(getattr(ml_dtypes, kind, kind))
    wide = widen(narrow)
    assert wide.dtype == np.float64
    np.testing.assert_array_equal(wide.astype(narrow.dtype), narrow)
    for other in (np.arange(3), np.array([True]), np.array(["a"], object)):
        assert widen(other) is other


def test_wanted_values_and_told_nodes():
    told = []
    got = Evaluator(parsed(CHAIN)).run({"x": np.ones(2)}, ["a", "w"], told.append)
    np.testing.assert_array_equal(got["a"], [1.5, 1.25])
    np.testing.assert_array_equal(got["w"], [0.5, 0.25])
    assert list(got) == ["y", "a", "w"]
    assert [node.op_type for node in told] == ["Add", "Mul", "Sub"]
    with pytest.raises(UsageError, match="not in the graph"):
        Evaluator(parsed(CHAIN)).run({"x": np.ones(2)}, ["nowhere"])
    with pytest.raises(UsageError, match="input is missing"):
        Evaluator(parsed(CHAIN)).run({})


def test_constants_replace_weights_unrounded():
    third = np.full(2, 1 / 3)
    got = Evaluator(parsed(CHAIN), constants={"w": third}).run({"x": np.ones(2)})
    np.testing.assert_array_equal(got["y"], (1 + third) ** 2 - third)


def test_values_go_when_nobody_needs_them():
    alive = []

    def note(_node):
        gc.collect()
        alive.append(sum(reference() is not None for reference in references))

    class Tracked(np.ndarray):
        pass

    references = []

    def track(_node, inputs, _opset):
        y = (inputs[0] + 1).view(Tracked)
        references.append(weakref.ref(y))
        return [y]

    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.DOUBLE), shape=ir.Shape([2]))
    value, nodes = x, []
    for _ in range(6):
        nodes.append(ir.node("Step", [value], domain="own"))
        value = nodes[-1].outputs[0]
    graph = ir.Graph([x], [value], nodes=nodes, opset_imports={"": 17, "own": 1}, name="g")
    model = ir.Model(graph, ir_version=8)
    evaluator = Evaluator(model, fallback=track)
    (y,) = evaluator.run({"x": np.zeros(2)}, on_node=note).values()
    np.testing.assert_array_equal(y, [6, 6])
    assert max(alive) <= 2
    assert evaluator.fell_back == {"own.Step"}


def test_weights_of_a_file_are_read_one_at_a_time(tmp_path, rng):
    """Ten weights of 8 MB (float64: 16 MB) never stand beside each other."""
    import tracemalloc

    weights = [rng.standard_normal((1000, 2000)).astype(np.float32) for _ in range(10)]
    names = [f"w{k}" for k in range(10)]
    nodes = [helper.make_node("ReduceSum", [name], [f"s{name}"], keepdims=0) for name in names]
    nodes.append(helper.make_node("Sum", ["x", *(f"s{name}" for name in names)], ["y"]))
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in ("x", "y")]
    tensors = [numpy_helper.from_array(w, n) for w, n in zip(weights, names, strict=True)]
    graph = helper.make_graph(nodes, "g", info[:1], info[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True)
    wanted = sum(float(w.sum(dtype=np.float64)) for w in weights)
    evaluator = Evaluator(load(path))
    tracemalloc.start()
    (y,) = evaluator.run({"x": np.zeros(1)}).values()
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_allclose(y, wanted)
    assert peak_bytes < 40e6


def test_subgraphs_read_from_around_them():
    model = parsed(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        scopes (float[N] x, bool c) => (float[N] y, float[N] z)
        <float[1] w = {2.0}> {
            y = If(c) <
                then_branch = yes () => (float[N] p) { q = Add(x, w)  p = Mul(q, w) },
                else_branch = no () => (float[N] n) { n = Neg(x) }>
            z = Add(x, w)
        }
        """
    )
    x = np.array([1.0, 2.0])
    for condition, wanted in ((True, [6, 8]), (False, [-1, -2])):
        got = Evaluator(model).run({"x": x, "c": np.array(condition)})
        np.testing.assert_array_equal(got["y"], wanted)
        np.testing.assert_array_equal(got["z"], [3, 4])


def test_functions_with_references_to_attributes():
    model = parsed(
        """
        <ir_version: 9, opset_import: ["" : 18, "own" : 1]>
        calls (float[N] x) => (float[N] y)
        { a = own.leaky <slope: float = 0.5> (x)  y = own.leaky (a) }
        <domain: "own", opset_import: ["" : 18]>
        leaky <slope: float = 0.25> (v) => (w) { w = LeakyRelu <alpha: float = @slope> (v) }
        """
    )
    before = [len(value.uses()) for f in model.functions.values() for value in f.inputs]
    got = Evaluator(model).run({"x": np.array([-4.0, 1.0])})
    np.testing.assert_array_equal(got["y"], [-0.5, 1.0])
    after = [len(value.uses()) for f in model.functions.values() for value in f.inputs]
    assert before == after


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_narrow_weights_are_taken_as_they_are(kind, rng):
    w = rng.standard_normal((3, 2))
    tensor = helper.make_tensor("w", kind, [3, 2], w.reshape(-1))
    stored = numpy_helper.to_array(tensor).astype(np.float64)
    info = [helper.make_tensor_value_info(n, kind, None) for n in ("x", "y")]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    graph = helper.make_graph(nodes, "g", info[:1], info[1:], [tensor])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    x = rng.standard_normal((4, 3))
    (y,) = Evaluator(from_proto(model)).run({"x": x}).values()
    close(y, x @ stored, 1e-15)


def test_sparse_weights():
    values = numpy_helper.from_array(np.array([2.0, 3.0], np.float32), "w")
    indices = numpy_helper.from_array(np.array([0, 3], np.int64), "w_i")
    sparse = helper.make_sparse_tensor(values, indices, [2, 2])
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 2]) for n in ("x", "y")]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    graph = helper.make_graph(nodes, "g", info[:1], info[1:], [], sparse_initializer=[sparse])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    (y,) = Evaluator(from_proto(model)).run({"x": np.ones((2, 2))}).values()
    np.testing.assert_array_equal(y, [[2, 3], [2, 3]])
