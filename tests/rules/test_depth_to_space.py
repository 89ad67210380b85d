"""DepthToSpace and SpaceToDepth: the map follows the channels."""

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
    assert_stays,
    axis_map,
    below,
    maps,
)


def _deep(op: str, mode: str | None):
    def carry(net: Net, x: str) -> str:
        named = {} if mode is None else {"mode": mode}
        return net.node(op, [x], blocksize=2, **named)

    return carry


DEEP = [2, 12, 2, 3]
WIDE = [2, 3, 4, 6]


@given(st.data(), st.sampled_from([None, "DCR", "CRD"]))
def test_depth_to_space_up(data, mode):
    drawn = axis_map(data.draw, WIDE, [1])
    assert_carried(above(_deep("DepthToSpace", mode), DEEP, drawn), drawn.nodes)


@given(st.data(), st.sampled_from(["DCR", "CRD"]))
def test_depth_to_space_down_where_blocks_agree(data, mode):
    drawn = data.draw(maps(3, 1, shift=False))
    scale = np.tile(drawn.scale, 4) if mode == "DCR" else np.repeat(drawn.scale, 4)
    assert_carried(below(_deep("DepthToSpace", mode), DEEP, Map(1, scale, None)), 1)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space_down_stays_where_they_do_not(mode):
    ordered = Map(1, np.arange(1.0, 13.0), None)
    assert_stays(below(_deep("DepthToSpace", mode), DEEP, ordered), Code.MAPS_DIFFER)
    turned = np.repeat([1.0, 2, 3], 4) if mode == "DCR" else np.tile([1.0, 2, 3], 4)
    carry = _deep("DepthToSpace", mode)
    assert_stays(below(carry, DEEP, Map(1, turned, None)), Code.MAPS_DIFFER)


@given(st.data())
def test_space_to_depth_down(data):
    drawn = axis_map(data.draw, WIDE, [1])
    assert_carried(below(_deep("SpaceToDepth", None), WIDE, drawn), drawn.nodes)


def test_space_to_depth_up():
    agreeing = Map(1, np.tile([1.0, -2.0, 0.5], 4), np.tile([0.1, 0.2, 0.3], 4))
    assert_carried(above(_deep("SpaceToDepth", None), WIDE, agreeing), 2)
    assert_stays(
        above(_deep("SpaceToDepth", None), WIDE, Map(1, np.arange(1.0, 13.0), None)),
        Code.MAPS_DIFFER,
    )


def test_a_map_along_a_regrouped_axis_stays():
    drawn = Map(2, np.array([1.0, 2.0]), None)
    assert_stays(below(_deep("DepthToSpace", "DCR"), DEEP, drawn), Code.WRONG_AXIS)
