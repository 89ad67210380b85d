"""Maps go into the scales and signs of weights that are stored as integers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

import bnfold
from bnfold.records import Code
from tests.battery import judge, quantised
from tests.battery.graphs import Net, spread
from tests.reference64 import run64
from tests.rules.around import assert_stays

TYPES = {"int8": 21, "uint8": 13, "int16": 21, "uint16": 21, "int32": 13, "int4": 21}


def _signs(draw, count: int, *, negative: bool) -> np.ndarray:
    picks = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    return np.where(np.array(picks) & negative, -1.0, 1.0)


def _integer_inputs(model: onnx.ModelProto) -> list[np.ndarray]:
    """What every DequantizeLinear reads first."""
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    nodes = (n for n in model.graph.node if n.op_type == "DequantizeLinear")
    return [stored[n.input[0]] for n in nodes]


def _folded(model: onnx.ModelProto, **options) -> onnx.ModelProto:
    folded = bnfold.fold(model, verify=False, **options).to_proto()
    assert judge.wrong_outputs(model, folded) == []
    assert judge.newly_invalid(model, folded) == ""
    return folded


@given(st.data(), st.sampled_from(sorted(TYPES)), st.sampled_from([1, 2, 4]), st.booleans())
def test_conv_behind(data, kind, groups, per_channel):
    net = Net("behind", TYPES[kind])
    low, high = quantised.KINDS[kind][2]
    zero = data.draw(st.integers((3 * low + high) // 4, (low + 3 * high) // 4))
    w = quantised.dequantised(
        net, (8, 4 // groups, 2, 3), kind, 0 if per_channel else None, zero
    )
    y = net.node("Conv", [net.input(["N", 4, 5, 6]), w], group=groups)
    scale = net.rng.uniform(0.3, 2, 8) * _signs(data.draw, 8, negative=True)
    scale[data.draw(st.integers(0, 7))] = data.draw(st.sampled_from([0.0, 1.0, -3.0]))
    net.output(net.node("Mul", [y, net.const(spread(scale, 4, 1))]))
    model = net.model()
    folded = _folded(model)
    assert judge.affine_count(folded) == 0
    ((old,), (new,)) = _integer_inputs(model), _integer_inputs(folded)
    assert old.dtype == new.dtype
    assert old.shape == new.shape


@given(st.data(), st.sampled_from(["Conv", "ConvTranspose"]), st.booleans(), st.booleans())
def test_in_front(data, op, uniform, shift):
    net = Net("front")
    size, axis = (4, 4, 1, 1), 1 if op == "Conv" else 0
    stored = data.draw(st.sampled_from([None, axis, 1 - axis] if uniform else [None, axis]))
    w = quantised.dequantised(net, size, "int8", stored)
    scale = net.rng.uniform(0.3, 2, ()) if uniform else net.rng.uniform(0.3, 2, 4)
    scale = scale * (data.draw(st.sampled_from([-1, 1])) if uniform else 1)
    x = net.input(["N", 4, 5, 6])
    x = net.node("Mul", [x, net.const(scale if uniform else spread(scale, 4, 1))])
    x = net.add(x, 4) if shift else x
    net.output(net.node(op, [x, w]))
    assert judge.affine_count(_folded(net.model())) == 0


@given(st.data(), st.sampled_from(["MatMul", "Gemm"]), st.booleans(), st.booleans())
def test_linear(data, op, turned, above):
    side = "above" if above else "below"
    axis = data.draw(st.sampled_from([None, (1 if above else 0) ^ turned]))
    source = data.draw(st.sampled_from(["mul_add", "neg", "scalar_mul_add", "add", "div"]))
    model = quantised.linear(op, source, side, axis, turned=turned)
    assert judge.affine_count(_folded(model)) == 0


def test_other_readers_keep_their_weight():
    model = quantised.shared("all")
    folded = _folded(model)
    report = bnfold.fold(model, verify=False).report
    assert report.cloned_bytes > 0
    assert judge.affine_count(folded) == 0
    assert len(_integer_inputs(folded)) == 2


def test_what_nobody_else_reads_keeps_its_name():
    model = quantised.behind_conv("bn", "int8", 0)
    names = [t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8]
    folded = _folded(model)
    assert names[0] in {t.name for t in folded.graph.initializer}
    assert [n.name for n in folded.graph.node] == [n.name for n in model.graph.node[:-1]]


def test_a_lowest_integer_has_no_mirror_image():
    model = quantised.lowest("neg")
    assert_stays(model, Code.OUT_OF_RANGE)
    (whole,) = _integer_inputs(model)
    with np.errstate(over="ignore"):
        assert (-whole == whole)[whole != 0].any()  # -(-128) wraps around to -128


def test_scales_cannot_run_along_two_axes():
    model = quantised.in_front_of_conv("mul", axis=0)
    assert_stays(model, Code.WRONG_AXIS)
    (dequantize,) = (n for n in model.graph.node if n.op_type == "DequantizeLinear")
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    scale, by = stored[dequantize.input[1]], stored[model.graph.node[0].input[1]]
    both = np.outer(scale, by.reshape(-1))
    assert np.linalg.matrix_rank(both - both.mean(1, keepdims=True)) > 0


def test_one_scale_before_opset_13():
    assert_stays(quantised.behind_conv("mul", opset=10), Code.WRONG_AXIS)


def test_blocks_are_refused():
    assert_stays(quantised.block(), Code.NOT_FLOAT)


def test_a_shift_needs_permission_to_round_an_integer_bias():
    model = quantised.integer_bias("bn", 0)
    assert_stays(model, Code.NOT_FLOAT)
    report = bnfold.fold(model, verify=False).report
    assert "--requantize-bias" in report.refusals[0].remedy
    result = bnfold.fold(model, verify=False, requantize_bias=True)
    folded = result.to_proto()
    assert judge.affine_count(folded) == 0
    (warning,) = result.report.warnings
    limit = float(warning.split("up to")[1])
    feeds = judge.inputs_of(model, 0)
    (wanted,), (got,) = (run64(m, feeds).values() for m in (model, folded))
    assert 0 < np.abs(wanted - got).max() < limit + 1e-5
    assert judge.wrong_outputs(model, folded) != []


def test_a_rounded_bias_is_checked_by_what_it_was_rounded_from():
    pytest.importorskip("onnxruntime")
    model = quantised.integer_bias("bn", 0)
    result = bnfold.fold(model, requantize_bias=True)
    assert result.check is not None
    assert result.check.passed
    assert judge.affine_count(result.to_proto()) == 0
    assert np.dtype(np.int32) in [whole.dtype for whole in _integer_inputs(result.to_proto())]


def test_roundings_do_not_add_up():
    net = Net("again")
    x = net.input(["N", 4, 7, 6])
    step = 1e-3
    bias = quantised.store(net, np.arange(6), "int32")
    bias = net.node("DequantizeLinear", [bias, net.const(step)])
    y = quantised.conv(net, x, quantised.dequantised(net, (6, 4, 3, 3)), bias)
    for _ in range(7):
        y = net.node("Identity", [net.node("Add", [y, net.const(0.45 * step)])])
    net.output(y)
    model = net.model()
    folded = bnfold.fold(model, verify=False, requantize_bias=True).to_proto()
    assert judge.affine_count(folded) == 0
    feeds = judge.inputs_of(model, 0)
    (wanted,), (got,) = (run64(m, feeds).values() for m in (model, folded))
    assert np.abs(wanted - got).max() <= 0.5001 * step


def test_overridable_integers_are_left():
    model = quantised.behind_conv("mul")
    name = next(
        t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8
    )
    shape = [6, 4, 3, 3]
    listed = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT8, shape)
    model.graph.input.append(listed)
    assert_stays(model, Code.OVERRIDABLE)


def test_a_bias_out_of_reach_stays():
    net = Net("far")
    x = net.input(["N", 4, 7, 6])
    whole = quantised.store(net, np.arange(6), "int32")
    bias = net.node("DequantizeLinear", [whole, net.const(1e-12)])
    y = quantised.conv(net, x, quantised.dequantised(net, (6, 4, 3, 3)), bias)
    net.output(net.add(y, 6))
    model = net.model()
    report = bnfold.fold(model, verify=False, requantize_bias=True).report
    assert Code.OUT_OF_RANGE in {r.code for s in report.stays for r in s.refusals}


def test_a_weight_that_is_dequantised_and_computed_with_stays_small():
    net = Net("computed")
    w = quantised.dequantised(net, (6, 4, 3, 3))
    w = net.node("Reshape", [net.node("Relu", [w]), net.ints(6, 4, 3, 3)])
    net.output(net.mul(quantised.conv(net, net.input(["N", 4, 7, 6]), w), 6))
    assert bnfold.fold(net.model(), verify=False).report.steps == ()
    net = Net("reshaped")
    w = net.node("Reshape", [quantised.dequantised(net, (6, 36)), net.ints(6, 4, 3, 3)])
    net.output(net.mul(quantised.conv(net, net.input(["N", 4, 7, 6]), w), 6))
    assert_stays(net.model(), Code.NOT_FLOAT)


RUNS = [
    ("activations", "bn", {"bias": False}),
    ("activations", "mul", {"bias": True}),
    ("activations", "neg", {"bias": False, "side": "below"}),
    ("activations", "mul", {"bias": False, "side": "below"}),
    ("activations", "neg", {"bias": True, "side": "below"}),
    ("behind_conv", "bn", {}),
    ("in_front_of_conv", "mul", {}),
    ("conv_transpose", "mul", {"side": "below", "axis": 0}),
    ("fake_quantised", "bn", {}),
]


@pytest.mark.parametrize(("build", "source", "options"), RUNS)
def test_the_runtime_computes_the_same(build, source, options):
    """What runtimes fuse differs from what they run as written."""
    runtime = pytest.importorskip("tests.battery.runtime")
    model = getattr(quantised, build)(source, **options)
    folded = _folded(model)
    feeds = judge.inputs_of(model, 0)
    (wanted,) = run64(model, feeds).values()
    got, complaint = runtime.outputs(folded, feeds, precise=build == "activations")
    assert complaint == ""
    (got,) = got.values()
    step = 0.3 if build == "activations" else 1e-4  # a tie may round either way
    assert np.abs(got - wanted).max() <= 1.01 * step
    assert np.mean(np.abs(got - wanted) > 1e-4) < 0.02
