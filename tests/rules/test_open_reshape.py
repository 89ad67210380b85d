"""Reshape and its kin where sizes are open: a map passes if it survives whatever they are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from onnx import helper

import bnfold
from bnfold.affine import Affine
from bnfold.model.sizes import Size
from bnfold.records import Code, Refusal
from bnfold.rules import RULES
from bnfold.rules.regroup import through_reshape
from tests.model.open_sizes import bound, facts_of, open_model
from tests.reference64 import run64

N = helper.make_node
I64 = np.int64
BINDINGS = (
    {"a": 1, "b": 1, "c": 1},
    {"a": 2, "b": 7, "c": 3},
    {"a": 7, "b": 2, "c": 5},
    {"a": 3, "b": 1, "c": 2},
    {"a": 0, "b": 4, "c": 5},
)
OPSETS = (1, 5, 13, 14, 17, 19, 21, 23)
Group = list[int]


def _spread(affine: Affine, x: np.ndarray) -> np.ndarray:
    if affine.axis is None:
        return affine.scale[0] * x + affine.shift[0]
    along = [1] * x.ndim
    along[affine.axis] = affine.scale.size
    return affine.scale.reshape(along) * x + affine.shift.reshape(along)


def _map(axis: int, channels: int, seed: int) -> Affine:
    rng = np.random.default_rng(seed)
    return Affine.per_channel(axis, rng.uniform(0.5, 2, channels), rng.normal(size=channels))


def _runs(model, dims):
    """Inputs and results for every binding at which the original runs at all."""
    rng = np.random.default_rng(0)
    for binding in BINDINGS:
        x = rng.standard_normal(bound(dims, binding))
        try:
            (y,) = run64(model, {"x": x}).values()
        except (ValueError, ZeroDivisionError):
            continue  # −1 beside no elements, or a list that does not fit
        yield x, y


def assert_true(model, dims, affine: Affine, *, up: bool) -> Affine | Refusal:
    """Ask the rule; a map that it hands on gives the same numbers on the other side."""
    facts, values = facts_of(model)
    node = values["y"].producer()
    rule = RULES[node.op_type]
    answer = (rule.take_after if up else rule.take_before)(node, {0: affine}, facts)
    if isinstance(answer, Refusal):
        return answer
    moved = answer.onward[0]
    for x, y in _runs(model, dims):
        behind, front = (affine, moved) if up else (moved, affine)
        (wanted,) = run64(model, {"x": _spread(front, x)}).values()
        np.testing.assert_allclose(_spread(behind, y), wanted, rtol=1e-12, atol=1e-12)
    return moved


@dataclass
class Drawn:
    dims: list
    """Sizes of x, open ones as names."""
    axis: int
    groups: list[Group]
    """Axes of x that become one axis of y; the channel axis stands alone."""

    @property
    def to_axis(self) -> int:
        return next(i for i, group in enumerate(self.groups) if group == [self.axis])

    def is_open(self, group: Group) -> bool:
        return any(isinstance(self.dims[axis], str) for axis in group)


@st.composite
def regroupings(draw) -> Drawn:
    """[front…, C, back…] with the axes in front and behind merged in some way."""
    sizes = st.one_of(st.sampled_from("abc"), st.integers(1, 4))
    front, back = (draw(st.lists(sizes, max_size=3)) for _ in range(2))
    dims = [*front, draw(st.integers(2, 6)), *back]
    groups: list[Group] = []
    for axis in range(len(dims)):
        alone = axis in (len(front), len(front) + 1) or not groups
        if alone or draw(st.booleans()):
            groups.append([axis])
        else:
            groups[-1].append(axis)
    return Drawn(dims, len(front), groups)


def _stored_list(drawn: Drawn, data, *, copies: bool) -> list[int]:
    """The list of a Reshape: numbers, 0 where it copies, −1 for one that is left."""
    entries, left = [], None
    for place, group in enumerate(drawn.groups):
        copied = copies and group == [place]
        if not drawn.is_open(group):
            known = math.prod(drawn.dims[axis] for axis in group)
            entries.append(0 if copied and data.draw(st.booleans()) else known)
        elif copied:
            entries.append(0)
        else:
            assume(left is None)
            left = place
            entries.append(-1)
    if left is None and data.draw(st.booleans()):
        entries[data.draw(st.integers(0, len(entries) - 1))] = -1
    return entries


@given(st.data(), regroupings(), st.sampled_from(OPSETS), st.booleans(), st.booleans())
def test_a_channel_axis_that_survives_a_list_with_open_sizes_carries(
    data, drawn, opset, up, allowzero
):
    allowzero = allowzero and opset >= 14
    entries = _stored_list(drawn, data, copies=not allowzero)
    options = {"allowzero": 1} if allowzero else {}
    if opset < 5:
        node = N("Reshape", ["x"], ["y"], shape=entries)
    else:
        node = N("Reshape", ["x", "l"], ["y"], **options)
    stored = {} if opset < 5 else {"l": I64(entries)}
    model = open_model([node], stored, drawn.dims, opset)
    axis, other = (drawn.to_axis, drawn.axis) if up else (drawn.axis, drawn.to_axis)
    moved = assert_true(model, drawn.dims, _map(axis, drawn.dims[drawn.axis], 1), up=up)
    assert isinstance(moved, Affine), moved
    assert moved.axis == other


def _computed_list(drawn: Drawn, data):
    """The same list made of the Shape of x at run time."""
    nodes, stored, parts = [N("Shape", ["x"], ["s"])], {"one": I64([0])}, []
    for place, group in enumerate(drawn.groups):
        if not drawn.is_open(group) and data.draw(st.booleans()):
            stored[f"p{place}"] = I64([math.prod(drawn.dims[axis] for axis in group)])
            parts.append(f"p{place}")
            continue
        factors = []
        for axis in group:
            stored[f"i{axis}"] = I64(axis - data.draw(st.sampled_from([0, len(drawn.dims)])))
            nodes.append(N("Gather", ["s", f"i{axis}"], [f"g{axis}"]))
            factors.append(f"g{axis}")
        total = factors[0]
        for factor in factors[1:]:
            nodes.append(N("Mul", [total, factor], [f"{total}.{factor}"]))
            total = f"{total}.{factor}"
        nodes.append(N("Unsqueeze", [total, "one"], [f"p{place}"]))
        parts.append(f"p{place}")
    nodes += [N("Concat", parts, ["l"], axis=0), N("Reshape", ["x", "l"], ["y"])]
    return nodes, stored


@given(st.data(), regroupings(), st.sampled_from([13, 17, 21]), st.booleans())
def test_a_channel_axis_that_survives_a_computed_list_carries(data, drawn, opset, up):
    nodes, stored = _computed_list(drawn, data)
    model = open_model(nodes, stored, drawn.dims, opset)
    axis, other = (drawn.to_axis, drawn.axis) if up else (drawn.axis, drawn.to_axis)
    moved = assert_true(model, drawn.dims, _map(axis, drawn.dims[drawn.axis], 1), up=up)
    assert isinstance(moved, Affine), moved
    assert moved.axis == other


@given(
    st.lists(st.one_of(st.sampled_from("abc"), st.integers(1, 4)), min_size=1, max_size=4),
    st.lists(st.sampled_from([0, -1, 1, 2, 3, 4, 6, 8, 12]), min_size=1, max_size=4),
    st.integers(0, 3),
    st.booleans(),
)
def test_whatever_the_list_is_a_map_that_passes_gives_the_same_numbers(
    dims, entries, axis, up
):
    assume(entries.count(-1) <= 1 and "".join(map(str, entries)).count("0") <= len(dims))
    model = open_model([N("Reshape", ["x", "l"], ["y"])], {"l": I64(entries)}, dims)
    sizes = entries if up else dims
    assume(axis < len(sizes) and isinstance(sizes[axis], int) and sizes[axis] > 1)
    assert_true(model, dims, _map(axis, sizes[axis], 2), up=up)


@pytest.mark.parametrize(
    ("dims", "entries", "axis"),
    [
        (["a", 4, "b"], [0, -1, 4], 1),  # the places stand behind, the list cuts otherwise
        (["a", 4, "b"], [1, 4, -1], 1),  # images are put beside one another
        (["a", 4, 2, "b"], [0, 2, 4, -1], 1),  # channels and places are mixed
        (["a", 4, "b"], [-1, 4], 1),  # rows of four places
        ([2, 4, "b"], [4, 2, -1], 1),
        (["a", "b", 4], [0, 4, -1], 2),  # as many numbers, but another order
    ],
)
def test_a_reshape_that_mixes_channels_is_refused(dims, entries, axis):
    model = open_model([N("Reshape", ["x", "l"], ["y"])], {"l": I64(entries)}, dims)
    affine = _map(axis, 4, 3)
    refused = assert_true(model, dims, affine, up=False)
    assert isinstance(refused, Refusal)
    assert refused.code is Code.WRONG_AXIS
    assert _no_map_serves(model, dims, affine)


def _no_map_serves(model, dims, affine: Affine) -> bool:
    """Whether the scale varies along several axes of the result, for one binding at least."""
    for x, _ in _runs(model, dims):
        scales = _spread(affine.scale_only(), np.ones(x.shape))
        (laid,) = run64(model, {"x": scales}).values()
        if (
            laid.size
            and sum(np.ptp(laid, axis=axis).max() > 0 for axis in range(laid.ndim)) > 1
        ):
            return True
    return False


def test_a_map_of_another_size_than_its_axis_is_refused():
    one, four = Size.of(1), Size.of(4)
    assert through_reshape(_map(0, 4, 1), (one, four), (four, one)) is None


def test_a_computed_list_that_swaps_open_sizes_is_refused():
    """[a, 4, b] → [b, 4, a] has the sizes of a Transpose, and the order of x."""
    nodes = [N("Shape", ["x"], ["s"]), N("Gather", ["s", "i"], ["l"])]
    nodes += [N("Reshape", ["x", "l"], ["y"])]
    dims = ["a", 4, "b"]
    model = open_model(nodes, {"i": I64([2, 1, 0])}, dims)
    assert isinstance(assert_true(model, dims, _map(1, 4, 3), up=False), Refusal)
    assert isinstance(assert_true(model, dims, _map(1, 4, 3), up=True), Refusal)
    assert _no_map_serves(model, dims, _map(1, 4, 3))


@given(st.sampled_from([[2], [2, 0], [-1]]), st.sampled_from([11, 13]), st.booleans())
def test_squeeze_with_an_open_width_carries(axes, opset, up):
    dims = {1: ["a", 4, 1, "b"], 2: [1, 4, 1, "b"]}[len(axes)] if axes != [-1] else ["b", 4, 1]
    node = N("Squeeze", ["x"], ["y"], axes=axes) if opset == 11 else N(
        "Squeeze", ["x", "l"], ["y"]
    )  # fmt: skip
    model = open_model([node], {} if opset == 11 else {"l": I64(axes)}, dims, opset)
    axis, other = (1 - (0 in axes), 1) if up else (1, 1 - (0 in axes))
    moved = assert_true(model, dims, _map(axis, 4, 5), up=up)
    assert isinstance(moved, Affine), moved
    assert moved.axis == other


# ----------------------------------------------------------------------- whole graphs

BN = ["gamma", "beta", "mean", "var"]


def _norm(channels: int, seed: int = 7):
    rng = np.random.default_rng(seed)
    drawn = [rng.uniform(0.5, 2, channels), rng.normal(size=channels)]
    drawn += [rng.normal(size=channels), rng.uniform(0.5, 2, channels)]
    return {name: value.astype(np.float32) for name, value in zip(BN, drawn, strict=True)}


def _weight(*sizes: int):
    return np.random.default_rng(3).normal(size=sizes).astype(np.float32)


CONV = [N("Conv", ["x", "w"], ["c"], pads=[1] * 4)]
NORM = [N("BatchNormalization", ["r", *BN], ["t"]), N("Tanh", ["t"], ["y"])]
SHAPE = [N("Shape", ["c"], ["s"])]
_LISTS = {"zero": I64([0]), "two": I64([2]), "eight": I64([8]), "left": I64([-1])}
W = {"w": _weight(8, 3, 3, 3)}
WHOLE = {
    "channels kept": ([*CONV, N("Reshape", ["c", "l"], ["r"]), *NORM],
                      {**W, "l": I64([0, 8, -1])}, ["a", 3, "b", "c"]),
    "a patch embedding": (
        [N("Conv", ["x", "p"], ["c"], strides=[2, 2]), N("Reshape", ["c", "l"], ["f"]),
         N("Transpose", ["f"], ["q"], perm=[0, 2, 1]), N("Mul", ["q", "scale"], ["m"]),
         N("Add", ["m", "shift"], ["t"]), N("Tanh", ["t"], ["y"])],
        {"p": _weight(8, 3, 2, 2), "l": I64([0, 8, -1]), "scale": _weight(8),
         "shift": _weight(8)}, ["a", 3, "b", "c"]),
    "a view of sizes": (
        [*CONV, *SHAPE, N("Gather", ["s", "i0"], ["n"]), N("Unsqueeze", ["n", "zero"], ["u"]),
         N("Concat", ["u", "eight", "left"], ["l"], axis=0),
         N("Reshape", ["c", "l"], ["r"]), *NORM],
        {**W, "i0": I64(0)}, ["a", 3, "b", "c"]),
    "all sizes computed": (
        [*CONV, *SHAPE, N("Slice", ["s", "zero", "two"], ["f"]),
         N("Slice", ["s", "two", "four"], ["h"]), N("ReduceProd", ["h"], ["k"]),
         N("Concat", ["f", "k"], ["l"], axis=0), N("Reshape", ["c", "l"], ["r"]), *NORM],
        {**W, "four": I64([4])}, ["a", 3, "b", "c"]),
    "one in front": (
        [*CONV, *SHAPE, N("Slice", ["s", "one", "four"], ["f"]),
         N("Concat", ["left", "f"], ["l"], axis=0), N("Reshape", ["c", "l"], ["r"]), *NORM],
        {**W, "one": I64([1]), "four": I64([4])}, ["a", 3, "b", "c"]),
    "a recogniser": (
        [N("Conv", ["x", "v"], ["c"]), N("Squeeze", ["c", "two"], ["r"]), *NORM],
        {"v": _weight(8, 3, 4, 3)}, ["a", 3, 4, "b"]),
    "images in sequences": (
        [N("Shape", ["x"], ["s"]), N("Slice", ["s", "zero", "two"], ["f"]),
         N("Reshape", ["x", "i"], ["v"]), N("Conv", ["v", "w"], ["c"], pads=[1] * 4),
         N("Shape", ["c"], ["z"]), N("Slice", ["z", "one", "four"], ["g"]),
         N("Concat", ["f", "g"], ["l"], axis=0), N("Reshape", ["c", "l"], ["q"]),
         N("Mul", ["q", "scale"], ["m"]), N("Tanh", ["m"], ["y"])],
        {**W, "i": I64([-1, 3, 4, 4]), "one": I64([1]), "four": I64([4]),
         "scale": _weight(8, 1, 1)}, ["a", "b", 3, 4, 4]),
    "behind": (
        [N("Shape", ["x"], ["s"]), N("Gather", ["s", "i0"], ["n"]),
         N("Unsqueeze", ["n", "zero"], ["u"]), N("Add", ["x", "t"], ["m"]),
         N("Concat", ["u", "left", "eight"], ["l"], axis=0), N("Reshape", ["m", "l"], ["r"]),
         N("MatMul", ["r", "d"], ["z"]), N("Add", ["z", "bias"], ["q"]),
         N("Tanh", ["q"], ["y"])],
        {"i0": I64(0), "t": _weight(8), "d": _weight(8, 5), "bias": _weight(5)},
        ["a", "b", "c", 8]),
    "an expanded one": (
        [*CONV, *SHAPE, N("Gather", ["s", "i0"], ["n"]), N("Unsqueeze", ["n", "zero"], ["u"]),
         N("Concat", ["u", "eight", "two", "two"], ["e"], axis=0),
         N("GlobalAveragePool", ["c"], ["g"]), N("Expand", ["g", "e"], ["r"]), *NORM],
        {**W, "i0": I64(0)}, ["a", 3, "b", "c"]),
}  # fmt: skip


def _whole(name: str):
    nodes, stored, dims = WHOLE[name]
    known = {**_LISTS, **_norm(8), **stored}
    used = {value for node in nodes for value in node.input}
    return open_model(nodes, {k: v for k, v in known.items() if k in used}, dims), dims


@pytest.mark.parametrize("name", WHOLE)
def test_graphs_with_open_sizes_fold_and_keep_the_function(name):
    model, dims = _whole(name)
    result = bnfold.fold(model, verify=False)
    folded = result.to_proto()
    kept = [node.op_type for node in folded.graph.node]
    assert "BatchNormalization" not in kept
    bias = name == "behind"  # an Add behind MatMul, which has no bias of its own
    assert kept.count("Mul") + kept.count("Add") == bias, kept
    assert len(result.report.stays) == bias
    assert bnfold.fold(folded, verify=False).report.steps == ()
    for binding in BINDINGS[:4]:
        sizes = [4 * size for size in bound(dims, binding)[2:]]
        x = np.random.default_rng(1).normal(size=[*bound(dims, binding)[:2], *sizes])
        if not all(isinstance(dim, str) for dim in dims[2:]):
            x = np.random.default_rng(1).normal(size=bound(dims, {**binding, "b": 5}))
        (wanted,), (got,) = (run64(one, {"x": x}).values() for one in (model, folded))
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_a_name_that_does_not_fit_is_not_believed_where_the_size_is_known():
    """[n, 4, 2] → [−1, 4] has 2 · n rows, whatever the model calls them."""
    model = open_model([N("Reshape", ["x", "l"], ["y"])], {"l": I64([-1, 4])}, ["n", 4, 2])
    rows = model.graph.output[0].type.tensor_type.shape.dim
    rows.add(dim_param="n")
    rows.add(dim_value=4)
    facts, values = facts_of(model)
    rule, node = RULES["Reshape"], values["y"].producer()
    assert isinstance(rule.take_before(node, {0: _map(1, 4, 1)}, facts), Refusal)
    assert isinstance(rule.take_after(node, {0: _map(1, 4, 1)}, facts), Refusal)


@pytest.mark.parametrize("entries", [[0, 4, -1], [-1, 4], [-1, 4, 1]])
def test_sizes_that_are_declared_as_0_may_be_any(entries):
    model = open_model([N("Reshape", ["x", "l"], ["y"])], {"l": I64(entries)}, [0, 4, 0])
    affine = _map(1, 4, 1)
    facts, values = facts_of(model)
    answer = RULES["Reshape"].take_before(values["y"].producer(), {0: affine}, facts)
    x = np.random.default_rng(0).normal(size=(2, 4, 5))
    if not isinstance(answer, Refusal):
        (y,), (wanted,) = (
            run64(model, {"x": one}).values() for one in (x, _spread(affine, x))
        )
        np.testing.assert_allclose(_spread(answer.onward[0], y), wanted)
    assert isinstance(answer, Refusal) == (entries[0] == -1)
