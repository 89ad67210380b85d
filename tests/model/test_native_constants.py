"""Constants in the graph's own types: the arithmetic, the lists, and what is left undone."""

from __future__ import annotations

import ast
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bnfold.evidence
from bnfold.evidence.reference import smooth
from bnfold.model import evaluate
from bnfold.model.constants import Constant
from bnfold.model.continuity import NATURES, UNKNOWN, Precision, holds, nature_of
from bnfold.model.facts import Facts
from bnfold.model.io import from_proto
from bnfold.model.native import Native, UndecidedError, decided, stepwise
from bnfold.records import Refusal
from tests.chains import NUMBERS, SMOOTH, TYPES, Chain

BITS = st.integers(0, 2**32 - 1)
OPERATIONS = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Sqrt": lambda x, _: np.sqrt(x),
}


def _held(model, name: str) -> Constant | Refusal:
    facts = Facts(from_proto(model))
    found = {v.name: v for node in facts.nodes() for v in node.outputs}
    return facts.constant(found[name])


# -------------------------------------------------------------------------------- arithmetic


@pytest.mark.parametrize("kind", list(TYPES))
@pytest.mark.parametrize("operation", list(OPERATIONS))
def test_one_operation_is_rounded_as_its_type_rounds_it(kind, operation):
    """Of any bit patterns: subnormals, infinities and NaN among them."""
    dtype = TYPES[kind][1]
    rng = np.random.default_rng(5)
    words = rng.integers(0, 2 ** (8 * dtype.itemsize), (2, 50_000), dtype=np.uint64)
    a, b = words.astype(f"u{dtype.itemsize}").view(dtype)
    with np.errstate(all="ignore"):
        wanted = OPERATIONS[operation](a, b)
        (found,) = stepwise(
            lambda x: [np.asarray(OPERATIONS[operation](*x))],
            [Native(a), Native(b)],
            dtype,
            Precision.EXACT,
        )
    assert found.elements.dtype == dtype
    assert not found.others
    np.testing.assert_array_equal(found.elements.astype(float), wanted.astype(float))


@settings(max_examples=60)
@given(
    st.sampled_from(list(TYPES)),
    st.lists(st.floats(0.125, 64, width=16), min_size=3, max_size=3),
    st.lists(st.tuples(st.sampled_from(SMOOTH), st.sampled_from(NUMBERS)), max_size=8),
)
def test_chains_give_the_numbers_of_their_type(kind, start, steps):
    chain = Chain.begin(kind, start).then("Neg", 0)
    for op, number in steps:
        chain.then(op, number)
    held = _held(chain.weight(), chain.name)
    assert isinstance(held, Constant)
    wanted = chain.array.astype(np.float64)
    np.testing.assert_array_equal(held.stored().astype(np.float64), wanted)


@settings(max_examples=40)
@given(
    st.lists(st.floats(0.125, 64, width=16), min_size=3, max_size=3),
    st.lists(st.tuples(st.sampled_from(SMOOTH), st.sampled_from(NUMBERS)), max_size=8),
)
def test_chains_give_the_numbers_of_the_runtime(start, steps):
    runtime = pytest.importorskip("tests.battery.runtime")
    chain = Chain.begin("float32", start).then("Neg", 0)
    for op, number in steps:
        chain.then(op, number)
    model = chain.weight()
    held = _held(model, chain.name)
    element = model.graph.output[0].type.tensor_type.elem_type
    model.graph.output.append(onnx.helper.make_tensor_value_info(chain.name, element, [3]))
    feeds = {"x": np.zeros((1, 3, 2, 2), np.float32)}
    found, complaint = runtime.outputs(model, feeds, optimised=False)
    assert complaint == ""
    np.testing.assert_array_equal(held.stored(), found[chain.name])


def test_unrounded_numbers_stay_as_they_are():
    """What maps are composed from is rounded once, however long the chain is."""
    chain = (
        Chain.begin("float32", [2.0, 3.0]).then("Sqrt", 0).then("Mul", 0.7).then("Mul", 0.7)
    )
    held = _held(chain.weight(), chain.name)
    factor = float(np.float32(0.7))
    np.testing.assert_allclose(held.wide(), np.sqrt([2, 3]) * factor**2, rtol=1e-15)
    np.testing.assert_array_equal(held.stored(), chain.array)


# ------------------------------------------------------------------------------- laziness


def test_nothing_is_computed_that_nobody_asks_for(monkeypatch):
    monkeypatch.setattr(evaluate, "as_type", lambda *_: pytest.fail("computed at once"))
    monkeypatch.setattr(evaluate, "stepwise", lambda *_: pytest.fail("computed at once"))
    chain = Chain.begin("float32", [2.0, 3.0]).then("Mul", 0.7).then("Add", 0.7)
    held = _held(chain.weight(), chain.name)
    assert isinstance(held, Constant)
    assert held.wide().shape == (2,)


def test_long_chains_are_no_recursion():
    chain = Chain.begin("float32", [2.0, 3.0])
    for _ in range(1500):
        chain.then("Add", 0.1)
    chain.then("Floor", 0)
    held = _held(chain.weight(), chain.name)
    np.testing.assert_array_equal(held.stored(), chain.array)


# ----------------------------------------------------------------------------- uncertainty


def _sum(numbers, precision=Precision.REDUCTION) -> Native:
    array = np.asarray(numbers, np.float32)
    (found,) = stepwise(
        lambda x: [np.asarray(x[0].sum(keepdims=True))],
        [Native(array)],
        array.dtype,
        precision,
    )
    return found


def test_sums_of_small_integers_are_sure():
    assert not _sum(np.arange(32)).others
    assert _sum(np.arange(32) * 0.1).others
    assert _sum(np.full(64, 2.0**20 + 1)).others  # 2^26 has no neighbour at a distance of 1


def test_variants_hold_what_any_order_of_adding_gives():
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=200).astype(np.float32)
    found = _sum(numbers)
    low = min(float(other[0]) for other in found.others)
    high = max(float(other[0]) for other in found.others)
    for _ in range(200):
        total = np.float32(0)
        for number in rng.permutation(numbers):
            total += number
        assert low <= total <= high


def test_a_step_between_two_variants_is_undecided():
    near = np.float32(2) - np.spacing(np.float32(1))
    unsure = Native(np.array([2.0], np.float32), (np.array([near], np.float32),) * 6)
    with pytest.raises(
        UndecidedError, match="float32 arithmetic on a runtime could go either"
    ):
        decided(lambda x: [np.floor(x[0])], [unsure], "Floor f", 0.0)
    decided(lambda x: [np.floor(x[0] + 0.5)], [unsure], "Floor f", 0.0)


def test_two_unsure_operands_are_moved_apart_and_together():
    def around(x):
        others = tuple(np.array([x + s * 1e-6], np.float32) for s in (1, -1, 1, -1, 1, -1))
        return Native(np.array([x], np.float32), others)

    pair = [around(2.0), around(np.float32(2.0) - 2e-6)]
    with pytest.raises(UndecidedError):
        decided(lambda x: [x[0] > x[1]], pair, "Greater g", 0.0)


# ----------------------------------------------------------------------------------- lists


def test_what_is_in_no_list_is_taken_for_a_step():
    assert nature_of("SomethingNew") is UNKNOWN
    assert not UNKNOWN.continuous
    assert not smooth.is_smooth(ir.Node("", "SomethingNew", ()))
    assert not smooth.is_smooth(ir.Node("foreign", "Add", ()))


def test_folder_and_judge_agree_on_what_is_continuous():
    """Two lists by two hands; where they differ, one of them is wrong."""
    for op, nature in NATURES.items():
        assert nature.continuous == smooth.is_smooth(ir.Node("", op, ())), op


def test_every_operator_that_the_folder_computes_is_known():
    assert set(NATURES) >= evaluate.COMPUTES


@pytest.mark.parametrize("op", ["Floor", "Ceil", "Round", "Mod", "Sign", "Greater", "Equal"])
@pytest.mark.parametrize("more", ["ArgMax", "TopK", "NonZero", "QuantizeLinear", "Hardmax"])
def test_steps_are_steps(op, more):
    for kind in (op, more):
        assert not nature_of(kind).continuous
        assert not smooth.is_smooth(ir.Node("", kind, ()))


@pytest.mark.parametrize("source", list(TYPES))
@pytest.mark.parametrize("target", list(TYPES))
def test_a_cast_is_the_identity_where_every_number_fits(source, target):
    one, two = (ir.DataType(TYPES[kind][0]) for kind in (source, target))
    words = np.random.default_rng(0).integers(0, 2**63, 2000, dtype=np.uint64)
    dtype = TYPES[source][1]
    numbers = words.view(dtype) if dtype.itemsize < 8 else words.view(np.float64)
    with np.errstate(all="ignore"):
        wide = numbers.astype(np.float64)
        there = (
            wide.astype(np.float32).astype(ml_dtypes.bfloat16)
            if target == "bfloat16"
            else wide
        )
        back = there.astype(TYPES[target][1]).astype(np.float64)
    fits = bool(np.array_equal(back, wide, equal_nan=True))
    assert holds(two, one) == smooth.fits_into(one, two) == fits


def test_the_judge_imports_none_of_the_folders_arithmetic():
    forbidden = {
        f"bnfold.model.{name}" for name in ("evaluate", "native", "continuity", "steps")
    }
    for path in Path(bnfold.evidence.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = {a.name for a in node.names} if isinstance(node, ast.Import) else set()
            if isinstance(node, ast.ImportFrom):
                names = {node.module or ""}
            assert not names & forbidden, path
