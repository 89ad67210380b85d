"""HardSigmoid takes one scale and shift; a shift along other axes vanishes in a Softmax."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bnfold
from bnfold.records import Code
from tests.battery import judge, signs
from tests.battery.graphs import Net
from tests.rules.around import (
    SHIFT,
    Map,
    assert_carried,
    assert_does_not_commute,
    assert_stays,
    axis_map,
    below,
    maps,
)

SHAPE = [2, 3, 4]


@given(st.data(), st.sampled_from([{}, {"alpha": 0.3, "beta": 0.1}, {"alpha": -1.0}]))
def test_hard_sigmoid_takes_one_number(data, settings):
    drawn = data.draw(maps(None, None))
    carry = below(lambda n, x: n.node("HardSigmoid", [x], **settings), SHAPE, drawn)
    assert_carried(carry, drawn.nodes)


def test_hard_sigmoid_has_no_channels():
    def gate(net: Net, x: str) -> str:
        return net.node("HardSigmoid", [x])

    assert_does_not_commute(gate, SHAPE, SHIFT)
    assert_stays(below(gate, SHAPE, SHIFT), Code.WRONG_AXIS)


@given(
    st.data(),
    st.sampled_from(["Softmax", "LogSoftmax"]),
    st.integers(-3, 2),
    st.sampled_from([11, 13]),
)
def test_softmax_forgets_shifts(data, op, axis, opset):
    free = [a for a in range(3) if (a != axis % 3 if opset >= 13 else a < axis % 3)]
    drawn = axis_map(data.draw, SHAPE, free)
    drawn = Map(drawn.axis, None, np.asarray(0.7 if drawn.shift is None else drawn.shift))
    if drawn.axis is not None and drawn.shift.ndim == 0:
        drawn = Map(None, None, drawn.shift)
    carry = below(lambda n, x: n.node(op, [x], axis=axis), SHAPE, drawn, opset)
    assert_carried(carry, 1)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize(("opset", "axis"), [(13, 1), (17, -2), (11, 1), (11, 0)])
def test_softmax_sees_shifts_along_its_axis(op, opset, axis):
    def carry(net: Net, x: str) -> str:
        return net.node(op, [x], axis=axis)

    assert_stays(below(carry, SHAPE, SHIFT, opset), Code.WRONG_AXIS)
    nets = []
    for shifted in (True, False):
        net = Net("seen", opset)
        x = net.input(SHAPE)
        y = SHIFT.write(net, x, 3) if shifted else x
        net.output(net.node(op, [y], "seen", axis=axis))
        nets.append(net.model())
    assert judge.wrong_outputs(*nets) != []


def test_softmax_sees_scales():
    double = Map(None, np.array(2.0), None)
    assert_stays(
        below(lambda n, x: n.node("Softmax", [x]), SHAPE, double), Code.UNKNOWN_OPERATOR
    )


FORMS = ("plain", "mul", "late", "early", "late_mul", "early_conv", "late_conv")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("opset", [7, 11, 14, 17])
def test_a_spelled_hard_sigmoid_becomes_the_operator(form, opset):
    runtime = pytest.importorskip("tests.battery.runtime")
    model = signs.hard(form, opset)
    folded = bnfold.fold(model, verify=False).to_proto()
    assert judge.wrong_outputs(model, folded) == []
    kinds = [node.op_type for node in folded.graph.node]
    gated = "late" in form or "early" in form
    wanted = ["HardSwish"] if gated and opset >= 14 else ["HardSigmoid", *["Mul"] * gated]
    assert kinds == ["Conv", *wanted, *["Conv"] * ("conv" in form)]
    feeds = judge.inputs_of(model, 0)
    theirs, complaint = runtime.outputs(model, feeds)
    ours, other = runtime.outputs(folded, feeds)
    assert complaint == other == ""
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-4, atol=1e-5)
    assert bnfold.fold(folded, verify=False).report.steps == ()


def _nearly(net: Net, y: str, change: str) -> str:
    offset, low, high, by = 3.0, 0.0, 6.0, 6.0
    low, by = (-0.1 if change == "low" else low), (5.0 if change == "by" else by)
    gated = net.node(
        "Add", [y, net.const(np.full((6, 1, 1), offset) if change == "c" else 3.0)]
    )
    if change == "read":
        net.output(gated)
    gated = net.node("Clip", [gated, net.const(low), net.const(high)])
    gated = net.node("Mul", [gated, net.node("Abs", [y]) if change == "other" else y])
    left = [net.const(by), gated] if change == "turned" else [gated, net.const(by)]
    return net.node("Div", left)


@pytest.mark.parametrize("change", ["low", "by", "c", "read", "other", "turned"])
def test_what_is_only_nearly_one_is_left(change):
    net, y = signs.first_conv("nearly")
    net.output(_nearly(net, y, change))
    model = net.model()
    folded = bnfold.fold(model, verify=False).to_proto()
    assert judge.wrong_outputs(model, folded) == []
    assert "Clip" in {node.op_type for node in folded.graph.node} or change == "other"


@pytest.mark.parametrize("kind", ["Add", "Clip", "Div"])
def test_skipped_nodes_are_left(kind):
    model = signs.hard("plain", 17)
    folded = bnfold.fold(model, verify=False, skip=[kind]).to_proto()
    assert kind in {node.op_type for node in folded.graph.node}
