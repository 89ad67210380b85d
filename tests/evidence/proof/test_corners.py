"""What numbers drawn at random do not meet: ties, thresholds, zeros, and bodies not taken."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import bnfold
from bnfold.evidence.proof import certify
from bnfold.evidence.proof import segments as segments_of_proofs
from bnfold.model.io import opened
from bnfold.records import Charge, Verdict

Pair = tuple[onnx.ModelProto, onnx.ModelProto]
N = helper.make_node
SHAPE = [2, 4, 6, 6]


def _held(**arrays: object) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(np.asarray(one), name) for name, one in arrays.items()]


def _behind_relu(nodes, kind=TensorProto.FLOAT, shape=SHAPE, tensors=(), opset=17):
    """Nodes that read ``r``, the result of Conv and Relu, and write ``y``."""
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(4, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [N("Conv", ["x", "w"], ["c"]), N("Relu", ["c"], ["r"]), *nodes],
        "behind",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 8, 8])],
        [helper.make_tensor_value_info("y", kind, shape)],
        [*_held(w=weight, z=np.float32(0), k=np.float32(3), e=np.float32(1e-12)), *tensors],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8
    )


def _compared(operator: str, number: str, other: str = "k") -> onnx.ModelProto:
    return _behind_relu(
        [N(operator, ["r", number], ["g"]), N("Where", ["g", "r", other], ["y"])]
    )


def _places(operator: str, **attributes: int) -> onnx.ModelProto:
    node = N(operator, ["r"], ["y"], axis=1, **attributes)
    return _behind_relu([node], TensorProto.INT64, [2, 1, 6, 6])


def _divided(above: str) -> onnx.ModelProto:
    return _behind_relu([N("Add", ["r", "e"], ["q"]), N("Div", [above, "q"], ["y"])])


def _threshold(alpha: float) -> onnx.ModelProto:
    return _behind_relu([N("ThresholdedRelu", ["c"], ["y"], alpha=alpha)])


def _hardmax(nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    return _behind_relu(nodes, tensors=_held(d=np.int64(4), v=np.float32([0, 1])))


def _last_place() -> list[onnx.NodeProto]:
    place = N("ArgMax", ["r"], ["a"], axis=1, select_last_index=1, keepdims=0)
    return [place, N("OneHot", ["a", "d", "v"], ["y"], axis=1)]


TIES: dict[str, Callable[[], Pair]] = {
    "Greater, GreaterOrEqual": lambda: (
        _compared("Greater", "z"),
        _compared("GreaterOrEqual", "z"),
    ),
    "Less, LessOrEqual": lambda: (_compared("Less", "z"), _compared("LessOrEqual", "z")),
    "at another number": lambda: (
        _compared("Less", "k", "z"),
        _compared("LessOrEqual", "k", "z"),
    ),
    "ArgMax": lambda: (_places("ArgMax"), _places("ArgMax", select_last_index=1)),
    "ArgMin": lambda: (_places("ArgMin", select_last_index=1), _places("ArgMin")),
    "zero over nearly zero": lambda: (_divided("r"), _divided("q")),
    "Hardmax": lambda: (
        _hardmax([N("Hardmax", ["r"], ["y"], axis=1)]),
        _hardmax(_last_place()),
    ),
    "ThresholdedRelu, 10 %": lambda: (_threshold(1.0), _threshold(1.1)),
    "ThresholdedRelu, 0.1 %": lambda: (_threshold(1.0), _threshold(1.001)),
    "ThresholdedRelu, below zero": lambda: (_threshold(-0.5), _threshold(-0.51)),
}


UNREACHED = {"at another number", "ThresholdedRelu, 0.1 %", "ThresholdedRelu, below zero"}
"""Inputs that are drawn hardly reach one number, or what lies between two that are near."""


@pytest.mark.parametrize("kind", TIES)
def test_what_differs_at_single_numbers_does_not_pass(kind):
    original, wrong = TIES[kind]()
    assert bnfold.verify(original, original, run=False).passed
    claim, _ = certify(opened(original), opened(wrong), (), {})
    for certificate in (None, claim):
        report = bnfold.verify(original, wrong, certificate=certificate, run=False)
        if kind in UNREACHED:
            assert not report.passed
        else:
            assert report.verdict is Verdict.FAILED


def test_without_such_numbers_it_would_pass(monkeypatch):
    """Negative control: nothing else sees a tie."""
    monkeypatch.setattr(segments_of_proofs, "corners", lambda *_: iter(()))
    passed = [bnfold.verify(*pair(), run=False).passed for pair in TIES.values()]
    assert sum(passed) >= len(TIES) - 2


def test_a_threshold_that_took_a_factor_may_be_rounded():
    """The factor is no power of two: what is compared with is rounded, and no tie is drawn."""
    alphas = [np.float32(1.0) / np.float32(3.0), np.float64(1.0) / 3.0]
    original, folded = (_threshold(float(one)) for one in alphas)
    assert bnfold.verify(original, folded, run=False).passed


def _graph(nodes, result="p", inputs=()):
    out = helper.make_tensor_value_info(result, TensorProto.FLOAT, [2, 4])
    return helper.make_graph(nodes, result, list(inputs), [out])


def _with_bodies(nodes, tensors=(), inputs=()):
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4]), *inputs]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4])
    graph = helper.make_graph(nodes, "bodies", given, [out], [*tensors])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _if(number: float, threshold: float, *, then: bool = True) -> onnx.ModelProto:
    """A constant in one branch; the condition is computed from data."""
    value = numpy_helper.from_array(np.float32(number))
    changed = [N("Constant", [], ["kk"], value=value), N("Mul", ["x", "kk"], ["p"])]
    branches = {
        "then_branch": _graph(changed),
        "else_branch": _graph([N("Neg", ["x"], ["p"])]),
    }
    if not then:
        branches = dict(zip(branches, reversed(branches.values()), strict=True))
    nodes = [
        N("ReduceMax", ["x"], ["m"], keepdims=0),
        N("Greater", ["m", "t"], ["c"]),
        N("If", ["c"], ["y"], **branches),
    ]
    return _with_bodies(nodes, _held(t=np.float32(threshold)))


def _nested(alpha: float) -> onnx.ModelProto:
    """The third way of three, behind two conditions."""
    inner = N(
        "If",
        ["c2"],
        ["p"],
        then_branch=_graph([N("Abs", ["x"], ["a"])], "a"),
        else_branch=_graph([N("LeakyRelu", ["x"], ["b"], alpha=alpha)], "b"),
    )
    outer = N(
        "If",
        ["c1"],
        ["y"],
        then_branch=_graph([inner]),
        else_branch=_graph([N("Neg", ["x"], ["e"])], "e"),
    )
    numbers = [N("ReduceMax", ["x"], ["m"], keepdims=0), N("Greater", ["m", "t"], ["c1"])]
    numbers += [N("ReduceMin", ["x"], ["l"], keepdims=0), N("Greater", ["l", "u"], ["c2"])]
    return _with_bodies([*numbers, outer], _held(t=np.float32(50), u=np.float32(-60)))


def _loop(alpha: float, threshold: float) -> onnx.ModelProto:
    body = helper.make_graph(
        [N("Identity", ["i"], ["o"]), N("LeakyRelu", ["s"], ["q"], alpha=alpha)],
        "body",
        [
            helper.make_tensor_value_info("n", TensorProto.INT64, []),
            helper.make_tensor_value_info("i", TensorProto.BOOL, []),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, [2, 4]),
        ],
        [
            helper.make_tensor_value_info("o", TensorProto.BOOL, []),
            helper.make_tensor_value_info("q", TensorProto.FLOAT, [2, 4]),
        ],
    )
    nodes = [
        N("ReduceMax", ["x"], ["m"], keepdims=0),
        N("Greater", ["m", "t"], ["c"]),
        N("Loop", ["times", "c", "x"], ["y"], body=body),
    ]
    return _with_bodies(nodes, _held(t=np.float32(threshold), times=np.int64(3)))


BODIES: dict[str, Callable[[float], onnx.ModelProto]] = {
    "the first branch, never taken": lambda number: _if(number, 1000.0),
    "the second branch, always": lambda number: _if(number, -1000.0, then=False),
    "the first branch, rarely": lambda number: _if(number, 3.0),
    "behind two conditions": _nested,
    "a Loop that does not begin": lambda number: _loop(number, 1000.0),
}


@pytest.mark.parametrize("kind", BODIES)
def test_a_body_that_no_drawn_number_takes_is_compared(kind):
    right, wrong = BODIES[kind](0.25), BODIES[kind](0.75)
    assert bnfold.verify(right, right, run=False).passed
    assert bnfold.verify(right, wrong, run=False).verdict is Verdict.FAILED


def test_a_branch_that_constants_decide_is_not_forced():
    """What a constant condition never takes may be anything: a fold leaves it out."""
    value = numpy_helper.from_array(np.float32(2.0))
    kept = [N("Constant", [], ["kk"], value=value), N("Mul", ["x", "kk"], ["p"])]
    node = N(
        "If",
        ["c"],
        ["y"],
        then_branch=_graph(kept),
        else_branch=_graph([N("Neg", ["x"], ["p"])]),
    )
    sized = [
        N("Shape", ["x"], ["s"]),
        N("Equal", ["s", "one"], ["e"]),
        N("ReduceMin", ["f"], ["g"], keepdims=0),
    ]
    sized.insert(2, N("Cast", ["e"], ["f"], to=TensorProto.INT32))
    sized.append(N("Cast", ["g"], ["c"], to=TensorProto.BOOL))
    models = [
        _with_bodies([node], _held(c=np.array(1, bool))),
        _with_bodies([*sized, node], _held(one=np.int64([2, 4]))),
    ]
    plain = _with_bodies([N("Mul", ["x", "kk"], ["y"])], _held(kk=np.float32(2.0)))
    for model in models:
        report = bnfold.verify(model, plain, run=False, refold=False)
        assert report.passed, report.why


def test_a_cast_to_another_type_is_for_a_run_to_judge():
    def model(to: int) -> onnx.ModelProto:
        nodes = [N("Cast", ["r"], ["h"], to=to), N("Cast", ["h"], ["y"], to=TensorProto.FLOAT)]
        return _behind_relu(nodes)

    half, brain = model(TensorProto.FLOAT16), model(TensorProto.BFLOAT16)
    report = bnfold.verify(half, brain, run=False)
    assert report.verdict is Verdict.NOT_JUDGED
    assert "casts to bfloat16" in report.why
    assert bnfold.verify(half, half, run=False).passed


def test_a_top_k_that_does_not_sort_gives_any_order():
    def model(is_sorted: int) -> onnx.ModelProto:
        node = N("TopK", ["r", "n"], ["y", "i"], axis=1, sorted=is_sorted)
        return _behind_relu([node], shape=[2, 2, 6, 6], tensors=_held(n=np.int64([2])))

    report = bnfold.verify(model(1), model(0), run=False)
    assert report.verdict is Verdict.NOT_JUDGED
    assert "sort" in report.why
    assert bnfold.verify(model(0), model(1), run=False).passed


def _with_default(numbers, *, is_input: bool = True) -> onnx.ModelProto:
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])]
    if is_input:
        given.append(helper.make_tensor_value_info("k", TensorProto.FLOAT, [4]))
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4])
    held = _held(k=np.asarray(numbers, np.float32))
    graph = helper.make_graph([N("Mul", ["x", "k"], ["y"])], "default", given, [out], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_the_default_of_an_input_is_a_part_of_the_function():
    original = _with_default([1, 2, 3, 4])
    assert bnfold.verify(original, _with_default([1, 2, 3, 4]), run=False).passed
    other = bnfold.verify(original, _with_default([-7, 0, 100, 5]), run=False)
    assert other.verdict is Verdict.FAILED
    assert other.proof.findings[0].charge is Charge.TENSOR
    gone = bnfold.verify(original, _with_default([1, 2, 3, 4], is_input=False), run=False)
    assert gone.verdict is Verdict.FAILED
    assert gone.proof.findings[0].where == "k"


@pytest.mark.parametrize("bound", [0.5, 1.0, 1.5, 2.0, 2.5])
def test_three_numbers_are_drawn_often_enough_to_meet_a_bound(monkeypatch, bound):
    """Without corners: of one draw all three lie below the bound, more often than not."""
    monkeypatch.setattr(segments_of_proofs, "corners", lambda *_: iter(()))

    def model(read: str) -> onnx.ModelProto:
        nodes = [N("Min", ["x", "b"], ["m"]), N("Neg", [read], ["y"])]
        info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [3]) for n in "xy"]
        held = _held(b=np.float32([bound] * 3))
        graph = helper.make_graph(nodes, "three", info[:1], info[1:], held)
        opsets = [helper.make_opsetid("", 17)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    assert bnfold.verify(model("m"), model("x"), run=False).verdict is Verdict.FAILED
