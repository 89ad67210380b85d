"""Sum and Mean of several operands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnfold.records import Code
from tests.battery.graphs import Net
from tests.rules.around import (
    POSITIVE,
    above,
    assert_carried,
    assert_does_not_commute,
    assert_harmless,
    assert_stays,
    axis_map,
    below,
    maps,
    takes_all,
)

SHAPE = [2, 3, 4]
OPS = ["Sum", "Mean"]


def _value(net: Net, name: str) -> str:
    """A value that takes any map: its constants vary along all axes."""
    y = net.node("Sigmoid", [net.input(SHAPE, name)])
    for kind in ("Mul", "Add"):
        y = net.node(kind, [y, net.const(net.rng.uniform(0.5, 1.5, SHAPE))])
    return y


def _together(op: str, computed: int, constants: int):
    def carry(net: Net, x: str) -> str:
        values = [_value(net, f"x{place}") for place in range(computed)]
        values += [net.const(net.rng.normal(size=(3, 1))) for _ in range(constants)]
        return net.node(op, [*values, x])

    return carry


@given(st.data(), st.sampled_from(OPS), st.integers(0, 2), st.integers(0, 2))
def test_up(data, op, computed, constants):
    drawn = axis_map(data.draw, SHAPE, [1, 2])
    carry = _together(op, computed, constants)
    net = Net("up")
    y = carry(net, takes_all(net, net.input(SHAPE), behind=False))
    net.output(drawn.write(net, y, 3))
    assert_carried(net.model(), drawn.nodes)


@given(st.data(), st.sampled_from(OPS), st.integers(0, 2))
def test_down_beside_constants(data, op, constants):
    drawn = axis_map(data.draw, SHAPE, [1, 2])
    assert_carried(below(_together(op, 0, constants), SHAPE, drawn), drawn.nodes)


@given(st.data(), st.sampled_from(OPS))
def test_a_shift_passes_beside_values(data, op):
    drawn = axis_map(data.draw, SHAPE, [1, 2])
    assert_harmless(below(_together(op, 2, 1), SHAPE, drawn))


@given(st.data(), st.sampled_from(OPS))
def test_equal_maps_meet(data, op):
    drawn = data.draw(maps(3, 1))
    net = Net("meet")
    parts = [drawn.write(net, net.node(k, [net.input(SHAPE, k)]), 3) for k in ("Tanh", "Abs")]
    net.output(takes_all(net, net.node(op, parts), behind=True))
    assert_harmless(net.model())


@pytest.mark.parametrize("op", OPS)
def test_a_scale_of_one_operand_alone_stays(op):
    carry = _together(op, 1, 0)
    assert_does_not_commute(carry, SHAPE, POSITIVE)
    assert_stays(below(carry, SHAPE, POSITIVE), Code.MAPS_DIFFER)


@pytest.mark.parametrize("op", OPS)
def test_one_operand_is_the_identity(op):
    assert_carried(above(lambda n, x: n.node(op, [x]), SHAPE, POSITIVE), 1)
