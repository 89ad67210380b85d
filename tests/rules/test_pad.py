"""Pad: the padded constant is mapped; the other modes copy what is in the channel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnfold.records import Code
from tests.battery.graphs import Net
from tests.rules.around import (
    MIXED,
    POSITIVE,
    SHIFT,
    Map,
    above,
    assert_carried,
    assert_carried_at_run_time,
    assert_does_not_commute,
    assert_stays,
    axis_map,
    below,
    maps,
)

SHAPE = [2, 3, 4]


def _pad(pads: list[int], mode: str, value: float | None, opset: int):
    def carry(net: Net, x: str) -> str:
        if opset < 11:
            named = {} if value is None else {"value": value}
            return net.node("Pad", [x], pads=pads, mode=mode, **named)
        inputs = [x, net.ints(*pads)]
        return net.node(
            "Pad", inputs + ([] if value is None else [net.const(value)]), mode=mode
        )

    return carry


LAST = [0, 0, 1, 0, 0, 2]
CHANNELS = [0, 1, 0, 0, 2, 0]


@given(
    st.data(),
    st.sampled_from([[0, 0, 1, 0, 0, 2], [1, 0, 1, 1, 0, 0]]),
    st.sampled_from(["constant", "reflect", "edge"]),
    st.sampled_from([9, 11, 17]),
    st.booleans(),
)
def test_a_uniform_map_passes(data, pads, mode, opset, up):
    value = data.draw(st.sampled_from([None, 0.0, 0.7])) if mode == "constant" else None
    drawn = data.draw(maps(None, None))
    place = above if up else below
    assert_carried(place(_pad(pads, mode, value, opset), SHAPE, drawn, opset), drawn.nodes)


@given(st.data(), st.sampled_from(["reflect", "edge", "wrap"]), st.booleans())
def test_other_modes_pass_every_map(data, mode, up):
    drawn = axis_map(data.draw, SHAPE, [1])
    opset = 19 if mode == "wrap" else 17
    carry = _pad(LAST, mode, None, opset)
    assert_carried((above if up else below)(carry, SHAPE, drawn, opset), drawn.nodes)


@given(st.data(), st.booleans())
def test_zero_padding_passes_scales(data, up):
    drawn = axis_map(data.draw, SHAPE, [1], shift=False)
    carry = _pad(LAST, "constant", None, 17)
    assert_carried((above if up else below)(carry, SHAPE, drawn), 1)


@pytest.mark.parametrize("place", [above, below])
@pytest.mark.parametrize(("bad", "value"), [(SHIFT, 0.0), (MIXED, 0.7), (SHIFT, 0.7)])
def test_what_differs_at_the_padding_stays(place, bad, value):
    carry = _pad(LAST, "constant", value, 17)
    assert_does_not_commute(carry, SHAPE, bad)
    assert_stays(place(carry, SHAPE, bad), Code.PAD_VALUE)


def test_one_value_suits_all_channels_by_chance():
    drawn = Map(1, np.array([2.0, 3.0, 1.0]), np.array([-1.0, -2.0, 0.0]))
    assert_carried(above(_pad(LAST, "constant", 1.0, 17), SHAPE, drawn), 2)


@given(st.data(), st.sampled_from(["constant", "edge", "reflect"]))
def test_padded_channels_going_down(data, mode):
    drawn = axis_map(data.draw, SHAPE, [1]) if mode != "constant" else data.draw(maps(3, 1))
    assert_carried(below(_pad(CHANNELS, mode, None, 17), SHAPE, drawn), drawn.nodes)


def test_padded_channels_going_up():
    kept = Map(1, np.array([1.0, 2.0, -1.0, 0.5, 1.0, 1.0]), None)
    assert_carried(above(_pad(CHANNELS, "constant", None, 17), SHAPE, kept), 1)
    changed = Map(1, None, np.array([0.5, 1.0, 2.0, 0.5, 1.0, 1.0]))
    carry = _pad(CHANNELS, "constant", None, 17)
    assert_stays(above(carry, SHAPE, changed), Code.PAD_VALUE)
    edge = Map(1, np.array([1.0, 2.0, -1.0, 0.5, 1.0, 1.0]), None)
    assert_stays(above(_pad(CHANNELS, "edge", None, 17), SHAPE, edge), Code.MAPS_DIFFER)


@pytest.mark.parametrize("place", [above, below])
@pytest.mark.parametrize("mode", ["constant", "edge"])
def test_negative_pads_crop(place, mode):
    drawn = Map(None, np.array(-2.0), np.array(1.0))
    cut = _pad([0, 0, -1, 0, 0, 2], mode, None, 17)
    assert_carried_at_run_time(place(cut, SHAPE, drawn), 2)
    channels = _pad([0, -1, 0, 0, 2, 0], mode, None, 17)
    assert_carried_at_run_time(below(channels, SHAPE, MIXED), 1)
    both = _pad([0, -1, -1, 0, 0, 0], mode, None, 17)
    assert_carried_at_run_time(below(both, SHAPE, SHIFT), 1)


def test_a_computed_value_stays():
    def carry(net: Net, x: str) -> str:
        return net.node("Pad", [x, net.ints(*LAST), net.input([], "value")])

    assert_does_not_commute(carry, SHAPE, SHIFT)
    assert_stays(above(carry, SHAPE, SHIFT), Code.DYNAMIC_CONSTANT)


def test_named_axes():
    def carry(net: Net, x: str) -> str:
        return net.node("Pad", [x, net.ints(1, 2), net.const(0.5), net.ints(-1)])

    uniform = Map(None, np.array(2.0), np.array(1.0))
    assert_carried(above(carry, SHAPE, uniform, 18), 2)
    assert_carried(below(carry, SHAPE, uniform, 18), 2)
    assert_stays(above(carry, SHAPE, POSITIVE, 18), Code.PAD_VALUE)
