"""Pooling: MaxPool takes non-negative scales, averages all but a shift in counted padding."""

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
    assert_stays,
    axis_map,
    below,
)

SHAPE = [2, 3, 5, 6]


@st.composite
def _windows(draw):
    kernel = draw(st.sampled_from([2, 3]))
    pad = draw(st.integers(0, kernel - 1))  # onnx's own reference misreads unequal ones
    window = {"kernel_shape": [kernel] * 2, "strides": [draw(st.integers(1, 2))] * 2}
    padding = draw(st.sampled_from(["pads", "auto", "none"]))
    if padding == "pads":
        window["pads"] = [pad] * 4
    if padding == "auto":
        window["auto_pad"] = "SAME_UPPER"
    return window


def _pool(op: str, **attributes):
    return lambda net, x: net.node(op, [x], **attributes)


@given(st.data(), _windows(), st.booleans())
def test_max_pool_passes_positive_scales_and_any_shift(data, window, up):
    drawn = axis_map(data.draw, SHAPE, [1], positive=True)
    assert_carried(
        (above if up else below)(_pool("MaxPool", **window), SHAPE, drawn), drawn.nodes
    )


@given(st.data(), _windows(), st.booleans())
def test_average_pool_passes_every_map(data, window, up):
    drawn = axis_map(data.draw, SHAPE, [1])
    pool = _pool("AveragePool", **window)
    assert_carried((above if up else below)(pool, SHAPE, drawn), drawn.nodes)


@given(st.data(), _windows(), st.booleans())
def test_average_pool_that_counts_padding_passes_scales(data, window, up):
    drawn = axis_map(data.draw, SHAPE, [1], shift=False)
    pool = _pool("AveragePool", **window, count_include_pad=1)
    assert_carried((above if up else below)(pool, SHAPE, drawn), 1)


@given(st.data(), st.booleans(), st.booleans())
def test_global_pools(data, up, maximum):
    drawn = axis_map(data.draw, SHAPE, [1], positive=maximum)
    pool = _pool("GlobalMaxPool" if maximum else "GlobalAveragePool")
    assert_carried((above if up else below)(pool, SHAPE, drawn), drawn.nodes)


@pytest.mark.parametrize("place", [above, below])
@pytest.mark.parametrize(
    "pool", [_pool("MaxPool", kernel_shape=[2, 2]), _pool("GlobalMaxPool")]
)
def test_negative_scales_stay(place, pool):
    assert_does_not_commute(pool, SHAPE, MIXED)
    assert_stays(place(pool, SHAPE, MIXED), Code.NEGATIVE_SCALE)


@pytest.mark.parametrize("place", [above, below])
def test_a_shift_stays_where_padding_is_counted(place):
    pool = _pool("AveragePool", kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)
    assert_does_not_commute(pool, SHAPE, SHIFT)
    assert_stays(place(pool, SHAPE, SHIFT), Code.SHIFT_MEETS_PADDING)


def test_a_map_along_a_pooled_axis_stays():
    pool = _pool("AveragePool", kernel_shape=[1, 2])
    drawn = Map(3, np.arange(1.0, 6.0), None)
    assert_stays(above(pool, SHAPE, drawn), Code.WRONG_AXIS)


def test_read_indices_hold_the_map():
    def carry(net: Net, x: str) -> str:
        y, places = net.nodes_out(
            "MaxPool", [x], ["pooled", "places"], "", {"kernel_shape": [2, 2]}
        )
        net.output(places)
        return y

    assert_stays(above(carry, SHAPE, SHIFT), Code.SHARED_VALUE)
