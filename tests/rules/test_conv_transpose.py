"""A shift passes a ConvTranspose where it makes one number at all places behind it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

import bnfold
from bnfold.records import Code
from tests.battery import judge
from tests.battery.graphs import Net
from tests.proving import assert_proved
from tests.reference64 import run64
from tests.rules.around import assert_stays


@dataclass(frozen=True)
class Axis:
    """What a ConvTranspose does along one axis."""

    taps: int
    stride: int = 1
    dilation: int = 1
    front: int = 0
    behind: int = 0
    more: int = 0
    auto: str = "NOTSET"

    def length(self, size: int) -> int:
        if self.auto.startswith("SAME"):
            return size * self.stride
        reach = (self.taps - 1) * self.dilation + 1
        whole = (size - 1) * self.stride + reach + self.more
        return whole if self.auto == "VALID" else whole - self.front - self.behind


@st.composite
def axes(draw) -> Axis:
    """Mostly crops around the one from which on all outputs of a phase see all its taps."""
    taps, stride, dilation = (draw(st.integers(1, most)) for most in (4, 4, 2))
    over = max((taps - 1) * dilation + 1 - stride, 0)
    front, behind = (max(over + draw(st.sampled_from([0, 0, 0, 1, -1])), 0) for _ in "fb")
    more = draw(st.sampled_from([0, 0, 1])) if stride > 1 or dilation > 1 else 0
    return Axis(taps, stride, dilation, front, behind, more)


def _attributes(drawn: list[Axis]) -> dict[str, object]:
    attributes = {
        "strides": [axis.stride for axis in drawn],
        "dilations": [axis.dilation for axis in drawn],
        "output_padding": [axis.more for axis in drawn],
    }
    if drawn[0].auto != "NOTSET":
        return {**attributes, "auto_pad": drawn[0].auto}
    pads = [axis.front for axis in drawn] + [axis.behind for axis in drawn]
    return {**attributes, "pads": pads}


def _net(drawn, sizes, weight, shift, *, groups: int = 1, dtype: str = "fp32") -> Net:
    net = Net(f"transposed{drawn}", 17, dtype)
    x = net.input([2, 4, *sizes])
    x = net.node("Add", [x, net.const(shift.reshape(4, *[1] * len(drawn)))])
    y = net.node("ConvTranspose", [x, net.const(weight)], group=groups, **_attributes(drawn))
    net.output(net.node("Tanh", [y]))
    return net


def _weight(rng, drawn, kind: str) -> np.ndarray:
    """Taps that all differ, that are all equal, or of which each phase has as much."""
    kernel = [axis.taps for axis in drawn]
    weight = rng.normal(size=(4, 3, *kernel))
    if kind == "equal":
        weight[...] = weight[(..., *[slice(0, 1)] * len(kernel))]
    if kind == "half":  # each channel and tap a power of two: sums are exact
        weight = np.exp2(np.round(weight))
    return weight.astype(np.float32)


def _is_constant(drawn, sizes, weight, shift, groups) -> bool:
    """Whether the shift alone makes one number per channel, in float64."""
    net = _net(drawn, sizes, weight, shift, groups=groups)
    net.nodes = net.nodes[:-1]
    net.outputs = [net.nodes[-1].output[0]]
    (y,) = run64(net.model(), {"x": np.zeros((2, 4, *sizes))}).values()
    return bool(np.ptp(y.reshape(2, y.shape[1], -1), axis=2).max() <= 1e-9)


@given(
    st.lists(axes(), min_size=1, max_size=2),
    st.sampled_from(["other", "equal", "equal", "half"]),
    st.sampled_from([1, 2]),
)
@settings(max_examples=100)
@example([Axis(2, 2), Axis(2, 2)], "equal", 1)
@example([Axis(4, 2, front=2, behind=2)], "half", 1)
@example([Axis(3, 1, front=1, behind=1)], "equal", 1)
@example([Axis(2, 2, dilation=1, auto="SAME_UPPER")], "equal", 2)
@example([Axis(3, 2, auto="SAME_LOWER")], "equal", 1)
@example([Axis(2, 2, auto="VALID"), Axis(3, 3, auto="VALID")], "equal", 1)
def test_a_shift_passes_where_it_makes_one_number_and_only_there(drawn, kind, groups):
    sizes = [9, 8][: len(drawn)]
    rows = zip(drawn, sizes, strict=True)  # a result of one place is one number
    assume(all(axis.length(size) >= 2 * axis.stride + 2 for axis, size in rows))
    rng = np.random.default_rng(5)
    weight, shift = _weight(rng, drawn, kind), np.array([0.5, -2.0, 1.0, 4.0])
    model = _net(drawn, sizes, weight, shift, groups=groups).model()
    folded = bnfold.fold(model, verify=False).to_proto()
    gone = "Add" not in [node.op_type for node in folded.graph.node]
    assert gone == _is_constant(drawn, sizes, weight, shift, groups)
    assert judge.wrong_outputs(model, folded) == []


def test_channels_whose_taps_differ_do_not_matter_if_they_are_not_shifted():
    rng = np.random.default_rng(1)
    drawn, shift = [Axis(2, 2), Axis(2, 2)], np.array([0.0, 1.5, 0.0, -2.0])
    weight = _weight(rng, drawn, "equal")
    weight[0] = rng.normal(size=weight[0].shape)
    model = _net(drawn, [3, 4], weight, shift).model()
    folded = bnfold.fold(model, verify=False).to_proto()
    assert [node.op_type for node in folded.graph.node] == ["ConvTranspose", "Tanh"]
    assert judge.wrong_outputs(model, folded) == []


@pytest.mark.parametrize("kind", ["other", "equal"])
def test_the_reason_is_that_taps_differ_or_borders_do(kind):
    drawn = [Axis(2, 2)] if kind == "other" else [Axis(3, 2)]
    weight = _weight(np.random.default_rng(1), drawn, kind)
    net = _net(drawn, [5], weight, np.array([1.0, 2.0, 3.0, 4.0]))
    assert_stays(net.model(), Code.SHIFT_NOT_CONSTANT)


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16", "fp64"])
def test_the_fold_is_proved_and_a_wrong_one_is_seen(dtype):
    drawn = [Axis(2, 2), Axis(2, 2)]
    weight = _weight(np.random.default_rng(1), drawn, "equal")
    net = _net(drawn, [6, 6], weight, np.array([1.0, 2.0, -3.0, 4.0]), dtype=dtype)
    net.opset = net.domains[""] = 22
    model = net.model()
    result = bnfold.fold(model, verify=False, certificate=True)
    folded, wrong = result.to_proto(), onnx.ModelProto()
    wrong.CopyFrom(folded)
    bias = next(t for t in wrong.graph.initializer if len(t.dims) == 1)
    array = numpy_helper.to_array(bias).copy()
    array[1] = array[1] * array.dtype.type(1.125)
    bias.CopyFrom(numpy_helper.from_array(array, bias.name))
    assert_proved(model, result, wrong)
