"""Transpose, Reshape and their kin, Cast and Dropout: the map follows its axis."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnfold.records import Code
from tests.battery.graphs import Net
from tests.rules.around import (
    Map,
    above,
    assert_carried,
    assert_does_not_commute,
    assert_stays,
    axis_map,
    below,
    shape_of,
)

SHAPE = [2, 3, 4, 5]


@given(st.data(), st.permutations(range(4)), st.booleans(), st.booleans())
def test_transpose_permutes_the_axis(data, perm, default, up):
    attributes = {} if default else {"perm": perm}
    perm = [3, 2, 1, 0] if default else perm

    def carry(net: Net, x: str) -> str:
        return net.node("Transpose", [x], **attributes)

    sizes = [SHAPE[axis] for axis in perm] if up else SHAPE
    drawn = axis_map(data.draw, sizes, range(4))
    assert_carried((above if up else below)(carry, SHAPE, drawn), drawn.nodes)


def _reshape(*dims: int):
    return lambda net, x: net.node("Reshape", [x, net.ints(*dims)])


def _flatten(axis: int):
    return lambda net, x: net.node("Flatten", [x], axis=axis)


KEEPING = {  # operator, axes in front that survive, axes behind that survive
    "merge places": (_reshape(2, 3, 20), [0, 1], [0, 1]),
    "split places": (_reshape(2, 3, 2, 2, 5), [0, 1, 3], [0, 1, 4]),
    "zero keeps": (_reshape(0, 0, -1), [0, 1], [0, 1]),
    "flatten 2": (_flatten(3), [3], [1]),
    "merge rows": (_reshape(24, 5), [3], [1]),
    "unsqueeze": (
        lambda n, x: n.node("Unsqueeze", [x, n.ints(1, 3)]),
        [0, 1, 2, 3],
        [0, 2, 4],
    ),
}


@pytest.mark.parametrize("name", KEEPING)
def test_an_axis_that_survives_carries_its_map(name):
    carry, front, behind = KEEPING[name]

    @given(st.data(), st.booleans())
    def law(data, up):
        net = Net("sizes")
        sizes = shape_of(net, carry(net, net.input(SHAPE))) if up else SHAPE
        drawn = axis_map(data.draw, sizes, behind if up else front)
        assert_carried((above if up else below)(carry, SHAPE, drawn), drawn.nodes)

    law()


@given(st.data(), st.booleans())
def test_squeeze_drops_axes_of_one(data, up):
    def carry(net: Net, x: str) -> str:
        return net.node("Squeeze", [x, net.ints(1, -1)])

    shape = [2, 1, 4, 1]
    drawn = axis_map(data.draw, [2, 4] if up else shape, [0, 1] if up else [0, 2])
    assert_carried((above if up else below)(carry, shape, drawn), drawn.nodes)


def test_channels_that_are_flattened_with_places_repeat_in_front_and_must_agree_behind():
    """[N, C, H, W] → [N, C·H·W]: entry j belongs to channel j // (H·W)."""
    carry = _flatten(1)
    front = Map(1, np.array([0.5, -2.0, 3.0]), None)
    assert_carried(below(carry, SHAPE, front), 1)
    agree = Map(1, np.repeat([0.5, -2.0, 3.0], 20), None)
    assert_carried(above(carry, SHAPE, agree), 1)
    differ = Map(1, np.linspace(0.5, 2.0, 60), None)
    assert_stays(_alone(carry, differ, up=True), Code.WRONG_AXIS)
    per_channel = differ.scale.reshape(3, 20)
    assert np.ptp(per_channel, axis=1).min() > 0.1  # no number serves a whole channel


def test_an_axis_that_is_cut_across_its_rows_stays():
    """[2, 3, 4, 5] → [4, 30] cuts every image in two, across its three channels."""
    carry = _reshape(4, 30)
    cut = Map(1, np.array([0.5, -2.0, 3.0]), None)
    assert_stays(_alone(carry, cut, up=False), Code.WRONG_AXIS)
    spread = np.broadcast_to(cut.scale.reshape(1, 3, 1, 1), SHAPE).reshape(4, 30)
    assert np.ptp(spread, axis=0).max() > 0.1  # neither one number for a column,
    assert np.ptp(spread, axis=1).max() > 0.1  # nor one for a row


def _alone(carry, drawn: Map, *, up: bool):
    """The map between the operator and Tanh, which takes nothing."""
    net = Net("alone")
    x = net.node("Tanh", [net.input(SHAPE)])
    if up:
        y = carry(net, x)
        y = drawn.write(net, y, len(shape_of(net, y)))
    else:
        y = carry(net, drawn.write(net, x, len(SHAPE)))
    net.output(net.node("Tanh", [y]))
    return net.model()


# ---------------------------------------------------------------------- types and modes


@pytest.mark.parametrize(("inner", "outer"), [("fp32", "fp64"), ("fp16", "fp32")])
def test_a_cast_passes_maps_towards_the_wider_type(inner, outer):
    kinds = {"fp16": 10, "fp32": 1, "fp64": 11}

    def model(scale: float):
        net = Net(f"cast{scale}{inner}", dtype=inner)
        y = net.conv(net.input([2, 3, 5]), 3, 3, kernel=(1,))
        y = net.node("Cast", [y], to=kinds[outer])
        y = net.node("Mul", [y, net.const(np.array(scale), dtype=outer)])
        net.shapes[y] = [2, 3, 5]
        net.dtype = outer
        net.output(y, shape=[2, 3, 5])
        return net.model()

    assert_carried(model(1.5), 1)


def test_a_scale_that_float16_cannot_follow_stays_in_float32():
    """cast(x) · 1000 in float32; in float16 values above 65 would overflow."""
    net = Net("cast range", dtype="fp16")
    y = net.conv(net.input([2, 3, 5]), 3, 3, kernel=(1,))
    y = net.node(
        "Mul", [net.node("Cast", [y], to=1), net.const(np.array(1000.0), dtype="fp32")]
    )
    net.dtype = "fp32"
    net.output(net.node("Tanh", [y]), shape=[2, 3, 5])
    assert_stays(net.model(), Code.CAST_RANGE)
    with np.errstate(over="ignore"):
        assert np.isinf(np.float16(70.0) * np.float16(1000.0))


def test_a_cast_to_integers_stops_every_map():
    net = Net("to integers")
    y = net.mul(net.node("Tanh", [net.input([2, 3, 5])]), 3, 3)
    y = net.node("Cast", [net.node("Cast", [y], to=7)], to=1)
    net.output(net.conv(y, 3, 2, kernel=(1,)))
    assert_stays(net.model(), Code.NOT_FLOAT)
    x = np.array([0.4, 0.6])
    assert (np.trunc(3 * x) != 3 * np.trunc(x)).any()


@given(st.data(), st.booleans())
def test_dropout_at_inference_passes_every_map(data, up):
    def carry(net: Net, x: str) -> str:
        return net.node("Dropout", [x, net.const(np.array(0.5))])

    drawn = axis_map(data.draw, SHAPE, range(4))
    assert_carried((above if up else below)(carry, SHAPE, drawn), drawn.nodes)


def test_dropout_that_trains_stops_a_shift():
    """What it drops becomes zero, shifted or not."""

    def carry(net: Net, x: str) -> str:
        trains = net.const(np.asarray(1), dtype="bool")
        return net.node("Dropout", [x, net.const(np.array(0.5)), trains])

    net = Net("trains")
    y = carry(net, net.conv(net.input(SHAPE), 3, 3, kernel=(1, 1)))
    net.output(net.node("Tanh", [net.add(y, 3)]))
    assert_stays(net.model(), Code.BATCH_STATISTICS)


def test_a_map_does_not_follow_another_axis():
    along = Map(1, np.array([0.5, -2.0, 3.0]), None)
    swapped = [2, 3, 3, 5]
    transposed = lambda n, x: n.node("Transpose", [x], perm=[0, 2, 1, 3])  # noqa: E731  one line
    assert_does_not_commute(transposed, swapped, along)
