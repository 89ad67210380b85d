"""Clip lets a map pass whose image of each bound is one number."""

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
    assert_does_not_commute,
    assert_stays,
    below,
    maps,
)

SHAPE = [2, 3, 4]


def _clip(low: float | None, high: float | None, opset: int):
    def carry(net: Net, x: str) -> str:
        if opset < 11:
            bounds = {"min": low, "max": high}
            return net.node("Clip", [x], **{k: v for k, v in bounds.items() if v is not None})
        inputs = ["" if bound is None else net.const(bound) for bound in (low, high)]
        return net.node("Clip", [x, *inputs])

    return carry


@given(st.data(), st.sampled_from([7, 11, 17]), st.booleans())
def test_a_uniform_map_passes_and_maps_the_bounds(data, opset, up):
    drawn = data.draw(maps(None, None, positive=True))
    low, high = data.draw(st.sampled_from([(-0.4, 0.9), (None, 0.5), (0.0, None), (0.0, 6.0)]))
    place = above if up else below
    assert_carried(place(_clip(low, high, opset), SHAPE, drawn, opset), drawn.nodes)


@given(st.data(), st.sampled_from([7, 17]), st.booleans())
def test_a_scale_per_channel_passes_a_bound_of_zero(data, opset, up):
    drawn = data.draw(maps(3, 1, positive=True, shift=False))
    assert_carried((above if up else below)(_clip(0.0, None, opset), SHAPE, drawn, opset), 1)


@pytest.mark.parametrize("place", [above, below])
@pytest.mark.parametrize(
    ("bad", "bound", "code"),
    [
        (MIXED, 0.9, Code.NEGATIVE_SCALE),
        (POSITIVE, 0.9, Code.SHIFT_NOT_CONSTANT),
        (SHIFT, 0.9, Code.SHIFT_NOT_CONSTANT),
        (SHIFT, 0.0, Code.SHIFT_NOT_CONSTANT),
    ],
)
def test_what_differs_at_a_bound_stays(place, bad, bound, code):
    assert_does_not_commute(_clip(None, bound, 17), SHAPE, bad)
    assert_stays(place(_clip(None, bound, 17), SHAPE, bad), code)


def test_a_computed_bound_stays():
    def carry(net: Net, x: str) -> str:
        return net.node("Clip", [x, net.input([], "low")])

    uniform = Map(None, np.array(2.0), None)
    assert_does_not_commute(carry, SHAPE, uniform)
    assert_stays(above(carry, SHAPE, uniform), Code.DYNAMIC_WEIGHT)


def test_an_attribute_that_would_overflow_stays():
    carry = _clip(None, 3e38, 7)
    assert_stays(above(carry, SHAPE, Map(None, np.array(2.0), None), 7), Code.OUT_OF_RANGE)
