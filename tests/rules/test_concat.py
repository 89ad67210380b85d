"""Concat and Split: maps are joined, cut and completed with the identity."""

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

SHAPE = [2, 6, 4]


def _concat(axis: int, *, constant: bool):
    def carry(net: Net, x: str) -> str:
        left = net.node("Relu", [x])
        right = net.const(net.rng.normal(size=[2, 3, 4])) if constant else x
        return net.node("Concat", [left, right], axis=axis)

    return carry


def _two_branches(axis: int, source: str) -> Net:
    net = Net(f"branches{axis}{source}")
    x = net.input([2, 4, 5])
    parts = [net.conv(x, 4, c, kernel=(1,)) for c in ((2, 3) if axis == 1 else (3, 3))]
    return_to = net.node("Concat", parts, axis=axis)
    size = 5 if axis == 1 else 3
    drawn = Map(1, net.scale(size), net.shift(size) if source == "both" else None)
    net.output(drawn.write(net, return_to, 3))
    return net


@pytest.mark.parametrize("axis", [1, -2, 2, -1])
@pytest.mark.parametrize("source", ["scale", "both"])
def test_concat_up(axis, source):
    model = _two_branches(axis % 3, source).model()
    for node in model.graph.node:
        if node.op_type == "Concat":
            node.attribute[0].i = axis
    assert_carried(model, 2 if source == "both" else 1)


@given(st.data(), st.sampled_from([1, 2, -1]))
def test_concat_down_completes_with_the_identity(data, axis):
    def carry(net: Net, x: str) -> str:
        return net.node("Concat", [net.input(SHAPE, "other"), x], axis=axis)

    drawn = axis_map(data.draw, SHAPE, [axis % 3])
    assert_carried(below(carry, SHAPE, drawn), drawn.nodes)


def test_concat_down_along_another_axis_stays():
    def carry(net: Net, x: str) -> str:
        return net.node("Concat", [net.input(SHAPE, "other"), x], axis=2)

    drawn = Map(1, np.arange(1.0, 7.0), None)
    assert_does_not_commute(carry, SHAPE, drawn)
    assert_stays(below(carry, SHAPE, drawn), Code.MAPS_DIFFER)


@given(st.data())
def test_concat_up_maps_a_constant_part(data):
    def carry(net: Net, x: str) -> str:
        part = net.const(net.rng.normal(size=[2, 3, 4]))
        return net.node("Concat", [x, part], axis=1)

    drawn = axis_map(data.draw, [2, 9, 4], [1, 2])
    assert_carried(above(carry, SHAPE, drawn), drawn.nodes)


def _split(net: Net, x: str, sizes: list[int], axis: int, opset: int) -> list[str]:
    names = [net.fresh("part") for _ in sizes]
    if opset < 13:
        return net.nodes_out("Split", [x], names, "", {"axis": axis, "split": sizes})
    return net.nodes_out("Split", [x, net.ints(*sizes)], names, "", {"axis": axis})


@given(st.data(), st.sampled_from([11, 17]), st.sampled_from([1, -2]))
def test_split_down_cuts(data, opset, axis):
    net = Net("split", opset)
    drawn = axis_map(data.draw, SHAPE, [1, 2])
    y = drawn.write(net, net.input(SHAPE), 3)
    for part, size in zip(_split(net, y, [2, 4], axis, opset), (2, 4), strict=True):
        part = net.node("Add", [part, net.const(net.rng.uniform(0.5, 1, (2, size, 4)))])
        net.output(net.node("Mul", [part, net.const(net.rng.uniform(0.5, 1, (2, size, 4)))]))
    assert_carried(net.model(), drawn.nodes)


@given(st.data(), st.sampled_from([11, 17]), st.booleans())
def test_split_up_completes_with_the_identity(data, opset, read):
    net = Net("split", opset)
    y = net.conv(net.input([2, 3, 4]), 3, 6, kernel=(1,))
    first, second = _split(net, y, [2, 4], 1, opset)
    drawn = data.draw(maps(2, 1))
    net.output(drawn.write(net, first, 3))
    if read:
        net.output(net.node("Relu", [second]))
    assert_carried(net.model(), drawn.nodes)


def test_split_up_along_another_axis_needs_all_parts():
    net = Net("split")
    y = net.conv(net.input([2, 3, 6]), 3, 3, kernel=(1,))
    first, second = _split(net, y, [2, 4], 2, 17)
    net.output(MIXED.write(net, first, 3), net.node("Relu", [second]))
    assert_stays(net.model(), Code.MAPS_DIFFER)


def test_a_value_that_is_joined_twice_keeps_its_maps():
    drawn = Map(1, np.arange(1.0, 13.0), SHIFT.shift.repeat(4))
    assert_harmless(above(_concat(1, constant=False), SHAPE, drawn))
    assert_harmless(below(_concat(1, constant=True), SHAPE, Map(1, np.arange(1.0, 7.0), None)))
