"""Model-local functions: written out only where a fold gains from it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import onnx
from onnx import helper

from tests.battery.graphs import Case, Net, folds, stays

C = 6
SHAPE = ["N", C, 5, 4]
BN_INPUTS = ["v", "scale", "bias", "mean", "var"]


def _function(
    net: Net,
    name: str,
    inputs: Sequence[str],
    nodes: Sequence[onnx.NodeProto],
    *,
    attributes: Sequence[str] = (),
    opset: int = 17,
) -> None:
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    net.functions.append(
        helper.make_function("own", name, inputs, ["w"], nodes, opsets, attributes)
    )


def _parameters(net: Net) -> list[str]:
    arrays = (net.scale(C), net.shift(C), net.shift(C), net.rng.uniform(0.3, 2.5, C))
    return [net.const(array) for array in arrays]


def _norm_function(net: Net, opset: int = 17) -> None:
    node = helper.make_node("BatchNormalization", BN_INPUTS, ["w"])
    attribute = node.attribute.add(name="epsilon", ref_attr_name="eps")
    attribute.type = onnx.AttributeProto.FLOAT
    _function(net, "Norm", BN_INPUTS, [node], attributes=["eps"], opset=opset)


def _norm(net: Net, x: str) -> str:
    return net.node("Norm", [x, *_parameters(net)], domain="own", eps=1e-3)


def norm_in_function(*, calls: int = 1, opset: int = 17) -> onnx.ModelProto:
    """BatchNormalization inside of a function, its weights and epsilon given by the call."""
    net = Net(f"norm_function{calls}{opset}")
    _norm_function(net, opset)
    y = net.input(["N", C, 5, 4])
    for _ in range(calls):
        y = net.node("Relu", [_norm(net, net.conv(y, C, C, pads=[1] * 4))])
    net.output(y, shape=SHAPE)
    return net.model()


def nested_functions() -> onnx.ModelProto:
    """A function that calls another, and one beside it that nothing is gained from."""
    net = Net("nested_functions")
    _norm_function(net)
    inner = helper.make_node("Norm", BN_INPUTS, ["n"], domain="own", eps=1e-3)
    relu = helper.make_node("Relu", ["n"], ["w"])
    _function(net, "NormRelu", BN_INPUTS, [inner, relu])
    _function(net, "Bend", ["v"], [helper.make_node("Tanh", ["v"], ["w"])])
    net.domains.setdefault("own", 1)
    y = net.conv(net.input(["N", C, 5, 4]), C, C, pads=[1] * 4)
    y = net.node("NormRelu", [y, *_parameters(net)], domain="own")
    net.output(net.node("Bend", [y], domain="own"), shape=SHAPE)
    return net.model()


def conv_in_function() -> onnx.ModelProto:
    """The convolution is inside, called with two weights; the maps stand behind the calls."""
    net = Net("conv_function")
    conv = helper.make_node("Conv", ["v", "k"], ["w"], pads=[1] * 4)
    _function(net, "Layer", ["v", "k"], [conv])
    y = net.input(["N", C, 5, 4])
    for _ in range(2):
        weight = net.const(net.weight(C, C, 3, 3))
        y = net.node("Layer", [y, weight], domain="own")
        net.shapes[y] = SHAPE
        y = net.node("Relu", [net.bn(y, C)])
    net.output(y, shape=SHAPE)
    return net.model()


def map_stuck_in_function() -> onnx.ModelProto:
    """A map between two Tanh, as useless inside of the function as outside."""
    net = Net("stuck_function")
    body = [
        helper.make_node("Tanh", ["v"], ["a"]),
        helper.make_node("Mul", ["a", "k"], ["b"]),
        helper.make_node("Tanh", ["b"], ["w"]),
    ]
    _function(net, "Stuck", ["v", "k"], body)
    scale = net.const(net.scale(C).reshape(-1, 1, 1))
    y = net.node("Stuck", [net.input(["N", C, 5, 4]), scale], domain="own")
    net.output(y, shape=SHAPE)
    return net.model()


def cases() -> list[Case]:
    return [
        folds("functions/norm", norm_in_function, 0, scope="issue3"),
        folds("functions/norm/twice", partial(norm_in_function, calls=2), 0, scope="issue3"),
        folds("functions/nested", nested_functions, 0, scope="issue3"),
        folds("functions/conv", conv_in_function, 0, scope="issue3"),
        stays("functions/stuck", map_stuck_in_function, 1, untouched=True),
        stays("functions/other_opset", partial(norm_in_function, opset=14), 1, untouched=True),
    ]
