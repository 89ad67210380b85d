"""Drawn chains of constants that end in a weight, an index or a branch.

The folded model must compute on ONNX Runtime what the original computes there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bnfold
from bnfold.evidence.reference import tracking
from bnfold.expression import Expression
from bnfold.folding import constants
from bnfold.model import evaluate
from bnfold.model.constants import Constant
from bnfold.model.continuity import Nature, nature_of
from tests.chains import CURVES, NUMBERS, SMOOTH, STEPS, Chain
from tests.reference64 import run64

runtime = pytest.importorskip("tests.battery.runtime")

_STARTS = st.lists(st.integers(0, 120).map(float), min_size=4, max_size=4)
_NUMBERS = st.sampled_from(NUMBERS)


def _steps(kinds):
    """A product of integers that may be one itself once it is rounded, a step, and more."""
    first = st.tuples(st.sampled_from(["Mul", "Div"]), _NUMBERS)
    step = st.tuples(st.sampled_from(STEPS), _NUMBERS)
    more = st.lists(st.tuples(st.sampled_from(kinds), _NUMBERS), max_size=4)
    return st.tuples(first, step, more).map(lambda drawn: [drawn[0], drawn[1], *drawn[2]])


def _chain(start, steps) -> Chain | None:
    chain = Chain.begin("float32", start)
    for op, number in steps:
        chain.then(op, number)
    sane = np.isfinite(chain.array).all() and np.abs(chain.array).max() < 1e6
    return chain if sane else None


def _model(chain: Chain, end: str):
    if end == "weight":
        return chain.weight()
    if end == "index":
        return chain.then("Mod", 30.0).index()
    return chain.branch(float(chain.array[0]))


def _difference(model) -> tuple[float, bool]:
    """Between folded and original on the runtime, and whether the site was folded."""
    shape = [dim.dim_value or 2 for dim in model.graph.input[0].type.tensor_type.shape.dim]
    feeds = {"x": np.random.default_rng(1).normal(size=shape).astype(np.float32)}
    folded = bnfold.fold(model, verify=False).to_proto()
    wanted, complaint = runtime.outputs(model, feeds, optimised=False)
    got, other = runtime.outputs(folded, feeds, optimised=False)
    assert complaint == other == ""
    scale = max(float(np.abs(wanted["y"]).max()), 1e-3)
    done = all(node.op_type != "BatchNormalization" for node in folded.graph.node)
    return float(np.abs(wanted["y"].astype(float) - got["y"]).max()) / scale, done


@settings(max_examples=150)
@given(
    _STARTS, _steps([*SMOOTH, *STEPS, *STEPS]), st.sampled_from(["weight", "index", "branch"])
)
def test_chains_of_ieee_operators_are_decided_as_the_runtime_decides(start, steps, end):
    chain = _chain(start, steps)
    if chain is not None:
        model = _model(chain, end)
        gap, done = _difference(model)
        assert gap < 1e-5
        assert done


@settings(max_examples=75)
@given(
    _STARTS, _steps([*SMOOTH, *STEPS, *CURVES]), st.sampled_from(["weight", "index", "branch"])
)
def test_chains_of_inexact_operators_are_never_decided_wrongly(start, steps, end):
    chain = _chain(start, steps)
    if chain is not None:
        # a difference of nearly equal numbers is as uncertain on the runtime itself
        assert _difference(_model(chain, end))[0] < 1e-2


@settings(max_examples=60)
@given(
    _STARTS, _steps([*SMOOTH, *STEPS, *STEPS]), st.sampled_from(["weight", "index", "branch"])
)
def test_the_reference_decides_as_the_runtime_does(start, steps, end):
    chain = _chain(start, steps)
    if chain is None:
        return
    model = _model(chain, end)
    shape = [dim.dim_value or 2 for dim in model.graph.input[0].type.tensor_type.shape.dim]
    feeds = {"x": np.random.default_rng(1).normal(size=shape).astype(np.float32)}
    wanted, _ = runtime.outputs(model, feeds, optimised=False)
    found = run64(model, feeds)["y"]
    np.testing.assert_allclose(found, wanted["y"], rtol=0, atol=1e-4 * np.abs(found).max())


# --------------------------------------------------------------------- negative controls

_TELLING = [
    ([5.0, 10.0, 20.0, 1.0], [("Mul", 0.7), ("Floor", 0.0), ("Add", 0.3)], "weight"),
    ([10.0, 20.0, 5.0, 1.0], [("Mul", 0.7), ("Floor", 0.0)], "index"),
    ([10.0, 20.0, 5.0, 1.0], [("Mul", 0.7), ("Max", 0.0)], "branch"),
]
"""10 · 0.7f is 7 in float32 and 6.99999988 before it is rounded."""


@contextmanager
def _unrounded_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The folder as it was: whatever computes, computes in float64."""

    def continuous(op_type: str) -> Nature:
        return Nature(continuous=True, precision=nature_of(op_type).precision)

    def cast(_work, source, target):
        elements = source.wide() if source.is_float else source.stored()
        return Constant(Expression.of(elements.astype(target.numpy())), target)

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "nature_of", continuous)
        patch.setattr(evaluate, "_cast", cast)
        patch.setattr(constants._Steps, "as_stored", lambda _self, _value, held: held)
        yield


@pytest.mark.parametrize(("start", "steps", "end"), _TELLING)
def test_an_unrounded_folder_is_noticed(start, steps, end, monkeypatch):
    model = _model(_chain(start, steps), end)
    assert _difference(model)[0] < 1e-5
    with _unrounded_folder(monkeypatch):
        assert _difference(model)[0] > 1e-2


def _drawn(seed: int):
    rng = np.random.default_rng(seed)
    kinds = [rng.choice(["Mul", "Div"]), rng.choice(STEPS), *rng.choice(SMOOTH, 2)]
    steps = [(str(kind), float(rng.choice(NUMBERS))) for kind in kinds]
    end = ("weight", "index", "branch")[seed % 3]
    chain = _chain(rng.integers(0, 120, 4), steps)
    return None if chain is None else _model(chain, end)


def test_an_unrounded_folder_fails_the_property(monkeypatch):
    models = [model for seed in range(60) if (model := _drawn(seed)) is not None]
    assert all(_difference(model)[0] < 1e-5 for model in models)
    with _unrounded_folder(monkeypatch):
        wrong = sum(_difference(model)[0] > 1e-3 for model in models)
    assert wrong >= 3


@pytest.mark.parametrize(("start", "steps", "end"), _TELLING)
def test_an_unrounded_judge_is_noticed(start, steps, end, monkeypatch):
    model = _model(_chain(start, steps), end)
    shape = [dim.dim_value or 2 for dim in model.graph.input[0].type.tensor_type.shape.dim]
    feeds = {"x": np.random.default_rng(1).normal(size=shape).astype(np.float32)}
    honest = run64(model, feeds)["y"]
    monkeypatch.setattr(tracking, "_is_smooth", lambda _node, _given: True)
    assert np.abs(run64(model, feeds)["y"] - honest).max() > 1e-2 * np.abs(honest).max()


@pytest.mark.parametrize(("start", "steps", "end"), _TELLING)
def test_folder_and_judge_do_not_share_their_rounding(start, steps, end, monkeypatch):
    """Where one of them reads unrounded numbers, the proof must not pass."""
    model = _model(_chain(start, steps), end)
    honest = bnfold.fold(model, verify=False)
    assert bnfold.verify(model, honest.model, run=False).passed
    with _unrounded_folder(monkeypatch):
        wrong = bnfold.fold(model, verify=False)
    assert not bnfold.verify(model, wrong.model, run=False).passed
