"""Sizes that the interface leaves open are those that constants decide, whoever reads them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from bnfold.inputs.drawing import Binding, Case, Style, draw_inputs, shape_of
from bnfold.inputs.hints import hinted, with_hints
from bnfold.inputs.signature import inputs_of
from bnfold.inputs.sizes import sized
from tests.inputs.graphs import BOOL, F, N, branch, floats, hints, model, run, save

FOLLOWING = {
    "relu": ([N("Relu", ["i"], ["o"])], {}),
    "identity": ([N("Identity", ["i"], ["o"])], {}),
    "cast": ([N("Cast", ["i"], ["o_"], to=11), N("Cast", ["o_"], ["o"], to=1)], {}),
    "there and back": (
        [
            N("Transpose", ["i"], ["o_"], perm=[0, 2, 3, 1]),
            N("Sigmoid", ["o_"], ["o_2"]),
            N("Transpose", ["o_2"], ["o"], perm=[0, 3, 1, 2]),
        ],
        {},
    ),
    "pool": ([N("MaxPool", ["i"], ["o"], kernel_shape=[2, 2], strides=[2, 2])], {}),
    "pad": ([N("Pad", ["i", "pads"], ["o"])], {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}),
    "crop": (
        [N("Slice", ["i", "from", "to", "axes"], ["o"])],
        {"from": np.array([1]), "to": np.array([-1]), "axes": np.array([2])},
    ),
    "quantised": (
        [N("QuantizeLinear", ["i", "u"], ["o_"]), N("DequantizeLinear", ["o_", "u"], ["o"])],
        {"u": np.float32(0.1)},
    ),
    "branches": (
        [
            N(
                "If", ["yes"], ["o"],
                then_branch=branch("Relu", "i", "bt"), else_branch=branch("Neg", "i", "be"),
            )
        ],
        {"yes": np.array(1, bool)},
    ),
    "axes put in and out": (
        [N("Unsqueeze", ["i", "ax"], ["o_"]), N("Squeeze", ["o_", "ax"], ["o"])],
        {"ax": np.array([0])},
    ),
    "upsampled": (
        [N("Resize", ["i", "", "sc"], ["o"])],
        {"sc": np.array([1, 1, 2, 2], np.float32)},
    ),
}  # fmt: skip


def vectors(c):
    return {name: np.abs(floats(c, seed=i)) + 0.5 for i, name in enumerate("gbmv")}


READING = {
    "conv": lambda c: ([N("Conv", ["i", "w"], ["y"])], {"w": floats(4, c, 1, 1)}),
    "grouped conv": lambda c: (
        [N("Conv", ["i", "w"], ["y"], group=c)],
        {"w": floats(2 * c, 1, 1, 1)},
    ),
    "conv transpose": lambda c: (
        [N("ConvTranspose", ["i", "w"], ["y"])],
        {"w": floats(c, 4, 1, 1)},
    ),
    "batch norm": lambda c: ([N("BatchNormalization", ["i", *"gbmv"], ["y"])], vectors(c)),
    "instance norm": lambda c: (
        [N("InstanceNormalization", ["i", "g", "b"], ["y"])],
        vectors(c),
    ),
    "mul": lambda c: ([N("Mul", ["i", "s"], ["y"])], {"s": floats(c, 1, 1)}),
    "sub from": lambda c: ([N("Sub", ["s", "i"], ["y"])], {"s": floats(1, c, 1, 1)}),
    "slopes": lambda c: ([N("PRelu", ["i", "s"], ["y"])], {"s": floats(c, 1, 1)}),
    "linear of last axis": lambda c: (
        [N("Transpose", ["i"], ["t"], perm=[0, 2, 3, 1]), N("MatMul", ["t", "w"], ["y"])],
        {"w": floats(c, 5)},
    ),
    "layer norm of last axis": lambda c: (
        [
            N("Transpose", ["i"], ["t"], perm=[0, 2, 3, 1]),
            N("LayerNormalization", ["t", "g", "b"], ["y"]),
        ],
        vectors(c),
    ),
    "head": lambda c: (
        [
            N("GlobalAveragePool", ["i"], ["p"]),
            N("Flatten", ["p"], ["f"]),
            N("Gemm", ["f", "w"], ["y"], transB=1),
        ],
        {"w": floats(5, c)},
    ),
    "head by Reshape": lambda c: (
        [
            N("ReduceMean", ["i", "hw"], ["p"], keepdims=0),
            N("Gemm", ["p", "w"], ["y"]),
        ],
        {"w": floats(c, 5), "hw": np.array([2, 3])},
    ),
    "part of a concat": lambda c: (
        [N("Concat", ["i", "i", "i"], ["k"], axis=1), N("Conv", ["k", "w"], ["y"])],
        {"w": floats(4, 3 * c, 1, 1)},
    ),
    "split": lambda c: (
        [N("Split", ["i", "parts"], ["y", "rest"], axis=1)],
        {"parts": np.array([1, c - 1])},
    ),
    "half of a split": lambda c: (
        [
            N("Concat", ["i", "i"], ["k"], axis=1),
            N("Split", ["k"], ["l", "r"], axis=1, num_outputs=2),
            N("Conv", ["l", "w"], ["y"]),
        ],
        {"w": floats(4, c, 1, 1)},
    ),
    "einsum": lambda c: (
        [N("Einsum", ["i", "w"], ["y"], equation="nchw,co->nohw")],
        {"w": floats(c, 5)},
    ),
    "pixels into channels": lambda c: (
        [N("SpaceToDepth", ["i"], ["k"], blocksize=2), N("Conv", ["k", "w"], ["y"])],
        {"w": floats(4, 4 * c, 1, 1)},
    ),
    "integer conv": lambda c: (
        [
            N("DynamicQuantizeLinear", ["i"], ["q", "qs", "qz"]),
            N("ConvInteger", ["q", "w", "qz"], ["k"]),
            N("Cast", ["k"], ["y"], to=F),
        ],
        {"w": np.ones((4, c, 1, 1), np.uint8)},
    ),
    "quantised conv": lambda c: (
        [
            N("QuantizeLinear", ["i", "u", "z"], ["q"]),
            N("QLinearConv", ["q", "u", "z", "w", "u", "z", "u", "z"], ["k"]),
            N("DequantizeLinear", ["k", "u", "z"], ["y"]),
        ],
        {"w": np.ones((4, c, 1, 1), np.uint8), "u": np.float32(0.1), "z": np.uint8(0)},
    ),
    "another input": lambda _: ([N("Add", ["i", "x2"], ["y"])], {}),
}


def chained(steps, reader, channels, shape=("n", None, "h", "w")):
    """x, some steps, and what decides the channels."""
    nodes, constants, last = [], {}, "x"
    for place, step in enumerate([*(FOLLOWING[name] for name in steps), reader]):
        names = {"i": last, **({} if step is reader else {"o": f"v{place}"})}
        nodes.extend(_renamed(node, names, place) for node in step[0])
        constants |= {f"{name}.{place}": array for name, array in step[1].items()}
        last = f"v{place}"
    inputs = [("x", list(shape))]
    if any("x2" in node.input for node in reader[0]):
        inputs.append(("x2", ["n", channels, 1, 1]))
    return model(nodes, constants, inputs, ["y"], opset=18)


def _renamed(node, names, place):
    copy = type(node)()
    copy.CopyFrom(node)
    fixed = {"x2": "x2", "y": "y", "": ""}
    spell = lambda name: names.get(name) or fixed.get(name, f"{name}.{place}")  # noqa: E731  short
    for field in (copy.input, copy.output):
        field[:] = [spell(name) if name != "" else "" for name in field]
    for attribute in copy.attribute:
        for inner in attribute.g.node:
            inner.input[:] = [spell(name) for name in inner.input]
    return copy


def drawn(proto, size=16, batch=2):
    slots = list(hints(proto).values())
    return draw_inputs(slots, Case(Binding(batch, size), Style.NORMAL), 0)


@pytest.mark.parametrize("reader", READING)
def test_every_reader_decides_the_channels(reader):
    proto = chained([], READING[reader](5), 5)
    assert hints(proto)["x"].dims[1] == 5
    run(proto, drawn(proto))


@pytest.mark.parametrize("step", FOLLOWING)
def test_they_are_looked_for_behind_operators_that_hand_the_axis_on(step):
    proto = chained([step, step], READING["conv"](5), 5)
    assert hints(proto)["x"].dims[1] == 5
    run(proto, drawn(proto, 32))


@settings(max_examples=60, deadline=None)
@given(
    channels=st.integers(2, 9),
    steps=st.lists(st.sampled_from(sorted(FOLLOWING)), max_size=4),
    reader=st.sampled_from(sorted(READING)),
)
def test_drawn_chains_run_at_the_sizes_found(channels, steps, reader):
    proto = chained(steps, READING[reader](channels), channels)
    assert hints(proto)["x"].dims[1] == channels
    run(proto, drawn(proto, 64))


def test_other_channels_do_not_run_so_that_the_tests_above_say_something():
    for reader in ("conv", "mul", "head", "part of a concat", "einsum"):
        proto = chained(["relu"], READING[reader](5), 5)
        with pytest.raises(Exception, match="ONNXRuntimeError"):
            run(proto, {"x": floats(1, 4, 16, 16)})


def test_a_rank_that_is_not_declared_is_the_one_that_operators_take():
    proto = chained(["relu", "pool"], READING["conv"](5), 5)
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    assert hints(proto)["x"].dims == (None, 5, None, None)
    turned = model(
        [N("Relu", ["x"], ["r"]), N("Transpose", ["r"], ["t"], perm=[0, 2, 1]),
         N("MatMul", ["t", "w"], ["y"])],
        {"w": floats(7, 5)}, [("x", None)], ["y"],
    )  # fmt: skip
    assert hints(turned)["x"].dims == (None, 7, None)


def test_a_symbol_that_is_solved_at_one_input_holds_for_all():
    proto = model(
        [N("Conv", ["x", "w"], ["a"]), N("Relu", ["z"], ["b"])],
        {"w": floats(4, 3, 1, 1)},
        [("x", ["n", "c", 8, 8]), ("z", ["n", "c"])],
        ["a", "b"],
    )
    assert hints(proto)["z"].dims == ("n", 3)


def test_sizes_of_an_image_are_found_from_the_head_that_flattens_it():
    """LeNet with every size open: 5×5 windows and pools up to 400 features."""
    proto = model(
        [
            N("Conv", ["x", "w"], ["a"]),
            N("MaxPool", ["a"], ["b"], kernel_shape=[2, 2], strides=[2, 2]),
            N("Conv", ["b", "v"], ["c"], pads=[1, 1, 1, 1]),
            N("AveragePool", ["c"], ["d"], kernel_shape=[2, 2], strides=[2, 2]),
            N("Flatten", ["d"], ["e"]),
            N("Gemm", ["e", "u"], ["y"]),
        ],
        {"w": floats(6, 1, 5, 5), "v": floats(16, 6, 5, 5), "u": floats(16 * 25, 10)},
        [("x", ["n", None, None, None])],
        ["y"],
    )
    slot = hints(proto)["x"]
    assert slot.dims[1] == 1
    assert None not in slot.dims[1:]
    run(proto, drawn(proto))


def test_sizes_divide_by_what_takes_them_apart():
    proto = model(
        [N("SpaceToDepth", ["x"], ["a"], blocksize=3), N("Relu", ["a"], ["y"])],
        {},
        [("x", ["n", 2, "h", "w"])],
        ["y"],
    )
    slots = list(hints(proto).values())
    assert shape_of(slots[0], Binding(1, 64), slots) == (1, 2, 66, 66)
    run(proto, drawn(proto, 64))
    split = model(
        [N("Reshape", ["x", "s"], ["y"])],
        {"s": np.array([-1, 7, 4])},
        [("x", ["n", "t", 4])],
        ["y"],
    )
    # Either n or t could be the multiple: the batch is left alone.
    assert hints(split)["x"].steps == (1, 7, 1)
    run(split, drawn(split, 64))


def test_recurrent_layers_decide_features_and_states():
    hidden = 3
    proto = model(
        [N("LSTM", ["x", "w", "r", "", "", "h", "c"], ["s", "y"], hidden_size=hidden)],
        {"w": floats(1, 4 * hidden, 6), "r": floats(1, 4 * hidden, hidden)},
        [("x", [None, "batch", None]), ("h", None), ("c", [None, None, None])],
        ["y"],
    )
    found = hints(proto)
    assert found["x"].dims == (None, "batch", 6)
    assert found["h"].dims == found["c"].dims == (1, "batch", 3)
    run(proto, drawn(proto))


def test_a_mask_over_past_and_present_is_as_long_as_both():
    proto = model(
        [N("Concat", ["past", "x"], ["k"], axis=1), N("Add", ["k", "mask"], ["y"])],
        {},
        [("x", ["b", "s", 4]), ("past", ["b", "p", 4]), ("mask", ["b", "total", 1])],
        ["y"],
    )
    arrays = drawn(proto, 5)
    assert arrays["mask"].shape[1] == arrays["past"].shape[1] + arrays["x"].shape[1]
    run(proto, arrays)
    for asked, total in ((["x=2x3x4"], 3 + 5), (["x=2x3x4", "past=2x1x4"], 3 + 1)):
        (turn,) = sized(list(hints(proto).values()), asked)
        given_sizes = draw_inputs(turn, Case(Binding(2, 5), Style.NORMAL), 0)
        assert given_sizes["mask"].shape[1] == total
        run(proto, given_sizes)


def test_the_same_of_a_past_that_a_branch_may_leave_out():
    """As decoders are exported that take a cache or none: both branches end in a Concat."""
    joined = lambda name: helper.make_graph(  # noqa: E731  short
        [N("Concat", ["past", "x"], [name], axis=1)], name, [],
        [helper.make_tensor_value_info(name, F, None)],
    )  # fmt: skip
    proto = model(
        [
            N("If", ["flag"], ["k"], then_branch=joined("a"), else_branch=joined("b")),
            N("Concat", ["k", "more"], ["k2"], axis=1),
            N("Add", ["k2", "mask"], ["y"]),
        ],
        {"more": floats(1, 2, 4)},
        [
            ("x", [1, "s", 4]),
            ("past", [1, "p", 4]),
            ("mask", [1, "total", 1]),
            ("flag", [], 9),
        ],
        ["y"],
    )
    arrays = drawn(proto, 5)
    assert arrays["mask"].shape[1] == 5 + 5 + 2
    run(proto, arrays)


def test_channels_are_found_behind_branches_that_change_sizes():
    halves = lambda name: helper.make_graph(  # noqa: E731  short
        [N("Concat", ["x", "x"], [name], axis=1)], name, [],
        [helper.make_tensor_value_info(name, F, None)],
    )  # fmt: skip
    proto = model(
        [
            N("If", ["flag"], ["k"], then_branch=halves("a"), else_branch=halves("b")),
            N("Conv", ["k", "w"], ["y"]),
        ],
        {"w": floats(3, 10, 1, 1)},
        [("x", ["n", None, "h", "w_"]), ("flag", [], BOOL)],
        ["y"],
    )
    assert hints(proto)["x"].dims[1] == 5
    run(proto, drawn(proto))


def test_a_sum_of_sizes_is_a_size_where_its_parts_are():
    proto = model(
        [
            N("Concat", ["past", "x"], ["k"], axis=1), N("Add", ["k", "mask"], ["y"]),
            N("Add", ["x", "a"], ["z"]), N("Add", ["past", "b"], ["u"]),
        ],
        {"a": floats(3, 4), "b": floats(2, 4)},
        [("x", ["b", "s", 4]), ("past", ["b", "p", 4]), ("mask", ["b", "total", 1])],
        ["y", "z", "u"],
    )  # fmt: skip
    assert hints(proto)["mask"].dims == ("b", 5, 1)
    run(proto, drawn(proto))


def _numbered(how):
    """A learned position for each step, of at most 12, cut off or looked up."""
    length = [N("Shape", ["x"], ["s"]), N("Gather", ["s", "one"], ["t"])]
    if how == "cut off":
        length += [
            N("Unsqueeze", ["t", "ax0"], ["t1"]),
            N("Slice", ["places", "from", "t1", "ax0"], ["p"]),
        ]
    else:
        length += [
            N("Range", ["zero", "t", "one"], ["r"]),
            N("Gather", ["places", "r"], ["p"]),
        ]
    return model(
        [*length, N("Add", ["x", "p"], ["y"])],
        {
            "one": np.int64(1), "zero": np.int64(0), "ax0": np.array([0]),
            "from": np.array([0]), "places": floats(12, 4),
        },
        [("x", ["n", "t", 4]), ("mask", ["n", "t"])],
        ["y"],
    )  # fmt: skip


@pytest.mark.parametrize("how", ["cut off", "looked up"])
def test_no_more_steps_are_drawn_than_there_are_positions(how):
    proto = _numbered(how)
    slots = list(hints(proto).values())
    assert shape_of(slots[1], Binding(1, 64), slots) == (1, 12)
    assert shape_of(slots[1], Binding(1, 5), slots) == (1, 5)
    arrays = drawn(proto, 64)
    run(proto, {"x": arrays["x"], "mask": arrays["mask"]})
    with pytest.raises(Exception, match="ONNXRuntimeError"):
        run(proto, {"x": floats(1, 64, 4), "mask": floats(1, 64)})


def test_functions_are_looked_into():
    inside = [N("Relu", ["u"], ["q"]), N("Conv", ["q", "k"], ["v"])]
    function = helper.make_function(
        "local", "Block", ["u", "k"], ["v"], inside, [helper.make_opsetid("", 18)]
    )
    proto = model(
        [N("Block", ["x", "w"], ["y"], domain="local")],
        {"w": floats(4, 5, 1, 1)},
        [("x", ["n", None, "h", "w"])],
        ["y"],
        functions=[function],
    )
    assert hints(proto)["x"].dims[1] == 5


@pytest.mark.parametrize("kind", ["BiasGelu", "SkipLayerNormalization"])
def test_operators_of_the_runtime_are_known_too(kind):
    """As an optimised graph that was saved has them."""
    ms = "com.microsoft"
    operands = {"BiasGelu": ["g", "b"], "SkipLayerNormalization": ["g", "g", "s", "b"]}[kind]
    proto = model(
        [
            N("FastGelu", ["x"], ["g"], domain=ms),
            N(kind, operands, ["h"], domain=ms),
            N("Relu", ["h"], ["y"]),
        ],
        {"s": floats(5), "b": floats(5)},
        [("x", ["n", "t", None])],
        ["y"],
    )
    proto.opset_import.append(helper.make_opsetid(ms, 1))
    assert hints(proto)["x"].dims == ("n", "t", 5)
    run(proto, drawn(proto))


def test_fused_layers_of_the_runtime_decide_sizes():
    ms = "com.microsoft"
    proto = model(
        [
            N("FusedConv", ["x", "v"], ["a"], domain=ms, activation="Relu"),
            N("Flatten", ["a"], ["f"]),
            N("FusedGemm", ["f", "u"], ["y"], domain=ms, activation="Relu"),
        ],
        {"v": floats(4, 5, 3, 3), "u": floats(4 * 49, 2)},
        [("x", ["n", None, None, None])],
        ["y"],
    )
    proto.opset_import.append(helper.make_opsetid(ms, 1))
    assert hints(proto)["x"].dims == ("n", 5, 9, 9)
    run(proto, drawn(proto))


def test_names_of_inner_dimensions_do_not_hide_where_they_come_from():
    """Exporters write shapes of inner values with symbols of their own."""
    proto = chained(["relu"], READING["conv"](5), 5)
    proto.graph.value_info.append(
        helper.make_tensor_value_info("v0", F, ["unk__1", "unk__2", "unk__3", "unk__4"])
    )
    assert hints(proto)["x"].dims[1] == 5


def test_what_nothing_decides_stays_open_and_the_model_as_it_was():
    proto = model([N("Relu", ["x"], ["y"])], {}, [("x", ["n", None, "h"])], ["y"])
    read = ir.from_proto(proto)
    slots = inputs_of(read)
    assert with_hints(slots, read) == slots
    assert with_hints(inputs_of(read), read)[0].dims == ("n", None, "h")
    assert read.graph.inputs[0].shape == ir.Shape(["n", None, "h"])


def test_the_node_that_decides_a_size_is_named():
    proto = chained([], READING["conv"](5), 5)
    proto.graph.node[0].name = "stem"
    read = ir.from_proto(proto)
    assert hinted(inputs_of(read), read).sources == {("x", 1): "Conv 'stem'"}


def test_a_size_that_the_user_gives_settles_what_goes_with_it():
    proto = chained(["relu"], READING["conv"](5), 5)
    read = ir.from_proto(proto)
    (turn,) = sized(with_hints(inputs_of(read), read), ["x=1x5x20x24"])
    assert turn[0].dims == (1, 5, 20, 24)


def test_a_graph_that_makes_no_sense_keeps_what_it_declares():
    """It is refused by whoever runs it, in words of its own."""
    proto = model(
        [N("Conv", ["x", "nothing"], ["y"])], {}, [("x", ["n", None, "h", "w"])], ["y"]
    )
    read = ir.from_proto(proto)
    assert with_hints(inputs_of(read), read) == inputs_of(read)
    wrong = model(
        [N("Conv", ["x", "w"], ["y"], group="two")],
        {"w": floats(4, 3, 1, 1)},
        [("x", ["n", None, "h", "w"])],
        ["y"],
    )
    assert hints(wrong)["x"].dims == ("n", None, "h", "w")


def test_a_benchmark_finds_the_same_sizes(tmp_path):
    from bnfold.benchmarked.inputs import Asked, draw_cases
    from bnfold.measurement.arms import Subject

    proto = chained(["relu"], READING["mul"](5), 5, ("n", "c", 8, 8))
    subject = Subject(save(proto, tmp_path / "m.onnx"), "m.onnx", 0)
    asked = Asked(batch=(1, 3), shapes=None, inputs=None, seed=0, seconds=30.0)
    cases = draw_cases(subject, subject, asked, tmp_path)
    assert [case.shapes["x"] for case in cases] == [(1, 5, 8, 8), (3, 5, 8, 8)]
