"""Deriving a tensor row by row finds what deriving it as a whole finds."""

from __future__ import annotations

import time

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from bnfold.evidence import clock
from bnfold.evidence.proof import unrounded
from bnfold.evidence.proof.contents import contents_of, contents_of_both
from bnfold.evidence.proof.recipes import derive, rows_of
from bnfold.evidence.proof.unrounded import compared
from bnfold.model.digests import tensor_digest


@st.composite
def _recipes(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = tuple(draw(st.lists(st.integers(1, 7), min_size=1, max_size=4)))

    def spread():
        sizes = [size if draw(st.booleans()) else 1 for size in shape]
        if draw(st.booleans()):
            sizes = sizes[draw(st.integers(0, len(sizes))) :]
        return rng.uniform(-2, 2, sizes)

    recipe = {"value": "w"}
    for _ in range(draw(st.integers(0, 3))):
        if draw(st.booleans()):
            factors = [spread() for _ in range(draw(st.integers(1, 2)))]
            recipe = {"product": recipe, "factors": factors}
        else:
            settings = {"scale": spread(), "shift": spread()}
            recipe = {"made": "map", "settings": settings, "of": [recipe]}
    kind = draw(st.sampled_from([np.float16, np.float32, np.float64]))
    return recipe, {"w": rng.uniform(-1, 1, shape).astype(kind)}, draw(st.integers(1, 40))


@given(_recipes(), st.data())
def test_rows_are_those_of_the_whole(drawn, data):
    recipe, constants, block = drawn
    whole = np.asarray(derive(recipe, constants.get), np.float64)
    stored = whole.astype(np.float32)
    place = tuple(data.draw(st.integers(0, size - 1)) for size in stored.shape)
    rows = rows_of(recipe, constants.get, whole.shape)
    assert rows is not None
    first = slice(place[0], place[0] + 2)
    np.testing.assert_array_equal(np.asarray(rows(first), np.float64), whole[first])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unrounded, "_ROOM", 0)
        patch.setattr(unrounded, "_BLOCK", block)
        assert compared(recipe, constants.get, stored).worst is None
        stored[place] = stored[place] * 1.5 + 1.0
        found = compared(recipe, constants.get, stored)
    assert found.wide is None
    assert found.worst is not None
    assert found.worst.place == place
    assert (found.worst.got, found.worst.want) == (stored[place], whole[place])


def test_what_does_not_broadcast_is_left_to_the_whole():
    constants = {"w": np.zeros((3, 4))}
    for factor in (np.zeros(3), np.zeros((2, 3, 4)), np.zeros((5, 1))):
        recipe = {"product": {"value": "w"}, "factors": [factor]}
        assert rows_of(recipe, constants.get, (3, 4)) is None
    assert rows_of({"value": "w"}, constants.get, (4, 3)) is None
    assert rows_of({"made": "sum of products"}, constants.get, (3, 4)) is None


class _Counted(ir.Tensor):
    reads = 0

    def numpy(self):
        type(self).reads += 1
        return super().numpy()


def _model(tensor: ir.TensorProtocol) -> ir.Model:
    node = helper.make_node("Mul", ["x", "w"], ["y"])
    ends = [helper.make_tensor_value_info(name, 1, [None]) for name in "xy"]
    model = ir.from_proto(
        helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:]))
    )
    value = ir.Value(name="w", const_value=tensor)
    model.graph.initializers["w"] = value
    return model


def test_a_tensor_of_both_models_is_read_once():
    tensor = _Counted(np.arange(3.0, dtype=np.float32), name="w")
    _Counted.reads = 0
    before, after = contents_of_both(_model(tensor), _model(tensor))
    assert _Counted.reads == 1
    assert before.tensors == after.tensors == {"w": tensor_digest(tensor)}


def test_what_cannot_be_read_in_time_is_not_begun():
    tensor = _Counted(np.zeros(1 << 18, np.float32), name="w")
    _Counted.reads = 0
    with pytest.raises(clock.OutOfTimeError), clock.until(time.monotonic() - 1.0):
        contents_of(_model(tensor))
    assert _Counted.reads == 0
    recipe = {"product": {"value": "w"}, "factors": [np.ones(1)]}
    stored = np.zeros((1 << 11, 1 << 10), np.float32)
    with pytest.raises(clock.OutOfTimeError), clock.until(time.monotonic() - 1.0):
        compared(recipe, {"w": stored}.get, stored)
