"""Folds are proved, others are not, and the node is named."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import bnfold
from bnfold.errors import ModelError
from bnfold.evidence.proof import prove, read_certificate
from bnfold.model.io import opened
from bnfold.records import Charge, Verdict
from tests.battery.cases import ALL
from tests.small import conv_bn, two_layers

SOME = ALL[::7]
NOT_JUDGED = {"guards/foreign/before", "guards/axis/unknown_input_rank"}


def certified(model, **choices):
    result = bnfold.fold(model, verify=False, certificate=True, **choices)
    return result.to_proto(), read_certificate(result.certificate.to_json())


@pytest.mark.parametrize("case", SOME, ids=[case.name for case in SOME])
def test_every_fold_of_the_battery_is_proved(case):
    original = case.build()
    folded, certificate = certified(case.build())
    models = opened(original), opened(folded)
    verdict = Verdict.NOT_JUDGED if case.name in NOT_JUDGED else Verdict.PASSED
    assert prove(*models, certificate).verdict is verdict
    assert prove(*models).verdict is verdict


def test_a_wrong_number_is_found_by_node_tensor_and_channel():
    folded, certificate = certified(conv_bn())
    spoiled = onnx.ModelProto.FromString(folded.SerializeToString())
    node = next(node for node in spoiled.graph.node if node.op_type == "Conv")
    tensor = next(t for t in spoiled.graph.initializer if t.name == node.input[1])
    elements = numpy_helper.to_array(tensor).copy()
    elements[1] *= 1.001
    tensor.CopyFrom(numpy_helper.from_array(elements, tensor.name))
    report = prove(opened(conv_bn()), opened(spoiled), certificate)
    first = report.findings[0]
    assert (first.charge, first.where, first.channel) == (Charge.TENSOR, tensor.name, 1)
    assert first.node in {node.name, f"Conv → {node.output[0]}"}
    assert first.fold.startswith("BatchNormalization")


def test_a_change_that_nobody_recorded_is_named():
    folded, certificate = certified(two_layers())
    folded.graph.node[0].doc_string = "harmless"
    report = prove(opened(two_layers()), opened(folded), certificate)
    assert report.verdict is Verdict.FAILED
    assert report.findings[0].charge is Charge.UNRECORDED
    assert "harmless" not in report.findings[0].why


def test_a_certificate_of_another_model_is_refused():
    _, certificate = certified(two_layers())
    folded, _ = certified(conv_bn())
    report = prove(opened(conv_bn()), opened(folded), certificate)
    assert report.verdict is Verdict.FAILED
    assert report.findings[0].charge is Charge.OTHER_FILES


def test_an_edited_certificate_is_refused():
    result = bnfold.fold(conv_bn(), verify=False, certificate=True)
    text = result.certificate.to_json().replace('"move": "up"', '"move": "UP"')
    report = prove(opened(conv_bn()), opened(result.to_proto()), read_certificate(text))
    assert report.findings[0].charge is Charge.TAMPERED


@pytest.mark.parametrize("text", ["{}", '{"schema": "bnfold/certificate/9"}', "{ not json"])
def test_what_is_no_certificate_is_said_to_be_none(text):
    with pytest.raises(ModelError, match="cannot read the certificate"):
        read_certificate(text)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(ModelError, match="cannot read the certificate"):
        read_certificate(tmp_path / "none.json")


def clipped(limit):
    """A softmax of scaled numbers: a scale in front of it changes the function."""
    nodes = [
        helper.make_node("Mul", ["x", "s"], ["m"], name="mul"),
        helper.make_node("Softmax", ["m"], ["y"], name="softmax", axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(np.float32(limit), "s")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def test_a_map_that_nobody_undoes_is_no_proof():
    report = prove(opened(clipped(2.0)), opened(clipped(2.1)))
    assert report.verdict is Verdict.FAILED
    assert report.findings[0].node in {"mul", "softmax"}


def test_dead_channels_are_judged_too():
    """No input wakes a channel behind a Relu of large negative numbers; a proof sees it."""
    rng = np.random.default_rng(0)

    def net(factor):
        weights = rng_weights.copy()
        weights[:, 2] *= factor
        stored = {
            "w": np.zeros((4, 3, 1, 1)),
            "b": np.array([1.0, 1.0, -100.0, 1.0]),
            "v": weights,
        }
        nodes = [
            helper.make_node("Conv", ["x", "w", "b"], ["c"], name="first"),
            helper.make_node("Relu", ["c"], ["r"], name="relu"),
            helper.make_node("Conv", ["r", "v"], ["y"], name="second"),
        ]
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 4, 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5, 4, 4])],
            [
                numpy_helper.from_array(a.astype(np.float32), name)
                for name, a in stored.items()
            ],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])

    rng_weights = rng.standard_normal((5, 4, 1, 1))
    report = prove(opened(net(1.0)), opened(net(1.5)))
    assert report.verdict is Verdict.FAILED
    assert report.findings[0].node == "second"
    assert prove(opened(net(1.0)), opened(net(1.0))).passed
