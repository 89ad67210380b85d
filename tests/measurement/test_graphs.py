"""What stands in a model file, and which of its nodes are affine."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnfold.measurement.graphs import Affine, read_graph
from tests.measurement.oddities import FLOAT, INT64, net, save
from tests.small import conv_bn

X, Y = ("x", FLOAT, ["N", 4, 8, 8]), ("y", FLOAT, None)


def read(tmp_path, model):
    return read_graph(save(model, tmp_path / "m.onnx"))


def one_node(kind, names, constant, dtype=np.float32, face=X):
    array = np.ones(constant, dtype)
    return net([helper.make_node(kind, names, ["y"], name="it")], [face], [Y], {"c": array})


def test_batch_normalization_is_affine_along_the_channel(tmp_path):
    found = read(tmp_path, conv_bn())
    assert found.kinds == {"BatchNormalization": 1, "Conv": 1, "Relu": 1}
    assert found.affine == (Affine("bn", "BatchNormalization", "channel"),)


@pytest.mark.parametrize("kind", ["Mul", "Add", "Sub", "Div"])
@pytest.mark.parametrize(
    ("shape", "along"),
    [
        ((), "scalar"),
        ((1,), "scalar"),
        ((1, 1, 1, 1), "scalar"),
        ((4, 1, 1), "channel"),
        ((1, 4, 1, 1), "channel"),
        ((8,), "channel"),
        ((8, 8), None),
        ((4, 8, 8), None),
        ((4, 8, 1), None),
    ],
)
def test_a_constant_operand_varies_along_one_axis_at_most(tmp_path, kind, shape, along):
    found = read(tmp_path, one_node(kind, ["x", "c"], shape)).affine
    assert found == (() if along is None else (Affine("it", kind, along),))


@pytest.mark.parametrize(
    ("kind", "names", "affine"),
    [
        ("Mul", ["c", "x"], True),
        ("Sub", ["c", "x"], True),
        ("Div", ["x", "c"], True),
        ("Div", ["c", "x"], False),
        ("Mul", ["x", "x"], False),
        ("Mul", ["c", "c"], False),
        ("Pow", ["x", "c"], False),
        ("Max", ["x", "c"], False),
    ],
)
def test_the_operand_and_the_operator_decide(tmp_path, kind, names, affine):
    assert bool(read(tmp_path, one_node(kind, names, (4, 1, 1))).affine) is affine


def test_whole_numbers_are_not_affine(tmp_path):
    face = ("x", INT64, ["N", 4])
    assert read(tmp_path, one_node("Add", ["x", "c"], (4,), np.int64, face)).affine == ()


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_are(tmp_path, dtype):
    found = read(tmp_path, one_node("Add", ["x", "c"], (4, 1, 1), dtype)).affine
    assert [one.along for one in found] == ["channel"]


@pytest.mark.parametrize(
    ("attributes", "along"),
    [
        ({"value": numpy_helper.from_array(np.ones((4, 1, 1), np.float32))}, "channel"),
        ({"value": numpy_helper.from_array(np.ones((), np.float32))}, "scalar"),
        ({"value_float": 2.0}, "scalar"),
        ({"value_floats": [1.0, 2.0]}, "channel"),
        ({"value_floats": [1.0]}, "scalar"),
        ({"value": numpy_helper.from_array(np.ones(4, np.int64))}, None),
        ({"value_ints": [1, 2]}, None),
    ],
)
def test_constants_may_be_nodes_which_are_not_counted(tmp_path, attributes, along):
    nodes = [
        helper.make_node("Constant", [], ["c"], **attributes),
        helper.make_node("Mul", ["x", "c"], ["y"], name="it"),
    ]
    found = read(tmp_path, net(nodes, [X], [Y]))
    assert found.kinds == {"Mul": 1}
    assert [one.along for one in found.affine] == ([] if along is None else [along])


def branch(name, *nodes, weights=None):
    out = helper.make_tensor_value_info(nodes[-1].output[0], FLOAT, None)
    kept = [numpy_helper.from_array(array, key) for key, array in (weights or {}).items()]
    return helper.make_graph(list(nodes), name, [], [out], kept)


def test_bodies_are_read_and_see_the_constants_outside(tmp_path):
    inner = helper.make_node(
        "If",
        ["b"],
        ["d"],
        then_branch=branch("t2", helper.make_node("Add", ["x", "c"], ["i"], name="deep")),
        else_branch=branch("e2", helper.make_node("Sub", ["x", "own"], ["j"], name="outer")),
    )
    own = {"own": np.ones((4, 1, 1), np.float32)}
    nodes = [
        helper.make_node(
            "If",
            ["b"],
            ["y"],
            then_branch=branch("t", inner, weights=own),
            else_branch=branch("e", helper.make_node("Mul", ["x", "own"], ["k"], name="no")),
        )
    ]
    model = net(nodes, [X, ("b", TensorProto.BOOL, [])], [Y], {"c": np.ones(1, np.float32)})
    found = read(tmp_path, model)
    assert found.kinds == {"If": 2, "Add": 1, "Sub": 1, "Mul": 1}
    assert set(found.affine) == {
        Affine("deep", "Add", "scalar"),
        Affine("outer", "Sub", "channel"),
    }


def test_functions_are_counted_and_foreign_operators_carry_their_domain(tmp_path):
    model = net(
        [
            helper.make_node("Twice", ["x"], ["t"], domain="my.own"),
            helper.make_node("Mul", ["t", "c"], ["u"], domain="com.microsoft"),
            helper.make_node("BatchNormalization", ["u"], ["v"], domain="com.microsoft.nchwc"),
            helper.make_node("Relu", ["v"], ["y"], domain="ai.onnx"),
        ],
        [X],
        [Y],
        {"c": np.ones(1, np.float32)},
        domains=["my.own", "com.microsoft", "com.microsoft.nchwc"],
    )
    opset = [helper.make_opsetid("", 17)]
    body = [helper.make_node("Add", ["a", "a"], ["r"])]
    model.functions.append(helper.make_function("my.own", "Twice", ["a"], ["r"], body, opset))
    found = read(tmp_path, model)
    assert found.kinds == {
        "Add": 1,
        "Relu": 1,
        "com.microsoft.nchwc:BatchNormalization": 1,
        "com.microsoft:Mul": 1,
        "my.own:Twice": 1,
    }
    assert found.affine == ()


def test_weights_beside_the_file_are_not_touched(tmp_path):
    onnx.save(
        conv_bn(),
        tmp_path / "m.onnx",
        save_as_external_data=True,
        location="w",
        size_threshold=0,
    )
    (tmp_path / "w").unlink()
    assert len(read_graph(tmp_path / "m.onnx").affine) == 1
