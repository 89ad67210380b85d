"""What runtimes run as one operator stays whole, or is written as that operator."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bnfold
from bnfold.records import Code
from tests.battery import judge
from tests.battery.graphs import Net

ROOT2 = 2**0.5
D, WIDE = 6, 12


def _linear(net, x, c_in, c_out):
    y = net.node("MatMul", [x, net.const(net.weight(c_in, c_out))])
    return net.node("Add", [y, net.const(net.shift(c_out))])


def _gelu(net, x, spelling):
    first, last = spelling
    if first == "div":
        inner = net.node("Div", [x, net.const(ROOT2)])
    elif first == "mul":
        inner = net.node("Mul", [x, net.const(1 / ROOT2)])
    else:
        cube = net.node("Pow", [x, net.const(3.0)])
        cube = net.node("Mul", [cube, net.const(0.044715)])
        inner = net.node("Mul", [net.node("Add", [x, cube]), net.const((2 / np.pi) ** 0.5)])
    core = net.node("Tanh" if first == "tanh" else "Erf", [inner])
    plus = net.node("Add", [core, net.const(1.0)])
    half = net.const(0.5)
    if last == "behind":
        return net.node("Mul", [net.node("Mul", [x, plus]), half])
    if last == "in front":
        return net.node("Mul", [net.node("Mul", [x, half]), plus])
    return net.node("Mul", [x, net.node("Mul", [plus, half])])


SPELLINGS = [(f, h) for f in ("div", "mul", "tanh") for h in ("behind", "in front", "beside")]


def _feed_forward(spelling):
    """Linear, Gelu, Linear, LayerScale and a residual, as in a transformer."""
    net = Net(f"gelu{spelling}")
    x = net.input(["N", 5, D])
    y = _gelu(net, _linear(net, net.node("Tanh", [x]), D, WIDE), spelling)
    y = net.node("Mul", [_linear(net, y, WIDE, D), net.const(net.scale(D))])
    net.output(net.node("Add", [x, y]))
    return net.model()


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_gelu_stays_whole_and_the_layer_scale_goes(spelling):
    model = _feed_forward(spelling)
    result = bnfold.fold(model, verify=False)
    folded = result.to_proto()
    assert judge.wrong_outputs(model, folded) == []
    assert judge.affine_count(folded) == judge.affine_count(model) - 1
    kinds = ("Erf", "Tanh", "Div", "Pow")
    before, after = (Counter(n.op_type for n in m.graph.node) for m in (model, folded))
    assert {k: before[k] for k in kinds} == {k: after[k] for k in kinds}
    whole = [s for s in result.report.stays if s.refusals[0].code is Code.IDIOM]
    assert len(whole) == (4 if spelling[0] == "tanh" else 3)


@pytest.mark.parametrize("spelling", [("div", h) for h in ("behind", "in front", "beside")])
def test_the_runtime_still_recognises_a_gelu(spelling, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    model = _feed_forward(spelling)
    found = []
    for number, proto in enumerate((model, bnfold.fold(model, verify=False).to_proto())):
        options = runtime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / f"{number}.onnx")
        options.log_severity_level = 4
        level = runtime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.graph_optimization_level = level
        cpu = ["CPUExecutionProvider"]
        runtime.InferenceSession(proto.SerializeToString(), options, providers=cpu)
        import onnx

        ran = onnx.load(options.optimized_model_filepath)
        found.append(Counter(node.op_type for node in ran.graph.node)["Erf"])
    assert found[1] == 0


def test_a_gelu_is_put_in_the_order_that_the_runtime_knows():
    model = _feed_forward(("div", "beside"))
    (step, _) = bnfold.fold(model, verify=False).report.steps
    assert (step.rule, step.move) == ("Gelu", "reordered")
    again = bnfold.fold(bnfold.fold(model, verify=False).to_proto(), verify=False)
    assert again.report.steps == ()


def test_an_erf_that_is_no_gelu_protects_nothing():
    net = Net("no gelu")
    x = net.input(["N", 5, D])
    y = _linear(net, net.node("Tanh", [x]), D, WIDE)
    y = net.node("Add", [net.node("Erf", [y]), net.const(1.0)])
    net.output(
        net.node("Mul", [net.node("Mul", [y, y]), net.const(0.25)]), shape=["N", 5, WIDE]
    )
    result = bnfold.fold(net.model(), verify=False)
    codes = {r.code for stay in result.report.stays for r in stay.refusals}
    assert Code.IDIOM not in codes


def _layer_norm(net, x, axes, scale, bias, epsilon):
    keep = {"axes": axes, "keepdims": 1}
    centred = net.node("Sub", [x, net.node("ReduceMean", [x], **keep)])
    square = net.node("Pow", [centred, net.const(2.0)])
    variance = net.node("ReduceMean", [square], **keep)
    root = net.node("Sqrt", [net.node("Add", [variance, net.const(epsilon)])])
    y = net.node("Div", [centred, root])
    y = net.node("Mul", [y, net.const(scale)])
    return y if bias is None else net.node("Add", [net.const(bias), y])


@given(
    shape=st.sampled_from([(2, 5), (2, 3, 4), (2, 3, 2, 4)]),
    count=st.integers(1, 2),
    spread=st.sampled_from(["full", "scalar", "row"]),
    biased=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_a_spelled_out_layer_norm_becomes_the_operator(shape, count, spread, biased, seed):
    count = min(count, len(shape) - 1)
    sizes = shape[len(shape) - count :]
    rng = np.random.default_rng(seed)
    like = {"full": sizes, "scalar": (), "row": (1, *sizes)}[spread]
    scale, bias = rng.normal(1, 0.5, like), rng.normal(0, 1, like) if biased else None
    net = Net(f"ln{seed}")
    x = net.input(shape)
    axes = list(range(-count, 0))
    net.output(net.node("Tanh", [_layer_norm(net, x, axes, scale, bias, 1e-5)]))
    model = net.model()
    folded = bnfold.fold(model, verify=False).to_proto()
    assert judge.wrong_outputs(model, folded) == []
    assert [node.op_type for node in folded.graph.node] == ["LayerNormalization", "Tanh"]


def test_a_norm_over_channels_is_no_layer_norm_and_its_tail_folds():
    net = Net("channels")
    x = net.input([2, D, 4, 4])
    y = _layer_norm(net, x, [1], net.scale(D).reshape(-1, 1, 1), None, 1e-5)
    net.output(net.conv(y, D, 4))
    model = net.model()
    folded = bnfold.fold(model, verify=False).to_proto()
    assert judge.wrong_outputs(model, folded) == []
    assert judge.affine_count(folded) == judge.affine_count(model) - 1


@pytest.mark.parametrize("norms", [False, True])
def test_before_opset_17_the_tail_stays_unless_asked_for(norms):
    net = Net("old layer norm", opset=13)
    x = net.input([2, 4, D])
    y = _layer_norm(net, x, [-1], net.scale(D), net.shift(D), 1e-5)
    net.output(_linear(net, y, D, WIDE))
    model = net.model()
    result = bnfold.fold(model, verify=False, norms=norms)
    folded = result.to_proto()
    assert judge.wrong_outputs(model, folded) == []
    assert judge.affine_count(folded) == judge.affine_count(model) - 2 * norms
    if not norms:
        said = [s.refusals[0] for s in result.report.stays if s.refusals[0].code is Code.IDIOM]
        assert len(said) == 2
        assert all("--norms" in refusal.remedy for refusal in said)
