"""Operators that have no kernel."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnfold.evidence.reference import Evaluator, NoKernelError, evaluate_node, runtime_fallback
from bnfold.model.io import from_proto
from tests.evidence.reference.nodes import close, make


def with_node(op, domain, weight, **attributes):
    """A model x → Relu → op(·, weight) → y."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node(op, ["a", "w"], ["y"], domain=domain, **attributes),
    ]
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("x", "y")]
    tensors = [numpy_helper.from_array(weight, "w")]
    graph = helper.make_graph(nodes, "g", info[:1], info[1:], tensors)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(domain, 1)]
    return from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=8))


def test_the_runtime_runs_what_has_no_kernel(rng):
    pytest.importorskip("onnxruntime")
    weight = rng.standard_normal((6, 5)).astype(np.float32)
    model = with_node("TransposeMatMul", "com.microsoft", weight, transA=1)
    x = rng.standard_normal((6, 4)).astype(np.float32)
    evaluator = Evaluator(model, fallback=runtime_fallback(model))
    (y,) = evaluator.run({"x": x}).values()
    assert y.dtype == np.float64
    assert evaluator.fell_back == {"com.microsoft.TransposeMatMul"}
    close(y, np.maximum(x, 0).T.astype(np.float64) @ weight, 1e-5)


def test_without_a_fallback_the_operator_is_named():
    model = with_node("Mystery", "made.up", np.ones(3, np.float32))
    with pytest.raises(NoKernelError, match=r"made\.up\.Mystery"):
        Evaluator(model).run({"x": np.ones(3)})


def test_what_the_runtime_does_not_know_either():
    pytest.importorskip("onnxruntime")
    model = with_node("Mystery", "made.up", np.ones(3, np.float32))
    evaluator = Evaluator(model, fallback=runtime_fallback(model))
    with pytest.raises(NoKernelError, match=r"made\.up\.Mystery: the runtime says"):
        evaluator.run({"x": np.ones(3)})


@pytest.mark.parametrize("op", ["RandomNormalLike", "Bernoulli", "NoSuchOperator"])
def test_random_and_unknown_operators_have_no_kernel(op):
    with pytest.raises(NoKernelError, match=op):
        evaluate_node(make(op, [np.ones(3)]), [np.ones(3)], 17)


def test_the_runtime_gets_the_types_that_the_model_declares():
    pytest.importorskip("onnxruntime")
    node = helper.make_node(
        "RandomNormalLike", ["x"], ["y"], dtype=TensorProto.FLOAT, seed=1.0
    )
    kinds = {"x": TensorProto.FLOAT16, "y": TensorProto.FLOAT}
    info = [helper.make_tensor_value_info(n, kind, [3]) for n, kind in kinds.items()]
    graph = helper.make_graph([node], "g", info[:1], info[1:])
    opsets = [helper.make_opsetid("", 17)]
    model = from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=8))
    evaluator = Evaluator(model, fallback=runtime_fallback(model))
    (y,) = evaluator.run({"x": np.ones(3)}).values()
    assert y.shape == (3,)
    assert y.dtype == np.float64
    assert evaluator.fell_back == {"RandomNormalLike"}
