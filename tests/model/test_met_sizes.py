"""Shapes behind a Slice are inferred in this process wherever no Slice can end it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnfold.model import inference
from bnfold.model.inference import inferred


def sliced(*nodes: str, x: str = "float[N, 2, 9, 9]", more: str = "") -> onnx.ModelProto:
    """A model of these nodes; `w` is a window, the other constants are for a Slice."""
    body = " ".join(nodes)
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": 18, "own": 1]>
        g ({x} x) => (float y)
        <int64[1] zero = {{0}}, int64[1] four = {{4}}, int64[1] axis = {{2}},
         int64[1] back = {{-1}}>
        {{ {body} }}
        {more}
    """)  # fmt: skip
    model.graph.output[0].type.tensor_type.ClearField("shape")
    window = numpy_helper.from_array(np.ones((2, 2, 5, 5), np.float32), "w")
    model.graph.initializer.append(window)
    return model


IN_A_ROW = [f"a{n + 1} = Slice (a{n}, zero, four, axis)" for n in range(9)]
HERE = {
    "a size": sliced("y = Slice (x, zero, four, axis)"),
    "backwards": sliced("y = Slice (x, four, zero, axis, back)"),
    "along an open size": sliced("y = Slice (x, zero, four, zero)"),
    "behind another": sliced(
        "s = Slice (x, zero, four, axis) y = Slice (s, zero, four, axis)"
    ),
    "behind a window": sliced("c = Conv (x, w) y = Slice (c, zero, four, axis)"),
    "a list of sizes": sliced(
        "f = Slice (x, zero, four, axis) s = Shape (f)",
        "t = Slice (s, zero, four) y = Expand (f, t)",
    ),
    "a weight": sliced("v = Slice (w, zero, four, axis) y = Conv (x, v)"),
}
IN_A_CHILD = {
    "a window larger than what it slides over": sliced(
        "c = Conv (x, w) y = Slice (c, zero, four, axis)", x="float[1, 2, 3, 3]"
    ),
    "the same behind a Slice": sliced(
        "s = Slice (x, zero, four, axis) c = Conv (s, w) y = Slice (c, zero, four, axis)"
    ),
    "the same behind a list of sizes": sliced(
        "t = Shape (x) s = Slice (t, zero, four) e = Expand (x, s)",
        "c = Conv (e, w) y = Slice (c, zero, four, axis)",
        x="float[1, 2, 3, 3]",
    ),
    "nothing": sliced("y = Slice (x, zero, four, axis)", x="float[1, 2, 0, 9]"),
    "of no known rank": sliced("r = own.Odd (x) y = Slice (r, zero, four, axis)"),
    "a list of open length": sliced("y = Slice (x, zero, four)", x="int64[N]"),
    "many in a row": sliced("a0 = Relu (x)", *IN_A_ROW, "y = Relu (a9)"),
    "in a function": sliced(
        "y = own.F (x, zero, four)",
        more="""<domain: "own", opset_import: ["": 18]>
            F (a, b, c) => (d) { d = Slice (a, b, c) }""",
    ),
}  # fmt: skip


@pytest.fixture
def children(monkeypatch):
    """The results that child processes gave."""
    asked, found = inference._asked, []

    def counted(*arguments):
        found.append(asked(*arguments))
        return found[-1]

    monkeypatch.setattr(inference, "_asked", counted)
    return found


def copy_of(model):
    return onnx.ModelProto.FromString(model.SerializeToString())


@pytest.mark.parametrize("what", HERE)
def test_sizes_that_are_positive_or_open_take_no_child_and_are_as_in_one(what, children):
    wanted = inference._asked(copy_of(HERE[what]), (False, False, True), 0)
    children.clear()
    model = copy_of(HERE[what])
    assert inferred(model, data_prop=True) == wanted
    assert not children
    assert model == HERE[what]


@pytest.mark.parametrize("what", IN_A_CHILD)
def test_any_other_size_takes_a_child(what, children):
    found = inferred(copy_of(IN_A_CHILD[what]), data_prop=True)
    assert len(children) == 1
    assert len(found.node) == len(IN_A_CHILD[what].graph.node)


def test_where_the_child_dies_all_else_is_inferred(children):
    model = copy_of(IN_A_CHILD["a window larger than what it slides over"])
    found = inferred(model, data_prop=True)
    assert children == [None]
    (conv,) = [info for info in found.value_info if info.name == "c"]
    assert [dim.dim_value for dim in conv.type.tensor_type.shape.dim] == [1, 2, -1, -1]


def test_a_slice_in_a_branch_takes_a_child(children):
    """What its graph is given is known within inference only."""
    model = sliced("s = Slice (x, zero, four, axis) y = Relu (s)")
    inner = helper.make_graph(
        [helper.make_node("Slice", ["x", "zero", "four", "axis"], ["z"])],
        "branch",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
    )
    yes = numpy_helper.from_array(np.array([True]), "yes")
    model.graph.initializer.append(yes)
    model.graph.node.append(
        helper.make_node("If", ["yes"], ["u"], then_branch=inner, else_branch=inner)
    )
    inferred(model, data_prop=True)
    assert len(children) == 1
