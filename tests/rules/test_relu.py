"""Relu, LeakyRelu and PRelu let non-negative scales pass, and nothing else."""

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

SHAPE = [2, 3, 4, 2]


def _prelu(net: Net, x: str) -> str:
    return net.node("PRelu", [x, net.const(net.rng.uniform(-0.5, 0.5, (3, 1, 1)))])


def _dynamic_prelu(net: Net, x: str) -> str:
    return net.node("PRelu", [x, net.input([3, 1, 1], "slope")])


BENT = {
    "Relu": lambda net, x: net.node("Relu", [x]),
    "LeakyRelu": lambda net, x: net.node("LeakyRelu", [x], alpha=0.3),
    "PRelu": _prelu,
    "dynamic PRelu": _dynamic_prelu,
}


@given(st.data(), st.sampled_from(sorted(BENT)), st.booleans())
def test_a_positive_scale_passes(data, kind, up):
    drawn = axis_map(data.draw, SHAPE, [1, 2, 3], positive=True, shift=False)
    assert_carried((above if up else below)(BENT[kind], SHAPE, drawn), 1)


@pytest.mark.parametrize("kind", BENT)
@pytest.mark.parametrize("place", [above, below])
@pytest.mark.parametrize(
    ("bad", "code"), [(MIXED, Code.NEGATIVE_SCALE), (SHIFT, Code.NEEDS_SCALE_ONLY)]
)
def test_negative_scales_and_shifts_stay(kind, place, bad, code):
    assert_does_not_commute(BENT[kind], SHAPE, bad)
    assert_stays(place(BENT[kind], SHAPE, bad), code)


def test_a_scale_of_zero_passes():
    assert_carried(above(BENT["Relu"], SHAPE, Map(1, np.array([1.0, 0.0, 2.0]), None)), 1)


def test_a_scaled_slope_stays():
    def on_slope(net: Net, x: str) -> str:
        return net.node("PRelu", [net.input(SHAPE, "data"), x])

    assert_stays(below(on_slope, SHAPE, MIXED), Code.DYNAMIC_WEIGHT)
