"""Einsum is a product whose axes are named."""

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

SIZES = {"n": 2, "c": 3, "t": 4, "d": 5, "h": 2}
EQUATIONS = ("nct,cd->ndt", "ntc,hcd->nhtd", "nct,ct->nc", "nct,dc->tdn", "nct,hcd->nhdt")


def _einsum(equation: str, *, turned: bool = False):
    left, result = equation.split("->")
    data, inner = left.split(",")

    def carry(net: Net, x: str) -> str:
        w = net.const(np.random.default_rng(3).normal(size=[SIZES[c] for c in inner]))
        if turned:
            return net.node("Einsum", [w, x], equation=f"{inner},{data}->{result}")
        return net.node("Einsum", [x, w], equation=equation)

    return carry, [SIZES[c] for c in data], [SIZES[c] for c in result]


@given(st.data(), st.sampled_from(EQUATIONS), st.booleans())
def test_scales_behind(data, equation, turned):
    carry, shape, out = _einsum(equation, turned=turned)
    drawn = axis_map(data.draw, out, range(len(out)), shift=False)
    assert_carried(above(carry, shape, drawn), 1)


@given(st.data(), st.sampled_from(EQUATIONS), st.booleans())
def test_maps_in_front(data, equation, turned):
    carry, shape, _ = _einsum(equation, turned=turned)
    left, result = equation.split("->")
    letters, inner = left.split(",")
    axes = [a for a, c in enumerate(letters) if c in inner or c in result]
    plain = "h" not in inner and equation != "nct,ct->nc"  # else several axes vary
    drawn = axis_map(data.draw, shape, axes, shift=plain)
    if plain and drawn.axis is not None and letters[drawn.axis] not in inner:
        drawn = Map(drawn.axis, np.linspace(0.5, 2, shape[drawn.axis]), None)
    assert_carried(below(carry, shape, drawn), drawn.nodes)


def test_a_sum_over_the_data_alone():
    carry, shape, _ = _einsum("nct,cd->nd")
    shift = Map(1, None, np.array([0.5, -0.7, 1.0]))
    assert_carried(below(carry, shape, shift), 1)
    bad = Map(2, np.array([1.0, 2.0, 3.0, 4.0]), None)
    assert_stays(below(carry, shape, bad), Code.WRONG_AXIS)


def test_an_implicit_result():
    def carry(net: Net, x: str) -> str:
        return net.node("Einsum", [x, net.const(net.weight(3, 5))], equation="nc, cd")

    assert_carried(below(carry, [2, 3], Map(1, np.array([1.0, 2.0, -3.0]), None)), 1)


@pytest.mark.parametrize("equation", ["ncc,cd->nd", "nct,c...->nt"])
def test_repeated_letters_and_a_summed_ellipsis_are_refused(equation):
    shape = [2, 3, 3]

    def carry(net: Net, x: str) -> str:
        return net.node("Einsum", [x, net.const(net.weight(3, 5))], equation=equation)

    assert_stays(below(carry, shape, MIXED), Code.UNKNOWN_OPERATOR)


def test_an_ellipsis_is_the_axes_without_a_letter():
    def carry(net: Net, x: str) -> str:
        return net.node("Einsum", [x, net.const(net.weight(3, 5))], equation="...c,cd->...d")

    front = Map(2, np.array([1.0, 2.0, -3.0]), None)
    assert_carried(below(carry, [2, 4, 3], front), 1)
    assert_carried(above(carry, [2, 4, 3], Map(2, np.arange(1.0, 6.0), None)), 1)


def test_shifts_that_vary_along_two_axes_stay():
    carry, shape, _ = _einsum("ntc,hcd->nhtd")
    shift = Map(2, None, np.array([0.5, -0.7, 1.0]))
    assert_does_not_commute(carry, shape, Map(None, None, np.array(0.7)))
    assert_stays(below(carry, shape, shift), Code.SHIFT_NOT_CONSTANT)


def test_a_shift_behind_stays():
    carry, shape, _ = _einsum("nct,dc->ndt")
    assert_stays(above(carry, shape, Map(1, None, np.arange(5.0))), Code.NEEDS_SCALE_ONLY)


def test_two_computed_operands_stay():
    def carry(net: Net, x: str) -> str:
        return net.node("Einsum", [x, net.input([3, 5], "w")], equation="nct,cd->ndt")

    assert_stays(below(carry, [2, 3, 4], SHIFT), Code.DYNAMIC_WEIGHT)
