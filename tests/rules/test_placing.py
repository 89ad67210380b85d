"""Operators that place elements anew, bend them or add them up, and hold no weights."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bnfold
from bnfold.records import Code
from tests.battery import judge
from tests.battery.graphs import Net
from tests.proving import assert_proved, with_larger_weights
from tests.rules.around import (
    MIXED,
    POSITIVE,
    SHIFT,
    Carry,
    Map,
    above,
    assert_carried,
    assert_does_not_commute,
    assert_harmless,
    assert_stays,
    axis_map,
    below,
    takes_all,
)

SHAPE = [2, 3, 4, 2]
PLACES = [above, below]


def _abs(net: Net, x: str) -> str:
    return net.node("Abs", [x])


def _trilu(net: Net, x: str) -> str:
    return net.node("Trilu", [x], upper=0)


def _cum_sum(axis: int) -> Carry:
    return lambda net, x: net.node("CumSum", [x, net.const(axis, dtype="int64")], exclusive=1)


def _elements(axis: int, sizes: list[int]) -> Carry:
    def carry(net: Net, x: str) -> str:
        indices = net.rng.integers(0, SHAPE[axis], sizes)
        return net.node("GatherElements", [x, net.const(indices, dtype="int64")], axis=axis)

    return carry


def _nd(indices: list, batches: int = 0) -> Carry:
    def carry(net: Net, x: str) -> str:
        at = net.const(np.array(indices), dtype="int64")
        return net.node("GatherND", [x, at], batch_dims=batches)

    return carry


def _reversed(net: Net, x: str) -> str:
    lengths = net.ints(1, 3)
    return net.node("ReverseSequence", [x, lengths], batch_axis=0, time_axis=1)


def _reversed_batch(net: Net, x: str) -> str:
    lengths = net.ints(1, 2, 2)
    return net.node("ReverseSequence", [x, lengths], batch_axis=1, time_axis=0)


def _top_k(axis: int, *, largest: int = 1, also: bool = False) -> Carry:
    def carry(net: Net, x: str) -> str:
        options = {"axis": axis, "largest": largest}
        outputs = ["values", "places"]
        values, places = net.nodes_out("TopK", [x, net.ints(2)], outputs, attributes=options)
        if also:
            net.output(net.node("Cast", [places], to=1))
        return values

    return carry


def _threshold(alpha: float) -> Carry:
    return lambda net, x: net.node("ThresholdedRelu", [x], alpha=alpha)


# --------------------------------------------------------------------------------- scales


@given(st.data(), st.booleans())
def test_abs_keeps_the_size_of_a_scale_in_front_and_a_positive_one_behind(data, up):
    drawn = axis_map(data.draw, SHAPE, [1, 2, 3], positive=up, shift=False)
    assert_carried((above if up else below)(_abs, SHAPE, drawn), 1)


@pytest.mark.parametrize("opset", [7, 12, 13, 21])
def test_a_scale_that_abs_makes_one_is_gone(opset):
    signs = Map(1, np.array([1.0, -1.0, -1.0]), None)
    net = Net("signs", opset)
    net.output(_abs(net, signs.write(net, net.input(SHAPE), 4)))
    folded = assert_harmless(net.model())
    assert [node.op_type for node in folded.graph.node] == ["Abs"]


def test_abs_lets_no_negative_scale_up_and_no_shift():
    assert_does_not_commute(_abs, SHAPE, MIXED)
    assert_does_not_commute(_abs, SHAPE, SHIFT)
    assert_stays(above(_abs, SHAPE, MIXED), Code.NEGATIVE_SCALE)
    for place in PLACES:
        assert_stays(place(_abs, SHAPE, SHIFT), Code.NEEDS_SCALE_ONLY)


@given(st.data(), st.booleans())
def test_any_scale_passes_a_triangle(data, up):
    drawn = axis_map(data.draw, SHAPE, [0, 1, 2, 3], shift=False)
    assert_carried((above if up else below)(_trilu, SHAPE, drawn), 1)


@given(st.data(), st.booleans(), st.sampled_from([2, -1]))
def test_a_scale_passes_a_sum_that_runs_along_another_axis(data, up, axis):
    kept = [one for one in (1, 2, 3) if one != axis % 4]
    drawn = axis_map(data.draw, SHAPE, kept, shift=False)
    assert_carried((above if up else below)(_cum_sum(axis), SHAPE, drawn), 1)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("carry", [_trilu, _cum_sum(2)])
def test_a_shift_passes_neither_zeros_nor_a_running_sum(place, carry):
    assert_does_not_commute(carry, SHAPE, SHIFT)
    assert_stays(place(carry, SHAPE, SHIFT), Code.NEEDS_SCALE_ONLY)


@pytest.mark.parametrize("place", PLACES)
def test_a_scale_along_the_axis_of_a_running_sum_stays(place):
    assert_does_not_commute(_cum_sum(1), SHAPE, POSITIVE)
    assert_stays(place(_cum_sum(1), SHAPE, POSITIVE), Code.WRONG_AXIS)


def test_a_computed_axis_lets_only_one_number_pass():
    def carry(net: Net, x: str) -> str:
        return net.node("CumSum", [x, net.input([], "axis", "int64")])

    assert_stays(below(carry, SHAPE, MIXED), Code.DYNAMIC_CONSTANT)


# ------------------------------------------------------------------------------ placing


@given(st.data(), st.booleans(), st.sampled_from([0, 1, 3, -1]), st.booleans())
def test_a_map_passes_where_elements_are_gathered_along_another_axis(data, up, axis, whole):
    sizes = [n if whole or n < 3 else n - 1 for n in SHAPE]
    kept = [one for one in (1, 2, 3) if one != axis % 4]
    drawn = axis_map(data.draw, sizes if up else SHAPE, kept)
    carry = _elements(axis, sizes)
    assert_carried((above if up else below)(carry, SHAPE, drawn), drawn.nodes)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("carry", [_elements(1, SHAPE), _reversed])
def test_a_map_along_the_axis_that_is_placed_anew_stays(place, carry):
    assert_does_not_commute(carry, SHAPE, MIXED)
    assert_stays(place(carry, SHAPE, MIXED), Code.WRONG_AXIS)


@given(st.data(), st.booleans())
def test_a_map_passes_sequences_that_are_reversed(data, up):
    drawn = axis_map(data.draw, SHAPE, [0, 2, 3])
    assert_carried((above if up else below)(_reversed, SHAPE, drawn), drawn.nodes)


@pytest.mark.parametrize(
    ("indices", "batches", "pairs"),
    [
        ([[1], [0], [1]], 0, [(1, 1), (2, 2), (3, 3)]),
        ([[0, 2], [1, 1]], 0, [(2, 1), (3, 2)]),
        ([[[1, 0]], [[0, 2]]], 0, [(2, 2), (3, 3)]),
        ([[[1], [2]], [[0], [0]]], 1, [(0, 0), (2, 2), (3, 3)]),
        ([[2], [0]], 1, [(0, 0), (2, 1), (3, 2)]),
        ([[0, 1, 2, 1], [1, 0, 0, 0]], 0, []),
    ],
)
@given(data=st.data(), up=st.booleans())
def test_a_map_passes_slices_that_are_picked_as_a_whole(data, up, indices, batches, pairs):
    """``pairs`` are axes in front and behind."""
    axis = data.draw(st.sampled_from([None, *pairs]))
    size = None if axis is None else SHAPE[axis[0]]
    place = None if axis is None else axis[1 if up else 0]
    drawn = axis_map(data.draw, SHAPE, [])
    if size is not None and place is not None:
        drawn = Map(place, data.draw(_numbers(size)), data.draw(_numbers(size)))
    model = (above if up else below)(_nd(indices, batches), SHAPE, drawn)
    assert_carried(model, drawn.nodes)


def _numbers(size: int) -> st.SearchStrategy[np.ndarray]:
    entries = st.floats(0.5, 2.0).flatmap(lambda one: st.sampled_from([one, -one]))
    drawn = st.lists(entries, min_size=size, max_size=size)
    return drawn.map(lambda one: np.array(one) * np.linspace(1.0, 1.5, size))


@pytest.mark.parametrize("place", PLACES)
def test_a_map_along_an_axis_that_indices_pick_from_stays(place):
    carry = _nd([[0, 2], [1, 1]])
    along = Map(1, np.array([1.5, -0.5, 2.0]), None) if place is below else None
    rows = along or Map(0, np.array([1.5, -0.5]), None)
    assert_stays(place(carry, SHAPE, rows), Code.WRONG_AXIS)


# -------------------------------------------------------------------------------- order


@given(st.data(), st.booleans(), st.sampled_from([1, -1, 2]), st.sampled_from([0, 1]))
def test_a_map_of_one_order_passes_the_largest(data, up, axis, largest):
    kept = [one for one in (1, 2, 3) if one != axis % 4]
    drawn = axis_map(data.draw, SHAPE, kept, positive=True)
    carry = _top_k(axis, largest=largest)
    assert_carried((above if up else below)(carry, SHAPE, drawn), drawn.nodes)


@pytest.mark.parametrize("place", PLACES)
def test_a_negative_scale_or_one_along_its_axis_stays_at_the_largest(place):
    assert_does_not_commute(_top_k(2), SHAPE, MIXED)
    assert_stays(place(_top_k(2), SHAPE, MIXED), Code.NEGATIVE_SCALE)
    thirds = Map(2, np.array([0.5, 3.0, 1.0, 2.0]), None)
    twos = Map(2, np.array([0.5, 3.0]), None)
    assert_does_not_commute(_top_k(2), [2, 3, 2, 2], twos)
    sizes, out = (SHAPE, thirds) if place is below else ([2, 3, 2, 2], twos)
    assert_stays(place(_top_k(2), sizes, out), Code.WRONG_AXIS)


@pytest.mark.parametrize("place", PLACES)
def test_nothing_passes_the_largest_where_their_places_are_read(place):
    """Numbers that differ in the last bit may be equal once they are scaled."""
    assert_stays(place(_top_k(2, also=True), SHAPE, POSITIVE), Code.SHARED_VALUE)


def test_scaled_numbers_round_to_ties():
    """Why their places are not the same: the larger of two is the second, and then neither."""
    one = np.float32(1.0)
    pair = np.array([one, np.nextafter(one, np.float32(2.0))])
    assert np.argmax(pair) == 1
    assert np.argmax(pair * np.float32(1.0 / 3.0) + np.float32(9.0)) == 0


# -------------------------------------------------------------------------------- jumps


@given(st.data(), st.booleans())
def test_without_a_threshold_it_is_a_relu(data, up):
    drawn = axis_map(data.draw, SHAPE, [1, 2, 3], positive=True, shift=False)
    assert_carried((above if up else below)(_threshold(0.0), SHAPE, drawn), 1)


@pytest.mark.parametrize("alpha", [1.0, 0.3, -0.7])
@pytest.mark.parametrize("scale", [0.25, 2.0, 1024.0])
@pytest.mark.parametrize("place", PLACES)
def test_a_power_of_two_takes_the_threshold_along(place, scale, alpha):
    model = place(_threshold(alpha), SHAPE, Map(None, np.asarray(scale), None))
    folded = assert_carried(model, 1)
    (node,) = (node for node in folded.graph.node if node.op_type == "ThresholdedRelu")
    (found,) = (a.f for a in node.attribute if a.name == "alpha")
    assert found == np.float32(alpha) * (scale if place is above else 1.0 / scale)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("out", "code"),
    [
        (Map(None, np.asarray(0.3), None), Code.MAPS_DIFFER),
        (Map(None, np.asarray(-2.0), None), Code.NEGATIVE_SCALE),
        (Map(1, np.array([1.0, 2.0, 4.0]), None), Code.WRONG_AXIS),
        (SHIFT, Code.NEEDS_SCALE_ONLY),
        (Map(None, np.asarray(2.0**-140), None), Code.OUT_OF_RANGE),
    ],
)
def test_what_rounds_at_the_threshold_stays(place, out, code):
    if place is below and code is Code.OUT_OF_RANGE:
        out = Map(None, np.asarray(2.0**127), None)
        assert_stays(place(_threshold(1.1 * 2.0**-30), SHAPE, out), code)
        return
    assert_stays(place(_threshold(1.1), SHAPE, out), code)


@pytest.mark.parametrize("first", [True, False])
def test_a_threshold_of_other_scales_would_choose_another_side(first):
    """Tenths of 0.7 + 0.1 and a tenth of 0.8 are not on the same sides in float32."""
    net = Net("edge")
    x = takes_all(net, net.input(SHAPE), behind=False) if first else net.input(SHAPE)
    y = net.node("Mul", [_threshold(0.8)(net, x), net.const(0.1)])
    net.output(y)
    result = bnfold.fold(net.model(), verify=False)
    assert result.report.steps == ()


# ------------------------------------------------------------------------- whole models


OPERATORS = {
    "Abs": _abs,
    "Trilu": _trilu,
    "CumSum": _cum_sum(2),
    "GatherElements": _elements(2, SHAPE),
    "GatherND": _nd([[1], [0]]),
    "ReverseSequence": _reversed_batch,
    "TopK": _top_k(2),
    "ThresholdedRelu": _threshold(0.0),
}


@pytest.mark.parametrize("kind", OPERATORS)
def test_a_batch_normalization_behind_goes_and_the_fold_is_proved(kind):
    net = Net(f"whole{kind}", 17)
    x = net.conv(net.input(SHAPE), 3, 3, kernel=(1, 1))
    y = POSITIVE.write(net, OPERATORS[kind](net, x), 4)
    net.output(net.node("Tanh", [y]))
    model = net.model()
    result = bnfold.fold(model)
    folded = result.to_proto()
    assert [node.op_type for node in folded.graph.node] == ["Conv", kind, "Tanh"]
    assert judge.wrong_outputs(model, folded) == []
    assert result.check is not None
    assert result.check.passed, result.check.why


@pytest.mark.parametrize("channels", [2, 3])
@pytest.mark.parametrize("batch", [1, 2])
def test_the_largest_of_few_values_are_proved(batch, channels):
    """Of two numbers in each slice no map can be told: right folds were called wrong."""
    net = Net(f"few{batch}{channels}", 17)
    x = net.node("Tanh", [net.input([batch, channels, 8])])
    x = net.node("Mul", [x, net.const(net.rng.uniform(0.5, 2.0, 8))])
    y = net.node("Add", [_top_k(1)(net, x), net.const(net.shift(8))])
    net.output(net.node("MatMul", [y, net.const(net.weight(8, 5))]))
    result = bnfold.fold(net.model(), verify=False, certificate=True)
    assert [node.op_type for node in result.to_proto().graph.node][1:3] == ["TopK", "Add"]
    assert_proved(net.model(), result, with_larger_weights(result.to_proto()))


def test_every_one_of_them_is_drawn_by_the_campaign():
    from benchmarks.campaign.drawn import case_of

    seen: set[str] = set()
    for seed in range(60):
        case = case_of("without weights", seed)
        onnx.checker.check_model(case.model)
        seen |= {node.op_type for node in case.model.graph.node}
    assert set(OPERATORS) <= seen
