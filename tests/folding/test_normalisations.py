"""What is said of the normalisations of a model."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import bnfold
from tests.battery import norms
from tests.battery.graphs import Net


def described(model) -> list:
    return list(bnfold.fold(model, verify=False).report.normalisations)


def one(op: str, opset: int, inputs: int, size: int = 6, **attributes):
    net = Net("one", opset)
    x = net.input(["N", 6, 5, 8])
    constants = [net.const(net.shift(size)) for _ in range(inputs)]
    net.output(net.node(op, [x, *constants], **attributes), shape=["N", 6, 5, 8])
    (found,) = described(net.model())
    return found


@pytest.mark.parametrize(
    ("op", "opset", "inputs", "size", "attributes", "axes"),
    [
        ("LayerNormalization", 17, 2, 8, {}, (3,)),
        ("LayerNormalization", 17, 1, 8, {"axis": -1}, (3,)),
        ("LayerNormalization", 17, 1, 1, {"axis": 2}, (2, 3)),
        ("RMSNormalization", 23, 1, 8, {}, (3,)),
        ("InstanceNormalization", 17, 2, 6, {}, (2, 3)),
        ("GroupNormalization", 21, 2, 6, {"num_groups": 2}, (1, 2, 3)),
        ("GroupNormalization", 18, 2, 2, {"num_groups": 2}, (1, 2, 3)),
        ("MeanVarianceNormalization", 13, 0, 0, {}, (0, 2, 3)),
        ("LpNormalization", 17, 0, 0, {"axis": 1}, (1,)),
    ],
)
def test_operators_normalise_over_their_axes(op, opset, inputs, size, attributes, axes):
    found = one(op, opset, inputs, size, **attributes)
    assert (found.kind, found.axes) == (op, axes)
    assert found.shape == ("N", 6, 5, 8)
    assert not found.constant_statistics
    assert found.groups == attributes.get("num_groups")
    assert "from the data" in found.cannot_fold
    assert found.can_fold.endswith(".")


def test_batch_norm_at_inference_has_constant_statistics():
    net = Net("bn")
    net.output(net.bn(net.input(["N", 6, 5, 8]), 6))
    (found,) = described(net.model())
    assert found.constant_statistics
    assert found.axes == (0, 2, 3)
    assert "one scale and one shift per channel" in found.can_fold


@pytest.mark.parametrize("channels", [True, False])
@pytest.mark.parametrize("power", [True, False])
def test_a_spelled_out_layer_norm_is_recognised(channels, power):
    axis = 1 if channels else -1
    (found,) = described(norms.spelled_layer_norm(power=power, reader="matmul", axis=axis))
    kind = "normalisation" if channels else "LayerNormalization"
    assert found.kind == f"{kind}, spelled out"
    assert found.axes == ((1,) if channels else (2,))


@pytest.mark.parametrize("reciprocal", [True, False])
def test_a_spelled_out_rms_norm_is_recognised(reciprocal):
    (found,) = described(norms.spelled_rms_norm(reciprocal=reciprocal))
    assert (found.kind, found.axes) == ("RMSNormalization, spelled out", (2,))


@pytest.mark.parametrize("dynamic", [True, False])
def test_an_exported_group_norm_is_recognised(dynamic):
    model = norms.exported_group_norm(equal=False, padded=True, dynamic=dynamic)
    (found,) = described(model)
    assert found.kind == "GroupNormalization, spelled out"
    assert (found.axes, found.groups) == ((1, 2, 3), 3)
    assert "does not survive the Reshape into groups" in found.cannot_fold


def test_a_reshape_that_keeps_channels_groups_nothing():
    net = Net("flat")
    y = net.node("Reshape", [net.input([2, 6, 5, 8]), net.ints(2, 6, -1)])
    y = net.node(
        "InstanceNormalization", [y, net.const(net.scale(6)), net.const(net.shift(6))]
    )
    net.output(net.node("Reshape", [y, net.ints(2, 6, 5, 8)]))
    assert described(net.model())[0].kind == "InstanceNormalization"


def test_a_root_of_constants_is_no_normalisation():
    net = Net("root")
    root = net.node("Sqrt", [net.node("Add", [net.const(np.ones(6)), net.const(1e-3)])])
    net.output(net.node("Div", [net.input(["N", 6]), root]))
    assert described(net.model()) == []


def test_a_foreign_layer_norm_is_not_ours():
    net = Net("foreign")
    x = net.input(["N", 6])
    y = net.node("SkipLayerNormalization", [x, x, x], domain="com.microsoft")
    net.output(y, shape=["N", 6])
    assert described(net.model()) == []


def test_sentences_are_plain_and_stable():
    found = dataclasses.asdict(one("RMSNormalization", 23, 1, 8))
    assert found == {
        "kind": "RMSNormalization",
        "node": "node_RMSNormalization_3",
        "axes": (3,),
        "shape": ("N", 6, 5, 8),
        "groups": None,
        "constant_statistics": False,
        "can_fold": "A scale behind it goes into its scale, along the axes that scale has; its"
        " scale can go into the layers behind it (--norms).",
        "cannot_fold": "No shift: it has no bias and subtracts no mean; the normalisation"
        " itself stays, its mean square is computed from the data.",
    }
