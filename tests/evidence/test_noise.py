"""Nudges move floats by one unit in the last place at most, and nothing that is a shape."""

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnfold.evidence.noise import Draw, Pattern, is_structure, nudge, nudging, roundoff
from bnfold.evidence.variants import fixed_constants
from tests.evidence.nets import model_of


@pytest.mark.parametrize("pattern", list(Pattern))
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.float64])
def test_a_nudge_is_at_most_one_unit_in_the_last_place(
    pattern: Pattern, dtype: type, rng: np.random.Generator
) -> None:
    array = rng.normal(0, 1, (40, 5)).astype(dtype)
    unit = roundoff(array.dtype)
    nudged = nudge(array, (1, 2), pattern, unit)
    assert (nudged.dtype, nudged.shape) == (array.dtype, array.shape)
    moved = (nudged.astype(np.float64) - array.astype(np.float64)) / array.astype(np.float64)
    assert np.count_nonzero(moved) > 0.9 * moved.size
    assert np.abs(moved).max() <= 2 * unit
    signs = np.sign(moved)
    rows = {len(set(row[row != 0])) for row in signs}
    match pattern:
        case Pattern.EACH:
            assert rows == {1, 2}
        case Pattern.ROWS:
            assert rows == {1}
            assert {-1, 1} <= set(signs.ravel())
        case Pattern.WHOLE:
            assert len(set(signs[signs != 0])) == 1


def test_a_nudge_repeats_for_the_same_key_and_never_overflows() -> None:
    array = np.array([0.0, np.inf, -np.inf, np.finfo(np.float32).max], np.float32)
    first, again = (nudge(array, (3, 4), Pattern.EACH, 2.0**-24) for _ in range(2))
    assert first.tobytes() == again.tobytes()
    assert np.isfinite(first).tolist() == [True, False, False, True]
    assert first[0] == 0


def test_shapes_and_exponents_are_never_nudged() -> None:
    stored = {"two": 2.0, "factors": [1.0, 1.0, 2.0, 2.0], "gain": 3.0}
    constants = [
        numpy_helper.from_array(np.float32(value), name) for name, value in stored.items()
    ]
    nodes = [
        helper.make_node("Pow", ["x", "two"], ["p"]),
        helper.make_node("Identity", ["factors"], ["sizes"]),
        helper.make_node("Resize", ["p", "", "sizes"], ["r"]),
        helper.make_node("Mul", ["r", "gain"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy")
    fixed = fixed_constants(model_of(nodes, [x], [y], constants))
    assert {"two", "factors", "sizes"} <= fixed
    assert "gain" not in fixed


def test_only_free_float_constants_change() -> None:
    change = nudging(Draw(0, Pattern.EACH), frozenset({"fixed"}), frozenset())
    floats, whole = ir.tensor(np.float32([1.5, 2.5])), ir.tensor(np.array([1, 2]))
    assert change("fixed", floats) is floats
    assert change("whole", whole) is whole
    changed = change("free", floats)
    assert changed.dtype is floats.dtype
    assert changed.numpy().tolist() != floats.numpy().tolist()


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.float64])
def test_numbers_that_are_exact_on_purpose_stay(dtype: type) -> None:
    largest = ml_dtypes.finfo(dtype).max
    structure = [0, 1, -1, 2, 0.5, -10000, float(largest), -np.inf, 2.0**-9]
    for value in structure:
        assert is_structure(np.asarray(value, dtype)), value
    assert is_structure(np.asarray([0, 1, 1, 0], dtype))
    for value in (0.1, -0.3333, 1.0078125 * 2.0**-3):
        assert not is_structure(np.asarray(value, dtype)), value
    weights = np.random.default_rng(0).normal(size=(8, 8)).astype(dtype)
    assert not is_structure(weights)
    assert is_structure(np.float32(-1e9))


def test_what_a_discontinuous_operator_reads_from_counts_is_fixed_and_weights_are_not() -> (
    None
):
    stored = {"third": 0.3333, "limit": 0.7, "w": np.ones((3, 3)) / 3, "scale": 0.3}
    constants = [
        numpy_helper.from_array(np.asarray(value, np.float32), name)
        for name, value in stored.items()
    ]
    nodes = [
        helper.make_node("Cast", ["ids"], ["count"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["count", "third"], ["part"]),
        helper.make_node("Floor", ["part"], ["whole"]),
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Mul", ["m", "scale"], ["s"]),
        helper.make_node("Greater", ["s", "limit"], ["is_more"]),
        helper.make_node("Where", ["is_more", "s", "whole"], ["y"]),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3]),
        helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", 3]),
    ]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    fixed = fixed_constants(model_of(nodes, inputs, [y], constants))
    assert {"third", "limit"} <= fixed
    assert not {"w", "scale"} & fixed
