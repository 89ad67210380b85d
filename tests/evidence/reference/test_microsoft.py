"""Operators of com.microsoft against the runtime that owns them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from bnfold.evidence.reference import NoKernelError, evaluate_node, runtime_fallback
from tests.evidence.reference.nodes import close, make

pytest.importorskip("onnxruntime")

ROWS = (2, 5, 8)
CASES = [
    ("FusedConv", [(1, 2, 6, 6), (4, 2, 3, 3), (4,)], {"activation": "Relu", "pads": [1] * 4}),
    (
        "FusedConv",
        [(1, 2, 6, 6), (4, 2, 3, 3), (4,)],
        {"activation": "LeakyRelu", "activation_params": [0.25]},
    ),
    ("FusedConv", [(1, 2, 6, 6), (4, 2, 3, 3), (4,), (1, 4, 4, 4)], {"activation": "Relu"}),
    ("FusedGemm", [(3, 4), (4, 5), (5,)], {"activation": "Relu", "alpha": 0.5}),
    ("FusedMatMul", [(2, 3, 4), (2, 5, 4)], {"transB": 1, "alpha": 0.5}),
    ("Gelu", [ROWS], {}),
    ("BiasGelu", [ROWS, (8,)], {}),
    ("FastGelu", [ROWS, (8,)], {}),
    ("QuickGelu", [ROWS], {"alpha": 1.5}),
    ("SkipLayerNormalization", [ROWS, ROWS, (8,), (8,), (8,)], {"epsilon": 0.125}),
    ("SkipSimplifiedLayerNormalization", [ROWS, ROWS, (8,), (8,)], {"epsilon": 0.125}),
]


@pytest.mark.parametrize(("op", "shapes", "attributes"), CASES)
def test_operator(rng, op, shapes, attributes):
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    node = make(op, arrays, domain="com.microsoft", **attributes)
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 17, "com.microsoft": 1})
    in_the_runtime = runtime_fallback(ir.Model(graph, ir_version=8))
    wide = [array.astype(np.float64) for array in arrays]
    (got,) = evaluate_node(node, wide, 1)
    (wanted,) = in_the_runtime(node, wide, 1)
    close(got, wanted, 1e-5)


def test_what_they_cannot_do_is_said(rng):
    x = rng.standard_normal((2, 2))
    node = make("FusedGemm", [x, x], domain="com.microsoft", activation="Softsign")
    with pytest.raises(NoKernelError, match="Softsign"):
        evaluate_node(node, [x, x], 1)
    node = make("FusedMatMul", [x, x], domain="com.microsoft", transBatchA=1)
    with pytest.raises(NoKernelError, match="batch"):
        evaluate_node(node, [x, x], 1)
