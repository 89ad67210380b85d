"""Open sizes are equal as polynomials only if they are equal as numbers."""

from __future__ import annotations

import numpy as np
import onnx.reference
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from bnfold.model.sizes import Size, Symbols, add, multiply, plus, quotient, times
from tests.model.open_sizes import bound, facts_of, open_model, worth
from tests.reference64 import run64

N = helper.make_node
BINDINGS = ({"n": 1, "h": 12, "w": 9}, {"n": 2, "h": 7, "w": 13}, {"n": 7, "h": 16, "w": 8})


@st.composite
def expressions(draw, depth=4):
    """A size, and the same as a function of the numbers of its symbols."""
    kind = draw(st.sampled_from(["number", "symbol", "add", "multiply", "times", "divide"]))
    if depth == 0 or kind in ("number", "symbol"):
        name = draw(st.sampled_from(["n", "h", "w"]))
        number = draw(st.integers(-3, 5))
        if kind == "number":
            return lambda _: Size.of(number), lambda _: number
        return lambda symbols: symbols.named(name), lambda binding: binding[name]
    left, left_number = draw(expressions(depth=depth - 1))
    if kind in ("times", "divide"):
        number = draw(st.integers(1, 6))
        if kind == "times":
            return lambda s: times(left(s), number), lambda b: number * left_number(b)
        return (
            lambda s: s.floor_divided(left(s), number),
            lambda b: left_number(b) // number,
        )
    right, right_number = draw(expressions(depth=depth - 1))
    if kind == "add":
        return (
            lambda s: add(left(s), right(s)),
            lambda b: left_number(b) + right_number(b),
        )
    return (
        lambda s: multiply(left(s), right(s)),
        lambda b: left_number(b) * right_number(b),
    )


_NUMBERS = st.fixed_dictionaries({name: st.integers(0, 40) for name in "nhw"})


@given(expressions(), _NUMBERS)
def test_the_normal_form_of_an_expression_has_its_value(drawn, binding):
    symbols = Symbols()
    size = drawn[0](symbols)
    if size is not None:
        assert worth(size, symbols, binding) == drawn[1](binding)


@given(expressions(), expressions(), _NUMBERS)
def test_equal_sizes_are_equal_numbers_and_quotients_are_exact(one, other, binding):
    symbols = Symbols()
    left, right = one[0](symbols), other[0](symbols)
    if left is not None and left == right:
        assert one[1](binding) == other[1](binding)
    exact = quotient(left, right)
    if exact is not None:
        assert worth(exact, symbols, binding) * other[1](binding) == one[1](binding)


@given(expressions(), st.integers(1, 6), _NUMBERS)
def test_a_remainder_and_a_sign_that_are_told_are_true(drawn, divisor, binding):
    symbols = Symbols()
    size = drawn[0](symbols)
    if size is None:
        return
    if size.residue(divisor) is not None:
        assert size.residue(divisor) == drawn[1](binding) % divisor
    if symbols.is_never_negative(size):
        assert drawn[1](binding) >= 0


def test_quotients_have_one_form_however_they_are_written():
    symbols = Symbols()
    h = symbols.named("h")
    divide = symbols.floor_divided
    assert plus(divide(plus(h, -1), 2), 1) == divide(plus(h, 1), 2)
    assert divide(divide(h, 2), 3) == divide(h, 6)
    assert divide(plus(divide(plus(h, 1), 2), 1), 2) == divide(plus(h, 3), 4)
    nested = divide(plus(divide(h, 3), 2), 2)
    for number in range(40):
        assert worth(nested, symbols, {"h": number}) == (number // 3 + 2) // 2
    assert divide(times(h, 6), 4) == divide(times(h, 3), 2)
    assert divide(times(h, 4), 4) == h
    assert divide(h, 2) != divide(plus(h, 1), 2)


def test_what_grows_too_large_is_unknown():
    symbols = Symbols()
    size = symbols.named("h")
    for _ in range(64):
        size = times(size, 4)
    assert size is None
    size = symbols.named("h")
    for _ in range(64):
        size = multiply(size, symbols.named("h"))
    assert size is None
    size = symbols.named("h")
    for _ in range(64):
        size = symbols.floor_divided(size, 2)
    assert size is None
    many = Size.of(0)
    for index in range(64):
        many = add(many, symbols.named(str(index)))
    assert many is None


# ------------------------------------------------------------------------- operators

I64 = np.int64
F32 = np.float32


def _w(*sizes):
    return np.ones(sizes, F32)


RESULTS = {  # nodes from x [n, 4, h, w] to y, what is stored, how many sizes are followed
    "relu": ([N("Relu", ["x"], ["y"])], {}, 4),
    "same": ([N("Conv", ["x", "k"], ["y"], pads=[1] * 4)], {"k": _w(5, 4, 3, 3)}, 4),
    "valid": ([N("Conv", ["x", "k"], ["y"], auto_pad="VALID")], {"k": _w(5, 4, 3, 2)}, 4),
    "strides": (
        [N("Conv", ["x", "k"], ["y"], strides=[2, 3], pads=[1, 0, 2, 1], dilations=[2, 1])],
        {"k": _w(5, 4, 3, 2)},
        4,
    ),
    "same upper": (
        [N("Conv", ["x", "k"], ["y"], auto_pad="SAME_UPPER", strides=[2, 2])],
        {"k": _w(5, 4, 3, 3)},
        4,
    ),
    "up": (
        [N("ConvTranspose", ["x", "k"], ["y"], strides=[2, 3], pads=[1, 0, 0, 1])],
        {"k": _w(4, 5, 3, 3)},
        4,
    ),
    "pool": ([N("MaxPool", ["x"], ["y"], kernel_shape=[3, 2], strides=[2, 2])], {}, 4),
    "mean": ([N("GlobalAveragePool", ["x"], ["y"])], {}, 4),
    "reduce": ([N("ReduceMean", ["x"], ["y"], axes=[2, -1], keepdims=0)], {}, 2),
    "transpose": ([N("Transpose", ["x"], ["y"], perm=[0, 2, 3, 1])], {}, 4),
    "flatten": ([N("Flatten", ["x"], ["y"], axis=-2)], {}, 2),
    "concat": ([N("Concat", ["x", "x"], ["y"], axis=2)], {}, 4),
    "pad": ([N("Pad", ["x", "p"], ["y"])], {"p": I64([0, 0, 1, 2, 0, 0, 3, 0])}, 4),
    "slice": (
        [N("Slice", ["x", "b", "e", "a", "s"], ["y"])],
        {"b": I64([0]), "e": I64([2**31 - 1]), "a": I64([-1]), "s": I64([2])},
        4,
    ),
    "tile": ([N("Tile", ["x", "r"], ["y"])], {"r": I64([1, 2, 1, 3])}, 4),
    "shuffle": ([N("DepthToSpace", ["x"], ["y"], blocksize=2)], {}, 4),
    "unsqueeze": ([N("Unsqueeze", ["x", "a"], ["y"])], {"a": I64([1, -1])}, 6),
    "gather": ([N("Gather", ["x", "i"], ["y"], axis=1)], {"i": I64([[0, 1], [2, 3]])}, 5),
    "matmul": ([N("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1]),
                N("MatMul", ["t", "k"], ["y"])], {"k": _w(4, 6)}, 4),
    "add": ([N("Add", ["k", "x"], ["y"])], {"k": _w(1, 1, 4, 1, 1)}, 5),
    "reshape": ([N("Reshape", ["x", "r"], ["y"])], {"r": I64([0, 2, 2, -1])}, 4),
}  # fmt: skip


@pytest.mark.parametrize("name", RESULTS)
def test_sizes_of_results_are_followed_and_true(name):
    nodes, stored, followed = RESULTS[name]
    dims = ["n", 4, "h", "w"]
    model = open_model(nodes, stored, dims)
    facts, values = facts_of(model)
    sizes = facts.extents(values["y"])
    for binding in BINDINGS:
        x = np.ones(bound(dims, binding), F32)
        (y,) = run64(model, {"x": x}).values()
        told = [worth(size, facts._extents.symbols, binding) for size in sizes]
        assert len(told) == y.ndim == followed
        assert told == list(y.shape)


_SIDES = [N("Transpose", ["x"], ["t"], perm=[0, 1, 3, 2]), N("Add", ["t", "x"], ["y"])]
_FROM = [N("Slice", ["x", "b", "e", "a"], ["y"])]
_EMPTY = [N("Shape", ["x"], ["s"]), N("Gather", ["s", "i"], ["g"])]
_EMPTY += [
    N("Concat", ["zero", "g"], ["l"], axis=0),
    N("Reshape", ["x", "l"], ["y"], allowzero=1),
]
_STATISTICS = N("LayerNormalization", ["x", "k"], ["z", "y"], axis=1)
_TRAINED = N("BatchNormalization", ["x", *"abcd"], ["z", "y", "v"], training_mode=1)
ODD = {  # nodes, what is stored, sizes of x, what open ones are, opset, what is told of y
    "1 beside 5": (_SIDES, {}, ["n", 4, "h", "w"], {"n": 2, "h": 1, "w": 5}, 17, [2, 4]),
    "5 beside 1": (_SIDES, {}, ["n", 4, "h", "w"], {"n": 2, "h": 5, "w": 1}, 17, [2, 4]),
    "one is known": ([N("Add", ["x", "k"], ["y"])], {"k": _w(3, 1)}, ["n", 4, "h", "w"],
                     {"n": 2, "h": 1, "w": 5}, 17, [2, 4, 3, 5]),
    "from the second": (_FROM, {"b": I64([1]), "e": I64([2**62]), "a": I64([2])},
                        ["n", 4, "h", "w"], {"n": 2, "h": 3, "w": 5}, 17, [2, 4, 5]),
    "to the last but one": (_FROM, {"b": I64([0]), "e": I64([-1]), "a": I64([2])},
                            ["n", 4, "h", "w"], {"n": 2, "h": 3, "w": 5}, 17, [2, 4, 5]),
    "no elements": (_EMPTY, {"i": I64([0]), "zero": I64([0])}, ["n", "h"],
                    {"n": 7, "h": 0}, 17, [7]),
    "broadcast by an axis": ([N("Add", ["x", "k"], ["y"], axis=1, broadcast=1)],
                             {"k": _w(4)}, ["n", 4, "h", "w"],
                             {"n": 2, "h": 3, "w": 5}, 6, [2, 4, 3, 5]),
    "another result": ([_STATISTICS], {"k": _w(1)}, ["n", 4, "h", "w"],
                       {"n": 2, "h": 3, "w": 5}, 17, [2]),
    "statistics": ([_TRAINED], {name: _w(4) for name in "abcd"}, ["n", 4, "h", "w"],
                   {"n": 2, "h": 3, "w": 5}, 15, [4]),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_what_is_told_of_odd_operators_is_true(name):
    nodes, stored, dims, binding, opset, wanted = ODD[name]
    model = open_model(nodes, stored, dims, opset)
    facts, values = facts_of(model)
    x = np.ones(bound(dims, binding), F32)
    y = onnx.reference.ReferenceEvaluator(model).run(["y"], {"x": x})[0] if opset > 6 else x
    told = [
        worth(s, facts._extents.symbols, binding) for s in facts.extents(values["y"]) or ()
    ]
    assert all(size in (None, real) for size, real in zip(told, y.shape, strict=bool(told)))
    assert [size for size in told if size is not None][: len(wanted)] == wanted


def test_what_was_known_of_two_operators_that_change_places_is_forgotten():
    nodes = [N("Relu", ["x"], ["r"]), N("Reshape", ["r", "l"], ["y"])]
    facts, values = facts_of(open_model(nodes, {"l": I64([0, -1])}, ["n", 4, "h"]))
    assert [facts.rank(values[name]) for name in "ry"] == [3, 2]
    facts.exchange(values["r"].producer(), values["y"].producer())
    assert facts.rank(values["r"]) == 2


def _shape(*nodes):
    return [N("Shape", ["x"], ["s"]), *nodes]


_I = {"zero": I64(0), "two": I64([2]), "three": I64([3]), "ax": I64([0]), "last": I64([-1])}
LISTS = {
    "shape": ([N("Shape", ["x"], ["l"], start=1, end=-1)], {}),
    "slice": (_shape(N("Slice", ["s", "two", "big"], ["l"])), {"big": I64([2**40])}),
    "back": (
        _shape(N("Slice", ["s", "last", "low", "ax", "step"], ["l"])),
        {"low": I64([-(2**40)]), "step": I64([-2])},
    ),
    "gather": (_shape(N("Gather", ["s", "i"], ["l"])), {"i": I64([3, 0, -2])}),
    "number": (_shape(N("Gather", ["s", "zero"], ["g"]), N("Unsqueeze", ["g", "ax"], ["u"]),
                      N("Concat", ["u", "two", "u"], ["l"], axis=0)), {}),
    "arithmetic": (_shape(N("Mul", ["s", "two"], ["m"]), N("Add", ["m", "three"], ["a"]),
                          N("Div", ["a", "two"], ["d"]), N("Sub", ["d", "two"], ["l"])), {}),
    "towards zero": (_shape(N("Sub", ["s", "far"], ["m"]), N("Div", ["m", "two"], ["d"]),
                            N("Mul", ["d", "two"], ["l"])), {"far": I64([9])}),
    "mod": (_shape(N("Mod", ["s", "three"], ["l"])), {}),
    "max": (_shape(N("Max", ["s", "three"], ["m"]), N("Min", ["m", "s"], ["l"])), {}),
    "size": ([N("Size", ["x"], ["g"]), N("Unsqueeze", ["g", "ax"], ["l"])], {}),
    "product": (_shape(N("ReduceProd", ["s"], ["l"])), {}),
    "cast": (_shape(N("Cast", ["s"], ["c"], to=6), N("Cast", ["c"], ["l"], to=7)), {}),
    "where": (_shape(N("Concat", ["s", "last"], ["c"], axis=0),
                     N("Equal", ["c", "last"], ["q"]),
                     N("Where", ["q", "two", "c"], ["l"])), {}),
    "split": (_shape(N("Split", ["s", "parts"], ["k", "l"])), {"parts": I64([1, 3])}),
    "reshape": (_shape(N("Gather", ["s", "zero"], ["g"]), N("Reshape", ["g", "last"], ["l"])),
                {}),
}  # fmt: skip


@pytest.mark.parametrize("name", LISTS)
def test_lists_of_sizes_are_followed_and_true(name):
    nodes, stored = LISTS[name]
    used = {value for node in nodes for value in node.input}
    stored = {key: value for key, value in (_I | stored).items() if key in used}
    dims = ["n", 4, "h", "w"]
    model = open_model(nodes, stored, dims, output="l", kind=TensorProto.INT64)
    facts, values = facts_of(model)
    found = facts._extents.contents(values["l"])
    assert found is not None
    followed = 0
    for binding in BINDINGS:
        x = np.ones(bound(dims, binding), F32)
        (entries,) = run64(model, {"x": x}).values()
        assert len(found) == entries.size
        for size, entry in zip(found, np.ravel(entries), strict=True):
            told = None if size is None else worth(size, facts._extents.symbols, binding)
            assert told in (None, int(entry))
            followed += told is not None
    assert followed or name == "towards zero"


def test_a_list_that_nobody_can_know_tells_only_a_rank():
    nodes = [N("NonZero", ["x"], ["z"]), N("Gather", ["z", "i"], ["l"], axis=1)]
    nodes += [N("Slice", ["l", "b", "e"], ["m"]), N("Reshape", ["x", "m"], ["y"])]
    stored = {"i": I64(0), "b": I64([0]), "e": I64([3])}
    facts, values = facts_of(open_model(nodes, stored, ["n", 4, "h", "w"]))
    assert facts._extents.contents(values["m"]) is None
    sizes = facts.extents(values["y"]) or ()
    assert all(worth(size, facts._extents.symbols, {"n": 1}) is None for size in sizes)
