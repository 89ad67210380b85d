"""Evidence that erred on 2026-11-30: wrong folds that passed, right ones that were refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import onnx
import pytest

import bnfold
from bnfold.evidence.proof import prove, read_certificate
from bnfold.model.io import opened
from bnfold.records import CONSTANT_INPUTS, REQUANTIZED, Verdict
from tests.evidence.proof.models import (
    KINDS,
    N,
    bn_pool_conv,
    changed,
    conv_bn,
    conv_then,
    folded,
    forged,
    identity_skip,
    linear,
    model,
    patch_embedding,
    proofs,
    qdq,
    scale_through_cast,
    spoiled,
    stored,
    wide,
)

Build = Callable[[], onnx.ModelProto]
SLICE = [N("Slice", ["a", "s", "e", "x2"], ["p"])]
STEPS = [N("Slice", ["a", "s", "e", "x2", "st"], ["p"])]
CROP = {"pd": np.array([0, 0, -4, -4, 0, 0, -3, -3])}


def ints(**numbers: int) -> dict[str, np.ndarray]:
    return {name: np.array([number]) for name, number in numbers.items()}


def pool(op: str, k: int, stride: int = 1) -> Build:
    one = N(op, ["a"], ["p"], kernel_shape=[k, k], strides=[stride] * 2)
    return lambda: conv_then([one], {})


CUT_SHORT: dict[str, Build] = {
    "conv 5": lambda: conv_bn(5, 16),
    "conv 7": lambda: conv_bn(7, 16),
    "conv 11, stride 4": lambda: conv_bn(11, 64, 4),
    "patch embedding 16": lambda: patch_embedding(16, 64),
    "max pool 5": pool("MaxPool", 5),
    "average pool 7": pool("AveragePool", 7, 3),
    "slice": lambda: conv_then(SLICE, ints(s=0, e=8, x2=2)),
    "slice backwards": lambda: conv_then(STEPS, ints(s=-1, e=2, x2=3, st=-3)),
    "crop": lambda: conv_then([N("Pad", ["a", "pd"], ["p"])], CROP),
}
"""What compared nothing, because an axis was cut shorter than a window of it."""


@pytest.mark.parametrize("name", CUT_SHORT)
def test_spoiled_weights_behind_long_windows_never_pass(name: str) -> None:
    """Each spoiled tensor is found by the walk alone; 36 of 42 such mutants passed."""
    original = CUT_SHORT[name]()
    result = folded(original)
    kinds = ["all", "tap", "bias"]
    turn = list(CUT_SHORT).index(name)
    for report in proofs(original, result):
        assert report.passed, report.why
        assert report.share == 1.0
        assert report.elements > 0
    wrong = spoiled(result.to_proto(), kinds[turn % 3])
    assert prove(opened(original), opened(wrong)).verdict is Verdict.FAILED
    certificate = read_certificate(result.certificate.to_json())
    report = prove(opened(original), opened(wrong), certificate)
    assert report.verdict is Verdict.FAILED


@pytest.mark.parametrize("what", ["all", "tap", "bias"])
def test_every_kind_of_fault_behind_a_7_by_7_window_is_named(what: str) -> None:
    original = conv_bn(7, 16)
    wrong = spoiled(folded(original).to_proto(), what)
    report = prove(opened(original), opened(wrong))
    assert report.verdict is Verdict.FAILED
    assert report.findings[0].node == "conv"
    assert report.findings[0].channel == (None if what == "all" else 1) or what == "all"


# ------------------------------------------------------------------- forged certificates

LINEAR = ("conv", "Gemm", "MatMul", "ConvTranspose")
Forgery = Callable[[dict[str, np.ndarray]], dict[str, dict]]
FORGERIES: dict[str, Forgery] = {
    "wrong numbers as recipes": lambda held: {n: {"numbers": a} for n, a in held.items()},
    "recipes left out": lambda _: {},
    "maps of nothing": lambda held: {
        name: {
            "made": "map",
            "settings": {"scale": np.array(0.0), "shift": array},
            "of": [{"numbers": np.zeros_like(array)}],
        }
        for name, array in held.items()
    },
}


def network(op: str, dtype: str, seed: int = 0) -> onnx.ModelProto:
    if op == "conv":
        return conv_bn(7, 16, dtype=dtype, seed=seed)
    return linear(op, dtype, seed)


def with_three_times_the_gamma(op: str, dtype: str) -> tuple[onnx.ModelProto, ...]:
    """An original, and the fold of another one, whose scales are three times as large."""
    original = network(op, dtype)
    name = "g" if op == "conv" else "s"
    wrong = changed(original, {name: 3 * stored(original)[name]})
    return original, folded(wrong).to_proto()


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("op", LINEAR)
def test_forged_certificates_are_refused(op: str, dtype: str) -> None:
    """All of a forgery fits the spoiled file: seal, digests, changes. The walk does not."""
    original, wrong = with_three_times_the_gamma(op, dtype)
    honest = read_certificate(folded(original).certificate.to_json())
    turn = LINEAR.index(op) + list(KINDS).index(dtype)
    for place, forge in enumerate(FORGERIES.values()):
        if op != "conv" and place != turn % len(FORGERIES):
            continue
        words = (CONSTANT_INPUTS, REQUANTIZED) if place % 2 else ()
        certificate = forged(original, wrong, forge(stored(wrong)), honest, words)
        assert certificate.sealed
        report = prove(opened(original), opened(wrong), certificate)
        assert report.verdict is Verdict.FAILED, place


@pytest.mark.parametrize("op", LINEAR)
def test_a_certificate_of_another_network_dressed_as_this_ones_is_refused(op: str) -> None:
    original, other = network(op, "float32"), network(op, "float32", seed=1)
    result = folded(other)
    foreign = read_certificate(result.certificate.to_json())
    recipes = {one.change.name: one.recipe for one in foreign.tensors if one.recipe}
    certificate = forged(original, result.to_proto(), recipes, foreign)
    report = prove(opened(original), opened(result.to_proto()), certificate)
    assert report.verdict is Verdict.FAILED
    certificate = forged(original, result.to_proto(), {}, foreign)
    report = prove(opened(original), opened(result.to_proto()), certificate)
    assert report.verdict is Verdict.FAILED


@pytest.mark.parametrize("words", [(CONSTANT_INPUTS,), (REQUANTIZED,)])
def test_an_assumption_that_was_added_acquits_nothing(words: tuple[str, ...]) -> None:
    original, wrong = with_three_times_the_gamma("conv", "float32")
    honest = read_certificate(folded(original).certificate.to_json())
    recipes = {one.change.name: one.recipe for one in honest.tensors if one.recipe}
    certificate = forged(original, wrong, recipes, honest, words)
    report = prove(opened(original), opened(wrong), certificate)
    assert report.verdict is Verdict.FAILED


# --------------------------------------------------------------- right folds, once refused

RIGHT: dict[str, Build] = {
    "average pool 5": lambda: bn_pool_conv(32, 5, 3),
    "average pool 7": lambda: bn_pool_conv(32, 7, 2),
    "padded average pool 7": lambda: bn_pool_conv(16, 7, 1, pad=3),
    **{f"skip {kind}": partial(identity_skip, kind) for kind in ("add", "max", "gate")},
    "skip residual": partial(identity_skip, "residual"),
    **{f"scale by {k}": partial(scale_through_cast, k) for k in ("cast", "castlike", "sdpa")},
    "patch embedding 16": lambda: patch_embedding(16, 48),
    **{f"quantised {op}": partial(qdq, op) for op in ("Conv", "Gemm", "MatMul")},
    "quantised Conv with a bias": lambda: qdq("Conv", bias=True),
    "float64 matrix": lambda: linear("MatMul", "float64"),
    "wide Relu": lambda: wide(512, "Relu"),
    "wide Gelu": lambda: wide(512, "Gelu"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_folds_pass_by_certificate_and_by_the_walk(name: str) -> None:
    original = RIGHT[name]()
    for report in proofs(original, folded(original)):
        assert report.passed, report.why
        assert report.share == 1.0
        assert report.unshown == ()


@pytest.mark.parametrize("name", ["average pool 5", "quantised Conv", "wide Relu"])
def test_right_folds_pass_the_check_of_the_fold(name: str) -> None:
    check = bnfold.fold(RIGHT[name]()).check
    assert check.passed, check.why
    assert check.why == ""
    assert check.proof.passed


@pytest.mark.parametrize("op", ["Conv", "Gemm", "MatMul"])
@pytest.mark.parametrize("factor", [1.01, 2.0])
def test_one_percent_in_front_of_a_quantiser_is_convicted_by_the_walk(
    op: str, factor: float
) -> None:
    """Behind QuantizeLinear most of it is gone: what goes into it is compared."""
    original = qdq(op)
    proto = folded(original).to_proto()
    scales = [
        (name, array)
        for name, array in stored(proto).items()
        if array.dtype.kind == "f" and array.shape in ((8,), (8, 1, 1)) and name not in "gbmv"
    ]
    assert scales
    for name, array in scales:
        array[3] *= factor
        report = prove(opened(original), opened(changed(proto, {name: array})))
        assert not report.passed, name
        # With one number in a sample, all that are drawn may be dead behind the Relu.
        assert report.verdict is Verdict.FAILED or op != "Conv"


# ------------------------------------------- channels that are dead in all that is drawn

TAILS = {
    "Relu": [N("Relu", ["n"], ["y"])],
    "Clip": [N("Clip", ["n", "lo", "hi"], ["y"])],
    "HardSigmoid": [N("HardSigmoid", ["n"], ["y"])],
    "Relu and Floor": [N("Relu", ["n"], ["r"]), N("Floor", ["r"], ["y"])],
    "Relu and Sigmoid": [N("Relu", ["n"], ["r"]), N("Sigmoid", ["r"], ["y"])],
    "Relu and ReduceMax": [N("Relu", ["n"], ["r"]), N("ReduceMax", ["r"], ["y"], axes=[1])],
}


def one_number_in_a_channel(tail: str, seed: int) -> onnx.ModelProto:
    """MatMul, a scale, a shift, and what makes nothing of many numbers; at batch 1."""
    rng = np.random.default_rng(seed)
    held = {"w": rng.normal(size=(8, 6)), "s": rng.uniform(0.5, 1.5, 6)}
    held |= {"t": rng.normal(size=6)}
    if tail == "Clip":
        held |= {"lo": np.float32(0), "hi": np.float32(1)}
    nodes = [
        N("MatMul", ["x", "w"], ["a"]),
        N("Mul", ["a", "s"], ["p"]),
        N("Add", ["p", "t"], ["n"]),
        *TAILS[tail],
    ]
    return model(nodes, held, [("x", [1, 8])], [("y", None)])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("tail", TAILS)
def test_one_channel_times_two_never_passes_where_it_may_be_dead(tail: str, seed: int) -> None:
    """Two of six passed behind Relu, four of six behind Clip: the self-test turned the sign
    of the channel, which wakes it, and did not ask whether its size shows.
    """
    original = one_number_in_a_channel(tail, seed)
    result = folded(original)
    assert all(report.passed for report in proofs(original, result))
    weight = stored(result.to_proto())["w"]
    weight[:, seed] *= 2
    wrong = changed(result.to_proto(), {"w": weight})
    report = prove(opened(original), opened(wrong))
    assert not report.passed
    assert report.verdict is Verdict.FAILED or "channels of" in report.why
