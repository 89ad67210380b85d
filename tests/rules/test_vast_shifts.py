"""A vast shift stays beside what it cancels with: parted from it, all else would be lost."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import bnfold
from bnfold.records import Code, Verdict
from tests.battery import judge
from tests.battery.graphs import Net
from tests.evidence.proof.models import INT64, N, folded, model, proofs
from tests.rules.around import assert_stays, takes_all
from tests.small import operators

LOWEST = float(np.finfo(np.float32).min)
SHAPE = [2, 3, 4]


def attention(low: float, axis: int = 1, scale: float = 1.0) -> onnx.ModelProto:
    """Attention under (1 − mask) · low, and a scale per channel behind its projection."""
    rng = np.random.default_rng(0)
    width = 8
    held = {n: rng.normal(size=(width, width)) / width**0.5 for n in ("q", "k", "v", "o")}
    held |= {
        "one": np.float32(1),
        "low": np.float32(low),
        "ax": np.array([axis]),
        "s": scale * rng.uniform(0.5, 1.5, width),
    }
    nodes = [
        N("Cast", ["mask"], ["mf"], to=1, name="float"),
        N("Sub", ["one", "mf"], ["inv"], name="inverse"),
        N("Mul", ["inv", "low"], ["b0"], name="penalty"),
        N("Unsqueeze", ["b0", "ax"], ["bias"], name="widen"),
        *(N("MatMul", ["x", name], [f"{name}x"], name=name) for name in "qkv"),
        N("Transpose", ["kx"], ["kt"], perm=[0, 2, 1], name="turn"),
        N("MatMul", ["qx", "kt"], ["z"], name="scores"),
        N("Add", ["z", "bias"], ["zz"], name="masked"),
        N("Softmax", ["zz"], ["p"], axis=-1, name="softmax"),
        N("MatMul", ["p", "vx"], ["c"], name="context"),
        N("MatMul", ["c", "o"], ["u"], name="out"),
        N("Mul", ["u", "s"], ["y"], name="scale"),
    ]
    inputs = [("x", ["n", "t", width]), ("mask", ["n", "t"], INT64)]
    return model(nodes, held, inputs, [("y", ["n", "t", width])])


@pytest.mark.parametrize("low", [LOWEST, -1e9, -65504.0, -1e4])
def test_a_penalty_keeps_what_it_cancels_with(low: float) -> None:
    """Its Sub stays: with the mask as scale and a shift of its own, scores would be lost."""
    result = folded(attention(low))
    assert "Sub" in operators(result.to_proto())
    assert [step.site for step in result.report.steps] == [("scale",)]
    whys = [r for stay in result.report.stays for r in stay.refusals]
    assert any(one.code is Code.OUT_OF_RANGE and "may cancel" in one.why for one in whys)
    for report in proofs(attention(low), result):
        assert report.passed, report.why


def test_the_fold_of_a_masked_attention_passes_its_own_check() -> None:
    check = bnfold.fold(attention(LOWEST)).check
    assert check.passed, check.why


@pytest.mark.parametrize("low", [LOWEST, -1e4])
def test_a_mask_along_another_axis_is_convicted(low: float) -> None:
    """Open masks alone do not show along which axis they close."""
    right, wrong = attention(low), attention(low, axis=2)
    report = bnfold.verify(right, wrong, run=False)
    assert report.verdict is Verdict.FAILED
    assert bnfold.verify(right, right, run=False).passed


def test_one_percent_behind_a_mask_is_convicted_by_the_walk() -> None:
    report = bnfold.verify(attention(LOWEST), attention(LOWEST, scale=1.01), run=False)
    assert report.verdict is Verdict.FAILED


# --------------------------------------------------------------- operator by operator


def behind(op: str, shift: float) -> onnx.ModelProto:
    """x + shift, an operator that lets it vanish or through, and constants that take it."""
    net = Net("behind")
    x = net.node("Sigmoid", [net.input(SHAPE)])
    moved = net.node("Add", [x, net.const(np.array(shift))])
    if op == "Softmax":
        y = net.node(op, [moved], axis=-1)
    elif op == "LayerNormalization":
        y = net.node(op, [moved, net.const(np.full(4, 1.5)), net.const(np.ones(4))])
    else:
        other = net.node("Sigmoid", [net.input(SHAPE, "z")])
        y = net.node(op, [moved, other])
    net.output(takes_all(net, y, behind=True))
    return net.model()


OPERATORS = ["Softmax", "LayerNormalization", "Add", "Sub", "Sum", "Mean"]


@pytest.mark.parametrize("op", OPERATORS)
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_vast_shift_stays_and_a_usual_one_goes(op: str, sign: float) -> None:
    assert_stays(behind(op, sign * 1e5), Code.OUT_OF_RANGE)
    usual = behind(op, sign * 10.0)
    result = bnfold.fold(usual, verify=False)
    gone = judge.affine_count(usual) - judge.affine_count(result.to_proto())
    assert gone == 1, [r for stay in result.report.stays for r in stay.refusals]
    assert judge.wrong_outputs(usual, result.to_proto()) == []


@pytest.mark.parametrize("op", ["Add", "Sum"])
def test_a_vast_shift_does_not_go_up_into_one_of_two_operands(op: str) -> None:
    """(a + b) + t: taken into a's bias, a would be rounded to units in the last place of t."""
    net = Net("up")
    arms = [
        net.node("MatMul", [net.input(SHAPE, name), net.const(net.rng.normal(size=(4, 5)))])
        for name in ("x", "z")
    ]
    y = net.node(op, arms)
    net.output(net.node("Add", [y, net.const(np.array(-1e5))]))
    assert_stays(net.model(), Code.OUT_OF_RANGE)
