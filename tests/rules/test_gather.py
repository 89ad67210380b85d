"""Slice and Gather choose channels, and the map with them; a table absorbs it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bnfold.records import Code
from tests.battery.graphs import Net
from tests.rules.around import (
    MIXED,
    Map,
    above,
    assert_carried,
    assert_does_not_commute,
    assert_harmless,
    assert_stays,
    axis_map,
    below,
)

SHAPE = [2, 5, 4, 3]


def _slice(start: int, end: int, step: int, axis: int, opset: int):
    def carry(net: Net, x: str) -> str:
        if opset < 10:
            return net.node("Slice", [x], starts=[start], ends=[end], axes=[axis])
        ranges = [net.ints(value) for value in (start, end, axis, step)]
        return net.node("Slice", [x, *ranges])

    return carry


def _gather(indices, axis: int):
    def carry(net: Net, x: str) -> str:
        return net.node("Gather", [x, net.const(np.array(indices), dtype="int64")], axis=axis)

    return carry


RANGES = [(1, 4, 1), (0, 2**62, 2), (-2, 2**62, 1), (-1, -(2**62), -1), (3, 0, -2)]


@given(st.data(), st.sampled_from(RANGES), st.sampled_from([1, -3, 2]), st.booleans())
def test_slice_passes_every_map(data, cut, axis, up):
    carry = _slice(*cut, axis, 17)
    size = len(range(SHAPE[axis])[slice(*cut)])
    shape = [size if place == axis % 4 else n for place, n in enumerate(SHAPE)]
    drawn = axis_map(data.draw, shape if up else SHAPE, [1, 2, 3])
    assert_carried((above if up else below)(carry, SHAPE, drawn), drawn.nodes)


def test_slice_by_attributes():
    drawn = Map(1, np.array([1.0, 2.0, -1.0]), None)
    assert_carried(above(_slice(1, 4, 1, 1, 9), SHAPE, drawn, 9), 1)


@given(
    st.data(),
    st.sampled_from([[3, 1, 0], [-1, 0, 2, 3, 1], 2, [2]]),
    st.sampled_from([1, -3]),
    st.booleans(),
)
def test_gather_passes_every_map(data, indices, axis, up):
    taken = list(np.empty(SHAPE).take(indices, axis).shape)
    shape = taken if up else SHAPE
    drawn = axis_map(data.draw, shape, range(1, len(shape)))
    model = (above if up else below)(_gather(indices, axis), SHAPE, drawn)
    assert_carried(model, drawn.nodes)


def test_a_channel_shuffle_there_and_back():
    carry = _gather([0, 2, 4, 1, 3], 1)
    drawn = Map(1, np.arange(1.0, 6.0), np.arange(-2.0, 3.0))
    assert_does_not_commute(carry, SHAPE, drawn)
    assert_carried(below(carry, SHAPE, drawn), 2)


def test_a_channel_read_twice_with_different_maps_stays():
    drawn = Map(1, np.array([1.0, 2.0, 3.0]), None)
    assert_stays(above(_gather([1, 1, 2], 1), SHAPE, drawn), Code.MAPS_DIFFER)


def test_a_channel_read_twice_with_one_map_passes():
    drawn = Map(1, np.array([2.0, 2.0, 3.0]), None)
    assert_carried(above(_gather([1, 1, 2], 1), SHAPE, drawn), 1)


def test_indices_of_rank_two_spread_the_map():
    drawn = Map(1, np.arange(1.0, 6.0), None)
    assert_stays(below(_gather([[0, 1], [2, 3]], 1), SHAPE, drawn), Code.WRONG_AXIS)


def test_computed_indices_stay():
    def carry(net: Net, x: str) -> str:
        return net.node("Gather", [x, net.input([5], "indices", "int64")], axis=1)

    drawn = Map(1, np.arange(1.0, 6.0), None)
    assert_stays(below(carry, SHAPE, drawn), Code.DYNAMIC_CONSTANT)


@given(st.data())
def test_an_embedding_table_absorbs_the_map(data):
    net = Net("table")
    table = net.const(net.weight(40, 4))
    y = net.node("Gather", [table, net.input(["N", 3], "ids", "int64")])
    drawn = axis_map(data.draw, [2, 3, 4], [2])
    net.output(drawn.write(net, y, 3))
    assert_carried(net.model(), drawn.nodes)


def test_a_table_knows_no_positions():
    net = Net("positions")
    y = net.node("Gather", [net.const(net.weight(40, 4)), net.input([2, 3], "i", "int64")])
    net.output(MIXED.write(net, y, 3))
    assert_stays(net.model(), Code.WRONG_AXIS)
    assert_harmless(net.model())
