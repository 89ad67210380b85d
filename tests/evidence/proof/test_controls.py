"""Negative controls: evidence that is spoiled itself must not acquit, and is noticed."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import bnfold.evidence.proof.comparer as comparer
import bnfold.evidence.reference.typed as typed
from bnfold.errors import CheckFailedError
from bnfold.evidence import check_fold
from bnfold.evidence.proof import prove
from bnfold.evidence.proof.draws import FREE
from bnfold.evidence.proof.extents import Extents
from bnfold.evidence.proof.links import Gap
from bnfold.model import native
from bnfold.model.io import opened
from bnfold.records import Verdict
from tests.evidence.proof.models import (
    BN,
    N,
    bn,
    conv_bn,
    folded,
    linear,
    model,
    patch_embedding,
    proofs,
    qdq,
    spoiled,
    wide,
)

MODELS = {
    "conv": lambda: conv_bn(7, 16),
    "Gemm": lambda: linear("Gemm"),
    "quantised": lambda: qdq("Conv"),
    "wide": lambda: wide(64, "Relu"),
}


@pytest.mark.parametrize("cut", ["differs", "gap and weigh", "gap"])
@pytest.mark.parametrize("name", MODELS)
def test_a_walk_that_compares_nothing_is_inconclusive(
    monkeypatch, name: str, cut: str
) -> None:
    """Where nothing would be noticed, nothing is shown: of right folds and of wrong ones."""
    original = MODELS[name]()
    result = folded(original)
    wrong = spoiled(result.to_proto(), "bias")
    assert prove(opened(original), opened(result.to_proto())).passed
    assert prove(opened(original), opened(wrong)).verdict is Verdict.FAILED
    if cut == "differs":
        monkeypatch.setattr(comparer.Comparer, "differs", lambda *_: None)
    else:
        monkeypatch.setattr(comparer, "gap", lambda *_: Gap(0.0))
    if cut == "gap and weigh":
        monkeypatch.setattr(comparer, "weigh", lambda *_: Gap(0.0))
    acquitted = [*proofs(original, result), prove(opened(original), opened(wrong))]
    for report in acquitted:
        assert report.verdict is Verdict.NOT_JUDGED
        assert report.shown == 0
        assert report.channels > 0
        assert "change nothing that was compared" in report.why


def four_places(_: Extents, dims: Any, *_sizes: Any) -> dict[str, tuple[int, ...]]:
    """Axes as they were cut: to four places, whatever windows there are."""

    def length(axis: int, dim: Any) -> int:
        if not isinstance(dim, int):
            return FREE if axis else 3
        return min(dim, 4) if axis > 1 else dim

    return {
        name: tuple(length(axis, dim) for axis, dim in enumerate(entry))
        for name, entry in dims.items()
    }


@pytest.mark.parametrize("name", ["conv 7", "patch embedding"])
def test_axes_that_are_cut_too_short_pass_nothing(monkeypatch, name: str) -> None:
    """The fault of the first draft, brought back: 36 of 42 wrong folds passed."""
    original = conv_bn(7, 16) if name == "conv 7" else patch_embedding(16, 32)
    result = folded(original)
    monkeypatch.setattr(Extents, "shapes", four_places)
    for report in proofs(original, result):
        assert report.verdict is Verdict.NOT_JUDGED
        assert report.shown == 0
        assert "no elements at any size" in report.why
    for what in ("all", "tap", "bias"):
        wrong = spoiled(result.to_proto(), what)
        assert prove(opened(original), opened(wrong)).verdict is Verdict.NOT_JUDGED


def test_the_same_cut_is_no_harm_where_windows_are_short(monkeypatch) -> None:
    original = conv_bn(3, 16)
    result = folded(original)
    monkeypatch.setattr(Extents, "shapes", four_places)
    assert all(report.passed for report in proofs(original, result))
    wrong = spoiled(result.to_proto(), "tap")
    assert prove(opened(original), opened(wrong)).verdict is Verdict.FAILED


def on_a_grid(seed: int = 4, c: int = 8) -> onnx.ModelProto:
    """Weights Floor(W / s) · s of a W on the grid: one rounding decides each integer."""
    rng = np.random.default_rng(seed)
    grid = np.arange(-7, 8).astype(np.float32)
    drawn = rng.uniform(0.01, 0.05, 4000).astype(np.float32)
    good = [
        s
        for s in drawn
        if (np.floor((grid * s) / s) == grid).all()
        and (np.floor((grid * s).astype(float) / float(s)) != grid).any()
    ]
    s = np.float32(good[:c]).reshape(c, 1, 1, 1)
    k = rng.integers(-7, 8, (c, 3, 3, 3)).astype(np.float32)
    nodes = [
        N("Div", ["W", "s"], ["d"]),
        N("Floor", ["d"], ["f"]),
        N("Mul", ["f", "s"], ["w"]),
        N("Conv", ["x", "w"], ["c"]),
        N("BatchNormalization", ["c", *BN], ["y"]),
    ]
    held = {**bn(rng, c), "W": k * s, "s": s}
    return model(nodes, held, [("x", ["n", 3, 6, 6])], [("y", ["n", c, 4, 4])])


def towards_zero(wide: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Round as no float32 arithmetic does."""
    near = wide.astype(dtype)
    if dtype != np.float32:
        return near
    beyond = np.abs(near.astype(np.float64)) > np.abs(wide)
    return np.where(beyond, np.nextafter(near, np.float32(0)), near)


def test_a_reference_that_shares_a_mistake_is_convicted_by_the_run(monkeypatch) -> None:
    """Folder and reference both compute other integers: no proof sees it, the runtime does."""
    original = on_a_grid()
    right = folded(original)
    assert all(report.passed for report in proofs(original, right))
    assert check_fold(opened(original), opened(right.to_proto())).passed
    monkeypatch.setattr(typed, "round_once", towards_zero)
    with pytest.raises(CheckFailedError, match="computes another function"):
        folded(original)  # the folder has arithmetic of its own: the mistake is not shared
    monkeypatch.setattr(native, "round_once", towards_zero)
    wrong = folded(original)
    assert all(report.passed for report in proofs(original, wrong))
    report = check_fold(opened(original), opened(wrong.to_proto()))
    assert report.verdict is Verdict.FAILED
    assert check_fold(opened(original), opened(wrong.to_proto()), proved=True).why
