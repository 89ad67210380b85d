"""Resize and Upsample: maps along axes that keep their size pass."""

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
    assert_carried_at_run_time,
    assert_does_not_commute,
    assert_stays,
    axis_map,
    below,
)

SHAPE = [2, 3, 4, 3]


def _by_scales(mode: str, opset: int = 17, scales=(1.0, 1.0, 2.0, 1.5), **named):
    def carry(net: Net, x: str) -> str:
        if opset < 9:
            return net.node("Upsample", [x], mode=mode, scales=list(scales))
        inputs = [x, net.const(np.array(scales))]
        if opset == 9:
            return net.node("Upsample", inputs, mode=mode)
        return net.node(
            "Resize", [x, "", inputs[1]] if opset > 10 else inputs, mode=mode, **named
        )

    return carry


def _by_sizes(mode: str, **named):
    return lambda net, x: net.node(
        "Resize", [x, "", "", net.ints(2, 3, 7, 5)], mode=mode, **named
    )


HOW = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]


@given(
    st.data(),
    st.sampled_from(["nearest", "linear", "cubic"]),
    st.sampled_from(HOW),
    st.booleans(),
    st.booleans(),
)
def test_resize(data, mode, how, by_sizes, up):
    drawn = axis_map(data.draw, SHAPE, [1])
    make = _by_sizes if by_sizes else _by_scales
    carry = make(mode, coordinate_transformation_mode=how)
    assert_carried((above if up else below)(carry, SHAPE, drawn), drawn.nodes)


@pytest.mark.parametrize("opset", [8, 9, 10])
@pytest.mark.parametrize("place", [above, below])
def test_older_spellings(opset, place):
    drawn = Map(1, np.array([1.0, -2.0, 3.0]), np.array([1.0, 0.0, 2.0]))
    carry = _by_scales("nearest", opset, (1.0, 1.0, 2.0, 2.0))
    assert_carried_at_run_time(place(carry, SHAPE, drawn, opset), 2)


def test_a_map_along_a_resized_axis_stays():
    drawn = Map(2, np.arange(1.0, 5.0), None)
    assert_stays(below(_by_scales("linear"), SHAPE, drawn), Code.WRONG_AXIS)


def test_a_scale_that_moves_places_without_a_new_size_stays():
    carry = _by_scales("nearest", 17, (1.0, 1.3, 1.0, 1.0))
    assert_stays(below(carry, SHAPE, MIXED), Code.WRONG_AXIS)


def test_extrapolation_stays():
    def carry(net: Net, x: str) -> str:
        roi = net.const(np.array([0, 0, 0, 0, 1, 1, 1.5, 1]))
        inputs = [x, roi, "", net.ints(2, 3, 6, 3)]
        how = {"coordinate_transformation_mode": "tf_crop_and_resize"}
        return net.node("Resize", inputs, mode="linear", extrapolation_value=0.5, **how)

    uniform = Map(None, np.array(2.0), None)
    assert_does_not_commute(carry, SHAPE, uniform)
    assert_stays(above(carry, SHAPE, uniform), Code.SHIFT_MEETS_PADDING)


def test_named_axes():
    def carry(net: Net, x: str) -> str:
        return net.node(
            "Resize", [x, "", net.const(np.array([2.0]))], mode="nearest", axes=[2]
        )

    assert_carried(above(carry, SHAPE, MIXED, 18), 1)
    assert_carried(below(carry, SHAPE, SHIFT, 18), 1)
