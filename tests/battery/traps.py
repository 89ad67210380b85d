"""Second look: slots, old operator sets, storage forms and shapes a folder may misread."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.battery.graphs import Case, Net, apply, first_conv, folds, stays

C = 6
FLOAT = TensorProto.FLOAT


# ------------------------------------------------- a map that arrives at another slot


def into_conv_weight(source: str) -> onnx.ModelProto:
    """Conv(x, map(w)): the map lies along the weight's input channels."""
    net = Net(f"weight_slot{source}")
    x, w = net.input(["N", 4, 7, 6]), net.input([C, 4, 3, 3], "w")
    net.output(net.node("Conv", [x, apply(net, source, w, 4)]))
    return net.model()


def into_conv_bias() -> onnx.ModelProto:
    net = Net("bias_slot")
    x, b = net.input(["N", 4, 7, 6]), net.input([C], "b")
    b = net.node("Mul", [b, net.const(net.scale(C))])
    net.output(net.node("Conv", [x, net.const(net.weight(C, 4, 3, 3)), b]))
    return net.model()


def into_gemm_slot(slot: str) -> onnx.ModelProto:
    """The map arrives as B or as C of a Gemm."""
    net = Net(f"gemm_slot{slot}")
    x = net.input([4, 4])
    y = net.node("Mul", [net.input([4, 4], "y"), net.const(net.scale(4))])
    a = net.const(net.weight(4, 4))
    inputs = {"b": [x, y], "b_constant_a": [a, y], "c": [x, a, y], "both": [y, y]}[slot]
    net.output(net.node("Gemm", inputs, alpha=0.5, beta=1.5))
    return net.model()


def into_matmul_both() -> onnx.ModelProto:
    net = Net("matmul_both")
    y = net.bn(net.input([4, 4]), 4)
    net.output(net.node("MatMul", [y, y]))
    return net.model()


def into_bn_parameter() -> onnx.ModelProto:
    net, y = first_conv("bn_parameter")
    s = net.node("Mul", [net.input([C], "s"), net.const(net.scale(C))])
    rest = [net.const(v) for v in (net.shift(C), net.shift(C), net.scale(C) ** 2)]
    net.output(net.node("BatchNormalization", [y, s, *rest]))
    return net.model()


def into_reshape_both() -> onnx.ModelProto:
    """A map read by a Reshape as data and, cast to integers, as its target."""
    net = Net("reshape_both")
    y = net.node("Mul", [net.input([2]), net.const(np.array([2.0, 2.0]))])
    shape = net.node("Cast", [net.node("Sub", [y, y])], to=TensorProto.INT64)
    shape = net.node("Add", [shape, net.ints(2, 1)])
    net.output(net.node("Reshape", [y, shape]), shape=[2, 1])
    return net.model()


def gemm_dynamic_c(place: str) -> onnx.ModelProto:
    net = Net(f"dynamic_c{place}")
    x, c = net.input(["N", 4]), net.input([5], "c")
    x = net.bn(x, 4) if place == "above" else x
    y = net.node("Gemm", [x, net.const(net.weight(4, 5)), c])
    net.output(net.bn(y, 5) if place == "below" else y)
    return net.model()


# ------------------------------------------------------------------ old operator sets


def old_mul(attributes: dict[str, Any], shape: tuple[int, ...]) -> onnx.ModelProto:
    """Opset 6: broadcasting is asked for, and starts at ``axis``."""
    net = Net(f"old_mul{attributes}{shape}", 6)
    y = net.conv(net.input([2, 4, 8, 8]), 4, C)
    net.output(net.node("Mul", [y, net.const(net.rng.uniform(0.5, 2, shape))], **attributes))
    return net.model()


def old_bn(*, is_test: int) -> onnx.ModelProto:
    """Opset 6: without is_test it normalises by the batch."""
    net = Net(f"old_bn{is_test}", 6)
    y = net.conv(net.input([2, 4, 8, 8]), 4, C)
    net.output(net.bn(y, C, is_test=is_test), shape=[2, C, 6, 6])
    return net.model()


def old_gemm() -> onnx.ModelProto:
    net = Net("old_gemm", 6)
    c = net.const(net.shift(5))
    y = net.node("Gemm", [net.input([3, 4]), net.const(net.weight(4, 5)), c], broadcast=1)
    net.output(net.node("Mul", [y, net.const(net.scale(5))], broadcast=1))
    return net.model()


# --------------------------------------------------------------- shapes and broadcasting


def ones_of_higher_rank(rank: int, shape: tuple[int, ...]) -> onnx.ModelProto:
    """A constant of ones-shape with more axes than the value lengthens its shape."""
    net = Net(f"ones{rank}{shape}")
    if rank == 4:
        y = net.conv(net.input(["N", 4, 7, 6]), 4, C)
    else:
        y = net.node("Gemm", [net.input(["N", 4]), net.const(net.weight(4, C))])
    net.output(net.node("Mul", [y, net.const(np.full(shape, 0.7))]))
    return net.model()


def size_zero_constant() -> onnx.ModelProto:
    """[0] against size 1 makes an empty result."""
    net = Net("size_zero")
    y = net.conv(net.input([2, 4, 5, 3]), 4, C)
    net.output(net.node("Mul", [y, net.const(np.zeros((0,)))]))
    return net.model()


def same_pads_that_vanish(*, dynamic: bool) -> onnx.ModelProto:
    """SAME_UPPER, kernel 2, stride 2: pads only odd sizes."""
    net = Net(f"vanish{dynamic}")
    x = net.input(["N", 4, "H", "W"] if dynamic else ["N", 4, 8, 6])
    y = apply(net, "sub_mul_add", x, 4)
    net.output(net.conv(y, 4, C, kernel=(2, 2), strides=[2, 2], auto_pad="SAME_UPPER"))
    return net.model()


def squeezed_channel(*, scalar: bool) -> onnx.ModelProto:
    """The only channel is squeezed away; axis 1 is the height from there on."""
    net = Net(f"squeezed{scalar}")
    y = net.conv(net.input(["N", 4, 7, 6]), 4, 1)
    y = net.node("Squeeze", [y, net.ints(1)])
    net.output(apply(net, "scalar_mul_add" if scalar else "mul_add", y, 5, 3))
    return net.model()


def single_channel_down() -> onnx.ModelProto:
    net = Net("single_down")
    y = net.bn(net.input(["N", 1, 6]), 1)
    y = net.node("Squeeze", [y, net.ints(1)])
    net.output(net.node("Gemm", [y, net.const(net.weight(6, 5))]))
    return net.model()


def flatten_pixel() -> onnx.ModelProto:
    net = Net("flatten_pixel")
    y = net.conv(net.input(["N", 4, 3, 3]), 4, C)
    net.output(net.bn(net.node("Flatten", [y]), C))
    return net.model()


def flatten_second_axis() -> onnx.ModelProto:
    """Flatten(axis=2) merges batch and channels; a [N·C, 1] map is along both."""
    net = Net("flatten2")
    y = net.conv(net.input([2, 4, 5, 5]), 4, 3)
    y = net.node("Flatten", [y], axis=2)
    net.output(net.node("Mul", [y, net.const(net.scale(6).reshape(6, 1))]))
    return net.model()


def bias_map_before_bn() -> onnx.ModelProto:
    """Conv → Add of a whole picture → BN."""
    net, y = first_conv("bias_map")
    y = net.node("Add", [y, net.const(net.rng.standard_normal((C, 5, 4)))])
    net.output(net.bn(y, C))
    return net.model()


def position_embedding(source: str) -> onnx.ModelProto:
    """MatMul → Add of a constant along two axes → map along the last."""
    net = Net(f"position{source}")
    y = net.node("MatMul", [net.input(["N", 3, 4]), net.const(net.weight(4, 5))])
    y = net.node("Add", [y, net.const(net.rng.standard_normal((3, 5)))])
    net.output(apply(net, source, y, 5, 3, 2))
    return net.model()


def scalar_bias(source: str) -> onnx.ModelProto:
    """MatMul → Add of one number → map of five: the number must become five."""
    net = Net(f"scalar_bias{source}")
    y = net.node("MatMul", [net.input(["N", 3, 4]), net.const(net.weight(4, 5))])
    y = net.node("Add", [y, net.const(0.3)])
    net.output(apply(net, source, y, 5, 3, 2))
    return net.model()


def matmul_read_twice(which: str) -> onnx.ModelProto:
    net = Net(f"matmul_read{which}")
    y = net.node("MatMul", [net.input(["N", 3, 4]), net.const(net.weight(4, 5))])
    z = net.add(y, 5, 3, 2)
    out = apply(net, "mul_add", z, 5, 3, 2)
    net.output(out, net.node("Relu", [{"product": y, "sum": z}[which]]))
    return net.model()


# --------------------------------------------------------------------- values and scopes


def input_is_output() -> onnx.ModelProto:
    net, y = first_conv("passes_through")
    net.output(net.bn(y, C))
    model = net.model()
    model.graph.output.append(model.graph.input[0])
    return model


def outer_weight_in_branch() -> onnx.ModelProto:
    """A conv inside a branch reads a weight of the outer graph, which others read too."""
    net = Net("outer_weight")
    x, condition = net.input(["N", 4, 7, 6]), net.input([], "condition", "bool")
    w = net.const(net.weight(C, 4, 3, 3), "w")
    plain = net.node("Conv", [x, w])
    branches = []
    for name in ("then", "other"):
        inner = Net(f"outer_weight{name}", prefix=f"{name}_")
        y = inner.bn(inner.node("Conv", [x, w]), C)
        info = helper.make_tensor_value_info(y, FLOAT, None)
        branches.append(
            helper.make_graph(inner.nodes, name, [], [info], inner.initializer_list())
        )
    out = net.node("If", [condition], then_branch=branches[0], else_branch=branches[1])
    net.output(net.node("Sub", [plain, out]), shape=["N", C, 5, 4])
    return net.model()


def shared_bias_only() -> onnx.ModelProto:
    net = Net("shared_bias")
    x, b = net.input(["N", 4, 7, 6]), net.const(net.shift(C), "b")
    y, z = (net.node("Conv", [x, net.const(net.weight(C, 4, 3, 3)), b]) for _ in range(2))
    net.output(net.bn(y, C), z)
    return net.model()


def constant_is_weight_and_map() -> onnx.ModelProto:
    """One [6, 1, 1] tensor scales a conv's result and is a depthwise conv's weight."""
    net, y = first_conv("weight_and_map")
    k = net.const(net.scale(C).reshape(C, 1, 1, 1), "k")
    flat = net.node("Reshape", [k, net.ints(C, 1, 1)])
    y = net.node("Mul", [y, flat])
    net.output(net.node("Conv", [y, k], group=C))
    return net.model()


def dead_site() -> onnx.ModelProto:
    """A map that nobody reads stops no fold and is nobody's concern."""
    net, y = first_conv("dead_site")
    net.mul(y, C)
    net.output(net.bn(y, C))
    return net.model()


def explicit_inference() -> onnx.ModelProto:
    net, y = first_conv("explicit", 15)
    net.output(net.bn(y, C, training_mode=0, momentum=0.5))
    return net.model()


def mixed_parameter_types() -> onnx.ModelProto:
    net, y = first_conv("mixed", 15, "fp16")
    params = [net.const(v) for v in (net.scale(C), net.shift(C))]
    params += [net.const(v, dtype="fp32") for v in (net.shift(C), net.scale(C) ** 2)]
    net.output(net.node("BatchNormalization", [y, *params]))
    return net.model()


def dropout_dynamic_flag() -> onnx.ModelProto:
    net = Net("dropout_flag")
    y = net.conv(net.input(["N", 4, 6, 4]), 4, C)
    y = net.node("Dropout", [y, net.const(0.5), net.input([], "condition", "bool")])
    net.output(net.bn(y, C))
    return net.model()


# ---------------------------------------------------------------------- storage of numbers


def stored_in_fields(dtype: str) -> onnx.ModelProto:
    """Numbers in float_data, int32_data or double_data instead of raw_data."""
    net, y = first_conv(f"fields{dtype}", 22, dtype)
    net.output(net.bn(y, C))
    model = net.model()
    for stored in model.graph.initializer:
        array = numpy_helper.to_array(stored)
        stored.ClearField("raw_data")
        if dtype in {"fp16", "bf16"}:
            stored.int32_data.extend(array.view(np.uint16).reshape(-1).astype(int).tolist())
        else:
            field = {"fp32": stored.float_data, "fp64": stored.double_data}[dtype]
            field.extend(array.reshape(-1).tolist())
    return model


def zero_divisor() -> onnx.ModelProto:
    net, y = first_conv("zero_divisor")
    k = net.scale(C)
    k[3] = 0
    net.output(net.node("Div", [y, net.const(k.reshape(C, 1, 1))]))
    return net.model()


def tf_style() -> onnx.ModelProto:
    """x·(gamma·rsqrt) + (beta - mean·gamma·rsqrt), all computed by nodes."""
    net, y = first_conv("tf")
    gamma, beta, mean = (
        net.const(f(C).reshape(1, C, 1, 1)) for f in (net.scale, net.shift, net.shift)
    )
    var = net.const(net.rng.uniform(0.3, 2, (1, C, 1, 1)))
    root = net.node(
        "Reciprocal", [net.node("Sqrt", [net.node("Add", [var, net.const(1e-3)])])]
    )
    factor = net.node("Mul", [root, gamma])
    shift = net.node("Sub", [beta, net.node("Mul", [mean, factor])])
    net.output(net.node("Add", [net.node("Mul", [y, factor]), shift]))
    return net.model()


def pow_style() -> onnx.ModelProto:
    """(x - mean) · Pow(var + eps, -0.5), opset 13."""
    net, y = first_conv("pow", 13)
    var = net.const(net.rng.uniform(0.3, 2, (C, 1, 1)))
    factor = net.node("Pow", [net.node("Add", [var, net.const(1e-3)]), net.const(-0.5)])
    y = net.node("Sub", [y, net.const(net.shift(C).reshape(C, 1, 1))])
    net.output(net.node("Mul", [y, factor]))
    return net.model()


def range_style() -> onnx.ModelProto:
    net, y = first_conv("range")
    steps = net.node("Range", [net.const(v, dtype="int64") for v in (1, C + 1, 1)])
    steps = net.node("Cast", [steps], to=FLOAT)
    net.output(net.node("Mul", [y, net.node("Unsqueeze", [steps, net.ints(1, 2)])]))
    return net.model()


def batch_computed_norm() -> onnx.ModelProto:
    """Mean and variance computed from x: an instance norm in disguise."""
    net, y = first_conv("disguise")
    mean = net.node("ReduceMean", [y], axes=[2, 3])
    centred = net.node("Sub", [y, mean])
    var = net.node("ReduceMean", [net.node("Mul", [centred, centred])], axes=[2, 3])
    root = net.node("Sqrt", [net.node("Add", [var, net.const(1e-3)])])
    net.output(net.mul(net.node("Div", [centred, root]), C))
    return net.model()


def fused_conv() -> onnx.ModelProto:
    """com.microsoft::FusedConv applies its Relu before the BatchNormalization sees it."""
    net = Net("fused_conv")
    w = net.const(net.weight(C, 4, 3, 3))
    x = net.input(["N", 4, 7, 6])
    y = net.node("FusedConv", [x, w], domain="com.microsoft", activation="Relu")
    net.output(net.bn(y, C), shape=["N", C, 5, 4])
    return net.model()


def cast_narrow(order: str) -> onnx.ModelProto:
    """x / 1e6 → Cast to fp16 → Conv: past the Cast, x itself would overflow fp16."""
    net = Net(f"narrow{order}")
    x = net.input(["N", 4, 7, 6])
    if order == "down":
        x = net.node("Mul", [x, net.const(1e-6)])
    x = net.node("Cast", [x], to=TensorProto.FLOAT16)
    net.dtype = net.param = "fp16"
    y = net.conv(x, 4, C)
    net.output(y)
    return net.model()


def _slot_cases() -> list[Case]:
    return [
        *(
            stays(f"guards/slot/conv_weight/{s}", partial(into_conv_weight, s))
            for s in ("mul", "bn", "scalar_mul", "add")
        ),
        stays("guards/slot/conv_bias", into_conv_bias),
        *(
            stays(f"guards/slot/gemm/{s}", partial(into_gemm_slot, s))
            for s in ("b", "b_constant_a", "c", "both")
        ),
        stays("guards/slot/matmul_both", into_matmul_both, 1),
        stays("guards/slot/bn_parameter", into_bn_parameter, None),
        stays("guards/slot/reshape_both", into_reshape_both),
        stays("guards/slot/dynamic_c/below", partial(gemm_dynamic_c, "below"), 1),
        stays("guards/slot/dynamic_c/above", partial(gemm_dynamic_c, "above"), 1),
    ]


def _old_cases() -> list[Case]:
    asks = {"broadcast": 1}
    return [
        stays("guards/opset6/mul_axis_1", partial(old_mul, asks | {"axis": 1}, (C,))),
        stays("guards/opset6/mul_last_axis", partial(old_mul, asks, (C,))),
        stays("guards/opset6/mul_two_axes", partial(old_mul, asks | {"axis": 1}, (C, 6))),
        stays("guards/opset6/bn_training", partial(old_bn, is_test=0), untouched=True),
        folds("guards/opset6/bn_test", partial(old_bn, is_test=1)),
        stays("guards/opset6/gemm", old_gemm),
    ]


def _shape_cases() -> list[Case]:
    return [
        stays(
            "guards/axis/ones_rank5",
            partial(ones_of_higher_rank, 4, (1, 1, 1, 1, 1)),
            1,
            untouched=True,
        ),
        stays(
            "guards/axis/ones_rank3",
            partial(ones_of_higher_rank, 2, (1, 1, 1)),
            1,
            untouched=True,
        ),
        folds("guards/axis/ones_rank4", partial(ones_of_higher_rank, 4, (1, 1, 1, 1)), 0),
        stays("guards/axis/size_zero", size_zero_constant, untouched=True),
        folds("guards/same_pads/static", partial(same_pads_that_vanish, dynamic=False), 1),
        folds("guards/same_pads/dynamic", partial(same_pads_that_vanish, dynamic=True), 1),
        folds("guards/squeezed_channel/scalar", partial(squeezed_channel, scalar=True), 0),
        stays("guards/squeezed_channel/height", partial(squeezed_channel, scalar=False), 2),
        folds("carriers/single_channel_down", single_channel_down, 0),
        folds("carriers/flatten_pixel", flatten_pixel, 0),
        stays("guards/axis/flatten_2", flatten_second_axis, 1),
        folds("guards/axis/bias_map", bias_map_before_bn, scope="issue3"),
        folds("guards/position/mul", partial(position_embedding, "mul"), scope="issue3"),
        folds("guards/position/both", partial(position_embedding, "mul_add"), scope="issue3"),
        folds("linear/scalar_bias/mul", partial(scalar_bias, "mul"), 1),
        folds("linear/scalar_bias/mul_add", partial(scalar_bias, "mul_add"), 1),
        stays("guards/matmul_read/sum", partial(matmul_read_twice, "sum"), 3),
        folds("guards/matmul_read/product", partial(matmul_read_twice, "product"), 2),
    ]


def _value_cases() -> list[Case]:
    return [
        folds("guards/input_is_output", input_is_output, 0),
        folds("guards/outer_weight_in_branch", outer_weight_in_branch, None),
        folds("guards/shared_bias_only", shared_bias_only, 0),
        folds("guards/weight_and_map", constant_is_weight_and_map, 0),
        folds("guards/dead_site", dead_site, None),
        folds("guards/explicit_inference", explicit_inference, 0),
        folds("guards/mixed_parameter_types", mixed_parameter_types, 0),
        stays("guards/dropout_flag", dropout_dynamic_flag, 1, untouched=True, ort=False),
        *(
            folds(f"constants/fields/{d}", partial(stored_in_fields, d), 0)
            for d in ("fp16", "bf16", "fp32", "fp64")
        ),
        stays("guards/number/zero_divisor", zero_divisor, 1, untouched=True, ort=False),
        folds("direct/spelled/tf", tf_style, 0),
        folds("direct/spelled/pow", pow_style, 0),
        folds("constants/range", range_style, 0),
        stays("guards/disguised_instance_norm", batch_computed_norm, None),
        stays("guards/foreign/fused_conv", fused_conv, 1, untouched=True),
        stays("guards/cast_narrow/down", partial(cast_narrow, "down"), 1),
    ]


def cases() -> list[Case]:
    return [*_slot_cases(), *_old_cases(), *_shape_cases(), *_value_cases()]
