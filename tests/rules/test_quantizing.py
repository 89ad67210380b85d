"""Products of integers stay as runtimes know them, and say why no map passes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import bnfold
from bnfold.records import Code, Refusal
from tests.battery import judge
from tests.battery.graphs import Net
from tests.proving import assert_proved, with_larger_weights
from tests.rules.around import assert_stays


def _integer_product(net: Net, x: str, rows: int, columns: int) -> str:
    """As ONNX Runtime's quantiser writes a MatMul that is quantised when it runs."""
    weight = net.rng.integers(-127, 128, (rows, columns))
    names = [net.const(weight, dtype="int8"), net.const(0, dtype="int8")]
    q, step, zero = net.nodes_out("DynamicQuantizeLinear", [x], ["q", "step", "zero"])
    y = net.node("MatMulInteger", [q, names[0], zero, names[1]])
    y = net.node("Cast", [y], to=onnx.TensorProto.FLOAT)
    return net.node("Mul", [y, net.node("Mul", [step, net.const(0.013)])])


def _reasons(model: onnx.ModelProto) -> list[Refusal]:
    report = bnfold.fold(model, verify=False).report
    return [refusal for stay in report.stays for refusal in stay.refusals]


def _voice_filter() -> onnx.ModelProto:
    """A LayerNormalization would take the scale: the runtime then ran three nodes more."""
    net = Net("voice filter")
    y = _integer_product(net, net.input([3, 8]), 8, 6)
    y = net.node("Add", [y, net.const(net.shift(6))])
    net.output(
        net.node("LayerNormalization", [y, net.const(net.scale(6)), net.const(net.shift(6))])
    )
    return net.model()


def test_the_scales_of_a_product_that_is_quantised_when_it_runs_stay():
    model = _voice_filter()
    folded = bnfold.fold(model, verify=False).to_proto()
    assert [n.op_type for n in folded.graph.node] == [n.op_type for n in model.graph.node]
    assert Code.IDIOM in {refusal.code for refusal in _reasons(model)}


def test_the_runtime_runs_it_as_one_operator_after_the_fold(tmp_path):
    ort = pytest.importorskip("onnxruntime")
    counts = []
    for model in (_voice_filter(), bnfold.fold(_voice_filter(), verify=False).to_proto()):
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(tmp_path / "ran.onnx")
        ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        ran = onnx.load(options.optimized_model_filepath)
        counts.append([node.op_type for node in ran.graph.node])
    assert "DynamicQuantizeMatMul" in counts[0]
    assert counts[0] == counts[1]


def test_a_number_behind_it_goes_into_its_scales():
    net = Net("behind")
    y = _integer_product(net, net.input([3, 8]), 8, 6)
    net.output(net.node("Tanh", [net.node("Mul", [y, net.const(0.5)])]))
    model = net.model()
    result = bnfold.fold(model, verify=False)
    muls = [node.op_type for node in result.to_proto().graph.node].count("Mul")
    assert muls == 2
    assert judge.wrong_outputs(model, result.to_proto()) == []


@pytest.mark.parametrize(
    ("op", "words"),
    [("DynamicQuantizeLinear", "takes its scale"), ("QuantizeLinear", "rounds")],
)
def test_a_map_in_front_of_what_quantises_stays_for_the_true_reason(op, words):
    net = Net("front")
    x = net.node("Mul", [net.input([3, 8]), net.const(net.scale(8))])
    if op == "DynamicQuantizeLinear":
        net.output(_integer_product(net, x, 8, 6))
    else:
        point = net.const(3, dtype="int8")
        q = net.node("QuantizeLinear", [x, net.const(0.1), point])
        net.output(net.node("DequantizeLinear", [q, net.const(0.1), point]))
    said = [refusal for refusal in _reasons(net.model()) if words in refusal.why]
    assert [refusal.code for refusal in said] == [Code.NOT_FLOAT]
    assert "Mul" in [
        n.op_type for n in bnfold.fold(net.model(), verify=False).to_proto().graph.node
    ]


def _behind(op: str) -> onnx.ModelProto:
    """A scale of every channel behind integers that are made floats."""
    net = Net(f"behind{op}", 21)
    int8 = {"dtype": "int8"}
    x = net.input([2, 4, 5, 5] if "Conv" in op else [3, 4], dtype="int8")
    shape = (6, 4, 1, 1) if "Conv" in op else (4, 6)
    weight = net.const(net.rng.integers(-9, 9, shape), **int8)
    zero, step = net.const(0, **int8), net.const(0.1)
    if op.startswith("QLinear"):
        inputs = [x, step, zero, weight, step, zero, step, zero]
        y = net.node("DequantizeLinear", [net.node(op, inputs), step, zero])
    else:
        y = net.node("Cast", [net.node(op, [x, weight])], to=onnx.TensorProto.FLOAT)
    scale = net.scale(6).reshape((6, 1, 1) if "Conv" in op else (6,))
    net.output(net.node("Mul", [y, net.const(scale)]))
    return net.model()


@pytest.mark.parametrize(
    "op", ["ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"]
)
def test_a_map_behind_a_product_of_integers_stays_for_the_true_reason(op):
    model = _behind(op)
    assert_stays(model, Code.NOT_FLOAT)
    assert all("bnfold has no rule" not in refusal.why for refusal in _reasons(model))


def _weight_of_points(net: Net, kind: str) -> str:
    """A weight [6, 4, 2, 2] whose channels have a zero point each; all can be mirrored."""
    low, high = (-128, 127) if kind == "int8" else (0, 255)
    points = net.rng.integers((3 * low + high) // 4, (low + 3 * high) // 4, 6)
    near = np.minimum(points - low, high - points).reshape(-1, 1, 1, 1)
    far = net.rng.integers(low, high + 1, (6, 4, 2, 2)) - points.reshape(-1, 1, 1, 1)
    weight = points.reshape(-1, 1, 1, 1) + np.clip(far, -near, near)
    for name, array in (("Q", weight), ("z", points)):
        net.initializers.append(numpy_helper.from_array(array.astype(kind), name))
    steps = net.const(net.rng.uniform(0.01, 0.05, 6))
    return net.node("DequantizeLinear", ["Q", steps, "z"], axis=0)


@pytest.mark.parametrize("up", [True, False], ids=["behind", "in front"])
@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_a_weight_with_a_zero_point_of_its_own_for_each_channel_takes_a_map(kind, up):
    """``2 · z − Q`` of the channel's own z where the scale is negative."""
    net = Net(f"points{kind}{up}")
    w = _weight_of_points(net, kind)
    x = net.input([2, 4, 5, 5])
    if up:
        signs = np.array([1.5, -0.5, -2.0, 0.7, 1.0, -1.0]).reshape(6, 1, 1)
        net.output(net.node("Mul", [net.node("Conv", [x, w]), net.const(signs)]))
    else:
        net.output(net.node("Conv", [net.node("Mul", [x, net.const(-2.0)]), w]))
    model = net.model()
    result = bnfold.fold(model, verify=False, certificate=True)
    folded = result.to_proto()
    assert "Mul" not in [node.op_type for node in folded.graph.node]
    assert judge.wrong_outputs(model, folded) == []
    assert_proved(model, result, with_larger_weights(folded))
