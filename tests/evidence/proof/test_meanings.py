"""A node is the same only if it means the same: its operator's version, its function."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import onnx
import onnx.parser
import pytest

import bnfold
from bnfold.evidence.proof.contents import contents_of
from bnfold.model.io import opened
from bnfold.records import Verdict

Change = Callable[[onnx.ModelProto], None]

HEAD = """
    <ir_version: 8, opset_import: ["": 11, "own": 1]>
    g (float[1, 4, 3, 3] x, bool yes) => (float[1, 4, 3, 3] y)
    <float[4, 1, 1, 1] w = {1, -2, 3, 0.5}, float[4, 1, 1] s = {0.5, 2, 1.5, -1}>
"""
FUNCTIONS = """
    <domain: "own", opset_import: ["": 11, "own": 1]>
    Outer (a) => (b) { c = own.Inner (a) b = Sin (c) }
    <domain: "own", opset_import: ["": 11]>
    Inner (a) => (b) { k = Constant <value = float {0.5}> () c = Softplus (a) b = Max (c, k) }
"""
SCALED = "c = Conv <group = 4> (x, w) m = Mul (c, s)"
NETS = {
    "node": HEAD + f"{{ {SCALED} y = Softmax <axis = 1> (m) }}",
    "branch": HEAD + f"""{{ {SCALED} y = If (yes) <
        then_branch = t () => (float[1, 4, 3, 3] a) {{ a = Softmax <axis = 1> (m) }},
        else_branch = e () => (float[1, 4, 3, 3] b) {{ b = Relu (m) }}> }}""",
    "function": HEAD + f"{{ {SCALED} y = own.Outer (m) }}" + FUNCTIONS,
}  # fmt: skip


def imports(version: int) -> Change:
    def change(proto: onnx.ModelProto) -> None:
        proto.opset_import[0].version = version

    return change


def _inner(proto: onnx.ModelProto) -> onnx.FunctionProto:
    return next(one for one in proto.functions if one.name == "Inner")


def other_operator(proto: onnx.ModelProto) -> None:
    _inner(proto).node[2].op_type = "Min"


def other_constant(proto: onnx.ModelProto) -> None:
    _inner(proto).node[0].attribute[0].t.CopyFrom(onnx.helper.make_tensor("", 1, [], [0.6]))


def gone(proto: onnx.ModelProto) -> None:
    proto.functions.remove(_inner(proto))


WRONG = [
    ("node", imports(13), Verdict.FAILED),
    ("branch", imports(13), Verdict.FAILED),
    ("function", other_operator, Verdict.FAILED),
    ("function", other_constant, Verdict.FAILED),
    ("function", gone, Verdict.NOT_JUDGED),
]


def pair(name: str) -> tuple[onnx.ModelProto, bnfold.FoldResult, onnx.ModelProto]:
    """The original, its fold, and a copy of that which still has its functions."""
    original = onnx.parser.parse_model(NETS[name])
    onnx.checker.check_model(original)
    result = bnfold.fold(original, verify=False, certificate=True)
    assert [step.rule for step in result.report.steps] == ["Mul"]
    folded = result.to_proto()
    assert {one.name for one in folded.functions} == {one.name for one in original.functions}
    return original, result, folded


@pytest.mark.parametrize(("name", "change", "verdict"), WRONG)
def test_the_same_node_in_another_set_or_with_another_function_is_another(
    name: str, change: Change, verdict: Verdict
) -> None:
    """A fresh tester found that all of these passed, by byte for byte the same nodes."""
    original, result, wrong = pair(name)
    report = bnfold.verify(original, wrong, certificate=result.certificate, run=False)
    assert report.verdict is Verdict.PASSED, report.why
    change(wrong)
    assert bnfold.verify(original, wrong, run=False).verdict is verdict
    said = bnfold.verify(original, wrong, certificate=result.certificate, run=False)
    assert said.verdict is Verdict.FAILED
    held = contents_of(opened(wrong))
    assert result.certificate is not None
    forged = dataclasses.replace(
        result.certificate,
        header=(result.certificate.header[0], held.header),
        folded=held.digest,
    )
    assert bnfold.verify(original, wrong, certificate=forged, run=False).verdict is verdict


def test_another_set_in_which_all_operators_are_the_same_is_the_same() -> None:
    """Negative control: Conv, Mul and Relu are one version from set 14 to 17."""
    body = f"{{ {SCALED} y = Relu (m) }}"
    original = onnx.parser.parse_model(HEAD.replace('"": 11', '"": 14') + body)
    folded = bnfold.fold(original, verify=False).to_proto()
    imports(17)(folded)
    assert bnfold.verify(original, folded, run=False).verdict is Verdict.PASSED
