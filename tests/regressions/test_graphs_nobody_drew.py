"""Faults found on graphs from elsewhere: ONNX's own suite, exports, all operator sets."""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import bnfold
from benchmarks.campaign import suite
from bnfold.errors import ModelError
from bnfold.records import Code
from tests.battery import judge
from tests.battery.graphs import Net
from tests.laws.respelling import respelled


def fold(model: onnx.ModelProto) -> onnx.ModelProto:
    return bnfold.fold(model, verify=False).to_proto()


def ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def assert_same_function(original: onnx.ModelProto, folded: onnx.ModelProto) -> None:
    assert judge.wrong_outputs(original, folded) == []
    assert judge.newly_invalid(original, folded) == ""


def assert_left_alone(model: onnx.ModelProto) -> list[bnfold.records.Refusal]:
    result = bnfold.fold(model, verify=False)
    before = model.SerializeToString(deterministic=True)
    assert result.to_proto().SerializeToString(deterministic=True) == before
    return [refusal for stay in result.report.stays for refusal in stay.refusals]


# ------------------------------------------------------------------------ batch statistics


@pytest.mark.parametrize("opset", [7, 8, 9, 11, 13])
@pytest.mark.parametrize("outputs", [2, 3, 5])
def test_a_batch_norm_of_several_outputs_normalises_by_the_batch(opset, outputs):
    """Before opset 14 the number of outputs says that it trains, read or not."""
    net = Net(f"outputs{opset}", opset)
    y = net.conv(net.input([4, 3, 5, 5]), 3, 4)
    names = ["bn", "mean", "var", "saved_mean", "saved_var"][:outputs]
    net.output(net.node("Relu", [net.bn(y, 4, outputs=names)]))
    model = net.model()
    assert Code.BATCH_STATISTICS in {one.code for one in assert_left_alone(model)}
    read = bnfold.fold(model, assume_inference=True, verify=False).to_proto()
    assert ops(read) == ["Conv", "Relu"]


@pytest.mark.parametrize("opset", [7, 9])
def test_outputs_without_a_name_are_none(opset):
    net = Net(f"unnamed{opset}", opset)
    y = net.conv(net.input([4, 3, 5, 5]), 3, 4)
    net.output(net.bn(y, 4, outputs=["bn", "", "", "", ""]))
    assert ops(fold(net.model())) == ["Conv"]


# ------------------------------------------------------------------------------------ clip


def clipped(scale: float, low: float, high: float, opset: int) -> onnx.ModelProto:
    net = Net(f"clip{scale}", opset)
    x = net.node("Mul", [net.input([2, 3]), net.const(np.array(scale))])
    if opset < 11:
        y = net.node("Clip", [x], min=low, max=high)
    else:
        y = net.node("Clip", [x, net.const(np.array(low)), net.const(np.array(high))])
    net.output(net.node("MatMul", [y, net.const(net.weight(3, 3))]))
    return net.model()


@pytest.mark.parametrize("opset", [10, 12])
@pytest.mark.parametrize("scale", [-1.5, 1.5])
@pytest.mark.parametrize(
    ("low", "high"), [(2.0, 1.0), (np.inf, 1.0), (-1.0, -5.0), (1.0, 1.0), (-1.0, 2.0)]
)
def test_a_clip_whose_minimum_is_above_its_maximum_gives_the_maximum(opset, scale, low, high):
    model = clipped(scale, low, high, opset)
    folded = fold(model)
    x = np.array([[-9, 0.3, 9], [1.2, -1.2, 4]], np.float32)
    wanted, found = (ReferenceEvaluator(one).run(None, {"x": x})[0] for one in (model, folded))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    if scale < 0 and low > high:
        assert "Mul" in ops(folded)


def test_a_clip_between_no_numbers_takes_no_map():
    model = clipped(-1.5, np.nan, 1.0, 12)
    assert_left_alone(model)


# ----------------------------------------------------------------------------------- names


def branch(name: str, nodes: list, result: str, weights: dict | None = None):
    info = helper.make_tensor_value_info(result, TensorProto.FLOAT, [2, 2])
    stored = [numpy_helper.from_array(v, k) for k, v in (weights or {}).items()]
    return helper.make_graph(nodes, name, [], [info], stored)


def chosen_by_c(nodes: list[onnx.NodeProto], tensor: onnx.TensorProto) -> onnx.GraphProto:
    """A graph from x and a condition c to y."""
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 2]),
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 2])]
    return helper.make_graph(nodes, "g", inputs, outputs, [tensor])


def two_ifs(inner: str) -> onnx.ModelProto:
    """A constant If, whose branch names a value or a weight as one of another If does."""
    node = helper.make_node
    weight = np.arange(4, dtype=np.float32).reshape(2, 2) - 1
    if inner == "weight":
        one = branch("t", [node("MatMul", ["x", "w"], ["p"])], "p", {"w": weight})
        two = branch("t", [node("MatMul", ["v", "w"], ["q"])], "q", {"w": 2 * weight})
    else:
        one = branch("t", [node("Relu", ["x"], ["z"]), node("Exp", ["z"], ["p"])], "p")
        two = branch("t", [node("Tanh", ["v"], ["z"]), node("Abs", ["z"], ["q"])], "q")
    other = branch("e", [node("Abs", ["x"], ["z"]), node("Relu", ["z"], ["o"])], "o")
    last = branch("e", [node("Abs", ["v"], ["r"])], "r")
    nodes = [
        node("If", ["k"], ["u"], then_branch=one, else_branch=other),
        node("Sigmoid", ["u"], ["v"]),
        node("If", ["c"], ["y"], then_branch=two, else_branch=last),
    ]
    graph = chosen_by_c(nodes, numpy_helper.from_array(np.bool_(1), "k"))
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def defined(graph: onnx.GraphProto) -> list[str]:
    """Names that are defined in a graph and in all graphs inside of it."""
    found = [name for node in graph.node for name in node.output]
    found += [tensor.name for tensor in graph.initializer]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found += defined(attribute.g)
    return found


@pytest.mark.parametrize("inner", ["weight", "value"])
def test_names_brought_out_of_a_branch_are_new_in_every_graph(inner):
    model = two_ifs(inner)
    onnx.checker.check_model(model, full_check=True)
    folded = fold(model)
    assert ops(folded).count("If") == 1
    onnx.checker.check_model(folded, full_check=True)
    assert [name for name, count in Counter(defined(folded.graph)).items() if count > 1] == []
    assert judge.wrong_outputs(model, folded) == []


def test_names_brought_out_of_a_branch_stay_where_nothing_else_has_them():
    model = two_ifs("weight")
    del model.graph.node[2]
    model.graph.node[1].output[0] = "y"
    del model.graph.input[1]
    folded = fold(model)
    assert [tensor.name for tensor in folded.graph.initializer] == ["w"]


def function_of_ifs() -> onnx.ModelProto:
    """A function with an If in it, called twice beside an If that uses its names."""
    node = helper.make_node
    weight = np.arange(4, dtype=np.float32).reshape(2, 2) - 1
    yes = branch("t", [node("MatMul", ["n", "w"], ["z"])], "z", {"w": weight})
    no = branch("e", [node("Abs", ["n"], ["r"])], "r")
    two = np.array(2, np.float32)
    body = [
        node("Constant", [], ["two"], value=numpy_helper.from_array(two, "t")),
        node("Mul", ["a", "two"], ["n"]),
        node("If", ["b"], ["o"], then_branch=yes, else_branch=no),
    ]
    opsets = [helper.make_opsetid("", 18)]
    function = helper.make_function("local", "F", ["a", "b"], ["o"], body, opsets)
    inner = branch("t", [node("Tanh", ["q"], ["n"]), node("Abs", ["n"], ["m"])], "m")
    last = branch("e", [node("Abs", ["q"], ["s"])], "s")
    nodes = [
        node("MatMul", ["x", "W"], ["h"]),
        node("F", ["h", "c"], ["p"], domain="local"),
        node("F", ["p", "c"], ["q"], domain="local"),
        node("If", ["c"], ["y"], then_branch=inner, else_branch=last),
    ]
    graph = chosen_by_c(nodes, numpy_helper.from_array(weight + 3, "W"))
    opsets = [*opsets, helper.make_opsetid("local", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=[function])


def test_names_brought_out_of_a_function_are_new_in_every_graph():
    model = function_of_ifs()
    onnx.checker.check_model(model, full_check=True)
    folded = fold(model)
    assert not folded.functions
    onnx.checker.check_model(folded, full_check=True)
    assert [name for name, count in Counter(defined(folded.graph)).items() if count > 1] == []
    assert judge.wrong_outputs(model, folded) == []


def test_new_names_are_not_written_into_the_model_that_was_given():
    """A tensor of onnx_ir writes its name into the message that it was read from."""
    model = function_of_ifs()
    before = model.SerializeToString(deterministic=True)
    fold(model)
    assert model.SerializeToString(deterministic=True) == before


# ---------------------------------------------------------------------------------- float64


def in_float64(kind: str, number: float) -> onnx.ModelProto:
    opset = 10 if kind in ("Clip", "Pad") else 16
    net = Net(f"{kind}{number}", opset, "fp64")
    x = net.node("Mul", [net.input([2, 3]), net.const(np.array(number))])
    attributes = {
        "LeakyRelu": {"alpha": 0.25 if number == -0.5 else 0.3},
        "HardSigmoid": {"alpha": 0.25, "beta": 0.5},
        "Clip": {"min": -1.5, "max": 3.0},
        "Pad": {"pads": [0, 1, 0, 0], "value": 1.5},
    }[kind]
    y = net.node(kind, [x], **attributes)
    rows = 4 if kind == "Pad" else 3
    net.output(net.node("MatMul", [y, net.const(net.weight(rows, 2))]))
    return net.model()


@pytest.mark.parametrize("kind", ["LeakyRelu", "HardSigmoid", "Clip", "Pad"])
def test_no_map_goes_into_a_float32_attribute_that_cannot_hold_it(kind):
    sign = -1 if kind == "LeakyRelu" else 1
    model = in_float64(kind, sign * 0.9099874163822201)
    refusals = assert_left_alone(model)
    told = [one for one in refusals if one.code is Code.OUT_OF_RANGE]
    assert told
    assert "float32" in told[0].why


@pytest.mark.parametrize("kind", ["LeakyRelu", "HardSigmoid", "Clip", "Pad"])
def test_a_map_goes_into_a_float32_attribute_that_holds_it_exactly(kind):
    model = in_float64(kind, -0.5 if kind == "LeakyRelu" else 0.5)
    folded = fold(model)
    assert "Mul" not in ops(folded)
    assert_same_function(model, folded)


# ------------------------------------------------------------------------ operator set 6


def old(nodes: list, weights: dict, inputs: dict, outputs: dict) -> onnx.ModelProto:
    """A model of operator set 6, whose initializers are graph inputs too."""
    info = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (inputs | {k: v.shape for k, v in weights.items()}).items()
    ]
    given = [
        helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in outputs.items()
    ]
    stored = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()]
    graph = helper.make_graph(nodes, "old", info, given, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 6)], ir_version=3)


def normalised(rng: np.random.Generator, channels: int) -> dict[str, np.ndarray]:
    numbers = rng.uniform(0.5, 1.5, (4, channels))
    return dict(zip("gbmv", numbers, strict=True))


def batch_norm(x: str, y: str) -> onnx.NodeProto:
    return helper.make_node("BatchNormalization", [x, *"gbmv"], [y], is_test=1)


def test_operator_set_6_folds_into_a_convolution(rng):
    weights = normalised(rng, 4) | {"w": rng.normal(size=(4, 3, 1, 1))}
    nodes = [helper.make_node("Conv", ["x", "w"], ["a"]), batch_norm("a", "y")]
    model = old(nodes, weights, {"x": [1, 3, 4, 4]}, {"y": [1, 4, 4, 4]})
    folded = fold(model)
    assert ops(folded) == ["Conv"]
    assert_same_function(model, folded)


@pytest.mark.parametrize("addend", [(), (4,), (2, 4)])
def test_operator_set_6_gets_a_gemm_that_it_understands(rng, addend):
    """Its Gemm takes a row only where an attribute says that it is broadcast."""
    weights = normalised(rng, 4) | {"w": rng.normal(size=(3, 4)), "c": rng.normal(size=addend)}
    said = {} if addend == (2, 4) else {"broadcast": 1}
    gemm = helper.make_node("Gemm", ["x", "w", "c"], ["a"], beta=0.0, **said)
    model = old([gemm, batch_norm("a", "y")], weights, {"x": [2, 3]}, {"y": [2, 4]})
    folded = fold(model)
    assert ops(folded) == ["Gemm"]
    said = {a.name: helper.get_attribute_value(a) for a in folded.graph.node[0].attribute}
    stored = {tensor.name: list(tensor.dims) for tensor in folded.graph.initializer}
    assert stored[folded.graph.node[0].input[2]] == [2, 4] or said["broadcast"] == 1
    assert_same_function(model, folded)


def test_operator_set_6_gets_no_gemm_and_no_add_in_place_of_a_batch_norm(rng):
    weights = normalised(rng, 4) | {"w": rng.normal(size=(3, 4))}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), batch_norm("a", "y")]
    refusals = assert_left_alone(old(nodes, weights, {"x": [2, 3]}, {"y": [2, 4]}))
    assert any("before opset 7" in one.why or "no addend" in one.why for one in refusals)


def test_operator_set_6_leaves_operands_alone_that_an_attribute_broadcasts(rng):
    weights = {"w": rng.normal(size=(4, 3, 1, 1)), "t": rng.normal(size=4)}
    conv = helper.make_node("Conv", ["x", "w"], ["a"])
    add = helper.make_node("Add", ["a", "t"], ["y"], axis=1, broadcast=1)
    model = old([conv, add], weights, {"x": [1, 3, 4, 4]}, {"y": [1, 4, 4, 4]})
    (refusal,) = assert_left_alone(model)
    assert "broadcasts by an axis attribute" in refusal.why


def test_operator_set_6_computes_no_constant_that_an_attribute_broadcasts(rng):
    """``w + t`` along axis 0 was computed along the last one."""
    weights = normalised(rng, 4) | {
        "w": rng.normal(size=(4, 3, 1, 1)),
        "t": rng.normal(size=4),
    }
    nodes = [
        helper.make_node("Add", ["w", "t"], ["u"], axis=0, broadcast=1),
        helper.make_node("Conv", ["x", "u"], ["a"]),
        batch_norm("a", "y"),
    ]
    model = old(nodes, weights, {"x": [1, 3, 4, 4]}, {"y": [1, 4, 4, 4]})
    assert_left_alone(model)


# -------------------------------------------------------------------------- element types


@pytest.mark.parametrize("opset", [9, 14, 15])
@pytest.mark.parametrize(
    ("place", "kind"), [(1, np.float64), (1, np.int32), (2, np.float16), (4, np.int64)]
)
def test_parameters_of_a_type_that_the_operator_does_not_take(opset, place, kind):
    net = Net("types", opset)
    net.output(net.bn(net.conv(net.input([1, 3, 5, 5]), 3, 4), 4))
    model = net.model()
    name = model.graph.node[1].input[place]
    (stored,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
    array = numpy_helper.to_array(stored).astype(kind)
    stored.CopyFrom(numpy_helper.from_array(array, name))
    with pytest.raises(ModelError, match="wrong type") as caught:
        bnfold.fold(model, verify=False)
    assert model.graph.node[1].name in caught.value.where


@pytest.mark.parametrize(("opset", "first"), [(14, 3), (15, 3), (15, 1), (17, 1)])
def test_parameters_may_be_of_other_types_where_the_operator_takes_them(opset, first):
    net = Net("mixed", opset)
    net.output(net.bn(net.conv(net.input([1, 3, 5, 5]), 3, 4), 4))
    model = net.model()
    names = list(model.graph.node[1].input)[first:]
    for stored in model.graph.initializer:
        if stored.name in names:
            array = numpy_helper.to_array(stored).astype(np.float64)
            stored.CopyFrom(numpy_helper.from_array(array, stored.name))
    onnx.checker.check_model(model, full_check=True)
    folded = fold(model)
    assert ops(folded) == ["Conv"]
    assert_same_function(model, folded)


# ------------------------------------------------------------------------------- no traceback


def _mapped_conv(net: Net) -> str:
    x = net.add(net.mul(net.input([2, 0, 4, 4]), 0), 0)
    return net.node("Conv", [x, net.const(np.ones((0, 0, 1, 1)))])


def _shifted_product(net: Net, columns: int) -> str:
    x = net.node("Add", [net.input([2, 3, 0]), net.const(np.array(1.0))])
    return net.node("MatMul", [x, net.const(np.ones((0, columns)))])


def _joined(net: Net) -> str:
    x = net.input([2, 3, 4, 4])
    part = net.node("Slice", [x, net.ints(3), net.ints(3), net.ints(1)])
    whole = net.node("Concat", [net.conv(x, 3, 3, kernel=(1, 1)), part], axis=1)
    return net.mul(whole, 3)


def _counted(net: Net) -> str:
    """ONNX asks for scalars; runtimes take one element."""
    count = net.node("Range", [net.ints(n) for n in (0, 4, 1)])
    return net.node("Add", [net.input([2, 4]), net.node("Cast", [count], to=1)])


def _flattened(net: Net) -> str:
    flat = net.node("Flatten", [net.bn(net.input([1, 3, 0]), 3)])
    wide = net.node("Pad", [flat, net.ints(0, 1, 0, 0)])
    return net.node("Gemm", [net.bn(wide, 1), net.const(net.weight(1, 4))])


def _empty_weight(net: Net) -> str:
    steps = net.const(np.full((2, 1, 1, 1), 0.03))
    whole = net.node("Round", [net.node("Div", [net.const(np.ones((2, 0, 1, 1))), steps])])
    y = net.node("Conv", [net.input([1, 0, 4, 4]), net.node("Mul", [whole, steps])])
    return net.bn(y, 2)


WITH_NOTHING = {
    "BatchNormalization": lambda net: net.bn(net.input([2, 0, 4]), 0),
    "Mul": lambda net: net.node("Mul", [net.input([2, 0, 4]), net.const(np.ones((0, 1)))]),
    "Conv": _mapped_conv,
    "MatMul": partial(_shifted_product, columns=0),
    "inner": partial(_shifted_product, columns=4),
    "Concat": _joined,
    "Range": _counted,
    "Flatten": _flattened,
    "weight": _empty_weight,
}


@pytest.mark.parametrize("kind", WITH_NOTHING)
def test_axes_without_elements(kind):
    net = Net(kind, 20)
    net.output(WITH_NOTHING[kind](net))
    model = net.model()
    folded = fold(model)
    assert judge.newly_invalid(model, folded) == ""
    assert judge.interface(folded) == judge.interface(model)


def dead_if() -> onnx.ModelProto:
    node = helper.make_node
    one = branch("t", [node("Mul", ["u", "c7"], ["b0"])], "b0")
    inner = [node("Mul", ["u", "z"], ["b0"]), node("MatMul", ["b0", "bc"], ["b1"])]
    two = branch("e", inner, "b1", {"bc": np.ones((2, 2), np.float32)})
    nodes = [
        node("Mul", ["x", "c"], ["u"]),
        node("If", ["k"], ["v"], then_branch=one, else_branch=two),
        node("Add", ["v", "c2"], ["w"]),
        node("Relu", ["x"], ["y"]),
    ]
    infos = [(n, TensorProto.FLOAT, [2, 2]) for n in "xz"]
    infos.append(("k", TensorProto.BOOL, []))
    stored = {"c": 1.5, "c7": 0.5, "c2": 2.0}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*info) for info in infos],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 2])],
        [numpy_helper.from_array(np.array([v], np.float32), k) for k, v in stored.items()],
    )
    opsets = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def test_dead_code_around_an_if():
    assert ops(fold(dead_if())) == ["Relu"]


@pytest.mark.parametrize("stored", [False, True])
def test_a_graph_without_nodes_is_written_as_it_is(stored, tmp_path):
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])]
    outputs = [*inputs]
    weights = []
    if stored:
        weights.append(numpy_helper.from_array(np.ones(3, np.float32), "w"))
        outputs.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [3]))
    graph = helper.make_graph([], "identity", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(model, full_check=True)
    assert assert_left_alone(model) == []
    path = tmp_path / "identity.onnx"
    bnfold.fold(model).save(path)
    assert onnx.load(path) == model


def test_a_sparse_constant_is_a_clear_error():
    values = numpy_helper.from_array(np.array([1.5, 2.0], np.float32), "v")
    places = numpy_helper.from_array(np.array([0, 2], np.int64), "i")
    sparse = helper.make_sparse_tensor(values, places, [3])
    net = Net("sparse")
    scale = net.node("Constant", [], sparse_value=sparse)
    net.output(net.node("Mul", [net.input([2, 3]), scale]))
    with pytest.raises(ModelError, match="sparse") as caught:
        bnfold.fold(net.model(), verify=False)
    assert net.nodes[0].name in caught.value.where


# --------------------------------------------------------------------- one run is enough


def test_a_constant_that_decides_is_stored_as_it_will_be_read():
    """1/3 of float64 times 5 is 1.6666666, of the stored float32 1.6666667: a run later."""
    net = Net("third")
    third = net.node("Div", [net.const(np.array([1.0])), net.const(np.array([3.0]))])
    steps = net.node("Mul", [net.const(np.arange(6.0)), third])
    rows = net.node("Cast", [net.node("Floor", [steps])], to=TensorProto.INT64)
    x = net.node("Add", [net.input([2, 6]), steps])
    net.output(net.node("Gather", [x, rows], axis=1))
    model = net.model()
    folded = fold(model)
    assert bnfold.fold(folded, verify=False).report.steps == ()
    assert_same_function(model, folded)


@pytest.mark.parametrize("number", [32, 995])
def test_sizes_that_stored_constants_tell_count_in_the_same_run(number):
    """Attention in plain operators: what its mask is was known to a second run only."""
    model = suite.case_of(number)[1].model
    folded = fold(respelled(model, np.random.default_rng((number, 3))))
    assert bnfold.fold(folded, verify=False).report.steps == ()


@pytest.mark.parametrize("first", ["long", "short"])
def test_the_order_of_two_chains_does_not_decide_what_folds(first):
    """One was composed before the other was met, and had no part left to go with it."""
    net = Net("order")
    x = net.input([2, 3])
    factor = net.const(np.array(1.7))
    alpha = net.const(np.array(0.6))
    parts = {}
    for kind in ("long", "short") if first == "long" else ("short", "long"):
        if kind == "long":
            y = net.node("Mul", [net.node("Exp", [x]), alpha])
            parts[kind] = net.node("Mul", [net.node("Sub", [y, alpha]), factor])
        else:
            parts[kind] = net.node("Mul", [x, factor])
    negative = net.node("Less", [x, net.const(np.array(0.0))])
    y = net.node("Where", [negative, parts["long"], parts["short"]])
    net.output(net.node("MatMul", [y, net.const(net.weight(3, 4))]))
    model = net.model()
    folded = fold(model)
    assert Counter(ops(folded)) == Counter(["Exp", "Mul", "Sub", "Less", "Where", "MatMul"])
    assert_same_function(model, folded)
