"""What a run shows that a proof had missed is another function, and no lost accuracy."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import bnfold
from bnfold.evidence import check_fold
from bnfold.records import Verdict
from bnfold.report.verify_text import verify_to_text
from tests.evidence.nets import model_of

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
HALF, BRAIN = TensorProto.FLOAT16, TensorProto.BFLOAT16
N = helper.make_node
RNG = np.random.default_rng(1)
STORED = {
    "w": RNG.normal(size=(4, 3, 3, 3)).astype(np.float32),
    "zero": np.float32(0),
    "below": np.float32(-1e-30),
    "three": np.float32(3),
    "two": np.array([2]),
}


def behind_relu(*nodes: object, kind: int = FLOAT, shape: object = None) -> ir.Model:
    """A convolution, a ReLU, whose zeros are ties, and what reads them."""
    front = [N("Conv", ["x", "w"], ["c"]), N("Relu", ["c"], ["r"])]
    faces = (
        [helper.make_tensor_value_info("x", FLOAT, [2, 3, 8, 8])],
        [helper.make_tensor_value_info("y", kind, shape)],
    )
    stored = [numpy_helper.from_array(np.asarray(a), n) for n, a in STORED.items()]
    return model_of([*front, *nodes], *faces, stored, 17)


def chosen(compare: str) -> ir.Model:
    return behind_relu(
        N(compare, ["r", "zero"], ["g"]), N("Where", ["g", "r", "three"], ["y"])
    )


def argmax(**settings: int) -> ir.Model:
    return behind_relu(N("ArgMax", ["r"], ["y"], axis=1, **settings), kind=INT64)


def top(largest: int) -> ir.Model:
    node = N("TopK", ["r", "two"], ["v", "y"], axis=1, largest=largest)
    return behind_relu(node, kind=INT64)


def compared(compare: str, bound: str) -> ir.Model:
    return behind_relu(N(compare, ["r", bound], ["y"]), kind=BOOL)


def not_zero(compare: str) -> ir.Model:
    nodes = [N(compare, ["r", "zero"], ["g"]), N("NonZero", ["g"], ["y"])]
    return behind_relu(*nodes, kind=INT64)


WRONG = {
    "a strict comparison": (chosen("Greater"), chosen("GreaterOrEqual")),
    "the last of equal ones": (argmax(), argmax(select_last_index=1)),
    "the smallest": (top(1), top(0)),
    "truth values": (compared("Less", "zero"), compared("LessOrEqual", "zero")),
    "the same operator, another bound": (
        compared("Greater", "zero"), compared("Greater", "below"),
    ),
    "another shape": (not_zero("Greater"), not_zero("GreaterOrEqual")),
}  # fmt: skip


@pytest.mark.parametrize("pair", WRONG.values(), ids=WRONG)
def test_another_function_behind_a_proof_is_no_lost_accuracy(pair) -> None:
    report = check_fold(*pair, proved=True)
    assert report.verdict is Verdict.FAILED
    assert report.contradicts
    assert not report.only_accuracy
    assert report.why.startswith("another function: the run contradicts the proof")
    assert "'y'" in report.why
    assert "accurate" not in report.why


def test_choices_that_nothing_explains_fail_without_a_proof_too() -> None:
    report = check_fold(*WRONG["the same operator, another bound"])
    assert report.verdict is Verdict.FAILED
    assert "in float64 too" in report.why


def near_ties(*, folded: bool) -> ir.Model:
    """ArgMax between channels that are equal but for rounding; and the fold of the scales."""
    rng = np.random.default_rng(2)
    weight = np.repeat(rng.normal(size=(1, 3, 3, 3)), 4, axis=0)
    factor = np.array([1, 3, 7, 11]).reshape(-1, 1, 1, 1)
    weight, scale = (weight * factor).astype(np.float32), (1 / factor[:, 0]).astype(np.float32)
    stored = {"w": weight, "s": scale}
    nodes = [N("Conv", ["x", "w"], ["c"]), N("Mul", ["c", "s"], ["m"])]
    if folded:
        wide = weight.astype(np.float64) * scale[:, None].astype(np.float64)
        stored = {"w": wide.astype(np.float32)}
        nodes = [N("Conv", ["x", "w"], ["m"])]
    nodes.append(N("ArgMax", ["m"], ["y"], axis=1))
    faces = (
        [helper.make_tensor_value_info("x", FLOAT, [2, 3, 8, 8])],
        [helper.make_tensor_value_info("y", INT64, [2, 1, 6, 6])],
    )
    return model_of(
        nodes, *faces, [numpy_helper.from_array(a, n) for n, a in stored.items()], 17
    )


@pytest.mark.parametrize("proved", [True, False])
def test_choices_that_rounding_decides_pass(proved) -> None:
    """Negative control: most indices are others, and every nudge makes them others again."""
    report = check_fold(near_ties(folded=False), near_ties(folded=True), proved=proved)
    assert report.passed, report.why
    assert not report.contradicts


def shifted(size: float) -> tuple[ir.Model, ir.Model]:
    """x · 1.1, and the same with a number added and taken away again."""
    faces = (
        [helper.make_tensor_value_info("x", FLOAT, [2, 3, 8, 8])],
        [helper.make_tensor_value_info("y", FLOAT, [2, 3, 8, 8])],
    )
    stored = {"s": np.float32(1.1), "a": np.float32(size)}
    held = [numpy_helper.from_array(a, n) for n, a in stored.items()]
    plain = [N("Mul", ["x", "s"], ["y"])]
    around = [
        N("Mul", ["x", "s"], ["m"]),
        N("Add", ["m", "a"], ["n"]),
        N("Sub", ["n", "a"], ["y"]),
    ]
    return model_of(plain, *faces, held, 17), model_of(around, *faces, held, 17)


@pytest.mark.parametrize(
    ("size", "said"), [(2000.0, "less accurately"), (3e8, "in float64 both models agree")]
)
def test_digits_that_only_the_runtime_loses_are_accuracy(size: float, said: str) -> None:
    """Negative control: in float64 both are the same, so the proof is not contradicted."""
    report = check_fold(*shifted(size), proved=True)
    assert report.verdict is Verdict.FAILED
    assert not report.contradicts
    assert report.only_accuracy
    assert said in report.why
    assert "float64" in report.why


def through(kind: int) -> ir.Model:
    faces = (
        [helper.make_tensor_value_info("x", FLOAT, [2, 400])],
        [helper.make_tensor_value_info("y", FLOAT, [2, 400])],
    )
    nodes = [N("Cast", ["x"], ["c"], to=kind), N("Cast", ["c"], ["y"], to=FLOAT)]
    return model_of(nodes, *faces, [], 21)


def test_accuracy_that_is_clearly_lost_is_said_first() -> None:
    """Three bits fewer on the way: eight times the error, and within what is refused."""
    report = bnfold.verify(through(HALF), through(BRAIN))
    assert report.passed
    assert report.warnings[0].startswith("accuracy is lost: the error of output 'y'")
    lines = str(verify_to_text(report, "a", "b")).splitlines()
    assert "accuracy is lost" in lines[1]


def test_the_same_cast_loses_nothing() -> None:
    """Negative control."""
    report = bnfold.verify(through(HALF), through(HALF))
    assert report.passed
    assert not any("accuracy" in warning for warning in report.warnings)


def test_what_passes_shows_no_distance_of_indices() -> None:
    """Class 7 is no nearer to 8 than to 800: indices are counted."""
    report = bnfold.verify(near_ties(folded=False), near_ties(folded=True))
    assert report.passed, report.why
    (found,) = report.metrics
    assert found.changed > 0
    assert found.max_abs == 0
    assert "cosine" not in str(verify_to_text(report, "a", "b"))


def cast_through(kind: int) -> ir.Model:
    faces = (
        [helper.make_tensor_value_info("ids", INT64, [2, 6])],
        [helper.make_tensor_value_info("y", FLOAT, [2, 6])],
    )
    nodes = [N("Cast", ["ids"], ["c"], to=kind), N("Cast", ["c"], ["y"], to=FLOAT)]
    return model_of(nodes, *faces, [], 17)


@pytest.mark.parametrize(("kind", "passed"), [(TensorProto.INT8, False), (INT64, True)])
def test_a_narrower_integer_on_the_way_is_seen(kind, passed) -> None:
    """Numbers from 0 to 7 fit every type. Control: one that is wide enough is the same."""
    report = check_fold(cast_through(TensorProto.INT32), cast_through(kind), proved=True)
    assert (report.verdict is Verdict.FAILED) is not passed
    assert report.contradicts is not passed
