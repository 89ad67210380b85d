"""Negative scales pass where the operator can be turned around."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnfold.records import Code
from tests.battery.graphs import Net, spread
from tests.rules.around import (
    MIXED,
    Map,
    above,
    assert_carried,
    assert_does_not_commute,
    assert_stays,
    below,
)

SHAPE = [2, 3, 4]


def _negative(draw, size: int | None, *, shift: bool) -> Map:
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    shape = () if size is None else (size,)
    moved = rng.uniform(-1.5, 1.5, shape) if shift else None
    scale = -rng.uniform(0.4, 2.0, shape)
    return Map(None if size is None else 1, np.asarray(scale), moved)


@given(st.data(), st.sampled_from([7, 12, 17]), st.booleans(), st.booleans())
def test_clip_swaps_its_bounds(data, opset, up, shift):
    drawn = _negative(data.draw, None, shift=shift)
    bounds = {"min": -0.4, "max": 0.9}
    absent = data.draw(st.sampled_from(["min", "max", None]))

    def clip(net: Net, x: str) -> str:
        kept = {k: v for k, v in bounds.items() if k != absent}
        if opset < 11:
            return net.node("Clip", [x], **kept)
        inputs = [net.const(kept[k]) if k in kept else "" for k in bounds]
        return net.node("Clip", [x, *inputs])

    folded = assert_carried((above if up else below)(clip, SHAPE, drawn, opset), drawn.nodes)
    (node,) = (n for n in folded.graph.node if n.op_type == "Clip")
    if opset >= 11 and absent is not None:
        there = [bool(name) for name in [*node.input, "", ""][1:3]]
        assert there == [absent == "min", absent == "max"][::-1] or sum(there) == 1


@given(st.data(), st.booleans())
def test_clip_at_zero_takes_every_negative_scale(data, up):
    drawn = _negative(data.draw, 3, shift=False)
    place = above if up else below
    assert_carried(place(lambda n, x: n.node("Clip", [x, n.const(0.0)]), SHAPE, drawn), 1)


REDUCED = {
    "ReduceMax": lambda net, x: net.node("ReduceMax", [x], axes=[2]),
    "ReduceMin": lambda net, x: net.node("ReduceMin", [x], axes=[2]),
    "Max": lambda net, x: net.node("Max", [x, net.const(net.rng.normal(size=(3, 1)))]),
    "Min": lambda net, x: net.node("Min", [net.const(net.rng.normal(size=(2, 1, 4))), x]),
}
OPPOSITE = {"ReduceMax": "ReduceMin", "Max": "Min"}
OPPOSITE |= {v: k for k, v in OPPOSITE.items()}


@given(st.data(), st.sampled_from(sorted(REDUCED)), st.booleans(), st.booleans())
def test_a_maximum_becomes_a_minimum(data, op, up, uniform):
    drawn = _negative(data.draw, None if uniform else 3, shift=data.draw(st.booleans()))
    folded = assert_carried((above if up else below)(REDUCED[op], SHAPE, drawn), drawn.nodes)
    kinds = {node.op_type for node in folded.graph.node}
    assert OPPOSITE[op] in kinds
    assert op not in kinds


@pytest.mark.parametrize("place", [above, below])
@pytest.mark.parametrize("op", [*REDUCED, "Clip", "LeakyRelu"])
def test_mixed_signs_stay(op, place):
    others = {
        "Clip": lambda net, x: net.node("Clip", [x, net.const(0.0)]),
        "LeakyRelu": lambda net, x: net.node("LeakyRelu", [x], alpha=0.3),
    }
    carry = {**REDUCED, **others}[op]
    assert_does_not_commute(carry, SHAPE, MIXED)
    assert_stays(place(carry, SHAPE, MIXED), Code.NEGATIVE_SCALE)


@given(st.data(), st.sampled_from(["channel", "one", "scalar"]), st.booleans(), st.booleans())
def test_prelu_turns_the_channels_with_a_negative_scale(data, slopes, up, uniform):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**20)))
    signs = np.array(data.draw(st.lists(st.sampled_from([-1.0, 1.0]), min_size=3, max_size=3)))
    scale = rng.uniform(0.4, 2.0, 3) * signs
    drawn = Map(None, scale[0], None) if uniform else Map(1, scale, None)
    shape = {"channel": (3, 1), "one": (1,), "scalar": ()}[slopes]
    slope = rng.uniform(0.1, 3.0, shape)
    assert_carried(
        (above if up else below)(
            lambda n, x: n.node("PRelu", [x, n.const(slope)]), SHAPE, drawn
        ),
        1,
    )


@given(st.data(), st.booleans(), st.booleans())
def test_leaky_relu_turns_around(data, up, uniform):
    drawn = _negative(data.draw, None if uniform else 3, shift=False)
    alpha = data.draw(st.sampled_from([{}, {"alpha": 0.3}, {"alpha": 2.5}]))
    place = above if up else below
    assert_carried(place(lambda n, x: n.node("LeakyRelu", [x], **alpha), SHAPE, drawn), 1)


@pytest.mark.parametrize("place", [above, below])
@pytest.mark.parametrize("slope", [0.0, -0.4])
def test_a_slope_that_is_not_positive_has_no_reciprocal_side(place, slope):
    def prelu(net: Net, x: str) -> str:
        return net.node("PRelu", [x, net.const(np.full((3, 1), slope))])

    turned = Map(1, -np.array([1.5, 0.5, 2.0]), None)
    assert_does_not_commute(prelu, SHAPE, turned)
    assert_stays(place(prelu, SHAPE, turned), Code.NEGATIVE_SCALE)
    leaky = Map(None, np.array(-2.0), None)
    assert_stays(
        place(lambda n, x: n.node("LeakyRelu", [x], alpha=slope), SHAPE, leaky),
        Code.NEGATIVE_SCALE,
    )


def test_slopes_along_another_axis_stay():
    def prelu(net: Net, x: str) -> str:
        return net.node("PRelu", [x, net.const(spread(np.array([0.2, 0.4, 0.6, 3.0]), 3, 2))])

    assert_does_not_commute(prelu, SHAPE, MIXED)
    assert_stays(above(prelu, SHAPE, MIXED), Code.WRONG_AXIS)
