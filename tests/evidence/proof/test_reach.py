"""What no number that is drawn lets through proves nothing of what lies behind it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import bnfold
from bnfold.records import Verdict
from tests.battery.cases import ALL
from tests.evidence.proof.models import FLOAT, N, changed, model, stored

SHAPE = (1, 4, 6)


def chosen(slope: float, bound: str) -> onnx.ModelProto:
    """``x`` where it is at least ``bound``, else a part of it; a scale in front of it all."""
    nodes = [
        N("Mul", ["x_in", "scale"], ["x"]),
        N("CastLike", ["slope", "x"], ["alpha"]),
        N("CastLike", [bound, "x"], ["limit"]),
        N("Less", ["x", "limit"], ["below"]),
        N("Mul", ["x", "alpha"], ["part"]),
        N("Where", ["below", "part", "x"], ["y"]),
        N("Mul", ["y", "one"], ["out"]),
    ]
    stored = {
        "scale": np.linspace(0.5, 2.0, 4).reshape(1, 4, 1),
        "slope": np.array(slope),
        "zero": np.array(0.0),
        "far": np.array(-1e30),
        "one": np.full((1, 1, 1), 1.5),
    }
    stored = {name: a for name, a in stored.items() if name not in {"zero", "far"} - {bound}}
    return model(nodes, stored, [("x_in", SHAPE)], [("out", SHAPE)])


def test_a_slope_behind_less_and_where_is_compared() -> None:
    """The zero is ``CastLike(0, x)``: drawn as a number, it once left one branch untaken."""
    right, wrong = chosen(0.01, "zero"), chosen(0.0101, "zero")
    assert bnfold.verify(right, chosen(0.01, "zero"), run=False).verdict is Verdict.PASSED
    report = bnfold.verify(right, wrong, run=False)
    assert report.verdict is Verdict.FAILED
    assert report.proof is not None
    assert report.proof.findings[0].where in ("alpha", "part")


@pytest.mark.parametrize("factor", [1.01, -3.0])
def test_a_map_in_a_branch_that_is_never_taken_is_not_passed(factor: float) -> None:
    wrong = chosen(0.01 * factor, "far")
    report = bnfold.verify(chosen(0.01, "far"), wrong, run=False)
    assert report.verdict is Verdict.NOT_JUDGED
    assert "reaches the result" in report.why or "could be seen" in report.why


def test_a_mask_that_hangs_on_a_shape_alone_needs_no_map() -> None:
    """The mask of a Dropout is all ones at inference, whatever goes in."""
    nodes = [
        N("Mul", ["x", "scale"], ["m"]),
        N("Dropout", ["m"], ["d", "mask"]),
        N("Conv", ["d", "w"], ["y"]),
    ]
    stored = {
        "scale": np.linspace(0.5, 2.0, 4).reshape(1, 4, 1),
        "w": np.random.default_rng(0).standard_normal((3, 4, 2)),
    }
    outputs = [("y", (1, 3, 5)), ("mask", SHAPE, onnx.TensorProto.BOOL)]
    before = model(nodes, stored, [("x", SHAPE, FLOAT)], outputs)
    after = bnfold.fold(before, verify=False)
    assert after.report.steps
    assert bnfold.verify(before, after, run=False).verdict is Verdict.PASSED


@pytest.mark.parametrize("name", ["q", "scores"])
def test_sequences_among_the_values_are_no_hindrance(name: str) -> None:
    """They have no shape that could be looked up: that ended `certificate=True` once."""
    case = next(one for one in ALL if one.name == f"paths/qkv/Sequence/{name}")
    result = bnfold.fold(case.build(), certificate=True, verify=False)
    report = bnfold.verify(case.build(), result, certificate=result.certificate, run=False)
    assert report.verdict is Verdict.PASSED


def test_an_output_of_constants_alone_is_compared_with_the_noise_of_its_storage() -> None:
    """Half an ulp of a stored sum is no other function; a tenth of it is."""
    rng = np.random.default_rng(1)
    nodes = [
        N("Constant", [], ["c"], value=onnx.numpy_helper.from_array(np.float32(1 / 3))),
        N("Add", ["c", "t"], ["sum"]),
        N("Gemm", ["sum", "w"], ["y"]),
        N("Relu", ["x"], ["z"]),
    ]
    stored = {"t": rng.standard_normal((2, 4)), "w": rng.standard_normal((4, 3))}
    outputs = [("y", (2, 3)), ("z", (1,))]
    before = model(nodes, stored, [("x", (1,))], outputs)
    total = onnx.numpy_helper.to_array(before.graph.initializer[0]) + np.float32(1 / 3)
    for factor, verdict in ((1.0, Verdict.PASSED), (1.1, Verdict.FAILED)):
        held = {"sum": (total * np.float32(factor)).astype(np.float64), "w": stored["w"]}
        after = model(nodes[2:], held, [("x", (1,))], outputs)
        assert bnfold.verify(before, after, run=False).verdict is verdict


@pytest.mark.parametrize("attribute", ["ceil_mode", "pads"])
@pytest.mark.parametrize("sizes", [("H", "W"), (8, 8)])
def test_open_axes_are_of_every_length_modulo_strides(attribute: str, sizes: tuple) -> None:
    """On even axes a window of two at stride two ends alike, however it rounds."""

    def pooled(**attributes: object) -> onnx.ModelProto:
        nodes = [
            N("Mul", ["x", "s"], ["m"], name="mul"),
            N(
                "AveragePool",
                ["m"],
                ["p"],
                "pool",
                kernel_shape=[2, 2],
                strides=[2, 2],
                **attributes,
            ),
            N("Add", ["p", "t"], ["y"], name="add"),
        ]
        stored = {"s": np.full((1, 3, 1, 1), 2.0), "t": np.full((1, 3, 1, 1), 0.5)}
        return model(nodes, stored, [("x", (1, 3, *sizes))], [("y", (1, 3, "h", "w"))], 19)

    changed = {"ceil_mode": 1} if attribute == "ceil_mode" else {"pads": [0, 0, 1, 1]}
    report = bnfold.verify(pooled(), pooled(**changed), run=False)
    assert report.verdict is (Verdict.FAILED if "H" in sizes else Verdict.PASSED)


def test_a_value_that_is_zero_for_all_inputs_is_not_drawn() -> None:
    """A Conv that reads nothing but padding is the same as its negative: what is computed of
    it was compared on numbers that it never has, and a right fold was refused."""
    nodes = [
        N("Conv", ["x", "w"], ["c"], pads=[1, 0, 1, 0], kernel_shape=[2, 1], dilations=[2, 1]),
        N("ReduceMin", ["c"], ["r"], axes=[3], keepdims=1),
        N("Neg", ["r"], ["n"]),
        N("MatMul", ["v", "n"], ["m"]),
        N("Relu", ["m"], ["y"]),
    ]
    rng = np.random.default_rng(3)
    stored = {
        "w": rng.standard_normal((1, 2, 2, 1)),
        "v": np.abs(rng.standard_normal((8, 1))),
    }
    before = model(nodes, stored, [("x", (2, 2, 1, 1))], [("y", (2, 1, 8, 1))])
    result = bnfold.fold(before, certificate=True, verify=False)
    assert result.report.steps
    report = bnfold.verify(before, result, run=False)
    assert report.verdict is Verdict.NOT_JUDGED
    assert "could be seen" in report.why


def _of_sizes(*, stored: float | None) -> onnx.ModelProto:
    """An output that hangs on the size of an input alone; computed, or stored and off."""
    rng = np.random.default_rng(3)
    plane = rng.normal(size=(1, 2, 6, 6)).astype(np.float32)
    held = {
        "plane": plane,
        "t": np.float32(-0.75),
        "w": rng.normal(size=(4, 2, 3, 3)).astype(np.float32),
        "rest": np.array([2, 6, 6], np.int64),
    }
    nodes = [
        helper.make_node("Relu", ["x"], ["z"], name="relu"),
        helper.make_node("Shape", ["x"], ["n"], name="shape", start=0, end=1),
        helper.make_node("Concat", ["n", "rest"], ["sizes"], name="concat", axis=0),
        helper.make_node("Expand", ["plane", "sizes"], ["p"], name="expand"),
        helper.make_node("Sub", ["p", "t"], ["s"], name="sub"),
    ]
    if stored is not None:
        held = {"s": np.repeat(plane, 3, 0) + np.float32(stored), "w": held["w"]}
        nodes = nodes[:1]
    nodes.append(helper.make_node("Conv", ["s", "w"], ["y"], name="conv"))
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", [3, 5]), ("z", [3, 5]), ("y", [3, 4, 4, 4]))
    ]
    tensors = [numpy_helper.from_array(np.asarray(one), name) for name, one in held.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("offset", "verdict"),
    [(0.75, Verdict.PASSED), (0.0, Verdict.FAILED), (0.76, Verdict.FAILED)],
)
def test_an_output_of_sizes_alone_that_is_off_by_a_map_is_no_same_one(offset, verdict):
    """No relation was noted for it, and none was read as: the same."""
    report = bnfold.verify(_of_sizes(stored=None), _of_sizes(stored=offset), run=False)
    assert report.verdict is verdict


def test_ids_that_are_floats_are_drawn_as_ids() -> None:
    """Any other number is no index: the proof saw nothing, a short run refused the fold."""
    rng = np.random.default_rng(4)
    nodes = [
        N("Cast", ["x"], ["ids"], name="cast", to=6),
        N("Gather", ["table", "ids"], ["e"], name="gather"),
        N("Mul", ["e", "s"], ["a"], name="mul"),
        N("Add", ["a", "t"], ["b"], name="add"),
        N("MatMul", ["b", "w"], ["out"], name="matmul"),
    ]
    held = {
        "table": rng.normal(size=(12, 6)),
        "s": rng.uniform(0.5, 1.5, 6),
        "t": rng.normal(size=6),
        "w": rng.normal(size=(6, 3)),
    }
    original = model(nodes, held, [("x", ("n", 7))], [("out", ("n", 7, 3))])
    result = bnfold.fold(original, verify=False)
    assert result.report.steps
    report = bnfold.verify(original, result.to_proto(), run=False)
    assert report.verdict is Verdict.PASSED, report.why
    spoiled = changed(result.to_proto(), {"w": 1.02 * stored(result.to_proto())["w"]})
    assert bnfold.verify(original, spoiled, run=False).verdict is Verdict.FAILED
