"""What operators make of constants, at every version: folder, runtime and judge agree."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto

from bnfold.evidence.reference import Evaluator
from bnfold.evidence.reference.kernels import STANDARD
from bnfold.evidence.reference.typed import UndecidedError
from bnfold.model.constants import Constant
from bnfold.model.evaluate import COMPUTES
from bnfold.model.facts import Facts
from bnfold.records import Code
from bnfold.rules import RULES
from tests.constant_layers import near_one
from tests.constant_operators import (
    NOT_CALLED,
    NUMPY,
    TABLE,
    Call,
    computing,
    constant_model,
    opsets_of,
)

runtime = pytest.importorskip("tests.battery.runtime")

COMPUTED = sorted(COMPUTES & set(TABLE))
UNITS = 200
"""Units in the last place of the largest result that the runtime may be off by."""
LAST_PLACE = {
    TensorProto.FLOAT: 2.0**-23,
    TensorProto.FLOAT16: 2.0**-10,
    TensorProto.BFLOAT16: 2.0**-7,
    TensorProto.DOUBLE: 2.0**-52,
}
IN_FLOAT32_THERE = {("Shrink", ""), ("Gelu", "t"), ("GroupNormalization", "")}
"""The runtime reads numbers of these as float32 in a float64 graph: they are off by 1e-8."""
NOT_AGREED = {("DequantizeLinear", "blocks"), ("MaxPool", "ceil")} | {
    (op, "none") for op in ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceSumSquare")
}
"""Calls of operators that are computed which are left alone."""


def _found(model: onnx.ModelProto):
    read = ir.from_proto(model)
    return Facts(read, None, RULES).constant(read.graph.outputs[0])


def _is_valid(model: onnx.ModelProto) -> bool:
    """Not every type is allowed at every version."""
    try:
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except onnx.shape_inference.InferenceError:
        return False
    return True


def _cases(op: str, kind: int):
    newest = opsets_of(op)[-1]
    for opset in opsets_of(op) if kind == TensorProto.FLOAT else [newest]:
        for call in TABLE[op](opset):
            model = constant_model(call, opset, kind)
            if (op, call.label) not in NOT_AGREED and _is_valid(model):
                yield call, model


def _on_the_runtime(model: onnx.ModelProto) -> np.ndarray | None:
    found, complaint = runtime.outputs(model, {}, optimised=False)
    return None if complaint else found["w"].astype(np.float64)


def _gap(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    return float(np.abs(one - other).max(initial=0.0)) / max(
        np.abs(other).max(initial=0), 1e-30
    )


def test_every_operator_that_gives_floats_is_looked_at():
    assert computing() == set(TABLE) | set(NOT_CALLED)


@pytest.mark.parametrize("kind", NUMPY, ids=lambda kind: NUMPY[kind].name)
@pytest.mark.parametrize("op", COMPUTED)
def test_constants_are_what_the_runtime_and_the_judge_compute(op, kind):
    for call, model in _cases(op, kind):
        found = _found(model)
        assert isinstance(found, Constant), (call, found)
        assert found.dtype == kind
        judged = Evaluator(ir.from_proto(model)).run({})["w"]
        assert _gap(found.wide(), judged) < 1e-9, call
        there = _on_the_runtime(model)
        if there is None:
            continue
        in_float32 = (op, call.label) in IN_FLOAT32_THERE
        exact = TensorProto.FLOAT if in_float32 and kind == TensorProto.DOUBLE else kind
        assert _gap(found.wide(), there) < UNITS * LAST_PLACE[exact], call


def test_the_judge_has_kernels_of_its_own_for_what_the_folder_computes():
    """Where both asked onnx's reference, nobody would notice a mistake of it."""
    assert set(STANDARD) >= COMPUTES


@pytest.mark.parametrize("op", sorted(set(TABLE) - COMPUTES))
def test_an_operator_that_is_not_computed_is_named(op):
    opset = opsets_of(op)[-1]
    for call in TABLE[op](opset):
        refusal = _found(constant_model(call, opset))
        assert refusal.code is Code.UNDECIDED_CONSTANT
        assert refusal.node == "op"
        assert f"{op} of operator set {opset} is not computed here" in refusal.why


@pytest.mark.parametrize("op", ["ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceSumSquare"])
def test_reductions_over_no_axes_are_left_alone(op):
    """The specification asks for |x|, x² or log x; ONNX Runtime gives x."""
    call = next(call for call in TABLE[op](18) if call.label == "none")
    refusal = _found(constant_model(call, 18))
    assert refusal.code is Code.UNDECIDED_CONSTANT
    assert "runtimes differ" in refusal.why


POOLED = [
    {"ceil_mode": 1, "strides": [2, 2]},
    {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
    {"auto_pad": "VALID", "ceil_mode": 1},
]


@pytest.mark.parametrize("words", POOLED)
def test_a_max_pool_that_chooses_its_windows_is_left_alone(words):
    """onnx's reference gives other windows than ONNX Runtime, of another number at times."""
    call = Call("MaxPool", (near_one(1, 2, 5, 5),), {"kernel_shape": [3, 2], **words})
    assert "chooses its own windows" in _found(constant_model(call, 17)).why


def _drawn_pool(rng: np.random.Generator) -> Call:
    rank = int(rng.integers(1, 4))
    kernel, strides, dilations = (rng.integers(1, 3, rank).tolist() for _ in range(3))
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    words = {"kernel_shape": kernel, "strides": strides, "dilations": dilations}
    words["pads"] = [int(rng.integers(0, span)) for span in spans * 2]
    op = str(rng.choice(["MaxPool", "Conv", "ConvTranspose"]))
    x = near_one(1, 4, *rng.integers(4, 8, rank))
    if op == "MaxPool":
        return Call(op, (x,), words)
    shape = (6, 2) if op == "Conv" else (4, 3)
    return Call(op, (x, near_one(*shape, *kernel)), {**words, "group": 2})


def test_drawn_windows_are_those_of_the_runtime():
    rng = np.random.default_rng(11)
    for _ in range(60):
        call = _drawn_pool(rng)
        model = constant_model(call, int(rng.choice([11, 17, 22])))
        there = _on_the_runtime(model)
        if there is not None:
            assert _gap(_found(model).wide(), there) < UNITS * 2.0**-23, call


def test_an_operator_set_that_nobody_has_seen_is_left_alone():
    model = constant_model(Call("Exp", (np.array([0.5]),)), 13)
    model.opset_import[0].version = 29
    assert "newer than 28" in _found(model).why


def test_a_dropout_that_trains_is_random():
    call = Call("Dropout", (np.array([0.5, 1.0]), np.array(0.5), np.array([True])))
    refusal = _found(constant_model(call, 13))
    assert refusal.code is Code.UNDECIDED_CONSTANT
    assert "random" in refusal.why


def test_random_numbers_are_no_constants():
    call = Call("RandomNormalLike", (np.array([0.5, 1.0]),))
    assert _found(constant_model(call, 13)).code is Code.DYNAMIC_CONSTANT


def test_the_type_of_a_result_is_that_of_its_own_variable():
    """OneHot of float indices in a graph of doubles gives doubles."""
    indices, depth = np.array([0, 2], np.float32), np.array(3, np.float32)
    call = Call("OneHot", (indices, depth, np.array([0.0, 0.1])))
    found = _found(constant_model(call, 11, TensorProto.DOUBLE))
    assert found.dtype is ir.DataType.DOUBLE
    np.testing.assert_array_equal(found.stored(), 0.1 * np.eye(3)[[0, 2]])


# ----------------------------------------------------------- steps behind what is not exact


def _stepped(call: Call, step: str) -> onnx.ModelProto:
    model = constant_model(call, 17)
    model.graph.node[0].output[0] = "before"
    model.graph.node.append(onnx.helper.make_node(step, ["before"], ["w"], name="step"))
    return model


ALMOST = {
    "a sum of 40 tenths along two axes": (
        Call("Conv", (np.full((1, 10, 1, 4), 0.1), np.ones((1, 10, 1, 4)))),
        "Floor",
    ),
    "a product of stacks summed over three axes": (
        Call(
            "Einsum", (np.full((5, 4, 2), 0.1), np.ones((5, 4, 2))), {"equation": "ijk,ijk->"}
        ),
        "Floor",
    ),
    "a mean of nine tenths": (
        Call("AveragePool", (np.full((1, 1, 3, 3), 1 / 3),), {"kernel_shape": [3, 3]}),
        "Sign",
    ),
    "the middle of three": (
        Call("LayerNormalization", (np.array([[1.1, 2.2, 3.3]]), np.ones(3))),
        "Sign",
    ),
    "the middle of a batch": (
        Call(
            "BatchNormalization",
            (np.array([[[1.1, 2.2, 3.3]]]), *[np.ones(1)] * 4),
            {"training_mode": 1},
            results=3,
        ),
        "Floor",
    ),
}


@pytest.mark.parametrize("name", [name for name in ALMOST if "mean" not in name])
def test_a_step_that_hangs_on_a_last_bit_is_undecided(name):
    model = _stepped(*ALMOST[name])
    refusal = _found(model)
    assert refusal.code is Code.UNDECIDED_CONSTANT
    assert "within an ulp of a step" in refusal.why
    with pytest.raises(UndecidedError, match="step"):
        Evaluator(ir.from_proto(model)).run({})


def test_a_step_far_from_any_last_bit_is_decided():
    model = _stepped(*ALMOST["a mean of nine tenths"])
    np.testing.assert_array_equal(_found(model).stored(), 1.0)


def test_where_a_deviation_cancelled_the_numbers_of_the_graph_are_taken():
    """10 · 0.7 − 7 is 0 in float32, and all that an LpNormalization sees of rounding."""
    model = constant_model(Call("LpNormalization", (np.array([1.0, 1.0]),)), 17)
    graph = model.graph
    k = [np.array([10.0, 10.0]), np.array(0.7), np.array(7.0)]
    names = ["ten", "tenths", "seven"]
    graph.initializer.extend(
        onnx.numpy_helper.from_array(a.astype(np.float32), n)
        for a, n in zip(k, names, strict=True)
    )
    graph.node.insert(0, onnx.helper.make_node("Mul", ["ten", "tenths"], ["m"]))
    graph.node.insert(1, onnx.helper.make_node("Sub", ["m", "seven"], ["d"]))
    graph.node[2].input[0] = "d"
    there = _on_the_runtime(model)
    np.testing.assert_array_equal(there, 0.0)
    np.testing.assert_array_equal(_found(model).wide(), there)
    np.testing.assert_array_equal(Evaluator(ir.from_proto(model)).run({})["w"], there)
