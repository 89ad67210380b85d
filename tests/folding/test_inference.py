"""Training-mode exports: explained, and read by their running statistics when asked."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

import bnfold
from bnfold.records import Code
from tests.battery import judge
from tests.battery.graphs import Net
from tests.reference64 import run64
from tests.small import operators

C = 6


def conv_bn(opset: int, outputs: list[str], **attributes) -> Net:
    """Conv → BatchNormalization with those outputs → Relu."""
    net = Net("training", opset, ir=8)
    x = net.input([2, 4, 6, 5])
    y = net.bn(net.conv(x, 4, C), C, outputs=outputs, **attributes)
    net.output(net.node("Relu", [y]), shape=[2, C, 4, 3])
    return net


def training(opset: int, read: tuple[int, ...] = ()) -> onnx.ModelProto:
    """The spelling of training mode of that opset; outputs ``read`` are graph outputs."""
    if opset >= 14:
        net = conv_bn(opset, ["bn", "mean", "var"], training_mode=1)
    elif opset >= 7:
        net = conv_bn(opset, ["bn", "mean", "var", "saved_mean", "saved_var"])
    else:
        net = conv_bn(opset, ["bn"], is_test=0)
    names = ["bn", "mean", "var", "saved_mean", "saved_var"]
    net.output(*(names[place] for place in read), shape=[C])
    return net.model()


def by_running_statistics(model: onnx.ModelProto) -> onnx.ModelProto:
    """What a person would write for inference."""
    read = onnx.ModelProto()
    read.CopyFrom(model)
    (node,) = (n for n in read.graph.node if n.op_type == "BatchNormalization")
    outputs, statistics = list(node.output), list(node.input[3:5])
    del node.output[1:]
    kept = [a for a in node.attribute if a.name not in {"training_mode", "is_test"}]
    del node.attribute[:]
    node.attribute.extend(kept)
    if read.opset_import[0].version < 7:
        node.attribute.append(helper.make_attribute("is_test", 1))
    results = {o.name for o in read.graph.output}
    for name, source in zip(outputs[1:3], statistics, strict=False):
        if name in results:
            read.graph.node.append(helper.make_node("Identity", [source], [name]))
    return read


@pytest.mark.parametrize(("opset", "read"), [(14, ()), (15, (1,)), (9, (1,)), (8, (2,))])
def test_batch_statistics_are_explained_with_a_remedy(opset, read):
    result = bnfold.fold(training(opset, read), verify=False)
    (stay,) = result.report.stays
    assert result.report.steps == ()
    assert stay.refusals[0].code is Code.BATCH_STATISTICS
    assert "--assume-inference" in stay.refusals[0].remedy
    (norm,) = result.report.normalisations
    assert not norm.constant_statistics
    assert norm.axes == (0, 2, 3)


@pytest.mark.parametrize(
    ("opset", "read"),
    [
        (6, ()),
        (8, (1, 2)),
        (9, (1,)),
        (13, (2,)),
        (14, ()),
        (14, (1, 2)),
        (15, (2,)),
        (17, (1,)),
    ],
)
def test_it_is_read_by_its_running_statistics_when_asked(opset, read):
    model = training(opset, read)
    result = bnfold.fold(model, verify=False, assume_inference=True)
    folded = result.to_proto()
    wanted = by_running_statistics(model)
    assert judge.wrong_outputs(wanted, folded) == []
    assert judge.newly_invalid(wanted, folded) == ""
    assert judge.interface(folded) == judge.interface(model)
    assert operators(folded) == ["Conv", *["Identity"] * len(read), "Relu"]
    assert result.report.steps[0].rule == "BatchNormalization"
    assert result.report.steps[0].move == "read by its running statistics"
    assert "another function" in result.report.warnings[0]
    feeds = judge.inputs_of(model, 0)
    by_batch, got = (next(iter(run64(m, feeds).values())) for m in (model, folded))
    assert np.abs(by_batch - got).max() > 0.1  # it is another function, as the warning says


@pytest.mark.parametrize("opset", [14, 17])
def test_the_check_compares_with_the_original_read_the_same_way(opset):
    pytest.importorskip("onnxruntime")
    assert bnfold.fold(training(opset), assume_inference=True).check.passed


def test_running_statistics_that_other_nodes_read_are_the_stored_ones():
    net = conv_bn(17, ["bn", "mean", "var"], training_mode=1)
    net.output(net.node("Sqrt", ["var"]), shape=[C])
    model = net.model()
    folded = bnfold.fold(model, verify=False, assume_inference=True).to_proto()
    results = run64(folded, judge.inputs_of(model, 0))
    (bn,) = (n for n in model.graph.node if n.op_type == "BatchNormalization")
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    root = np.sqrt(stored[bn.input[4]].astype(np.float64))
    np.testing.assert_allclose(list(results.values())[-1], root)


def test_saved_statistics_have_no_meaning_at_inference():
    result = bnfold.fold(training(9, (3,)), verify=False, assume_inference=True)
    assert result.report.steps == ()
    assert result.report.warnings == ()
    assert result.report.stays[0].refusals[0].code is Code.BATCH_STATISTICS


def test_skip_leaves_a_training_node_alone():
    result = bnfold.fold(
        training(17), verify=False, assume_inference=True, skip=["BatchNormalization"]
    )
    assert result.report.steps == ()


def test_an_inference_export_is_not_touched_by_the_permission():
    net = conv_bn(17, ["bn"])
    result = bnfold.fold(net.model(), verify=False, assume_inference=True)
    assert [step.move for step in result.report.steps] == ["up"]
    assert result.report.warnings == ()


@pytest.mark.parametrize("opset", [6, 13, 22])
@pytest.mark.parametrize("known", [True, False])
def test_a_dropout_that_trains_is_the_identity_when_asked(opset, known):
    net = Net("dropout", opset, ir=8)
    y = net.conv(net.input([2, 4, 6, 5]), 4, C)
    if opset < 12:
        y = net.node("Dropout", [y], is_test=0)
        y = net.bn(y, C, is_test=1)
    else:
        flag = net.const(np.ones((), bool), "flag", "bool") if known else None
        flag = flag or net.input([], "flag", "bool")
        y = net.bn(net.node("Dropout", [y, net.const(0.5), flag]), C)
    net.output(y, shape=[2, C, 4, 3])
    model = net.model()
    refusals = bnfold.fold(model, verify=False).report.refusals
    assert [refusal.code for refusal in refusals] == [Code.BATCH_STATISTICS]
    result = bnfold.fold(model, verify=False, assume_inference=True)
    folded = result.to_proto()
    assert operators(folded) == ["Conv", "Dropout"]
    assert judge.interface(folded) == judge.interface(model)
    assert judge.wrong_outputs(model, folded) == []  # the reference drops nothing
    if opset >= 12:
        assert len(folded.graph.node[1].input) == 2
