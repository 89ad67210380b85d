"""Numbers of inputs make sense to what reads them: masks, indices, lengths, flags, roots."""

from __future__ import annotations

import zlib

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from bnfold.inputs.drawing import Binding, Case, Style, bindings, draw_inputs, redraw_inputs
from bnfold.inputs.hints import with_hints
from bnfold.inputs.signature import Role, Slot, Use, inputs_of
from bnfold.inputs.sizes import sized
from tests.inputs.graphs import BOOL, I64, F, N, bert_like, floats, hints, model, run

CASE = Case(Binding(batch=2, size=16), Style.NORMAL)
TABLE = 37


def drawn(proto, seed=0, case=CASE):
    return draw_inputs(list(hints(proto).values()), case, seed)


def moving(arrays):
    """Whether an output is finite and not the same everywhere."""
    return all(np.isfinite(one).all() and one.std() > 1e-6 for one in arrays)


@pytest.mark.parametrize("low", [-3.4028234663852886e38, -1e4, -np.inf])
@pytest.mark.parametrize("kind", [I64, F])
def test_a_transformer_gets_inputs_that_leave_its_outputs_finite_and_moving(kind, low):
    proto = bert_like(low if np.isfinite(low) else -1e9, kind)
    shown = []
    for seed in range(4):
        arrays = drawn(proto, seed)
        assert arrays["input_ids"].max() > 50 > 30 > arrays["input_ids"].min()
        assert set(np.unique(arrays["token_type_ids"])) == {0, 1}
        assert (arrays["position_ids"] == np.arange(16)).all()
        shown.append(arrays["attention_mask"])
        assert moving(run(proto, arrays))
    masks = np.concatenate(shown)
    assert set(np.unique(masks)) == {0, 1}
    assert masks[:, 0].all()
    assert 0.7 < masks.mean() < 1


def test_integers_of_any_size_as_they_were_leave_nothing_to_see():
    """What the test above would miss: with masks of 0 … 7 nothing of the sequence is left."""
    proto = bert_like()
    slots = [Slot(one.name, one.kind, one.dims) for one in hints(proto).values()]
    arrays = draw_inputs(slots, CASE, 0)
    arrays["position_ids"] %= 8
    arrays["token_type_ids"] %= 2
    assert not moving(run(proto, arrays))


WAYS = {
    "cast": [N("Cast", ["i"], ["o"], to=TensorProto.INT32)],
    "unsqueezed and back": [
        N("Unsqueeze", ["i", "ax"], ["o_"]), N("Squeeze", ["o_", "ax"], ["o"]),
    ],
    "identity": [N("Identity", ["i"], ["o"])],
    "in a branch": "If",
    "added to": [N("Cast", ["i"], ["o_"], to=I64), N("Add", ["o_", "three"], ["o"])],
    "counted from the other end": [
        N("Cast", ["i"], ["o_"], to=I64), N("Sub", ["ten", "o_"], ["o"]),
    ],
    "doubled": [N("Cast", ["i"], ["o_"], to=I64), N("Mul", ["o_", "two"], ["o"])],
}  # fmt: skip
NUMBERS = {"three": np.int64(3), "ten": np.int64(10), "two": np.int64(2), "ax": np.array([0])}


def way(name, source, target):
    if name == "in a branch":
        result = helper.make_tensor_value_info(f"{target}b", I64, None)
        body = helper.make_graph(
            [N("Cast", [source], [f"{target}b"], to=I64)], "b", [], [result]
        )
        other = helper.make_graph(
            [N("Cast", [source], [f"{target}c"], to=I64)], "c", [],
            [helper.make_tensor_value_info(f"{target}c", I64, None)],
        )  # fmt: skip
        return [N("If", ["yes"], [target], then_branch=body, else_branch=other)]
    found = []
    for node in WAYS[name]:
        spelled = {"i": source, "o": target, "o_": f"{target}_"}
        copy = type(node)()
        copy.CopyFrom(node)
        copy.input[:] = [spelled.get(one, one) for one in copy.input]
        copy.output[:] = [spelled.get(one, one) for one in copy.output]
        found.append(copy)
    return found


INDEXING = {
    "gather": ([N("Gather", ["t", "j"], ["y"])], ["b", "t"]),
    "gather along the other axis": (
        [N("Transpose", ["t"], ["u"]), N("Gather", ["u", "j"], ["y"], axis=1)],
        ["b", "t"],
    ),
    "elements": ([N("GatherElements", ["t", "j"], ["y"], axis=0)], ["b", 4]),
    "one hot": ([N("OneHot", ["j", "depth", "off"], ["y"])], ["b", "t"]),
    "nd": ([N("Unsqueeze", ["j", "last"], ["j1"]), N("GatherND", ["t", "j1"], ["y"])], ["b"]),
    **{
        kind: (
            [
                N("Shape", ["j"], ["b_"]),
                N("Concat", ["b_", "depth"], ["bc"], axis=0),
                N("Expand", ["off1", "bc"], ["p"]),
                N(kind, ["p", "j"], ["y"]),
            ],
            ["b"],
        )
        for kind in ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
    },
    "a running sum's axis": ([N("CumSum", ["t7", "j"], ["y"])], []),
    "places of maxima": (
        [
            N("Expand", ["off1", "jc"], ["p"]),
            N("Reshape", ["p", "jm"], ["q"]),
            N("MaxUnpool", ["q", "j"], ["y"], kernel_shape=[1], strides=[1]),
        ],
        [1, 1, TABLE],
    ),
}


def indexed(reader, ways, kind=I64, casting=()):
    nodes, shape = INDEXING[reader]
    chain, last = list(casting), "c" if casting else "ids"
    for place, name in enumerate(ways):
        chain += way(name, last, f"w{place}")
        last = f"w{place}"
    chain.append(N("Cast", [last], ["j"], to=I64))
    constants = {
        **NUMBERS, "yes": np.array(1, bool), "t": floats(TABLE, 4), "depth": np.array([TABLE]),
        "off": np.float32([0, 1]), "last": np.array([-1]),
        "off1": np.zeros(1, np.float32), "t7": floats(*[1] * TABLE),
        "jc": np.array([TABLE]), "jm": np.array([1, 1, TABLE]),
    }  # fmt: skip
    return model([*chain, *nodes], constants, [("ids", shape, kind)], ["y"])


@settings(max_examples=80, deadline=None)
@given(
    reader=st.sampled_from(sorted(INDEXING)),
    ways=st.lists(st.sampled_from(sorted(WAYS)), max_size=3),
)
def test_indices_lie_in_their_table_after_all_that_happens_to_them(reader, ways):
    proto = indexed(reader, ways)
    slot = hints(proto)["ids"]
    if slot.use.role is Role.NUMBERS:
        # 10 − 2·(x + …) and the like may leave no number that fits.
        assert {"doubled", "counted from the other end"} & set(ways)
        return
    arrays = drawn(proto, case=Case(Binding(4, 64), Style.NORMAL))
    (found,) = run(_tapped(proto), arrays)
    assert found.min() >= 0
    assert found.max() < TABLE
    run(proto, arrays)


def _tapped(proto):
    """The same graph, which hands out the indices."""
    copy = type(proto)()
    copy.CopyFrom(proto)
    del copy.graph.output[:]
    copy.graph.output.append(helper.make_tensor_value_info("j", I64, None))
    return copy


def test_indices_are_spread_over_the_whole_table_and_over_the_smallest_of_several():
    arrays = drawn(indexed("gather", []), case=Case(Binding(8, 64), Style.NORMAL))
    assert len(np.unique(arrays["ids"])) == TABLE
    both = model(
        [N("Gather", ["t", "ids"], ["a"]), N("Gather", ["u", "ids"], ["b"]),
         N("Add", ["a", "b"], ["y"])],
        {"t": floats(TABLE, 4), "u": floats(5, 4)}, [("ids", ["b"], I64)], ["y"],
    )  # fmt: skip
    assert hints(both)["ids"].use == Use(Role.INDEX, 0, 4)


def test_without_limits_an_index_leaves_its_table():
    """The negative control of the tests above: numbers below 8 in a table of 5."""
    proto = model(
        [N("Gather", ["t", "ids"], ["y"])], {"t": floats(5, 4)}, [("ids", ["b"], I64)], ["y"]
    )
    slots = [Slot(one.name, one.kind, one.dims) for one in hints(proto).values()]
    with pytest.raises(Exception, match="out of data bounds"):
        run(proto, draw_inputs(slots, Case(Binding(64), Style.NORMAL), 0))
    run(proto, drawn(proto, case=Case(Binding(64), Style.NORMAL)))


@pytest.mark.parametrize("rounding", ["Floor", "Ceil", "Round"])
def test_floats_that_are_cast_to_indices_lie_in_the_table(rounding):
    casting = [
        N("Mul", ["ids", "k"], ["c0"]), N(rounding, ["c0"], ["c1"]),
        N("Cast", ["c1"], ["c"], to=I64),
    ]  # fmt: skip
    proto = indexed("gather", [], F, casting)
    proto.graph.initializer.append(helper.make_tensor("k", F, (), [9.5]))
    for style in Style:
        run(proto, drawn(proto, case=Case(Binding(8, 64), style)))
    values = drawn(proto, case=Case(Binding(8, 64), Style.LARGE))["ids"]
    assert values.max() * 9.5 > 0.8 * TABLE


def test_an_index_along_an_open_axis_is_below_its_size():
    proto = model(
        [N("GatherElements", ["x", "at"], ["y"], axis=1)],
        {},
        [("x", ["n", "t"]), ("at", ["n", 3], I64)],
        ["y"],
    )
    for size in (2, 5, 64):
        arrays = drawn(proto, case=Case(Binding(3, size), Style.NORMAL))
        assert arrays["at"].max() < size
        run(proto, arrays)


def test_the_last_step_of_a_length_is_within_the_axis():
    """As sequences are pooled: the element at length − 1, beside the lengths of a GRU."""
    proto = model(
        [
            N("Sub", ["many", "one"], ["last"]), N("Unsqueeze", ["last", "ax"], ["i"]),
            N("GatherElements", ["x", "i"], ["y"], axis=1),
        ],
        {"one": np.int64(1), "ax": np.array([1])},
        [("x", ["n", "t"]), ("many", ["n"], I64)],
        ["y"],
    )  # fmt: skip
    assert hints(proto)["many"].use == Use(Role.INDEX, 1, np.inf, (("t", 0),))
    for size in (1, 3, 40):
        arrays = drawn(proto, case=Case(Binding(3, size), Style.NORMAL))
        assert arrays["many"].min() >= 1
        run(proto, arrays)


def test_indices_that_may_be_negative_are_not_taken_for_shifted_ones():
    """Exporters write ``where(i < 0, i + size, i)``; both ways at once leave no number."""
    proto = model(
        [
            N("Less", ["ids", "zero"], ["neg"]), N("Add", ["ids", "rows"], ["up"]),
            N("Where", ["neg", "up", "ids"], ["i"]), N("Gather", ["t", "i"], ["y"]),
        ],
        {"zero": np.int64(0), "rows": np.int64(TABLE), "t": floats(TABLE, 4)},
        [("ids", ["n", 64], I64)],
        ["y"],
    )  # fmt: skip
    assert hints(proto)["ids"].use == Use(Role.INDEX, 0, TABLE - 1)
    run(proto, drawn(proto))


@pytest.mark.parametrize("kind", [I64, F])
def test_the_same_where_it_is_spelled_as_products_with_truth_values(kind):
    """tf2onnx writes SelectV2 as two products and their sum, of ids that are floats."""
    i32 = TensorProto.INT32
    proto = model(
        [
            N("Cast", ["ids"], ["whole"], to=i32), N("Cast", ["whole"], ["real"], to=F),
            N("Less", ["real", "zero"], ["neg"]), N("Not", ["neg"], ["pos"]),
            N("Cast", ["neg"], ["is_neg"], to=i32), N("Cast", ["pos"], ["is_pos"], to=i32),
            N("Add", ["whole", "rows"], ["up"]), N("Mul", ["is_neg", "up"], ["one"]),
            N("Mul", ["whole", "is_pos"], ["other"]), N("Add", ["one", "other"], ["i"]),
            N("Gather", ["t", "i"], ["y"]),
        ],
        {"zero": np.float32(0), "rows": np.int32(TABLE), "t": floats(TABLE, 4)},
        [("ids", ["n", 64], kind)],
        ["y"],
    )  # fmt: skip
    assert hints(proto)["ids"].use == Use(Role.INDEX, 0, TABLE - 1)
    run(proto, drawn(proto))


def test_an_index_spelled_out_as_a_comparison_is_one():
    proto = model(
        [
            N("Unsqueeze", ["ids", "ax"], ["i"]), N("Equal", ["i", "all"], ["e"]),
            N("Cast", ["e"], ["f"], to=F), N("MatMul", ["f", "t"], ["y"]),
        ],
        {"ax": np.array([1]), "all": np.arange(TABLE), "t": floats(TABLE, 4)},
        [("ids", ["n"], I64)],
        ["y"],
    )  # fmt: skip
    arrays = drawn(proto, case=Case(Binding(500), Style.NORMAL))
    assert len(np.unique(arrays["ids"])) == TABLE
    assert (np.abs(run(proto, arrays)[0]).sum(axis=1) > 0).all()


MASKS = {
    "lowest where it is 0": (
        [N("Cast", ["m"], ["a"], to=F), N("Sub", ["one", "a"], ["b"]),
         N("Mul", ["b", "low"], ["c"]), N("Add", ["x", "c"], ["z"])], 1, I64,
    ),
    "taken away where it is 1": (
        [N("Cast", ["m"], ["a"], to=F), N("Mul", ["a", "high"], ["b"]),
         N("Sub", ["x", "b"], ["z"])], 0, I64,
    ),
    "chosen where it is 0": (
        [N("Equal", ["m", "zero"], ["c"]), N("Where", ["c", "low", "x"], ["z"])], 1, I64,
    ),
    "not chosen": (
        [N("Not", ["m"], ["c"]), N("Where", ["c", "low", "x"], ["z"])], 1, BOOL,
    ),
    "padding is true": ([N("Where", ["m", "low", "x"], ["z"])], 0, BOOL),
    "with another condition": (
        [N("And", ["m", "causal"], ["c"]), N("Where", ["c", "x", "low"], ["z"])], 1, BOOL,
    ),
    "greater than 0": (
        [N("Greater", ["m", "zero"], ["c"]), N("Cast", ["c"], ["d"], to=F),
         N("Sub", ["d", "one"], ["e"]), N("Mul", ["e", "high"], ["f"]),
         N("Add", ["f", "x"], ["z"])], 1, I64,
    ),
    "two constants": (
        [N("Cast", ["m"], ["c"], to=BOOL), N("Where", ["c", "none", "inf"], ["b"]),
         N("Add", ["x", "b"], ["z"])], 1, I64,
    ),
}  # fmt: skip


def masked(kind, ways=()):
    nodes, opened, dtype = MASKS[kind]
    before, last = [], "m0"
    for place, name in enumerate(ways):
        before += way(name, last, f"m0{place}")
        last = f"m0{place}"
    before.append(N("Cast", [last], ["m"], to=dtype))
    constants = {
        "one": np.float32(1), "low": np.float32(-3.4e38), "high": np.float32(1e9),
        "zero": np.int64(0), "none": np.float32(0), "inf": np.float32(-np.inf),
        "causal": np.tri(8, dtype=bool), "yes": np.array(1, bool), "ax": np.array([0]),
    }  # fmt: skip
    tail = [N("Softmax", ["z"], ["y"], axis=-1)]
    # The name says nothing, so the readers must.
    inputs = [("x", [8, 8]), ("m0", [8, 8], dtype)]
    return model([*before, *nodes, *tail], constants, inputs, ["y"]), opened


PLAIN_WAYS = ["cast", "unsqueezed and back", "identity", "in a branch"]


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(sorted(MASKS)),
    ways=st.lists(st.sampled_from(PLAIN_WAYS), max_size=3),
)
def test_masks_are_mostly_open_whichever_number_opens_them(kind, ways):
    proto, opened = masked(kind, ways)
    slot = hints(proto)["m0"]
    assert slot.use == Use(Role.MASK, 0, 1, opened=opened)
    for seed in range(3):
        arrays = drawn(proto, seed)
        (found,) = run(proto, arrays)
        assert np.isfinite(found).all()
        share = (found > 0).sum(axis=-1)
        assert share.min() >= 1
        assert (arrays["m0"] == opened).mean() > 0.7


@pytest.mark.parametrize("kind", ["padding is true", "chosen where it is 0"])
def test_a_mask_the_wrong_way_round_shuts_everything_out(kind):
    """The negative control: the polarity matters to what comes out."""
    proto, opened = masked(kind)
    arrays = drawn(proto)
    arrays["m0"] = np.full_like(arrays["m0"], 1 - opened)
    (found,) = run(proto, arrays)
    assert np.ptp(found) < 1e-6 or not np.isfinite(found).all()


def test_a_name_speaks_where_no_reader_does():
    nodes = [N("Cast", ["attention_mask"], ["a"], to=F), N("CumSum", ["a", "ax"], ["y"])]
    inputs = [("attention_mask", ["n", 8], I64)]
    proto = model(nodes, {"ax": np.int64(1)}, inputs, ["y"])
    assert hints(proto)["attention_mask"].use.role is Role.MASK
    ids = model(
        [N("Gather", ["t", "mask_ids"], ["y"])], {"t": floats(9, 2)},
        [("mask_ids", ["n"], I64)], ["y"],
    )  # fmt: skip
    assert hints(ids)["mask_ids"].use == Use(Role.INDEX, 0, 8)


def test_lengths_are_within_the_axis_and_one_is_all_of_it():
    layer = model(
        [N("GRU", ["x", "w", "r", "", "many"], ["s", "y"], hidden_size=3)],
        {"w": floats(1, 9, 6), "r": floats(1, 9, 3)},
        [("x", ["steps", "batch", 6]), ("many", ["batch"], TensorProto.INT32)],
        ["y"],
    )
    padded = model(
        [
            N("Shape", ["x"], ["s"]), N("Gather", ["s", "i1"], ["t"]),
            N("Range", ["i0", "t", "i1"], ["r"]), N("Unsqueeze", ["many", "ax"], ["m"]),
            N("Less", ["r", "m"], ["c"]), N("Where", ["c", "x", "low"], ["z"]),
            N("Softmax", ["z"], ["y"], axis=-1),
        ],
        {"i0": np.int64(0), "i1": np.int64(1), "ax": np.array([1]), "low": np.float32(-1e9)},
        [("x", ["n", "t"]), ("many", ["n"], I64)],
        ["y"],
    )  # fmt: skip
    for proto, axis in ((layer, 0), (padded, 1)):
        arrays = drawn(proto, case=Case(Binding(4, 20), Style.NORMAL))
        assert arrays["many"].max() == arrays["x"].shape[axis]
        assert arrays["many"].min() >= 1
        assert moving(run(proto, arrays))


def test_flags_are_drawn_both_ways_and_set_or_cleared_where_one_is_refused():
    sub = lambda kind, name: helper.make_graph(  # noqa: E731  short
        [N(kind, ["x"], [name])], name, [], [helper.make_tensor_value_info(name, F, None)]
    )
    proto = model(
        [
            N("Squeeze", ["use_cache_branch"], ["c"]),
            N("If", ["c"], ["y"], then_branch=sub("Relu", "a"), else_branch=sub("Neg", "b")),
        ],
        {},
        [("x", ["n", 3]), ("use_cache_branch", [1], BOOL)],
        ["y"],
    )
    slots = list(hints(proto).values())
    assert slots[1].use.role is Role.FLAG
    seen = {bool(drawn(proto, seed)["use_cache_branch"][0]) for seed in range(12)}
    assert seen == {True, False}
    tried = [one for one in bindings(slots) if one.int_top < 8]
    ways = {
        bool(draw_inputs(slots, Case(b, Style.NORMAL), 0)[slots[1].name][0]) for b in tried
    }
    assert ways == {True, False}
    again = {
        bool(redraw_inputs(slots, CASE, 0, attempt)[slots[1].name][0]) for attempt in range(6)
    }
    assert again == {True, False}


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([N("Log", ["x"], ["y"])], {}),
        ([N("Add", ["x", "k"], ["a"]), N("Sqrt", ["a"], ["y"])], {"k": np.float32(-2)}),
        ([N("Sub", ["k", "x"], ["a"]), N("Log", ["a"], ["y"])], {"k": np.float32(2)}),
        ([N("Pow", ["x", "k"], ["y"])], {"k": np.float32(0.45)}),
    ],
)
def test_numbers_have_the_roots_and_logarithms_that_are_taken(nodes, constants):
    proto = model(nodes, constants, [("x", ["n", 30])], ["y"])
    for style in Style:
        arrays = drawn(proto, case=Case(Binding(2), style))
        assert np.isfinite(run(proto, arrays)[0]).all()
    plain = Slot("x", ir.TensorType(ir.DataType.FLOAT), ("n", 30))
    wild = draw_inputs([plain], Case(Binding(2), Style.LARGE), 0)
    assert not np.isfinite(run(proto, wild)[0]).all()


@pytest.mark.parametrize("name", ["orig_target_sizes", "image_size", "img_shape"])
def test_sizes_may_be_integers(name):
    nodes = [N("Relu", ["image"], ["r"]), N("Cast", [name], ["y"], to=F)]
    inputs = [("image", ["n", 3, 48, 80]), (name, ["n", 2], I64)]
    arrays = drawn(model(nodes, {}, inputs, ["y", "r"]))
    assert (arrays[name] == [48, 80]).all()


def test_detectors_get_the_sizes_of_their_image_and_scales_of_1():
    proto = model(
        [N("Relu", ["image"], ["r"]), N("Mul", ["im_shape", "scale_factor"], ["y"])],
        {},
        [("image", ["n", 3, "h", "w"]), ("im_shape", ["n", 2]), ("scale_factor", ["n", 2])],
        ["y", "r"],
    )
    arrays = drawn(proto, case=Case(Binding(2, 64), Style.NORMAL))
    assert (arrays["im_shape"] == 64).all()
    assert (arrays["scale_factor"] == 1).all()


def test_integers_of_no_known_use_stay_small_and_others_are_tried():
    proto = model(
        [N("Cast", ["k"], ["a"], to=F), N("Erf", ["a"], ["y"])], {},
        [("k", ["n", 40], I64)], ["y"],
    )  # fmt: skip
    values = drawn(proto)["k"]
    assert values.min() == 0
    assert values.max() == 7
    assert {one.int_top for one in bindings(list(hints(proto).values()))} == {8, 2, 1}


WIDE = (Style.BORDERED, Style.LARGE)


@pytest.mark.parametrize("style", list(Style))
@pytest.mark.parametrize(("kind", "most"), [(I64, 1 << 24), (TensorProto.INT8, 127)])
def test_integers_that_are_only_reckoned_with_are_of_any_size_in_some_sets(style, kind, most):
    """A cast to fewer bits on the way shows in none of 0 … 7."""
    proto = model(
        [N("Cast", ["k"], ["a"], to=F), N("Relu", ["a"], ["y"])], {},
        [("k", ["n", 40], kind)], ["y"],
    )  # fmt: skip
    assert {one.int_top for one in bindings(list(hints(proto).values()))} == {8}
    values = drawn(proto, case=Case(CASE.binding, style))["k"].astype(np.int64)
    is_wide = style in WIDE
    assert np.abs(values).max() == (most if is_wide else 7)
    assert (values.min() < 0) == (style is Style.LARGE)
    assert (np.abs(values) <= 7).mean() > 0.3
    assert np.isfinite(run(proto, {"k": drawn(proto)["k"]})[0]).all()


BOUNDED = {
    "a row of a table": [N("Gather", ["t", "k"], ["y"])],
    "behind a cast": [N("Cast", ["k"], ["a"], to=6), N("Gather", ["t", "a"], ["y"])],
    "one reader of two": [
        N("Cast", ["k"], ["a"], to=F), N("Relu", ["a"], ["z"]), N("Gather", ["t", "k"], ["y"]),
    ],
    "a shape": [N("Squeeze", ["k"], ["a"]), N("Expand", ["c", "a"], ["y"])],
    "a power": [N("Cast", ["k"], ["a"], to=F), N("Pow", ["two", "a"], ["y"])],
}  # fmt: skip


@pytest.mark.parametrize("style", list(Style))
@pytest.mark.parametrize("nodes", BOUNDED.values(), ids=BOUNDED)
def test_integers_that_mean_something_else_too_stay_small(nodes, style):
    constants = {"t": np.ones((TABLE, 3), "f"), "c": np.ones(1, "f"), "two": np.float32(2)}
    proto = model(nodes, constants, [("k", [1, 3], I64)], ["y"])
    values = drawn(proto, case=Case(CASE.binding, style))["k"]
    assert values.min() >= 0
    assert values.max() < TABLE


def test_the_same_seed_gives_the_same_numbers_and_each_attempt_others():
    slots = list(hints(bert_like()).values())
    first, again = (redraw_inputs(slots, CASE, 3, 2) for _ in range(2))
    assert all((first[name] == again[name]).all() for name in first)
    zeroth, plain = redraw_inputs(slots, CASE, 3, 0), draw_inputs(slots, CASE, 3)
    assert all((zeroth[name] == plain[name]).all() for name in plain)
    ids = {redraw_inputs(slots, CASE, 3, n)["input_ids"].tobytes() for n in range(6)}
    assert len(ids) == 6
    assert redraw_inputs(slots, CASE, 3, 2)["attention_mask"].all()


def test_each_attempt_keeps_to_what_makes_sense():
    proto = bert_like()
    slots = list(hints(proto).values())
    for attempt in range(6):
        assert moving(run(proto, redraw_inputs(slots, CASE, 1, attempt)))


def test_redrawn_numbers_are_small_where_large_ones_saturate():
    proto = model(
        [N("Mul", ["x", "k"], ["a"]), N("Sigmoid", ["a"], ["y"])],
        {"k": np.float32(3000)}, [("x", ["n", 30])], ["y"],
    )  # fmt: skip
    slots = list(hints(proto).values())
    large = Case(Binding(2), Style.LARGE)
    share = [
        np.mean(np.abs(redraw_inputs(slots, large, 0, n)["x"]) < 0.03) for n in (0, 1, 2, 3)
    ]
    assert share[0] < share[3]
    assert (redraw_inputs(slots, large, 0, 2)["x"] >= 0).all()


def test_numbers_of_plain_inputs_are_what_they_were():
    """Seeds are written in reports: what had no use before is drawn as before."""
    slot = Slot("x", ir.TensorType(ir.DataType.FLOAT), ("n", 3))
    values = draw_inputs([slot], Case(Binding(), Style.NORMAL), 0)["x"]
    rng = np.random.default_rng((0, zlib.crc32(b"x/normal/(1, 3)")))
    assert (values == rng.standard_normal((1, 3)).astype(np.float32)).all()
    proto = model([N("Relu", ["x"], ["y"])], {}, [("x", ["n", 3])], ["y"])
    read = ir.from_proto(proto)
    told = with_hints(inputs_of(read), read)
    assert (draw_inputs(told, Case(Binding(), Style.NORMAL), 0)["x"] == values).all()


def test_a_size_that_the_user_gives_bounds_the_indices_too():
    proto = model(
        [N("GatherElements", ["x", "at"], ["y"], axis=1)],
        {},
        [("x", ["n", None]), ("at", ["n", 30], I64)],
        ["y"],
    )
    slots = list(hints(proto).values())
    (turn,) = sized(slots, ["x=2x5"])
    arrays = draw_inputs(turn, CASE, 0)
    assert arrays["at"].max() == 4
    run(proto, arrays)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 0), (0, 3), (2, 1, 3)])
@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("dtype", [ir.DataType.INT64, ir.DataType.FLOAT, ir.DataType.BOOL])
def test_every_use_has_numbers_of_every_shape(dtype, role, shape):
    slot = Slot("k", ir.TensorType(dtype), shape, Use(role, 0, 5))
    for attempt in range(4):
        values = redraw_inputs([slot], CASE, 0, attempt)["k"]
        assert values.shape == shape  # ONNX Runtime takes a declared 0 for no other size
        assert values.dtype == dtype.numpy()
        assert np.isfinite(values.astype(float)).all()


@pytest.mark.parametrize("style", Style)
@pytest.mark.parametrize("kind", [F, I64, BOOL, TensorProto.INT8, TensorProto.FLOAT16])
@pytest.mark.parametrize(
    "shape", [[0], [0, 4], [2, 0, 3], [2, 3, 0], [2, 3, 0, 5], [2, 3, 5, 0]]
)
def test_inputs_without_elements_are_drawn_in_every_style(style, kind, shape):
    """A border of an axis without elements ended `fold` in a traceback."""
    node = N("Cast", ["x"], ["y"], to=TensorProto.FLOAT)
    proto = model([node], {}, [("x", shape, kind)], ["y"])
    slots = list(hints(proto).values())
    drawn = draw_inputs(slots, Case(Binding(64), style), 0)
    assert drawn["x"].shape == tuple(shape)
