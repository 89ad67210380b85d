"""A map passes Reshape, Transpose and Reshape together where behind them it is one again."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

import bnfold
from bnfold.records import Code
from tests.battery import judge
from tests.battery.graphs import Net, spread
from tests.model.open_sizes import open_model
from tests.proving import assert_proved
from tests.reference64 import run64
from tests.rules.around import assert_stays

N = helper.make_node
UP = pytest.mark.parametrize("up", [True, False], ids=["up", "down"])


def _factors(draw, size: int) -> list[int]:
    parts = []
    while size > 1 and draw(st.booleans()):
        part = draw(st.sampled_from([d for d in range(2, size + 1) if size % d == 0]))
        parts.append(part)
        size //= part
    return [*parts, size]


def _runs(draw, sizes: list[int]) -> list[int]:
    """Sizes of which some in a row are joined."""
    joined = [sizes[0]]
    for size in sizes[1:]:
        if draw(st.booleans()):
            joined[-1] *= size
        else:
            joined.append(size)
    return joined


@st.composite
def rows(draw):
    """What is read, what a Reshape parts it into, how axes are exchanged and joined."""
    shape = [draw(st.sampled_from([1, 2, 4, 6])) for _ in range(draw(st.integers(2, 3)))]
    parted = [part for size in shape for part in _factors(draw, size)]
    perm = draw(st.permutations(range(len(parted))))
    if draw(st.booleans()):  # only two neighbours change places, as in a shuffle
        perm = list(range(len(parted)))
        place = draw(st.integers(0, max(len(parted) - 2, 0)))
        perm[place : place + 2] = reversed(perm[place : place + 2])
    return shape, parted, perm, _runs(draw, [parted[place] for place in perm])


def _carry(net: Net, x: str, row) -> str:
    _, parted, perm, joined = row
    x = net.node("Reshape", [x, net.ints(*parted)])
    x = net.node("Transpose", [x], perm=perm)
    return net.node("Reshape", [x, net.ints(*joined)])


def _inverse(row):
    shape, parted, perm, joined = row
    back = [perm.index(place) for place in range(len(perm))]
    return joined, [parted[place] for place in perm], back, shape


def _survives(row, axis: int) -> bool:
    """Whether numbers that differ along one axis do so along one axis behind the row."""
    shape, parted, perm, joined = row
    count = shape[axis]
    along = np.arange(count).reshape([-1 if a == axis else 1 for a in range(len(shape))])
    moved = np.broadcast_to(along, shape).reshape(parted).transpose(perm).reshape(joined)
    varying = [a for a in range(moved.ndim) if np.ptp(moved, axis=a).any()]
    return len(varying) <= 1


def _full(net: Net, x: str, shape) -> str:
    """A constant that is no map itself but takes every one, in front of or behind it."""
    for op in ("Add", "Mul"):
        x = net.node(op, [x, net.const(net.rng.uniform(0.5, 1.5, shape))])
    return x


@UP
@given(rows(), st.data())
@settings(max_examples=60)
@example(([2, 6, 4], [2, 2, 3, 4], [0, 2, 1, 3], [2, 6, 4]), None)
@example(([1, 4, 4], [2, 2, 4], [1, 0, 2], [4, 4]), None)
def test_it_passes_where_it_runs_along_one_axis_again_and_only_there(up, row, data):
    whole = row if up else _inverse(row)
    shape, _, _, joined = row
    place = joined if up else shape
    axes = [a for a, size in enumerate(place) if size > 1] or [0]
    axis = axes[-1] if data is None else data.draw(st.sampled_from(axes))
    net = Net(f"shuffle{row}{axis}")
    x = net.input(shape)
    count = place[axis]
    scale = net.const(spread(np.arange(1.0, count + 1), len(place), axis))
    if up:
        y = net.node("Mul", [_carry(net, _full(net, x, shape), row), scale])
    else:
        y = _full(net, _carry(net, net.node("Mul", [x, scale]), row), joined)
    net.output(y)
    model = net.model()
    folded = bnfold.fold(model, verify=False).to_proto()
    assert judge.wrong_outputs(model, folded) == []
    muls = [node.op_type for node in folded.graph.node].count("Mul")
    assert (muls == 1) == (_survives(_inverse(whole) if up else row, axis) or count == 1)


SHUFFLE = [
    N("Reshape", ["a", "parted"], ["p"]),
    N("Transpose", ["p"], ["t"], perm=[0, 2, 1, 3, 4]),
    N("Reshape", ["t", "joined"], ["s"]),
]


@UP
@pytest.mark.parametrize("dims", [[1, 6, 5, 4], ["n", 6, 5, 4], ["n", 6, "h", "w"]], ids=str)
@pytest.mark.parametrize("groups", [2, 3])
def test_the_shuffle_of_a_shufflenet_carries(dims, groups, up):
    """With open sizes, the lists are computed from the shape."""
    rng = np.random.default_rng(3)
    stored = {
        "w": rng.normal(size=(6, 6, 1, 1)).astype(np.float32),
        **{k: rng.uniform(0.5, 2, 6).astype(np.float32) for k in ("g", "b", "m", "v")},
        "gc": np.array([groups, 6 // groups]),
        "c": np.array([6]),
        **{f"i{k}": np.array([k]) for k in (0, 2, 3, 4)},
    }
    lists = [
        N("Shape", ["x"], ["shape"]),
        N("Slice", ["shape", "i0", "one", "i0"], ["n_"]),
        N("Slice", ["shape", "i2", "i4", "i0"], ["hw"]),
        N("Concat", ["n_", "gc", "hw"], ["parted"], axis=0),
        N("Concat", ["n_", "c", "hw"], ["joined"], axis=0),
    ]
    stored["one"] = np.array([1])
    norm = ("g", "b", "m", "v")
    if up:
        nodes = [N("Conv", ["x", "w"], ["a"]), *SHUFFLE]
        nodes += [N("BatchNormalization", ["s", *norm], ["bn"]), N("Tanh", ["bn"], ["y"])]
    else:
        nodes = [N("BatchNormalization", ["x", *norm], ["a"]), *SHUFFLE]
        nodes += [N("Conv", ["s", "w"], ["y"])]
    model = open_model([*lists, *nodes], stored, dims, 17)
    result = bnfold.fold(model, verify=False, certificate=True)
    folded = result.to_proto()
    assert "BatchNormalization" not in [node.op_type for node in folded.graph.node]
    x = rng.normal(size=[size if isinstance(size, int) else 3 for size in dims])
    for name, value in run64(model, {"x": x}).items():
        np.testing.assert_allclose(run64(folded, {"x": x})[name], value, rtol=1e-4, atol=1e-5)
    wrong = _swapped(folded)
    assert_proved(model, result, wrong)


def _swapped(model: onnx.ModelProto) -> onnx.ModelProto:
    """What a fold writes that forgets to permute: the channels of the weight exchanged."""
    wrong = onnx.ModelProto()
    wrong.CopyFrom(model)
    tensor = next(t for t in wrong.graph.initializer if len(t.dims) == 4)
    array = numpy_helper.to_array(tensor)
    order = [0, 2, 1, 3, 4, 5]
    tensor.CopyFrom(numpy_helper.from_array(array[order][:, order].copy(), tensor.name))
    return wrong


@UP
@pytest.mark.parametrize("between", [1, 2], ids=["first", "second"])
def test_a_value_between_that_is_read_elsewhere_stops_it(between, up):
    """Another reader of it, or of what is exchanged, needs it as it is."""
    net = Net("between")
    row = ([2, 6, 4], [2, 2, 3, 4], [0, 2, 1, 3], [2, 6, 4])
    x = net.input([2, 6, 4])
    scale = net.const(spread(net.scale(6), 3, 1))
    if up:
        y = net.node("Mul", [_carry(net, _full(net, x, [2, 6, 4]), row), scale])
    else:
        y = _full(net, _carry(net, net.node("Mul", [x, scale]), row), [2, 6, 4])
    net.output(y)
    nodes = [n for n in net.nodes if n.op_type in ("Reshape", "Transpose")]
    net.output(net.node("Sigmoid", [nodes[between - 1].output[0]]))
    assert_stays(net.model(), Code.WRONG_AXIS)


def test_a_skipped_node_between_stops_it():
    net = Net("skipped")
    row = ([2, 6, 4], [2, 2, 3, 4], [0, 2, 1, 3], [2, 6, 4])
    y = _carry(net, _full(net, net.input([2, 6, 4]), [2, 6, 4]), row)
    net.output(net.node("Mul", [y, net.const(spread(net.scale(6), 3, 1))]))
    result = bnfold.fold(net.model(), verify=False, skip=["Transpose"])
    assert result.report.steps == ()
