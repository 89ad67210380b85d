"""Axes are cut no shorter than windows, slices, pads and strides on the way need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnfold.evidence.proof.extents import Extents, Sizes, extents_of
from bnfold.evidence.proof.sides import Segment, Side
from bnfold.model.io import opened
from tests.evidence.proof.models import N, conv_bn, model

CHANNELS = 2
TO_THE_END = 2**31 - 1
POOLS = ("MaxPool", "AveragePool", "LpPool")
AUTO = ("SAME_UPPER", "SAME_LOWER", "VALID")


@dataclass(frozen=True)
class Stage:
    """One operator along one axis: what it does to lengths, told apart from the code.

    Attributes:
        before: Length that gives the wanted one.
        stride: By how much the input grows for one more place.
        settings: Kernel, stride, dilation, two pads; or start, end, step of a slice.
    """

    before: int
    stride: int
    settings: tuple[int, ...]


def window(draw: Any, op: str, auto: str, places: int, *, small: bool) -> Stage:
    """A window that gives ``places``, with what is left over at the end drawn too."""
    most = 4 if small else 16
    kernel, stride = draw(st.integers(1, most)), draw(st.integers(1, most))
    dilation = draw(st.integers(1, 3)) if op in ("Conv", "MaxPool") else 1
    extent = dilation * (kernel - 1) + 1
    rest = draw(st.integers(0, stride - 1))
    if auto.startswith("SAME"):
        before = max((places - 1) * stride + 1 + rest, 1)
        return Stage(before, stride, (kernel, stride, dilation, 0, 0))
    top = kernel - 1 if auto == "NOTSET" else 0
    pads = draw(st.integers(0, top)), draw(st.integers(0, top))
    before = (places - 1) * stride + extent - sum(pads) + rest
    short = max(extent - before, 1 - before, 0)  # a window must fit without its pads
    before += -(-short // stride) * stride
    return Stage(before, stride, (kernel, stride, dilation, *pads))


def is_told_alike(stage: Stage) -> bool:
    """Whether no window would start behind the data, which onnx's inference counts wrongly."""
    kernel, stride, dilation, _, after = stage.settings
    return after + stride <= dilation * (kernel - 1) + 1


def slice_of(draw: Any, places: int, step: int, *, fixed: bool) -> Stage:
    start = draw(st.integers(0, 9))
    end = start + (places - 1) * step + 1
    if fixed:
        return Stage(end + draw(st.integers(0, 30)), step, (start, end, step))
    return Stage(end + draw(st.integers(0, step - 1)), step, (start, TO_THE_END, step))


@dataclass(frozen=True)
class Chain:
    """Operators behind one another."""

    nodes: list[onnx.NodeProto]
    stored: dict[str, np.ndarray]
    sizes: tuple[int, ...]
    strides: tuple[int, ...]


@st.composite
def chains(
    draw: Any, rank: int, source: str, target: str, places: tuple[int, ...], *, fixed: bool
) -> Chain:
    """One to three operators that make ``places`` of something; drawn from the last on."""
    nodes: list[onnx.NodeProto] = []
    stored: dict[str, np.ndarray] = {}
    strides, name = [1] * rank, target
    count = draw(st.integers(1, 3 if rank < 3 else 2))
    for depth in range(count):
        read = source if depth == count - 1 else f"{target}.{depth}"
        op = draw(st.sampled_from(["Conv", "Conv", *POOLS, "Slice"]))
        if op == "Slice":
            is_fixed = fixed and draw(st.booleans())
            step = draw(st.integers(1, 4))
            stages = [slice_of(draw, one, step, fixed=is_fixed) for one in places]
            node = slicing(read, name, stages, stored)
        else:
            auto = draw(st.sampled_from(["NOTSET", "NOTSET", *AUTO]))
            stages = [window(draw, op, auto, one, small=rank > 2) for one in places]
            ceil = op != "Conv" and auto == "NOTSET" and draw(st.booleans())
            ceil = ceil and all(map(is_told_alike, stages))
            node = windowed(op, auto, read, name, stages, stored, ceil=ceil)
        nodes.insert(0, node)
        places = tuple(stage.before for stage in stages)
        strides = [a * stage.stride for a, stage in zip(strides, stages, strict=True)]
        name = read
    return Chain(nodes, stored, places, tuple(strides))


def slicing(read: str, name: str, stages: list[Stage], stored: dict[str, Any]):
    along = zip(*(one.settings for one in stages), strict=True)
    parts = dict(zip(("s", "e", "st"), along, strict=True))
    parts["ax"] = tuple(range(2, 2 + len(stages)))
    stored |= {f"{name}.{key}": np.array(part) for key, part in parts.items()}
    reads = [f"{name}.{key}" for key in ("s", "e", "ax", "st")]
    return N("Slice", [read, *reads], [name])


def windowed(
    op: str,
    auto: str,
    read: str,
    name: str,
    stages: list[Stage],
    stored: dict[str, Any],
    *,
    ceil: bool,
):
    kernel, strides, dilations, left, right = (
        list(part) for part in zip(*(one.settings for one in stages), strict=True)
    )
    more: dict[str, Any] = {"kernel_shape": kernel, "strides": strides}
    if op in ("Conv", "MaxPool"):
        more["dilations"] = dilations
    more |= {"auto_pad": auto} if auto != "NOTSET" else {"pads": left + right}
    if ceil:
        more["ceil_mode"] = 1
    if op != "Conv":
        return N(op, [read], [name], **more)
    stored[f"{name}.w"] = np.ones((CHANNELS, CHANNELS, *kernel))
    return N("Conv", [read, f"{name}.w"], [name], **more)


def cut(proto: onnx.ModelProto, sizes: Sizes) -> tuple[Side, Segment, dict[str, Any]]:
    """The segment of the whole model, and the shapes of its inputs."""
    side = Side(opened(proto))
    value = side.values["y"]
    segment = side.segment(value, set(), 99)
    assert segment is not None
    dims = {
        one.name: tuple(dim.dim_value for dim in one.type.tensor_type.shape.dim)
        for one in proto.graph.input
    }
    return side, segment, extents_of([(segment, side)], sizes).shapes(dims, sizes)


def real_places(proto: onnx.ModelProto) -> tuple[int, ...]:
    """What shape inference of onnx says of the result at its real size."""
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True)
    dims = inferred.graph.output[0].type.tensor_type.shape.dim
    return tuple(dim.dim_value for dim in dims)[2:]


def assert_fits(proto: onnx.ModelProto, strides: dict[str, tuple[int, ...]]) -> None:
    side, segment, shapes = cut(proto, Sizes.SHORT)
    real = {
        one.name: [dim.dim_value for dim in one.type.tensor_type.shape.dim][2:]
        for one in proto.graph.input
    }
    for name, shape in shapes.items():
        for short, long, stride in zip(shape[2:], real[name], strides[name], strict=True):
            assert short <= long
            assert (long - short) % stride == 0
    feeds = {name: np.ones(shape) for name, shape in shapes.items()}
    result = side.evaluate(segment, feeds)
    for place, full in zip(result.shape[2:], real_places(proto), strict=True):
        assert min(Sizes.SHORT.value, full) <= place <= full


@given(st.data(), st.sampled_from([1, 2, 2, 3]))
@settings(max_examples=60)
def test_cut_axes_hold_all_windows_at_the_same_phase(data: Any, rank: int) -> None:
    most = {1: 40, 2: 12, 3: 5}[rank]
    places = tuple(data.draw(st.integers(1, most)) for _ in range(rank))
    chain = data.draw(chains(rank, "x", "y", places, fixed=True))
    shape = [1, CHANNELS, *chain.sizes]
    faces = [("x", shape)], [("y", [None] * len(shape))]
    proto = model(chain.nodes, chain.stored, *faces, opset=19)
    assert_fits(proto, {"x": chain.strides})


@given(st.data())
@settings(max_examples=40)
def test_inputs_at_different_strides_fit_together_when_cut(data: Any) -> None:
    places = tuple(data.draw(st.integers(1, 12)) for _ in range(2))
    arms = [
        data.draw(chains(2, source, target, places, fixed=False))
        for source, target in (("x", "p"), ("z", "q"))
    ]
    first, second = arms
    nodes = [*first.nodes, *second.nodes, N("Sum", ["p", "q", "r"], ["y"])]
    sizes = {"x": first.sizes, "z": second.sizes, "r": places}
    inputs = [(name, [1, CHANNELS, *size]) for name, size in sizes.items()]
    outputs = [("y", [None] * 4)]
    proto = model(nodes, {**first.stored, **second.stored}, inputs, outputs, opset=19)
    wanted = {"x": first.strides, "z": second.strides, "r": (1, 1)}
    inferred = {
        one.name: one for one in onnx.shape_inference.infer_shapes(proto).graph.value_info
    }
    arms_fit = all(
        [dim.dim_value for dim in inferred[name].type.tensor_type.shape.dim][2:]
        == list(places)
        for name in ("p", "q")
        if name in inferred
    )
    if arms_fit:  # ceil_mode may have given one more place to one of them
        assert_fits(proto, wanted)


@pytest.mark.parametrize(("kernel", "size", "stride"), [(5, 9, 1), (7, 40, 1), (16, 224, 16)])
@pytest.mark.parametrize("sizes", list(Sizes))
def test_an_unpadded_window_always_gives_some_result(
    kernel: int, size: int, stride: int, sizes: Sizes
) -> None:
    """With axes cut to four places, whatever the windows, nothing was compared."""
    proto = conv_bn(kernel, size, stride)
    side, segment, shapes = cut(proto, sizes)
    result = side.evaluate(segment, {"x": np.ones(shapes["x"])})
    full = (size - kernel) // stride + 1
    assert result.shape[2] >= min(full, max(sizes.value, Sizes.SHORT.value))
    assert shapes["x"][2] <= size
    if sizes is Sizes.REAL:
        assert shapes["x"][2] == size
    elif size > kernel + 8 * stride:
        assert shapes["x"][2] < size


def test_what_has_no_stride_of_its_own_is_not_cut() -> None:
    """Readers in two strides of one value: it stays as it is, rather than out of step."""
    rng = np.random.default_rng(0)
    nodes = [
        N("Conv", ["x", "w"], ["a"], strides=[2, 2], name="two"),
        N("Conv", ["x", "w"], ["b"], strides=[3, 3], name="three"),
        N("Resize", ["b", "", "", "like"], ["c"], mode="nearest"),
        N("Add", ["a", "c"], ["y"]),
    ]
    stored = {
        "w": rng.normal(size=(CHANNELS, CHANNELS, 1, 1)),
        "like": np.array([1, CHANNELS, 30, 30]),
    }
    proto = model(nodes, stored, [("x", [1, CHANNELS, 60, 60])], [("y", [None] * 4)])
    side, segment, shapes = cut(proto, Sizes.SHORT)
    assert shapes["x"] == (1, CHANNELS, 60, 60)
    assert side.evaluate(segment, {"x": np.ones(shapes["x"])}).shape[2:] == (30, 30)


def test_free_axes_hold_the_windows_too() -> None:
    proto = conv_bn(11, 64, 4)
    side = Side(opened(proto))
    segment = side.segment(side.values["y"], set(), 9)
    found: Extents = extents_of([(segment, side)], Sizes.SHORT)
    shapes = found.shapes({"x": ("n", 3, "h", "w")}, Sizes.SHORT)
    assert side.evaluate(segment, {"x": np.ones(shapes["x"])}).size > 0
