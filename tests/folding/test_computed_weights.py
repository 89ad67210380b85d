"""Weights that nodes compute of constants: they fold, unless the model would grow."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import bnfold
from bnfold.limits import limited
from tests.battery import judge
from tests.battery.graphs import Net
from tests.constant_operators import TABLE, constant_model, scaled_model

runtime = pytest.importorskip("tests.battery.runtime")


def _kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def _refusals(result):
    return [refusal for stay in result.report.stays for refusal in stay.refusals]


def _weight(model: onnx.ModelProto) -> np.ndarray:
    """Return what the last linear operator reads as its weight."""
    stored = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    node = next(
        n for n in reversed(model.graph.node) if n.op_type in ("Conv", "Gemm", "MatMul")
    )
    return stored[node.input[1]]


# --------------------------------------------------------------- whatever computes the weight

TELLING = (
    "ReduceL2", "ReduceL1", "ReduceLogSumExp", "MatMul", "Gemm", "Einsum", "Conv", "Clip",
    "Pad", "Softplus", "Erf", "Softmax", "Round", "ScatterND", "LpNormalization",
    "LayerNormalization", "BatchNormalization", "ConvTranspose", "Gelu", "LRN",
)  # fmt: skip


@pytest.mark.parametrize("op", TELLING)
def test_the_folded_weight_is_what_the_runtime_computes_times_the_scale(op):
    for call in TABLE[op](17 if op != "Gelu" else 20):
        if call.label == "none":
            continue
        opset = 20 if op == "Gelu" else 17
        alone, complaint = runtime.outputs(constant_model(call, opset), {}, optimised=False)
        assert complaint == ""
        model = scaled_model(call, alone["w"].shape, opset)
        folded = bnfold.fold(model, verify=False).to_proto()
        assert _kinds(folded) == ["Conv"]
        gamma = next(
            numpy_helper.to_array(i) for i in model.graph.initializer if i.name == "gamma"
        )
        wanted = alone["w"].astype(np.float64).reshape(-1) * gamma.reshape(-1)
        np.testing.assert_allclose(
            _weight(folded).reshape(-1), wanted, rtol=0, atol=2e-5 * np.abs(wanted).max()
        )


def test_the_proof_agrees():
    call = TABLE["LpNormalization"](17)[-1]
    alone, _ = runtime.outputs(constant_model(call, 17), {}, optimised=False)
    result = bnfold.fold(scaled_model(call, alone["w"].shape, 17))
    assert result.check.verdict == "passed"
    assert _kinds(result.to_proto()) == ["Conv"]


def test_erf_in_a_model_of_doubles_is_no_float32():
    """onnx's reference computes it in float32: weights were off by 2.5e-8."""
    (call,) = TABLE["Erf"](17)
    model = scaled_model(call, call.inputs[0].shape, 17, onnx.TensorProto.DOUBLE)
    folded = bnfold.fold(model, verify=False).to_proto()
    assert _kinds(folded) == ["Conv"]
    gamma = next(i for i in model.graph.initializer if i.name == "gamma")
    wanted = np.array([math.erf(x) for x in call.inputs[0].reshape(-1)])
    wanted *= numpy_helper.to_array(gamma).reshape(-1)
    np.testing.assert_allclose(_weight(folded).reshape(-1), wanted, rtol=1e-14)


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp64"])
def test_other_types_than_float32(dtype):
    net = Net(f"weight norm in {dtype}", dtype=dtype)
    y = net.node("Conv", [net.input(["N", 4, 7, 7]), _weight_norm(net, 6, 4)])
    net.output(net.node("Mul", [y, net.const(net.scale(6).reshape(6, 1, 1))]))
    model = net.model()
    folded = bnfold.fold(model, verify=False).to_proto()
    assert _kinds(folded) == ["Conv"]
    assert judge.wrong_outputs(model, folded) == []


def _weight_norm(net: Net, outs: int, ins: int) -> str:
    """``g · v / ‖v‖``, as torch exports it."""
    v = net.const(net.weight(outs, ins, 3, 3))
    norm = net.node("ReduceL2", [v], axes=[1, 2, 3], keepdims=1)
    return net.node(
        "Mul", [v, net.node("Div", [net.const(net.scale(outs).reshape(-1, 1, 1, 1)), norm])]
    )


# ------------------------------------------------------------- weight standardisation (nfnet)


def _standardised(*, gain: bool = True, is_read: bool = False) -> onnx.ModelProto:
    """The weight is normalised by the statistics of its own channels."""
    net = Net("standardised")
    v = net.node("Reshape", [net.const(net.weight(6, 4, 3, 3)), net.ints(1, 6, -1)])
    ones = [net.const(np.full(6, k)) for k in (1.0, 0.0, 0.0, 1.0)]
    names = ["normal", "mean", "variance"]
    net.nodes_out("BatchNormalization", [v, *ones], names, "", {"training_mode": 1})
    w = net.node("Reshape", ["normal", net.ints(6, 4, 3, 3)])
    if gain:
        w = net.node("Mul", [w, net.const(net.scale(6).reshape(6, 1, 1, 1))])
    net.output(net.node("Conv", [net.input(["N", 4, 7, 7]), w]))
    if is_read:
        net.output("mean", shape=[6])
    return net.model()


def test_a_weight_that_is_normalised_by_its_own_batch_is_stored():
    model = _standardised()
    result = bnfold.fold(model, verify=False)
    folded = result.to_proto()
    assert _kinds(folded) == ["Conv"]
    assert result.report.stays == ()
    assert judge.wrong_outputs(model, folded) == []


def test_assume_inference_leaves_weight_standardisation_what_it_is():
    """Its running statistics are 0 and 1: read by them, it would be another function."""
    model = _standardised()
    folded = bnfold.fold(model, verify=False, assume_inference=True).to_proto()
    assert judge.wrong_outputs(model, folded) == []


def test_a_normalisation_whose_statistics_are_read_stays():
    model = _standardised(is_read=True)
    folded = bnfold.fold(model, verify=False).to_proto()
    assert "BatchNormalization" in _kinds(folded)


# -------------------------------------------------------------------------------------- growth


def _widened(rows: int, kind: str = "int8", *, shared: bool = False) -> onnx.ModelProto:
    """``MatMul(x, Cast(integers) · scale)`` with a LayerScale behind: sentence encoders."""
    net = Net(f"widened {rows}")
    held = net.const(net.rng.integers(-90, 90, (rows, 64)), dtype=kind)
    w = net.node("Cast", [held], to=onnx.TensorProto.FLOAT)
    w = net.node("Mul", [w, net.const(net.rng.uniform(0.01, 0.02, 64))])
    y = net.node("MatMul", [net.input(["N", rows]), w])
    net.output(net.node("Mul", [y, net.const(net.scale(64))]))
    if shared:
        net.output(net.node("Gather", [held, net.ints(1)]))
    return net.model()


def _size(model: onnx.ModelProto) -> int:
    return sum(numpy_helper.to_array(one).nbytes for one in model.graph.initializer)


@pytest.mark.parametrize("kind", ["int8", "fp16"])
def test_weights_in_a_narrower_type_are_not_written_out(kind):
    model = _widened(64, kind)
    result = bnfold.fold(model, verify=False)
    assert _kinds(result.to_proto()) == _kinds(model)
    assert _size(result.to_proto()) == _size(model)
    (refusal, *_) = _refusals(result)
    assert refusal.code == "too-large"
    assert "in a narrower type" in refusal.why
    assert "--max-growth 17kB" in refusal.remedy


def test_integers_that_are_packed_are_not_written_out():
    """GPTQ: two of four bits in each byte, here of int32, unpacked by BitwiseAnd."""
    net = Net("packed", 18)
    held = net.const(net.rng.integers(0, 256, (64, 32)), dtype="int32")
    low, high = (
        net.node("BitwiseAnd", [held, net.const(mask, dtype="int32")]) for mask in (15, 240)
    )
    whole = net.node("Concat", [low, high], axis=1)
    w = net.node("Mul", [net.node("Cast", [whole], to=1), net.const(net.scale(64))])
    y = net.node("MatMul", [net.input(["N", 64]), w])
    net.output(net.node("Mul", [y, net.const(net.scale(64))]))
    model = net.model()
    result = bnfold.fold(model, verify=False)
    assert _kinds(result.to_proto()) == _kinds(model)
    assert _refusals(result)[0].code == "too-large"
    with limited(growth_bytes=10_000):
        folded = bnfold.fold(model, verify=False).to_proto()
    assert _kinds(folded) == ["MatMul"]
    assert judge.wrong_outputs(model, folded) == []


def test_whoever_allows_growth_gets_it_and_is_told_how_much():
    model = _widened(64)
    with limited(growth_bytes=17_000):
        result = bnfold.fold(model, verify=False)
    folded = result.to_proto()
    assert _kinds(folded) == ["MatMul"]
    lost = 64 * 4  # the LayerScale itself
    assert result.report.cloned_bytes == _size(folded) - _size(model) + lost
    assert judge.wrong_outputs(model, folded) == []


def test_what_others_read_is_not_counted_as_gone():
    model = _widened(64, shared=True)
    with limited(growth_bytes=17_000):
        result = bnfold.fold(model, verify=False)
    assert result.report.cloned_bytes == 64 * 64 * 4 - 64 * 4


def test_few_integers_may_be_widened():
    assert _kinds(bnfold.fold(_widened(16), verify=False).to_proto()) == ["MatMul"]


def test_a_weight_that_is_filled_in_may_grow_little():
    """Exporters write the bias of a Conv without one as an Expand of 0."""
    for channels, kinds in ((300, ["Conv"]), (70_000, ["Expand", "Conv", "Mul"])):
        net = Net("filled in")
        bias = net.node("Expand", [net.const(np.float32(0.5)), net.ints(channels)])
        inputs = [net.input(["N", 1, 2, 2]), net.const(net.weight(channels, 1, 1, 1)), bias]
        y = net.node("Conv", inputs)
        net.output(net.node("Mul", [y, net.const(np.float32(2.0))]))
        assert _kinds(bnfold.fold(net.model(), verify=False).to_proto()) == kinds


def test_a_model_that_shrinks_has_not_grown():
    net = Net("shrinks")
    a, b = (net.const(net.weight(64, 64)) for _ in range(2))
    w = net.node("Add", [a, net.node("Mul", [b, net.const(0.5)])])
    y = net.node("MatMul", [net.input(["N", 64]), w])
    net.output(net.node("Mul", [y, net.const(net.scale(64))]))
    result = bnfold.fold(net.model(), verify=False)
    assert _kinds(result.to_proto()) == ["MatMul"]
    assert result.report.cloned_bytes == 0


def test_bfloat16_elements_are_rounded_once_where_there_is_one():
    """A scalar is no array in numpy: rounding one to bfloat16 raised."""
    from bnfold.expression import round_once

    found = round_once(np.float64(1.1), np.dtype(ml_dtypes.bfloat16))
    assert float(found) == 1.1015625
