"""Reductions let maps along kept axes pass."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnfold.records import Code
from tests.battery.graphs import Net
from tests.rules.around import (
    MIXED,
    SHIFT,
    Map,
    above,
    assert_carried,
    assert_does_not_commute,
    assert_stays,
    axis_map,
    below,
    maps,
)

SHAPE = [2, 3, 4, 5]


def _reduce(op: str, axes: list[int] | None, opset: int, *, keep: bool):
    by_input = opset >= (13 if op == "ReduceSum" else 18)

    def carry(net: Net, x: str) -> str:
        if by_input and axes is not None:
            return net.node(op, [x, net.ints(*axes)], keepdims=int(keep))
        named = {} if axes is None else {"axes": axes}
        return net.node(op, [x], keepdims=int(keep), **named)

    return carry


@given(
    st.data(),
    st.sampled_from(["ReduceMax", "ReduceMin", "ReduceMean", "ReduceSum"]),
    st.sampled_from([12, 13, 18]),
    st.sampled_from([[3], [2, 3], [-1], [1], [-3, -1]]),
    st.booleans(),
    st.booleans(),
)
def test_a_map_along_a_kept_axis_passes(data, op, opset, axes, keep, up):
    kept = [axis for axis in (1, 2, 3) if axis not in {a % 4 for a in axes}]
    reduce = _reduce(op, axes, opset, keep=keep)
    positive = op in ("ReduceMax", "ReduceMin")
    drawn = axis_map(data.draw, SHAPE, kept, positive=positive)
    if up and drawn.axis is not None and not keep:
        below_it = [axis for axis in range(drawn.axis) if axis not in {a % 4 for a in axes}]
        drawn = Map(len(below_it), drawn.scale, drawn.shift)
    assert_carried((above if up else below)(reduce, SHAPE, drawn, opset), drawn.nodes)


@given(st.data(), st.sampled_from(["ReduceMean", "ReduceSum"]))
def test_all_axes_are_reduced_where_none_is_named(data, op):
    drawn = data.draw(maps(None, None))
    assert_carried(below(_reduce(op, None, 12, keep=True), SHAPE, drawn, 12), drawn.nodes)


@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMean", "ReduceSum"])
def test_a_map_along_a_reduced_axis_stays(op):
    assert_stays(below(_reduce(op, [1], 17, keep=True), SHAPE, MIXED), Code.WRONG_AXIS)


@pytest.mark.parametrize("place", [above, below])
@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMin"])
def test_negative_scales_stay(op, place):
    carry = _reduce(op, [3], 17, keep=True)
    assert_does_not_commute(carry, SHAPE, MIXED)
    assert_stays(place(carry, SHAPE, MIXED), Code.NEGATIVE_SCALE)


def test_a_sum_over_an_unknown_count_holds_the_shift():
    net = Net("sum")
    x = net.input([2, 3, "H", 5])
    y = net.node("ReduceSum", [SHIFT.write(net, x, 4), net.ints(2)])
    net.output(net.add(net.node("Relu", [y]), 3))
    assert_stays(net.model(), Code.SHIFT_NOT_CONSTANT)


def test_a_shift_counts_as_often_as_it_is_summed():
    assert_does_not_commute(_reduce("ReduceSum", [3], 17, keep=True), SHAPE, SHIFT)
