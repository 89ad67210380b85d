"""The bound on what an operator makes: never below what it does make."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from bnfold.model.growth import Given, growth_of


def bound(node: ir.Node, arrays: list[np.ndarray | None], opset: int) -> float:
    shapes = [None if x is None else np.shape(x) for x in arrays]
    return growth_of(Given(node, shapes, lambda place: arrays[place], opset)).elements


SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=4)


def node_of(op: str, inputs: int, **attributes: object) -> ir.Node:
    names = [f"i{k}" for k in range(inputs)]
    return ir.serde.deserialize_node(helper.make_node(op, names, ["o"], **attributes))


@given(shape=SIZES, sizes=SIZES)
def test_what_expands_is_bounded(shape, sizes):
    x, asked = np.zeros(shape), np.array(sizes)
    found = bound(node_of("Expand", 2), [x, asked], 17)
    try:
        made = np.broadcast_shapes(tuple(shape), tuple(sizes))
    except ValueError:
        return
    assert math.prod(made) <= found
    assert math.prod(sizes) <= bound(node_of("ConstantOfShape", 1), [asked], 17)


@given(shape=SIZES, data=st.data())
def test_what_tiles_and_pads_is_bounded(shape, data):
    rank, x = len(shape), np.zeros(shape)
    times = np.array(data.draw(st.lists(st.integers(0, 9), min_size=rank, max_size=rank)))
    assert np.tile(x, times).size <= bound(node_of("Tile", 2), [x, times], 17)
    widths = data.draw(st.lists(st.integers(0, 9), min_size=2 * rank, max_size=2 * rank))
    pairs = list(zip(widths[:rank], widths[rank:], strict=True))
    found = bound(node_of("Pad", 2), [x, np.array(widths)], 17)
    assert np.pad(x, pairs).size <= found


@given(shapes=st.lists(SIZES, min_size=2, max_size=3))
def test_what_broadcasts_is_bounded(shapes):
    arrays = [np.zeros(shape) for shape in shapes]
    try:
        made = np.broadcast_shapes(*map(tuple, shapes))
    except ValueError:
        return
    assert math.prod(made) <= bound(node_of("Max", len(arrays)), arrays, 17)


@pytest.mark.parametrize("sizes", [[1 << 40], [1 << 62, 1 << 62], [-1 << 40, 1 << 40]])
def test_sizes_beyond_all_bounds_do_not_overflow(sizes):
    found = bound(node_of("ConstantOfShape", 1), [np.array(sizes)], 17)
    assert found >= 1 << 40


def test_what_makes_no_sense_is_infinite():
    nonsense = node_of("Einsum", 1, equation="ijk")
    assert bound(nonsense, [np.zeros(3)], 17) == math.inf


def test_axes_of_size_zero_do_not_hide_what_grows_behind_them():
    nothing = np.zeros((1 << 20, 0, 1 << 20))
    assert bound(node_of("ReduceSum", 1, keepdims=0), [nothing], 17) >= 1 << 40
    pair = [np.zeros((1 << 20, 0)), np.zeros((0, 1 << 20))]
    assert bound(node_of("MatMul", 2), pair, 17) >= 1 << 40


def test_neighbouring_channels_are_held_beside_each_other():
    node = node_of("LRN", 1, size=1000)
    assert bound(node, [np.zeros((1, 8, 4, 4))], 13) >= 1000 * 128


def test_a_kernel_of_many_taps_takes_time():
    node = node_of("ConvTranspose", 2)
    shapes = [(1, 1, 1, 1), (1, 1, 1000, 1000)]
    found = growth_of(Given(node, shapes, lambda _: np.zeros(0), 17))
    assert found.ns > 10e9
