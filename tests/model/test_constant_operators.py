"""What operators make of constants, at every version: folder, runtime and judge agree."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto

from bnfold.evidence.reference import Evaluator
from bnfold.evidence.reference.kernels import STANDARD
from bnfold.model.constants import Constant
from bnfold.model.evaluate import COMPUTES
from bnfold.model.facts import Facts
from bnfold.records import Code
from bnfold.rules import RULES
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
NOT_AGREED = {("DequantizeLinear", "blocks")} | {
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
