"""Every rule says which versions of its operator it knows, and is asked about no other."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

import bnfold
from bnfold.model.versions import NEWEST
from bnfold.records import Code
from bnfold.rules import RULES
from tests.battery import judge
from tests.battery.graphs import Net


def versions_in_onnx() -> dict[str, list[int]]:
    found = defaultdict(set)
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            found[schema.name].add(schema.since_version)
    return {name: sorted(versions) for name, versions in found.items()}


@pytest.mark.parametrize("kind", RULES)
def test_every_version_of_an_operator_with_a_rule_has_been_checked(kind):
    """A new version fails here: read its schema, mend the rule, then add the version to it."""
    checked = RULES[kind].versions
    known = versions_in_onnx()[kind]
    assert checked, f"the rule of {kind} names no version"
    assert list(checked) == [version for version in known if version >= checked[0]]


def test_no_operator_set_is_newer_than_those_that_were_checked():
    assert onnx.defs.onnx_opset_version() <= NEWEST


@pytest.mark.parametrize("kind", [kind for kind, rule in RULES.items() if rule.words])
def test_words_are_of_attributes_that_the_operator_has(kind):
    schema = onnx.defs.get_schema(kind, RULES[kind].versions[-1], "")
    named = [name for name in RULES[kind].words if name in schema.attributes]
    assert named or kind in ("GlobalAveragePool", "GlobalMaxPool", "SpaceToDepth")


def conv_bn(opset: int = 17, **attributes: object) -> onnx.ModelProto:
    net = Net("conv", opset, ir=10)
    y = net.node("Conv", [net.input([1, 3, 6, 6]), net.const(net.weight(4, 3, 3, 3))])
    net.output(net.bn(y, 4))
    model = net.model()
    model.graph.node[0].attribute.extend(
        onnx.helper.make_attribute(name, value) for name, value in attributes.items()
    )
    return model


def reasons(model: onnx.ModelProto) -> list[bnfold.records.Refusal]:
    result = bnfold.fold(model, verify=False)
    assert result.report.steps == ()
    kept = result.to_proto().SerializeToString(deterministic=True)
    assert kept == model.SerializeToString(deterministic=True)
    return [refusal for stay in result.report.stays for refusal in stay.refusals]


@pytest.mark.parametrize(
    ("attributes", "word"),
    [
        ({"winograd": 1}, "Conv-11 has no attribute 'winograd'"),
        ({"auto_pad": "SAME"}, "auto_pad='SAME' is none of NOTSET"),
    ],
)
def test_an_attribute_that_a_rule_does_not_know_stops_the_map(attributes, word):
    refusals = reasons(conv_bn(**attributes))
    found = [one for one in refusals if one.code is Code.UNKNOWN_OPERATOR]
    assert found
    assert all(word in one.why for one in found)


def test_an_operator_set_that_nobody_has_seen_stops_everything():
    refusals = reasons(conv_bn(NEWEST + 1))
    assert {one.code for one in refusals} == {Code.UNKNOWN_OPERATOR}
    assert all(f"operator set {NEWEST + 1} is newer" in one.why for one in refusals)


def test_a_version_older_than_those_that_a_rule_knows_stops_the_map():
    net = Net("cast", 5, ir=3)
    w = net.const(net.weight(4, 3, 3, 3))
    y = net.node("Conv", [net.input([1, 3, 6, 6]), w])
    for kind in ("DOUBLE", "FLOAT"):
        y = net.node("Cast", [y], to=kind)
    net.output(net.bn(y, 4, is_test=1, consumed_inputs=[0] * 5))
    assert any("Cast of operator set 5 is older" in one.why for one in reasons(net.model()))


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
@pytest.mark.parametrize("kind", ["SpaceToDepth", "DepthToSpace"])
def test_both_orders_of_blocks(kind, mode):
    """SpaceToDepth has an order since version 28: ONNX's reference says what it means."""
    net = Net(f"{kind}{mode}", 28)
    few, many = 2, 8
    if kind == "SpaceToDepth":
        x = net.input([1, few, 4, 6])
        y = net.node(kind, [net.mul(x, few)], blocksize=2, mode=mode)
        net.output(net.conv(y, many, 4, kernel=(1, 1)))
    else:
        x = net.input([1, 3, 4, 6])
        y = net.node(kind, [net.conv(x, 3, many, kernel=(1, 1))], blocksize=2, mode=mode)
        net.output(net.mul(y, few))
    model = net.model()
    folded = bnfold.fold(model, verify=False).to_proto()
    assert [node.op_type for node in folded.graph.node if node.op_type == "Mul"] == []
    assert judge.newly_invalid(model, folded) == ""
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    feeds = {"x": np.random.default_rng(3).normal(size=shape).astype(np.float32)}
    wanted, found = (ReferenceEvaluator(one).run(None, feeds)[0] for one in (model, folded))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
