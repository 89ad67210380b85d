"""Pictures of a fold: the right nodes in the right roles, joined as in the graphs."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from onnx import TensorProto, helper, numpy_helper

from bnfold.folding.pictures import pictures_of
from bnfold.model.io import opened
from bnfold.records import Patch, Role, Step
from tests.battery import control, functions, parallel
from tests.battery.cases import ALL
from tests.folding.picturing import check_form, check_pictures, pictured
from tests.small import conv_bn, two_layers
from tests.strategies import models

DIGITS = Path(__file__).parents[2] / "models" / "digits_cnn.onnx"
CASES = {case.name: case for case in ALL}


def roles(patch: Patch) -> dict[str, Role]:
    return {box.name: box.role for box in patch.boxes}


def wires(patch: Patch) -> set[tuple[str | None, str | None]]:
    names = [box.name for box in patch.boxes]
    return {
        tuple(None if end is None else names[end] for end in (wire.source, wire.target))
        for wire in patch.wires
    }


def chain(*nodes: onnx.NodeProto, shape=("N", 4, 8, 8), **weights) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(a, np.float32), n) for n, a in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def weight(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).uniform(0.5, 2, shape)


def test_a_batch_norm_behind_a_convolution():
    ((_, picture),) = pictured(conv_bn())
    before, after = picture.before, picture.after
    assert roles(before) == {"conv": Role.ABSORBED, "bn": Role.SITE, "relu": Role.BESIDE}
    assert wires(before) == {
        (None, "conv"),
        ("conv", "bn"),
        ("bn", "relu"),
        ("relu", None),
    }
    assert roles(after) == {"conv": Role.ABSORBED, "relu": Role.BESIDE}
    assert wires(after) == {(None, "conv"), ("conv", "relu"), ("relu", None)}
    assert [w.shape for w in before.wires if w.source is None] == ["N×3×8×8"]
    assert [w.shape for w in after.wires if w.target is None] == ["N×4×8×8"]


def test_weights_are_no_wires():
    ((_, picture),) = pictured(conv_bn())
    assert {wire.value for wire in picture.before.wires} == {"x", "c", "b", "y"}


def test_nodes_without_a_name_are_followed_by_what_they_write():
    model = conv_bn()
    for node in model.graph.node:
        node.name = ""
    ((_, picture),) = pictured(model)
    assert roles(picture.before) == {
        "Conv → c": Role.ABSORBED,
        "BatchNormalization → b": Role.SITE,
        "Relu → y": Role.BESIDE,
    }
    assert roles(picture.after) == {"Conv → b": Role.ABSORBED, "Relu → y": Role.BESIDE}


def test_a_map_in_front_goes_down_past_what_lets_it_through():
    model = chain(
        helper.make_node("Sigmoid", ["x"], ["a"], name="start"),
        helper.make_node("Mul", ["a", "s"], ["b"], name="scale"),
        helper.make_node("Relu", ["b"], ["c"], name="relu"),
        helper.make_node("Conv", ["c", "w"], ["y"], name="conv"),
        s=weight(4, 1, 1),
        w=weight(2, 4, 1, 1),
    )
    ((_, picture),) = pictured(model)
    assert roles(picture.before) == {
        "start": Role.BESIDE,
        "scale": Role.SITE,
        "relu": Role.PASSED,
        "conv": Role.ABSORBED,
    }
    assert ("start", "relu") in wires(picture.after)
    assert roles(picture.after)["relu"] is Role.PASSED


def test_parallel_branches_become_one():
    found = pictured(parallel.repvgg(blocks=1))
    step, picture = found[-1]
    assert step.move == "parallel branches"
    before = roles(picture.before)
    assert {before[name] for name in step.site} == {Role.SITE}
    assert before[step.absorbed_by[0]] is Role.ABSORBED
    assert sorted(b.kind for b in picture.before.boxes if b.role is Role.GONE) == [
        "BatchNormalization",
        "BatchNormalization",
    ]
    joined = [pair for pair in wires(picture.before) if None not in pair]
    assert {end for pair in joined for end in pair} == set(before), "all is joined"
    assert [box.kind for box in picture.after.boxes] == ["Relu", "Conv", "Relu"]
    # The convolution of the second branch took its map first, and is the other one now.
    _, second = found[1]
    assert roles(second.after)[step.absorbed_by[0]] is Role.ABSORBED


def test_a_diamond_shows_both_ways():
    model = chain(
        helper.make_node("Conv", ["x", "w"], ["a"], name="conv1"),
        helper.make_node("Conv", ["x", "v"], ["b"], name="conv2", pads=[1] * 4),
        helper.make_node("Sigmoid", ["b"], ["g"], name="gate"),
        helper.make_node("Mul", ["a", "g"], ["c"], name="product"),
        helper.make_node("Mul", ["c", "s"], ["d"], name="scale"),
        helper.make_node("Tanh", ["d"], ["y"], name="end"),
        w=weight(4, 4, 1, 1),
        v=weight(4, 4, 3, 3),
        s=weight(4, 1, 1),
    )
    ((_, picture),) = pictured(model)
    before = roles(picture.before)
    assert before["conv1"] is Role.ABSORBED
    assert before["product"] is Role.PASSED
    assert before["gate"] is Role.BESIDE
    assert {("conv1", "product"), ("gate", "product"), ("product", "scale")} <= wires(
        picture.before
    )
    assert ("product", "end") in wires(picture.after)


def test_an_attention_scale_passes_the_other_product():
    for step, picture in pictured(CASES["paths/attention/scores"].build()):
        before = roles(picture.before)
        assert all(before[name] is Role.SITE for name in step.site)
        assert all(before[name] is Role.ABSORBED for name in step.absorbed_by)
        for route in step.routes:
            ends = (*step.site[-1:], *route) if step.move == "up" else route
            between = {(maker, reader) for reader, maker in itertools.pairwise(ends)}
            assert between <= wires(picture.before)


def test_a_map_behind_an_if_goes_into_both_branches():
    ((step, picture),) = pictured(control.behind_if("bn"))
    assert len(step.absorbed_by) == 2
    owner = step.routes[0][0]
    assert {(name, owner) for name in step.absorbed_by} <= wires(picture.before)
    assert roles(picture.before)[owner] is Role.PASSED
    assert (owner, step.site[0]) in wires(picture.before)
    assert (owner, step.site[0]) not in wires(picture.after)


def test_equal_names_in_two_branches_are_told_apart():
    branches = []
    for kind in ("Sigmoid", "Tanh"):
        nodes = [
            helper.make_node("Conv", ["x", f"w{kind}"], [f"c{kind}"], name="conv"),
            helper.make_node("Mul", [f"c{kind}", "s"], [f"m{kind}"], name="scale"),
            helper.make_node(kind, [f"m{kind}"], [f"r{kind}"], name="end"),
        ]
        info = helper.make_tensor_value_info(f"r{kind}", TensorProto.FLOAT, None)
        own = [numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), f"w{kind}")]
        branches.append(helper.make_graph(nodes, kind, [], [info], own))
    node = helper.make_node(
        "If", ["on"], ["y"], name="if", then_branch=branches[0], else_branch=branches[1]
    )
    model = chain(node, s=weight(4, 1, 1))
    model.graph.input.append(helper.make_tensor_value_info("on", TensorProto.BOOL, []))
    found = pictured(model)
    assert len(found) == 2
    for step, picture in found:
        (written,) = step.tensors
        for patch in (picture.before, picture.after):
            assert [f"w{box.kind}" for box in patch.boxes if box.name == "end"] == [written]
    assert all(("conv", "scale") in wires(picture.before) for _, picture in found)


def test_a_written_out_function_shows_its_call_and_its_nodes():
    found = pictured(functions.conv_in_function())
    step, picture = found[0]
    assert step.rule == "function"
    assert [b.kind for b in picture.before.boxes if b.role is Role.SITE] == ["Layer"]
    assert [b.kind for b in picture.after.boxes if b.role is Role.CHANGED] == ["Conv"]
    _, second = found[1]
    assert {b.kind for b in second.before.boxes} >= {"Conv", "BatchNormalization"}


def test_a_spelled_out_norm_is_drawn_whole_and_becomes_the_operator():
    step, picture = pictured(CASES["norms/spelled_layer/True/gemm"].build())[0]
    assert step.move == "spelled out"
    kinds = {box.kind for box in picture.before.boxes if box.role is Role.GONE}
    assert {"ReduceMean", "Sub", "Pow", "Sqrt", "Div"} <= kinds
    assert ("LayerNormalization", Role.CHANGED) in {
        (box.kind, box.role) for box in picture.after.boxes
    }


def test_maps_in_a_row_become_fewer():
    step, picture = pictured(CASES["linear/alone/bn_bn"].build())[0]
    assert step.move == "composed"
    assert roles(picture.before)[step.absorbed_by[0]] is Role.ABSORBED
    assert [b.kind for b in picture.after.boxes if b.role is Role.ABSORBED] == [
        "BatchNormalization"
    ]


def test_an_adjusted_reader_is_marked():
    step, picture = pictured(CASES["paths/adjusted/conv"].build())[0]
    assert step.adjusted
    assert roles(picture.before)[step.adjusted[0]] is Role.CHANGED
    assert roles(picture.after)[step.adjusted[0]] is Role.CHANGED


def long_route(count: int, prefix: str = "") -> onnx.ModelProto:
    nodes = [helper.make_node("Conv", ["x", "w"], ["v0"], name=f"{prefix}conv")]
    for turn in range(count):
        name = f"{prefix}relu{turn}"
        nodes.append(helper.make_node("Relu", [f"v{turn}"], [f"v{turn + 1}"], name=name))
    nodes.append(helper.make_node("Mul", [f"v{count}", "s"], ["m"], name=f"{prefix}scale"))
    nodes.append(helper.make_node("Tanh", ["m"], ["y"], name=f"{prefix}end"))
    return chain(*nodes, w=weight(4, 4, 1, 1), s=weight(4, 1, 1))


def test_the_middle_of_a_long_route_is_one_wire():
    ((_, picture),) = pictured(long_route(40))
    for patch in (picture.before, picture.after):
        check_form(patch)
        shown = sum(box.kind == "Relu" for box in patch.boxes)
        assert patch.hidden == 40 - shown > 0
        (far,) = [wire for wire in patch.wires if wire.through]
        assert far.through == patch.hidden
        assert patch.boxes[far.source].kind == patch.boxes[far.target].kind == "Relu"
    assert {"conv", "relu0", "relu39", "scale", "end"} <= set(roles(picture.before))


def test_many_takers_are_counted():
    branches = 9
    nodes = [
        helper.make_node("Conv", ["x", f"w{n}"], [f"c{n}"], name=f"conv{n}")
        for n in range(branches)
    ]
    inputs = [f"c{n}" for n in range(branches)]
    nodes += [
        helper.make_node("Concat", inputs, ["all"], name="concat", axis=1),
        helper.make_node("Mul", ["all", "s"], ["m"], name="scale"),
        helper.make_node("Tanh", ["m"], ["y"], name="end"),
    ]
    weights = {f"w{n}": weight(2, 4, 1, 1) for n in range(branches)}
    ((_, picture),) = pictured(chain(*nodes, s=weight(2 * branches, 1, 1), **weights))
    shown = [box for box in picture.before.boxes if box.role is Role.ABSORBED]
    assert picture.before.hidden == branches - len(shown) > 0
    (far,) = [wire for wire in picture.before.wires if wire.through]
    assert picture.before.boxes[far.target].name == "concat"
    assert far.through == picture.before.hidden


def test_the_pattern_forgets_names_and_shapes_only():
    def pattern(model):
        return pictured(model)[0][1].pattern

    renamed = conv_bn(seed=3, names=("other", "norm"))
    renamed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 7
    assert pattern(conv_bn()) == pattern(renamed)
    assert pattern(long_route(3)) == pattern(long_route(3, "elsewhere/"))
    different = [conv_bn(), two_layers(), long_route(3), long_route(4)]
    assert len({pattern(model) for model in different}) == len(different)


def test_the_packaged_model():
    found = pictured(DIGITS)
    assert len(found) == 3
    for step, picture in found:
        assert roles(picture.before)[step.site[0]] is Role.SITE
        assert roles(picture.before)[step.absorbed_by[0]] is Role.ABSORBED
        assert roles(picture.after)[step.absorbed_by[0]] is Role.ABSORBED
        assert step.site[0] not in roles(picture.after)


def thorough_but_some(cases):
    """Each third in `make test`: which names a graph has is not what most of them are for."""
    marks = [[pytest.mark.thorough] if place % 3 else [] for place in range(len(cases))]
    return [
        pytest.param(case, id=case.name, marks=mark)
        for case, mark in zip(cases, marks, strict=True)
    ]


@pytest.mark.parametrize("case", thorough_but_some(ALL))
def test_graphs_of_the_battery_without_names_have_pictures(case):
    """Those with their names: `tests/battery`."""
    model = case.build()
    for node in model.graph.node:
        node.name = ""
    for _, picture in pictured(model):
        check_form(picture.before)
        check_form(picture.after)


@given(models())
def test_every_drawn_model_has_pictures(model):
    check_pictures(pictured(model))
    check_pictures(pictured(model, norms=True))


def test_equal_names_in_one_graph_are_told_apart():
    ((_, picture),) = pictured(CASES["guards/names/same_node_names"].build())
    found = {(box.kind, box.role) for box in picture.before.boxes}
    assert {("Conv", Role.ABSORBED), ("BatchNormalization", Role.SITE)} <= found
    assert ("Conv", Role.ABSORBED) in {(box.kind, box.role) for box in picture.after.boxes}


def test_names_that_lead_nowhere_are_left_out():
    model = opened(conv_bn())
    lost = Step("Mul", ("nobody",), "up", (("no one",),), ("no one",), ())
    half = Step("BatchNormalization", ("bn",), "up", (("no one",),), ("no one",), ())
    nothing, some = pictures_of(model, model, [lost, half])
    assert nothing.before.boxes == nothing.after.boxes == ()
    assert roles(some.before)["bn"] is Role.SITE
