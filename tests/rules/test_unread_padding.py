"""A shift passes padding that no window reads: counted window by window, then evaluated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from onnx import helper

import bnfold
from bnfold.records import Code
from bnfold.rules.windows import reads_padding
from tests.model.open_sizes import facts_of, open_model
from tests.reference64 import run64

N = helper.make_node


@dataclass(frozen=True)
class Axis:
    """What windows do along one axis."""

    size: int
    taps: int
    stride: int
    dilation: int
    front: int
    behind: int

    @property
    def reach(self) -> int:
        return self.dilation * (self.taps - 1) + 1

    def pads(self, auto: str) -> tuple[int, int, int]:
        """Windows, and elements padded in front and behind, as Conv-22 has them."""
        if auto == "NOTSET":
            room = self.size + self.front + self.behind - self.reach
            return room // self.stride + 1, self.front, self.behind
        if auto == "VALID":
            return (self.size - self.reach) // self.stride + 1, 0, 0
        count = -(-self.size // self.stride)
        total = max((count - 1) * self.stride + self.reach - self.size, 0)
        less, more = total // 2, total - total // 2
        return (count, less, more) if auto == "SAME_UPPER" else (count, more, less)

    def reads(self, auto: str) -> bool:
        """Whether any tap of any window stands beside the elements."""
        count, front, _ = self.pads(auto)
        places = (
            window * self.stride - front + tap * self.dilation
            for window in range(count)
            for tap in range(self.taps)
        )
        return any(not 0 <= place < self.size for place in places)


@st.composite
def axes(draw) -> Axis:
    small = st.integers(1, 3)
    pads = st.sampled_from([0, 0, 0, 1, 2])
    taps, stride, dilation = draw(small), draw(st.integers(1, 4)), draw(small)
    front, behind = draw(pads), draw(pads)
    return Axis(draw(st.integers(1, 12)), taps, stride, dilation, front, behind)


AUTO = ("NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


def _attributes(drawn: list[Axis], auto: str):
    shared = {
        "strides": [axis.stride for axis in drawn],
        "dilations": [axis.dilation for axis in drawn],
    }
    if auto != "NOTSET":
        return {**shared, "auto_pad": auto}
    pads = [axis.front for axis in drawn] + [axis.behind for axis in drawn]
    return {**shared, "pads": pads}


def _shifted_conv(drawn: list[Axis], auto: str, opset: int = 17, sizes=None):
    """x → Sub → Conv → Tanh; the sizes of x may be open."""
    rng = np.random.default_rng(len(drawn))
    kernel = [axis.taps for axis in drawn]
    stored = {
        "t": rng.normal(size=(3, *[1] * len(drawn))).astype(np.float32),
        "w": rng.normal(size=(2, 3, *kernel)).astype(np.float32),
    }
    nodes = [
        N("Sub", ["x", "t"], ["a"]),
        N("Conv", ["a", "w"], ["c"], kernel_shape=kernel, **_attributes(drawn, auto)),
        N("Tanh", ["c"], ["y"]),
    ]
    dims = ["n", 3, *(sizes or [axis.size for axis in drawn])]
    return open_model(nodes, stored, dims, opset)


@given(st.lists(axes(), min_size=1, max_size=3), st.sampled_from(AUTO))
@example([Axis(16, 4, 4, 1, 0, 0)], "SAME_UPPER")
@example([Axis(7, 3, 2, 1, 0, 1)], "NOTSET")  # what is padded behind is left over
@example([Axis(8, 3, 2, 1, 0, 1)], "NOTSET")
def test_padding_counts_exactly_where_a_window_reads_it(drawn, auto):
    assume(all(axis.pads(auto)[0] > 0 for axis in drawn))
    facts, values = facts_of(_shifted_conv(drawn, auto))
    node = values["c"].producer()
    said = reads_padding(node, [axis.taps for axis in drawn], facts)
    assert said == any(axis.reads(auto) for axis in drawn)


@given(axes(), st.sampled_from(AUTO), st.integers(1, 4), st.integers(0, 3), st.integers(1, 9))
def test_padding_of_open_sizes_is_unread_only_if_it_is_at_every_size(
    axis, auto, times, more, number
):
    """The size is ``times · h + more``: h repeated, and padded in front of all this."""
    nodes = [
        N("Tile", ["x", "repeats"], ["r"]),
        N("Pad", ["r", "pads"], ["p"]),
        N("Conv", ["p", "w"], ["y"], **_attributes([axis], auto)),
    ]
    stored = {
        "repeats": np.int64([1, 1, times]),
        "pads": np.int64([0, 0, more, 0, 0, 0]),
        "w": np.ones((2, 3, axis.taps), np.float32),
    }
    facts, values = facts_of(open_model(nodes, stored, ["n", 3, "h"]))
    if reads_padding(values["y"].producer(), [axis.taps], facts):
        return
    at = Axis(times * number + more, *[getattr(axis, name) for name in _OTHERS])
    assert at.pads(auto)[0] <= 0 or not at.reads(auto)


_OTHERS = ("taps", "stride", "dilation", "front", "behind")


@given(
    st.lists(axes(), min_size=1, max_size=2),
    st.sampled_from(AUTO),
    st.sampled_from([7, 11, 17, 22]),
)
@example([Axis(16, 4, 4, 1, 0, 0), Axis(9, 3, 3, 1, 0, 0)], "SAME_LOWER", 11)
def test_a_shift_moves_into_the_bias_exactly_where_no_padding_is_read(drawn, auto, opset):
    assume(all(axis.pads(auto)[0] > 0 for axis in drawn))
    assume(auto[:4] != "SAME" or all(axis.dilation == 1 for axis in drawn))
    model = _shifted_conv(drawn, auto, opset)
    folded = bnfold.fold(model, verify=False).to_proto()
    kept = [node.op_type for node in folded.graph.node]
    assert ("Sub" in kept) == any(axis.reads(auto) for axis in drawn)
    for batch in (1, 2, 7):
        x = np.random.default_rng(batch).normal(size=(batch, 3, *[a.size for a in drawn]))
        (wanted,), (got,) = (run64(one, {"x": x}).values() for one in (model, folded))
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("auto", ["NOTSET", "SAME_UPPER"])
def test_a_size_that_is_declared_as_0_may_be_any(auto):
    axis = Axis(0, 2, 2, 1, 0, 1)
    facts, values = facts_of(_shifted_conv([axis], auto))
    assert reads_padding(values["c"].producer(), [2], facts)
    assert Axis(5, 2, 2, 1, 0, 1).reads(auto)


@pytest.mark.parametrize(("size", "gone"), [(8, True), (9, False), ("h", False)])
def test_ceil_mode_of_an_average_that_counts_what_it_pads(size, gone):
    """With ceil_mode the last window of three steps over nine elements ends beside them."""
    nodes = [
        N("Conv", ["x", "w"], ["c"]),
        N("AveragePool", ["c"], ["p"], kernel_shape=[2], strides=[2], count_include_pad=1,
          ceil_mode=1),
        N("Add", ["p", "t"], ["q"]),
        N("Tanh", ["q"], ["y"]),
    ]  # fmt: skip
    stored = {"w": np.ones((2, 3, 1), np.float32), "t": np.float32([[0.5], [-0.7]])}
    model = open_model(nodes, stored, ["n", 3, size])
    result = bnfold.fold(model, verify=False)
    kept = [node.op_type for node in result.to_proto().graph.node]
    assert ("Add" not in kept) == gone
    if not gone:
        codes = {refusal.code for stay in result.report.stays for refusal in stay.refusals}
        assert Code.SHIFT_MEETS_PADDING in codes


@given(st.integers(1, 12), st.integers(1, 3), st.integers(1, 3), st.sampled_from([0, 1]))
def test_a_shift_passes_an_average_that_counts_zeros_only_if_none_is_counted(
    size, taps, stride, behind
):
    axis = Axis(size, taps, stride, 1, 0, behind)
    assume(axis.pads("NOTSET")[0] > 0 and behind < taps)
    nodes = [
        N("Conv", ["x", "w"], ["c"]),
        N("AveragePool", ["c"], ["p"], kernel_shape=[taps], strides=[stride],
          pads=[0, behind], count_include_pad=1),
        N("Add", ["p", "t"], ["q"]),
        N("Tanh", ["q"], ["y"]),
    ]  # fmt: skip
    stored = {"w": np.ones((2, 3, 1), np.float32), "t": np.float32([[0.5], [-0.7]])}
    model = open_model(nodes, stored, ["n", 3, size])
    folded = bnfold.fold(model, verify=False).to_proto()
    kept = [node.op_type for node in folded.graph.node]
    assert ("Add" in kept) == axis.reads("NOTSET")
    x = np.random.default_rng(0).normal(size=(2, 3, size))
    (wanted,), (got,) = (run64(one, {"x": x}).values() for one in (model, folded))
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)
