"""Max, Min and Where: all operands take the same map."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnfold.records import Code
from tests.battery.graphs import Net
from tests.rules.around import (
    MIXED,
    POSITIVE,
    SHIFT,
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


def _chosen(op: str, *, constant: bool):
    def carry(net: Net, x: str) -> str:
        if constant:
            other = net.const(net.rng.normal(size=(3, 1)))
        else:
            other = net.node("Sigmoid", [net.input(SHAPE, "other")])
            for kind in ("Mul", "Add"):
                other = net.node(kind, [other, net.const(net.rng.uniform(0.5, 1.5, SHAPE))])
        if op == "Where":
            return net.node(op, [net.input([2, 1, 4], "mask", "bool"), x, other])
        return net.node(op, [x, other])

    return carry


@given(st.data(), st.sampled_from(["Max", "Min", "Where"]), st.booleans())
def test_up(data, op, constant):
    drawn = axis_map(data.draw, SHAPE, [1, 2], positive=op != "Where")
    assert_carried(above(_chosen(op, constant=constant), SHAPE, drawn), drawn.nodes)


@given(st.data(), st.sampled_from(["Max", "Min", "Where"]))
def test_down_beside_a_constant(data, op):
    drawn = axis_map(data.draw, SHAPE, [1, 2], positive=op != "Where")
    assert_carried(below(_chosen(op, constant=True), SHAPE, drawn), drawn.nodes)


@pytest.mark.parametrize("op", ["Max", "Where"])
@pytest.mark.parametrize("bad", [POSITIVE, SHIFT])
def test_a_map_of_one_operand_alone_stays(op, bad):
    carry = _chosen(op, constant=False)
    assert_does_not_commute(carry, SHAPE, bad)
    assert_stays(below(carry, SHAPE, bad), Code.MAPS_DIFFER)


@pytest.mark.parametrize("op", ["Max", "Min"])
@pytest.mark.parametrize("place", [above, below])
def test_negative_scales_stay(op, place):
    assert_stays(place(_chosen(op, constant=True), SHAPE, MIXED), Code.NEGATIVE_SCALE)


@given(st.data(), st.sampled_from(["Max", "Min", "Where"]))
def test_two_operands_with_one_map(data, op):
    drawn = data.draw(maps(3, 1, positive=op != "Where"))
    net = Net("two")
    parts = [drawn.write(net, net.node(k, [net.input(SHAPE, k)]), 3) for k in ("Tanh", "Abs")]
    mask = [net.input([2, 1, 4], "mask", "bool")] if op == "Where" else []
    net.output(net.node("Sigmoid", [net.node(op, [*mask, *parts])]))
    assert_harmless(net.model())
