"""Where a careless folder goes wrong: other readers, shared weights, false BatchNorms."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.battery.graphs import Case, Net, apply, first_conv, folds, stays

C = 6
FLOAT = TensorProto.FLOAT


def conv_output_is_graph_output(source: str) -> onnx.ModelProto:
    net, y = first_conv(f"conv_is_output{source}")
    net.output(y, apply(net, source, y, C))
    return net.model()


def conv_output_read_elsewhere(source: str) -> onnx.ModelProto:
    net, y = first_conv(f"read_elsewhere{source}")
    z = apply(net, source, y, C)
    net.output(net.node("Add", [net.node("Relu", [y]), z]))
    return net.model()


def read_twice_by_one_node() -> onnx.ModelProto:
    """Mul(y, y) reads the value twice."""
    net, y = first_conv("twice")
    net.output(net.bn(net.node("Mul", [y, y]), C))
    return net.model()


def bn_output_is_graph_output() -> onnx.ModelProto:
    """The name and the position of the result must survive the fold."""
    net, y = first_conv("bn_is_output")
    z = net.bn(y, C, output="result")
    net.output(z, net.node("Relu", [z], "after"))
    return net.model()


def middle_of_chain_is_output() -> onnx.ModelProto:
    net, y = first_conv("middle")
    y = net.mul(y, C)
    net.output(y, net.add(y, C))
    return net.model()


def bn_of_graph_input() -> onnx.ModelProto:
    net = Net("bn_of_input")
    x = net.input(["N", C, 5, 4])
    net.output(net.node("Relu", [net.bn(x, C)]))
    return net.model()


def bn_input_read_by_conv_and_bn() -> onnx.ModelProto:
    """Conv(BN(x)) + x: the input is read elsewhere, the map still goes down."""
    net = Net("input_twice")
    x = net.input(["N", 4, 7, 6])
    y = net.conv(net.bn(x, 4), 4, 4)
    net.output(y, net.node("Relu", [x]))
    return net.model()


def bn_read_by_conv_and_output() -> onnx.ModelProto:
    net = Net("bn_read_and_output")
    z = net.bn(net.input(["N", 4, 7, 6]), 4)
    net.output(net.conv(z, 4, C), z)
    return net.model()


def value_read_in_subgraph(name: str = "conv_out") -> onnx.ModelProto:
    """The conv output is read only by the BN and, unseen from above, inside an If."""
    net, y = first_conv("subgraph_reads")
    condition = net.input([], "condition", "bool")
    z = net.bn(y, C, output="bn_out")
    branches = [
        helper.make_graph(
            [helper.make_node(op, [name], [f"{op}_out"], f"inner_{op}")],
            op,
            [],
            [helper.make_tensor_value_info(f"{op}_out", FLOAT, None)],
        )
        for op in ("Relu", "Sigmoid")
    ]
    out = net.node("If", [condition], then_branch=branches[0], else_branch=branches[1])
    net.output(net.node("Add", [z, out]))
    return net.model()


def weight_read_in_subgraph() -> onnx.ModelProto:
    """An inner graph reads the conv's weight; folding must not change it under its feet."""
    net = Net("inner_weight")
    condition = net.input([], "condition", "bool")
    w = net.const(net.weight(C, 4, 3, 3), "w")
    y = net.bn(net.conv(net.input(["N", 4, 7, 6]), 4, C, weight=w), C)
    branches = [
        helper.make_graph(
            [helper.make_node(op, ["w"], [f"{op}_out"], f"inner_{op}", axes=[0, 1, 2, 3])],
            op,
            [],
            [helper.make_tensor_value_info(f"{op}_out", FLOAT, None)],
        )
        for op in ("ReduceMax", "ReduceMean")
    ]
    out = net.node("If", [condition], then_branch=branches[0], else_branch=branches[1])
    net.output(net.node("Add", [y, out]))
    return net.model()


def loop_body() -> onnx.ModelProto:
    """A BN inside a Loop body acts on the carried value again and again."""
    net = Net("loop")
    y = net.conv(net.input(["N", 4, 7, 6]), 4, 4, pads=[1, 1, 1, 1])
    trips, go = (
        net.const(np.asarray(3), "trips", "int64"),
        net.const(np.asarray(1), "go", "bool"),
    )
    body = Net("loop_body", prefix="in_")
    z = body.bn("carried", 4, output="z")
    z = body.conv(z, 4, 4, pads=[1, 1, 1, 1], output="next")
    graph = helper.make_graph(
        [*body.nodes, helper.make_node("Identity", ["go_in"], ["go_out"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info(z, FLOAT, None),
        ],
        body.initializer_list(),
    )
    out = net.node("Loop", [trips, go, y], body=graph)
    net.output(net.node("Relu", [out]), shape=["N", 4, 7, 6])
    return net.model()


def shared_weight(
    first: str, second: str | None, *, same_bias: bool = True
) -> onnx.ModelProto:
    net = Net(f"shared{first}{second}{same_bias}")
    x = net.input(["N", 4, 7, 6])
    w, b = net.const(net.weight(C, 4, 3, 3), "w"), net.const(net.shift(C), "b")
    other = b if same_bias else net.const(net.shift(C), "b2")
    y = net.node("Conv", [x, w, b])
    z = net.node("Conv", [net.node("Relu", [x]), w, other])
    y = apply(net, first, y, C)
    net.output(y, apply(net, second, z, C) if second else z)
    return net.model()


def weight_read_by_other_op() -> onnx.ModelProto:
    net = Net("weight_elsewhere")
    w = net.const(net.weight(C, 4, 3, 3), "w")
    y = net.bn(net.conv(net.input(["N", 4, 7, 6]), 4, C, weight=w), C)
    net.output(y, net.node("ReduceMax", [w], keepdims=0))
    return net.model()


def bias_shared_with_map() -> onnx.ModelProto:
    """One tensor is the conv's bias and the BN's mean."""
    net = Net("bias_is_mean")
    b = net.const(net.shift(C), "b")
    w = net.const(net.weight(C, 4, 3, 3))
    y = net.node("Conv", [net.input(["N", 4, 7, 6]), w, b])
    scale, var = net.const(net.scale(C)), net.const(net.rng.uniform(0.5, 2, C))
    net.output(net.node("BatchNormalization", [y, scale, b, b, var]))
    return net.model()


def shared_bn_parameters() -> onnx.ModelProto:
    net = Net("shared_bn")
    x = net.input(["N", 4, 7, 6])
    params = [
        net.const(v) for v in (net.scale(C), net.shift(C), net.shift(C), net.scale(C) ** 2)
    ]
    y = net.node("BatchNormalization", [net.conv(x, 4, C), *params])
    z = net.node("BatchNormalization", [net.conv(x, 4, C), *params])
    net.output(net.node("Add", [y, z]))
    return net.model()


def dynamic_weight(source: str) -> onnx.ModelProto:
    net = Net(f"dynamic_weight{source}")
    x, w = net.input(["N", 4, 7, 6]), net.input([C, 4, 3, 3], "w")
    net.output(apply(net, source, net.node("Conv", [x, w, net.const(net.shift(C))]), C))
    return net.model()


def dynamic_bias() -> onnx.ModelProto:
    net = Net("dynamic_bias")
    x, b = net.input(["N", 4, 7, 6]), net.input([C], "b")
    y = net.node("Conv", [x, net.const(net.weight(C, 4, 3, 3)), b])
    net.output(net.bn(y, C))
    return net.model()


def dynamic_bn(which: int) -> onnx.ModelProto:
    net, y = first_conv(f"dynamic_bn{which}")
    params = [
        net.const(v) for v in (net.scale(C), net.shift(C), net.shift(C), net.scale(C) ** 2)
    ]
    params[which] = net.input([C], "p")
    net.output(net.node("BatchNormalization", [y, *params]))
    return net.model()


def product_of_inputs() -> onnx.ModelProto:
    net, y = first_conv("gate")
    gate = net.input(["N", C, 1, 1], "gate")
    net.output(net.node("Mul", [y, gate]))
    return net.model()


def dynamic_by_constant() -> onnx.ModelProto:
    """1 / x is no affine map of x."""
    net, y = first_conv("reciprocal")
    net.output(net.node("Div", [net.const(net.scale(C).reshape(C, 1, 1)), y]))
    return net.model()


def training(outputs: int, opset: int = 15) -> onnx.ModelProto:
    net, y = first_conv(f"training{outputs}", opset)
    names = ["bn_y", "new_mean", "new_var"][:outputs]
    net.output(net.bn(y, C, outputs=names, training_mode=1), shape=["N", C, 5, 4])
    if outputs > 1:
        net.output(*names[1:], shape=[C])
    return net.model()


def old_extra_outputs(opset: int, names: list[str], *, read: bool) -> onnx.ModelProto:
    net, y = first_conv(f"extra{opset}{len(names)}{read}", opset)
    net.output(net.bn(y, C, outputs=["bn_y", *names]))
    if read:
        net.output(*(n for n in names[:2] if n), shape=[C])
    return net.model()


def not_spatial(*, flag: int) -> onnx.ModelProto:
    """spatial = 0 at opset 7 normalises every element by its own statistics."""
    net = Net(f"spatial{flag}", 7)
    y = net.conv(net.input([2, 4, 7, 6]), 4, C)
    shape = (C,) if flag else (C, 5, 4)
    values = [net.rng.uniform(0.3, 2.0, shape) for _ in range(4)]
    inputs = [y, *(net.const(v) for v in values)]
    net.output(net.node("BatchNormalization", inputs, spatial=flag))
    return net.model()


def _value_cases() -> list[Case]:
    return [
        *(
            stays(
                f"guards/conv_is_graph_output/{s}",
                partial(conv_output_is_graph_output, s),
                n,
                untouched=True,
            )
            for s, n in (("bn", 1), ("mul", 1), ("add", 1))
        ),
        *(
            stays(
                f"guards/conv_read_elsewhere/{s}",
                partial(conv_output_read_elsewhere, s),
                1,
                untouched=True,
            )
            for s in ("bn", "mul")
        ),
        stays("guards/read_twice", read_twice_by_one_node, 1, untouched=True),
        folds("guards/bn_is_graph_output", bn_output_is_graph_output, 0),
        folds("guards/middle_is_output", middle_of_chain_is_output, 1),
        stays("guards/bn_of_input", bn_of_graph_input, 1, untouched=True),
        folds("guards/input_read_elsewhere", bn_input_read_by_conv_and_bn, 0),
        stays("guards/bn_read_and_output", bn_read_by_conv_and_output, 1, untouched=True),
        stays("guards/read_in_subgraph", value_read_in_subgraph, 1, untouched=True),
        folds("guards/bn_read_in_subgraph", partial(value_read_in_subgraph, "bn_out"), 0),
        folds("guards/weight_read_in_subgraph", weight_read_in_subgraph, 0),
        stays("guards/loop_body", loop_body, 1, "carried value, padded conv"),
    ]


def _weight_cases() -> list[Case]:
    return [
        folds("guards/shared_weight/two_bns", partial(shared_weight, "bn", "bn"), 0),
        folds(
            "guards/shared_weight/two_biases",
            partial(shared_weight, "bn", "mul_add", same_bias=False),
            0,
        ),
        folds("guards/shared_weight/one_bn", partial(shared_weight, "bn", None), 0),
        folds("guards/weight_read_by_other_op", weight_read_by_other_op, 0),
        folds("guards/bias_is_mean", bias_shared_with_map, 0),
        folds("guards/shared_bn_parameters", shared_bn_parameters, 0),
        *(
            stays(f"guards/dynamic_weight/{s}", partial(dynamic_weight, s), None)
            for s in ("bn", "mul", "add")
        ),
        stays("guards/dynamic_bias", dynamic_bias, 1),
        *(
            stays(f"guards/dynamic_bn/{i}", partial(dynamic_bn, i), 1, untouched=True)
            for i in range(4)
        ),
        stays("guards/product_of_inputs", product_of_inputs, 0, untouched=True),
        stays("guards/reciprocal", dynamic_by_constant, 0, untouched=True),
    ]


def _batch_norm_cases() -> list[Case]:
    return [
        stays("guards/training/1", partial(training, 1), 1, untouched=True),
        stays("guards/training/3", partial(training, 3), 1, untouched=True),
        stays("guards/training/1/opset14", partial(training, 1, 14), 1, untouched=True),
        *(
            folds(
                f"guards/extra_outputs/empty/opset{v}",
                partial(old_extra_outputs, v, [""] * 4, read=False),
                0,
                ort=False,
            )
            for v in (7, 9)
        ),
        *(
            stays(
                f"guards/extra_outputs/unused/opset{v}",
                partial(old_extra_outputs, v, ["m", "v", "sm", "sv"], read=False),
                1,
                "more outputs than one say that it trains, whether they are read or not",
                untouched=True,
                ort=False,
            )
            for v in (7, 9)
        ),
        stays(
            "guards/extra_outputs/read",
            partial(old_extra_outputs, 9, ["m", "v", "sm", "sv"], read=True),
            1,
            untouched=True,
            ort=False,
        ),
        stays("guards/spatial/0", partial(not_spatial, flag=0), 1, untouched=True),
        folds("guards/spatial/1", partial(not_spatial, flag=1), 0),
    ]


def cases() -> list[Case]:
    return [*_value_cases(), *_weight_cases(), *_batch_norm_cases()]
