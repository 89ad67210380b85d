"""Add, Sub, Mul, Div of two computed values, or of a value and a constant of several axes."""

from __future__ import annotations

import numpy as np
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
    assert_harmless,
    assert_stays,
    axis_map,
    below,
    maps,
)

SHAPE = [2, 3, 4]


def _with_other(op: str, *, first: bool, shape=(2, 3, 4)):
    """The other operand is computed and takes every map as well."""

    def carry(net: Net, x: str) -> str:
        other = net.node("Sigmoid", [net.input(list(shape), "other")])
        for kind in ("Mul", "Add"):
            other = net.node(kind, [other, net.const(net.rng.uniform(0.5, 1.5, shape))])
        return net.node(op, [x, other] if first else [other, x])

    return carry


def _with_constant(op: str, *, first: bool):
    def carry(net: Net, x: str) -> str:
        k = net.const(net.rng.uniform(0.5, 1.5, (3, 4)))
        return net.node(op, [x, k] if first else [k, x])

    return carry


@given(st.data(), st.sampled_from(["Add", "Sub"]), st.booleans())
def test_a_sum_gives_every_map_to_its_operands(data, op, first):
    drawn = axis_map(data.draw, SHAPE, [1, 2])
    assert_carried(above(_with_other(op, first=first), SHAPE, drawn), drawn.nodes)


@given(st.data(), st.sampled_from(["Mul", "Div"]), st.booleans())
def test_a_product_gives_a_scale_to_one_operand(data, op, first):
    drawn = axis_map(data.draw, SHAPE, [1, 2], shift=False)
    assert_carried(above(_with_other(op, first=first), SHAPE, drawn), 1)


@given(st.data(), st.sampled_from(["Mul", "Div"]), st.booleans())
def test_a_scale_passes_a_product(data, op, first):
    drawn = axis_map(data.draw, SHAPE, [1, 2], shift=False)
    assert_carried(below(_with_other(op, first=first), SHAPE, drawn), 1)


@given(st.data(), st.sampled_from(["Add", "Sub"]), st.booleans(), st.booleans())
def test_a_shift_passes_a_sum(data, op, first, wide):
    full = data.draw(maps(3, 1))
    shift = np.array(full.scale if full.shift is None else full.shift)
    other = _with_other(op, first=first, shape=(2, 1, 3, 4) if wide else (2, 3, 4))
    assert_carried(below(other, SHAPE, Map(1, None, shift)), 1)


@given(st.data(), st.sampled_from(["Add", "Sub", "Mul", "Div"]), st.booleans(), st.booleans())
def test_a_constant_of_several_axes(data, op, first, up):
    """Where an Add of such a constant stands beside it, the two become one besides."""
    sums = op in ("Add", "Sub")
    drawn = axis_map(data.draw, SHAPE, [1, 2], shift=sums)
    carry = _with_constant(op, first=first)
    merged = sums and (up or first or op == "Add")  # (k - x) + c is not x + another constant
    assert_carried((above if up else below)(carry, SHAPE, drawn), drawn.nodes + merged)


@pytest.mark.parametrize("op", ["Add", "Sub"])
def test_one_scaled_operand_of_a_sum_stays(op):
    carry = _with_other(op, first=True)
    assert_does_not_commute(carry, SHAPE, MIXED)
    assert_stays(below(carry, SHAPE, MIXED), Code.MAPS_DIFFER)


@pytest.mark.parametrize("place", [above, below])
def test_a_shift_stays_at_a_product(place):
    carry = _with_other("Mul", first=True)
    assert_does_not_commute(carry, SHAPE, SHIFT)
    assert_stays(place(carry, SHAPE, SHIFT), Code.NEEDS_SCALE_ONLY)


@given(st.data(), st.sampled_from(["Add", "Sub", "Mul", "Div"]), st.booleans())
def test_an_operand_that_is_broadcast_takes_no_map_along_that_axis(data, op, first):
    carry = _with_other(op, first=first, shape=(2, 1, 4))
    assert_harmless(above(carry, SHAPE, axis_map(data.draw, SHAPE, [1, 2])))
    assert_harmless(below(carry, SHAPE, axis_map(data.draw, SHAPE, [1, 2])))


def test_a_scale_of_a_sum_with_a_broadcast_operand_stays():
    carry = _with_other("Add", first=True, shape=(2, 1, 4))
    assert_stays(above(carry, SHAPE, MIXED), Code.WRONG_AXIS)


@given(st.data(), st.sampled_from(["Add", "Sub", "Mul"]), st.booleans())
def test_a_value_with_itself(data, op, up):
    def carry(net: Net, x: str) -> str:
        return net.node(op, [x, x])

    drawn = axis_map(data.draw, SHAPE, [1, 2], shift=op == "Add")
    place = above if up else below
    if op == "Add" or (op == "Mul" and not up):
        assert_carried(place(carry, SHAPE, drawn), drawn.nodes)
    else:
        assert_harmless(place(carry, SHAPE, drawn))


@given(st.data(), st.sampled_from(["Add", "Sub", "Mul", "Div"]), st.booleans())
def test_both_operands_bring_the_same_scale(data, op, one_axis):
    drawn = axis_map(data.draw, SHAPE, [1, 2], shift=False)
    net = Net("both")
    x = net.input(SHAPE)
    parts = [drawn.write(net, net.node(kind, [x]), 3) for kind in ("Sigmoid", "Tanh")]
    y = net.node(op, parts if one_axis else parts[::-1])
    net.output(net.node("Mul", [y, net.const(net.rng.uniform(0.5, 1, SHAPE))]))
    assert_harmless(net.model())


@given(st.data(), st.sampled_from(["Mul", "Div"]))
def test_a_shift_passes_a_channel_constant_as_another(data, op):
    net = Net("shift through scale")
    drawn = data.draw(maps(3, 1))
    x = drawn.write(net, net.input(SHAPE), 3)
    ends = []
    for _ in range(2):  # two readers keep the map apart from what scales it
        y = net.node(op, [x, net.const(net.rng.uniform(0.5, 2, (3, 1)))])
        y = net.node("Sigmoid", [net.node("Add", [y, net.const(net.rng.normal(size=SHAPE))])])
        ends.append(y)
    net.output(*ends)
    assert_carried(net.model(), drawn.nodes)
