"""Expand and Tile: copies carry the map of what they are copied from."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bnfold.records import Code
from tests.rules.around import (
    MIXED,
    Map,
    above,
    assert_carried,
    assert_stays,
    axis_map,
    below,
)

SHAPE = [2, 3, 1]


def _expand(*shape: int):
    return lambda net, x: net.node("Expand", [x, net.ints(*shape)])


def _tile(*repeats: int):
    return lambda net, x: net.node("Tile", [x, net.ints(*repeats)])


@given(st.data(), st.sampled_from([[2, 3, 4], [5, 2, 3, 4], [3, 1]]), st.booleans())
def test_expand(data, shape, up):
    new = max(len(shape) - 3, 0)
    full = list(np.broadcast_shapes(SHAPE, shape))
    drawn = axis_map(data.draw, full if up else SHAPE, [1 + new if up else 1])
    assert_carried((above if up else below)(_expand(*shape), SHAPE, drawn), drawn.nodes)


def test_a_map_along_an_expanded_axis_stays():
    drawn = Map(2, np.arange(1.0, 5.0), None)
    assert_stays(above(_expand(2, 3, 4), SHAPE, drawn), Code.WRONG_AXIS)
    front = Map(0, np.arange(1.0, 6.0), None)
    assert_stays(above(_expand(5, 2, 3, 4), SHAPE, front), Code.WRONG_AXIS)


@given(st.data(), st.sampled_from([(1, 1, 3), (1, 2, 2), (2, 3, 1)]))
def test_tile_down(data, repeats):
    drawn = axis_map(data.draw, SHAPE, [1])
    assert_carried(below(_tile(*repeats), SHAPE, drawn), drawn.nodes)


def test_tile_up():
    same = Map(1, np.tile([1.0, -2.0, 0.5], 2), None)
    assert_carried(above(_tile(1, 2, 1), SHAPE, same), 1)
    other = Map(1, np.repeat([1.0, -2.0, 0.5], 2), None)
    assert_stays(above(_tile(1, 2, 1), SHAPE, other), Code.MAPS_DIFFER)
    assert_carried(above(_tile(1, 1, 5), SHAPE, MIXED), 1)
