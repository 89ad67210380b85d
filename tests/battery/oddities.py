"""Names, foreign operators, functions, and graphs of odd form."""

from __future__ import annotations

from functools import partial

import onnx
from onnx import TensorProto, helper

from tests.battery.graphs import Case, Net, apply, first_conv, folds, stays
from tests.battery.guards import value_read_in_subgraph

C = 6
FLOAT = TensorProto.FLOAT


def taken_names() -> onnx.ModelProto:
    """Names a folder likes to invent are taken, by values, nodes and inputs."""
    net = Net("names")
    w = net.const(net.weight(C, 4, 3, 3), "w")
    x = net.input(["N", 4, 7, 6], "conv_bias")
    y = net.node("Conv", [x, w], "conv")
    decoys = ["w_folded", "w_bn", "w_fused", "w_1", "w_bnfold", "w/folded", "conv_b", "bias"]
    decoys += ["conv.bias", "conv_bias_folded", "w_folded_1", "conv_bias_1", "w.folded"]
    y = net.bn(y, C)
    for name in decoys:
        shape = net.const(net.scale(5).reshape(5, 1), name)
        y = net.node("Where", [net.node("Greater", [y, shape]), y, shape])
    net.output(y)
    return net.model()


def taken_inner_names() -> onnx.ModelProto:
    """The taken name lives inside a subgraph."""
    model = value_read_in_subgraph("bn_out")
    for node in model.graph.node:
        for attribute in node.attribute:
            for inner in attribute.g.node:
                attribute.g.output[0].name = "conv_bias"
                inner.output[0] = "conv_bias"
    return model


def same_node_names() -> onnx.ModelProto:
    net, y = first_conv("same_names")
    net.output(net.bn(net.node("Relu", [net.conv(net.bn(y, C), C, C)]), C))
    model = net.model()
    for node in model.graph.node:
        node.name = "node"
    return model


def no_node_names() -> onnx.ModelProto:
    net, y = first_conv("no_names")
    net.output(net.bn(net.node("Relu", [net.bn(y, C)]), C))
    model = net.model()
    for node in model.graph.node:
        node.name = ""
    return model


def documented() -> onnx.ModelProto:
    net, y = first_conv("documented")
    net.output(net.node("Relu", [net.bn(y, C)]))
    model = net.model()
    model.doc_string, model.graph.doc_string = "model", "graph"
    helper.set_model_props(model, {"author": "battery"})
    for index, node in enumerate(model.graph.node):
        node.doc_string = f"doc {index}"
        node.metadata_props.add(key="k", value=str(index))
    model.graph.input[0].doc_string = "the picture"
    model.graph.metadata_props.add(key="graph", value="yes")
    return model


def foreign_op(where: str) -> onnx.ModelProto:
    """An operator nobody knows: nothing passes, all else folds."""
    net = Net(f"foreign{where}")
    y = net.input(["N", 4, 7, 6])
    if where == "before":
        y = net.node("Mystery", [y], domain="my.ops")
    y = net.conv(y, 4, C)
    if where == "between":
        y = net.node("Mystery", [y], domain="my.ops")
    y = net.bn(y, C)
    if where == "after":
        y = net.node("Mystery", [y], domain="my.ops")
    net.output(net.node("Identity", [y], "out"), shape=["N", C, 5, 4])
    return net.model()


def foreign_reader() -> onnx.ModelProto:
    net, y = first_conv("foreign_reader")
    z = net.bn(y, C)
    net.output(z, net.node("Mystery", [y], domain="my.ops"), shape=["N", C, 5, 4])
    return net.model()


def foreign_namesake() -> onnx.ModelProto:
    """A foreign operator named BatchNormalization is not ours."""
    net, y = first_conv("namesake")
    params = [
        net.const(v) for v in (net.scale(C), net.shift(C), net.shift(C), net.scale(C) ** 2)
    ]
    y = net.node("BatchNormalization", [y, *params], domain="my.ops")
    net.output(y, shape=["N", C, 5, 4])
    return net.model()


def microsoft_gelu() -> onnx.ModelProto:
    net, y = first_conv("gelu")
    y = net.node("Gelu", [net.bn(y, C)], domain="com.microsoft")
    net.output(
        net.node("Identity", [net.bn(net.conv(y, C, 4), 4)], "out"), shape=["N", 4, 3, 2]
    )
    return net.model()


def ai_onnx_domain() -> onnx.ModelProto:
    """The default domain spelled out."""
    net, y = first_conv("ai_onnx")
    net.output(net.bn(y, C))
    model = net.model()
    for node in model.graph.node:
        node.domain = "ai.onnx"
    model.opset_import[0].domain = "ai.onnx"
    return model


def model_function(*, inside: bool) -> onnx.ModelProto:
    """A local function between conv and BN, or with conv and BN inside."""
    net, y = first_conv(f"function{inside}")
    body = [helper.make_node("Relu", ["v"], ["r"]), helper.make_node("Add", ["r", "v"], ["w"])]
    opsets = [helper.make_opsetid("", 17)]
    if inside:
        body = [
            helper.make_node("Constant", [], ["k"], value_float=2.5),
            helper.make_node("Mul", ["v", "k"], ["m"]),
            helper.make_node("Constant", [], ["l"], value_float=-0.5),
            helper.make_node("Add", ["m", "l"], ["w"]),
        ]
    net.functions.append(helper.make_function("own", "Step", ["v"], ["w"], body, opsets))
    y = net.node("Step", [net.bn(y, C)], domain="own")
    net.output(
        net.node("Identity", [net.bn(net.conv(y, C, 4), 4)], "out"), shape=["N", 4, 3, 2]
    )
    return net.model()


def function_named_like_ours() -> onnx.ModelProto:
    """A local function that overrides Relu of the default domain's name in its own."""
    net, y = first_conv("override")
    body = [helper.make_node("Neg", ["v"], ["w"])]
    net.functions.append(
        helper.make_function(
            "own", "Identity", ["v"], ["w"], body, [helper.make_opsetid("", 17)]
        )
    )
    y = net.node("Identity", [y], domain="own")
    net.output(net.node("Identity", [net.bn(y, C)]), shape=["N", C, 5, 4])
    return net.model()


def unsorted() -> onnx.ModelProto:
    net, y = first_conv("unsorted")
    net.output(net.node("Relu", [net.bn(y, C)]))
    model = net.model()
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def dead_branch() -> onnx.ModelProto:
    """Somebody left a reader of the conv output whose result nobody reads."""
    net, y = first_conv("dead")
    net.node("Relu", [y], "nobody")
    net.output(net.bn(y, C))
    return net.model()


def two_convs_two_bns_crossed() -> onnx.ModelProto:
    """Equal shapes everywhere; each BN must go into its own conv."""
    net = Net("crossed")
    x = net.input(["N", C, 5, 5])
    y, z = net.conv(x, C, C), net.conv(x, C, C)
    a, b = net.bn(z, C), net.bn(y, C)
    net.output(a, b)
    return net.model()


def zero_batch() -> onnx.ModelProto:
    net = Net("zero_batch")
    net.output(net.bn(net.conv(net.input([0, 4, 7, 6]), 4, C), C))
    return net.model()


def single_pixel() -> onnx.ModelProto:
    net = Net("single_pixel")
    net.output(
        apply(net, "mul_add", net.conv(net.input(["N", 1, 1, 1]), 1, 1, kernel=(1, 1)), 1)
    )
    return net.model()


def _odd_cases() -> list[Case]:
    return [
        folds("guards/names/taken", taken_names, 0),
        folds("guards/names/taken_inside", taken_inner_names, 0),
        folds("guards/names/same_node_names", same_node_names, 1),
        folds("guards/names/no_node_names", no_node_names, 1),
        folds("guards/documented", documented, 0),
        folds("guards/foreign/before", partial(foreign_op, "before"), 0),
        stays("guards/foreign/between", partial(foreign_op, "between"), 1, untouched=True),
        folds("guards/foreign/after", partial(foreign_op, "after"), 0),
        stays("guards/foreign/reader", foreign_reader, 1, untouched=True),
        stays("guards/foreign/namesake", foreign_namesake, 0, untouched=True),
        folds("guards/foreign/microsoft", microsoft_gelu, 0),
        folds("guards/ai_onnx_domain", ai_onnx_domain, 0),
        folds("guards/function/between", partial(model_function, inside=False), 0),
        folds("guards/function/inside", partial(model_function, inside=True), 0),
        folds("guards/function/namesake", function_named_like_ours, 0, "Identity means Neg"),
        folds("guards/unsorted", unsorted, 0),
        folds("guards/dead_reader", dead_branch, 0),
        folds("guards/crossed", two_convs_two_bns_crossed, 0),
        folds("guards/zero_batch", zero_batch, 0),
        folds("guards/single_pixel", single_pixel, 0),
    ]


def cases() -> list[Case]:
    return [*_odd_cases()]
