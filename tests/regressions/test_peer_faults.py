"""Faults found in other folders, one named test each."""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import bnfold
from tests.battery import (
    axes,
    branches,
    constants,
    direct,
    functions,
    guards,
    judge,
    linear,
    oddities,
    ranges,
)
from tests.battery.graphs import Net
from tests.reference64 import run64


def fold(model: onnx.ModelProto) -> onnx.ModelProto:
    return bnfold.fold(model, verify=False).to_proto()


def ops(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def node_bytes(model: onnx.ModelProto) -> dict[str, bytes]:
    return {node.name: node.SerializeToString() for node in model.graph.node}


def tensor(model: onnx.ModelProto, name: str) -> np.ndarray:
    found = {t.name: t for t in model.graph.initializer}
    return numpy_helper.to_array(found[name])


def assert_same_function(original: onnx.ModelProto, folded: onnx.ModelProto) -> None:
    assert judge.wrong_outputs(original, folded) == []
    assert judge.newly_invalid(original, folded) == ""


def assert_unchanged(original: onnx.ModelProto, folded: onnx.ModelProto) -> None:
    before = original.SerializeToString(deterministic=True)
    assert folded.SerializeToString(deterministic=True) == before


# ------------------------------------------------------------------------ training mode


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("opset", [14, 15])
def test_training_mode_batch_norm_is_left_alone(outputs, opset):
    model = guards.training(outputs, opset)
    result = bnfold.fold(model, verify=False)
    assert_unchanged(model, result.to_proto())
    assert result.report.refusals[0].code == "batch-statistics"
    assert result.report.refusals[0].remedy


# ----------------------------------------------------------------------- optional inputs


def test_empty_string_bias_of_conv():
    model = direct.conv_below("bn", "empty_bias")
    folded = fold(model)
    assert ops(folded) == {"Conv": 1}
    assert len(folded.graph.node[0].input) == 3
    assert folded.graph.node[0].input[2] != ""
    assert_same_function(model, folded)


def test_empty_string_bias_of_conv_transpose_and_gemm():
    for model in (
        direct.transposed_below("bn", "empty_bias"),
        linear.gemm_below("bn", "absent", "plain", empty=True),
    ):
        folded = fold(model)
        assert ops(folded)["BatchNormalization"] == 0
        assert_same_function(model, folded)


# ----------------------------------------------------------------------- Gemm attributes


@pytest.mark.parametrize("kind", ["alpha", "beta", "alpha_beta", "trans_both"])
@pytest.mark.parametrize(
    ("build", "source"), [(linear.gemm_below, "bn"), (linear.gemm_above, "sub_mul_add")]
)
def test_gemm_alpha_and_beta(kind, build, source):
    model = build(source, "n", kind)
    folded = fold(model)
    assert ops(folded) == {"Gemm": 1}
    assert_same_function(model, folded)


def test_gemm_beta_by_hand():
    """2·(x·W) + 3·c, then ·s + t, worked out on paper."""
    net = Net("by_hand")
    w, c = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([5.0, 6.0])
    y = net.node(
        "Gemm", [net.input(["N", 2]), net.const(w), net.const(c)], alpha=2.0, beta=3.0
    )
    y = net.node("Mul", [y, net.const([10.0, 100.0])])
    net.output(net.node("Add", [y, net.const([0.5, 0.25])]))
    folded = fold(net.model())
    assert ops(folded) == {"Gemm": 1}
    for model in (net.model(), folded):
        got = run64(model, {"x": np.array([[1.0, 1.0]])})
        np.testing.assert_allclose(next(iter(got.values())), [[230.5, 3000.25]], rtol=1e-6)


# ------------------------------------------------------------------ grouped ConvTranspose


@pytest.mark.parametrize("kind", ["grouped", "grouped_square", "depthwise", "3d"])
def test_grouped_conv_transpose(kind):
    model = direct.transposed_below("bn", kind)
    folded = fold(model)
    assert ops(folded) == {"ConvTranspose": 1}
    assert_same_function(model, folded)


def test_grouped_conv_transpose_by_hand():
    """Two groups of 1 → 1 channel; W is [C_in, C_out/g, k]: channel o is group o here."""
    net = Net("transposed_by_hand")
    w = net.const(np.array([1.0, 10.0]).reshape(2, 1, 1), "w")
    y = net.node("ConvTranspose", [net.input([1, 2, 1]), w], group=2)
    net.output(net.node("Mul", [y, net.const(np.array([3.0, 7.0]).reshape(2, 1))]))
    folded = fold(net.model())
    assert ops(folded) == {"ConvTranspose": 1}
    name = folded.graph.node[0].input[1]
    np.testing.assert_array_equal(tensor(folded, name).reshape(-1), [3.0, 70.0])


# ------------------------------------------------------------------- values read elsewhere


@pytest.mark.parametrize("source", ["bn", "mul", "add"])
def test_conv_output_read_elsewhere(source):
    model = guards.conv_output_read_elsewhere(source)
    result = bnfold.fold(model, verify=False)
    assert_unchanged(model, result.to_proto())
    assert result.report.refusals[0].code in {"shared-value", "graph-output"}


@pytest.mark.parametrize("source", ["bn", "mul", "add"])
def test_conv_output_is_a_graph_output(source):
    model = guards.conv_output_is_graph_output(source)
    result = bnfold.fold(model, verify=False)
    assert_unchanged(model, result.to_proto())
    assert result.report.refusals[0].code == "graph-output"


def test_conv_output_read_only_inside_a_subgraph():
    model = guards.value_read_in_subgraph()
    assert_unchanged(model, fold(model))


def test_batch_norm_output_keeps_its_name_as_graph_output():
    folded = fold(guards.bn_output_is_graph_output())
    assert [o.name for o in folded.graph.output] == ["result", "after"]
    assert ops(folded) == {"Conv": 1, "Relu": 1}
    assert "result" in {name for node in folded.graph.node for name in node.output}


# ------------------------------------------------------------------------ shared weights


def test_shared_weight_with_two_batch_norms():
    model = guards.shared_weight("bn", "bn")
    result = bnfold.fold(model, verify=False)
    folded = result.to_proto()
    assert ops(folded) == {"Conv": 2, "Relu": 1}
    convs = [node for node in folded.graph.node if node.op_type == "Conv"]
    assert convs[0].input[1] != convs[1].input[1]
    assert convs[0].input[2] != convs[1].input[2]
    assert result.report.cloned_bytes >= 6 * 4 * 3 * 3 * 4
    assert_same_function(model, folded)


def test_shared_weight_with_one_batch_norm_keeps_the_other_readers_value():
    model = guards.shared_weight("bn", None)
    folded = fold(model)
    np.testing.assert_array_equal(tensor(folded, "w"), tensor(model, "w"))
    np.testing.assert_array_equal(tensor(folded, "b"), tensor(model, "b"))
    readers = [n for n in folded.graph.node if n.op_type == "Conv" and "w" in n.input]
    assert len(readers) == 1
    assert_same_function(model, folded)


def test_weight_that_is_a_graph_output_keeps_its_value():
    model = constants.initializer_is_output()
    folded = fold(model)
    assert ops(folded)["BatchNormalization"] == 0
    assert_same_function(model, folded)


# --------------------------------------------------------------------------------- names


@pytest.mark.parametrize("build", [oddities.taken_names, oddities.taken_inner_names])
def test_new_names_do_not_collide(build):
    model = build()
    folded = fold(model)
    assert ops(folded)["BatchNormalization"] == 0
    assert judge.duplicate_names(folded) == []
    inner = {
        name
        for graph in list(judge.graphs_of(folded.graph))[1:]
        for node in graph.node
        for name in node.output
    }
    assert inner.isdisjoint({t.name for t in folded.graph.initializer})
    assert_same_function(model, folded)


def test_every_name_a_folder_would_choose_is_taken():
    """Take the names that a first fold chose, and fold again with those occupied."""
    model = direct.conv_below("bn", "no_bias")
    chosen = {t.name for t in fold(model).graph.initializer}
    chosen -= {t.name for t in model.graph.initializer}
    y = model.graph.output[0].name
    for index, name in enumerate(sorted(chosen)):
        model.graph.initializer.append(
            numpy_helper.from_array(np.float32([index + 2.0]), name)
        )
        model.graph.node.append(helper.make_node("Max", [y, name], [f"top_{index}"]))
        y = f"top_{index}"
    model.graph.output[0].name = y
    assert chosen
    folded = fold(model)
    assert ops(folded)["BatchNormalization"] == 0
    for index, name in enumerate(sorted(chosen)):
        assert tensor(folded, name)[0] == index + 2.0
    assert judge.duplicate_names(folded) == []
    assert_same_function(model, folded)


# ------------------------------------------------------------------- parameters of size 1


def test_size_one_parameters_are_not_broadcast():
    """BatchNormalization with [1] parameters on six channels is invalid, no scalar map."""
    net = Net("size_one")
    y = net.conv(net.input(["N", 4, 7, 6]), 4, 6, output="y")
    params = [net.const(np.array([v])) for v in (0.5, 0.25, 0.1, 2.0)]
    net.output("z", shape=["N", 6, 5, 4])
    net.nodes_out("BatchNormalization", [y, *params], ["z"])
    with pytest.raises(bnfold.errors.ModelError) as caught:
        fold(net.model())
    text = str(caught.value)
    assert "BatchNormalization" in text
    assert "6" in text


# --------------------------------------------------------------------- parameters in fp32


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize("build", [direct.conv_below, direct.conv_above])
def test_half_models_with_fp32_parameters(dtype, build):
    model = build("bn", "no_bias", 22 if dtype == "bf16" else 17, dtype, "fp32")
    folded = fold(model)
    assert ops(folded) == {"Conv": 1}
    wanted = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}[dtype]
    assert {t.data_type for t in folded.graph.initializer} == {wanted}
    assert_same_function(model, folded)


def test_fp16_weights_are_rounded_once():
    """W·s in float64, then one rounding: within half a unit in the last place."""
    model = direct.conv_below("bn_bn", "no_bias", 17, "fp16")
    weight = tensor(model, model.graph.node[0].input[1]).astype(np.float64)
    factor = np.ones(6)
    for node in model.graph.node[1:]:
        scale, _, _, var = (tensor(model, n).astype(np.float64) for n in node.input[1:])
        eps = next(a.f for a in node.attribute if a.name == "epsilon")
        factor *= scale / np.sqrt(var + eps)
    folded = fold(model)
    got = tensor(folded, folded.graph.node[0].input[1])
    exact = weight * factor.reshape(-1, 1, 1, 1)
    np.testing.assert_array_equal(got, exact.astype(np.float16))


@pytest.mark.parametrize("param", [None, "fp32"])
def test_fp16_with_variance_near_zero(param):
    """1/√(0 + 1e-12) = 1e6 overflows fp16: that site stays, the other one folds."""
    model = ranges.tiny_variance("fp16", param)
    result = bnfold.fold(model, verify=False)
    folded = result.to_proto()
    assert ops(folded)["BatchNormalization"] == 1
    assert len(result.report.steps) == 1
    assert result.report.refusals[0].code == "out-of-range"
    for stored in judge.tensors(folded):
        assert np.all(np.isfinite(numpy_helper.to_array(stored).astype(np.float64)))
    assert_same_function(model, folded)


# -------------------------------------------------------------------------- the wrong axis


def test_vector_constant_where_channels_equal_width():
    """A [6] constant on [2, 6, 6, 6] lies along the width."""
    model = axes.last_axis(6, 6)
    result = bnfold.fold(model, verify=False)
    assert_unchanged(model, result.to_proto())
    assert result.report.refusals[0].code == "wrong-axis"


# --------------------------------------------------------------------- where weights live


def test_ir_3_weights_listed_as_inputs():
    model = constants.ir3()
    folded = fold(model)
    assert ops(folded) == {"Conv": 1}
    assert folded.ir_version == 3
    stored = {t.name: t for t in folded.graph.initializer}
    listed = {i.name: i for i in folded.graph.input}
    assert set(stored) <= set(listed), "IR 3 wants every initializer among the inputs"
    assert set(listed) - set(stored) == {"x"}
    for name, value in stored.items():
        dims = [d.dim_value for d in listed[name].type.tensor_type.shape.dim]
        assert dims == list(value.dims)
    assert_same_function(model, folded)


@pytest.mark.parametrize("which", ["weight", "bias", "bn", "all"])
def test_overridable_weights_are_kept(which):
    model = constants.overridable(which)
    result = bnfold.fold(model, verify=False)
    assert_unchanged(model, result.to_proto())
    assert result.report.refusals[0].code == "overridable"


def test_overridable_weights_fold_when_told_so():
    model = constants.overridable("all")
    result = bnfold.fold(model, verify=False, assume_constant_inputs=True).to_proto()
    assert ops(result)["BatchNormalization"] == 0
    assert [i.name for i in result.graph.input] == [i.name for i in model.graph.input]
    assert judge.wrong_outputs(model, result) == []


def test_sparse_initializers_survive():
    model = constants.sparse_elsewhere()
    folded = fold(model)
    before = [t.SerializeToString() for t in model.graph.sparse_initializer]
    assert [t.SerializeToString() for t in folded.graph.sparse_initializer] == before
    assert ops(folded) == {"Conv": 2, "Relu": 1}
    assert judge.wrong_outputs(model, folded) == []


@pytest.mark.parametrize("coordinates", [False, True])
def test_sparse_weight_is_folded_right_or_left(coordinates):
    model = constants.sparse_weight(coordinates=coordinates)
    assert judge.wrong_outputs(model, fold(model)) == []


# ---------------------------------------------------------------------- no inserted nodes


@pytest.mark.parametrize("opset", [15, 18, 20])
def test_a_fold_inserts_no_constant_operators(opset):
    folded = fold(constants.dynamo_bias(opset))
    assert ops(folded) == {"Conv": 1}


def test_a_constant_if_brings_no_wrappers():
    folded = fold(branches.constant_if(taken=True, clash=True, as_node=False))
    assert ops(folded) == {"Conv": 1, "Relu": 1}


# ----------------------------------------------------------------- all else, bit for bit


def decorated() -> onnx.ModelProto:
    """One fold in the middle of a model full of things to lose."""
    net = Net("decorated", opset=17)
    x = net.input(["batch", 3, 8, 8], "picture")
    y = net.node("LeakyRelu", [net.conv(x, 3, 4)], alpha=0.1)
    y = net.bn(net.conv(y, 4, 5, output="to_fold"), 5)
    y = net.node("Mystery", [y], domain="my.ops", secret="kept", numbers=[1, 2, 3])
    y = net.conv(y, 5, 2)
    net.output(net.node("Identity", [y], "answer"), shape=["batch", 2, 2, 2])
    model = net.model()
    model.producer_version, model.domain, model.model_version = "7.1", "my.models", 42
    model.doc_string, model.graph.doc_string = "model doc", "graph doc"
    model.opset_import.append(helper.make_opsetid("never.used", 3))
    helper.set_model_props(model, {"b": "2", "a": "1"})
    model.graph.metadata_props.add(key="g", value="raph")
    for index, node in enumerate(model.graph.node):
        node.doc_string = f"node doc {index}"
        node.metadata_props.add(key="pkg.torch.onnx.name", value=f"layer{index}")
    for index, stored in enumerate(model.graph.initializer):
        stored.doc_string = f"tensor doc {index}"
        stored.metadata_props.add(key="k", value=str(index))
    model.graph.input[0].doc_string = "input doc"
    model.graph.input[0].metadata_props.add(key="role", value="image")
    model.graph.output[0].doc_string = "output doc"
    model.graph.value_info.append(
        helper.make_tensor_value_info("leakyrelu_5", TensorProto.FLOAT, ["batch", 4, 6, 6])
    )
    note = model.graph.quantization_annotation.add(tensor_name="leakyrelu_5")
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="k_1")
    return model


@pytest.fixture(scope="module")
def pair() -> tuple[onnx.ModelProto, onnx.ModelProto]:
    model = decorated()
    return model, fold(model)


def test_the_decorated_model_folds(pair):
    model, folded = pair
    assert ops(model)["BatchNormalization"] == 1
    assert ops(folded)["BatchNormalization"] == 0
    assert_same_function(model, folded)


def test_untouched_nodes_are_equal_bit_for_bit(pair):
    model, folded = pair
    old, new = node_bytes(model), node_bytes(folded)
    bn = next(n for n in model.graph.node if n.op_type == "BatchNormalization")
    conv = next(n for n in model.graph.node if "to_fold" in n.output)
    reader = next(n for n in model.graph.node if bn.output[0] in n.input)
    touched = {bn.name, conv.name, reader.name}
    assert [n for n in old if n != bn.name] == list(new), "order and names of nodes"
    assert {n: b for n, b in new.items() if n not in touched} == {
        n: b for n, b in old.items() if n not in touched
    }


def test_touched_nodes_keep_name_doc_metadata_and_attributes(pair):
    model, folded = pair
    old = {n.name: n for n in model.graph.node}
    for node in folded.graph.node:
        was = old[node.name]
        assert node.doc_string == was.doc_string
        assert list(node.metadata_props)[: len(was.metadata_props)] == list(was.metadata_props)
        assert list(node.attribute) == list(was.attribute)
        assert node.domain == was.domain


def test_untouched_initializers_are_equal_bit_for_bit(pair):
    model, folded = pair
    bn = next(n for n in model.graph.node if n.op_type == "BatchNormalization")
    conv = next(n for n in model.graph.node if "to_fold" in n.output)
    gone = {*bn.input[1:], *conv.input[1:]}
    old = [t for t in model.graph.initializer if t.name not in gone]
    kept = {t.name: t for t in folded.graph.initializer}
    assert [t.SerializeToString() for t in old] == [
        kept[t.name].SerializeToString() for t in old
    ]
    assert not set(bn.input[1:]) & set(kept), "parameters nobody reads are dropped"


def test_model_and_graph_fields_are_equal(pair):
    model, folded = pair
    for name in (
        "ir_version",
        "producer_name",
        "producer_version",
        "domain",
        "model_version",
        "doc_string",
    ):
        assert getattr(folded, name) == getattr(model, name), name
    assert list(folded.opset_import) == list(model.opset_import)
    assert list(folded.metadata_props) == list(model.metadata_props)
    assert folded.graph.name == model.graph.name
    assert folded.graph.doc_string == model.graph.doc_string
    assert list(folded.graph.metadata_props) == list(model.graph.metadata_props)
    assert list(folded.graph.input) == list(model.graph.input)
    assert list(folded.graph.output) == list(model.graph.output)
    assert list(folded.graph.quantization_annotation) == list(
        model.graph.quantization_annotation
    )


def test_no_value_info_is_invented(pair):
    model, folded = pair
    assert list(folded.graph.value_info) == list(model.graph.value_info)
    for build in (
        partial(direct.conv_below, "bn", "padded"),
        oddities.documented,
        constants.ir3,
    ):
        assert list(fold(build()).graph.value_info) == []


def test_value_info_of_values_that_are_gone_goes_too():
    folded = fold(axes.with_value_info("mul_add"))
    values = {name for node in folded.graph.node for name in node.output}
    assert {v.name for v in folded.graph.value_info} <= values


def test_functions_and_subgraphs_are_equal_bit_for_bit():
    model = functions.nested_functions()
    folded = fold(model)
    assert [f.name for f in folded.functions] == ["Bend"]
    assert folded.functions[0].SerializeToString() == model.functions[2].SerializeToString()
    model = oddities.model_function(inside=False)
    folded = fold(model)
    assert [f.SerializeToString() for f in folded.functions] == [
        f.SerializeToString() for f in model.functions
    ]
    model = guards.value_read_in_subgraph("bn_out")
    folded = fold(model)
    assert ops(folded)["BatchNormalization"] == 0
    old = next(n for n in model.graph.node if n.op_type == "If")
    new = next(n for n in folded.graph.node if n.op_type == "If")
    assert ops(folded)["If"] == 1
    assert [len(a.g.node) for a in new.attribute] == [len(a.g.node) for a in old.attribute]
    assert all(not a.g.value_info for a in new.attribute)
