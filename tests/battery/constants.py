"""Where constants may live: every spelling of a constant that a fold must see through."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.battery.graphs import Case, Net, apply, folds, stays

Spelling = Callable[[Net, np.ndarray], str]
C = 6


def _node_value(net: Net, v: np.ndarray) -> str:
    return net.node("Constant", [], value=net.tensor(v, ""))


def _node_floats(net: Net, v: np.ndarray) -> str:
    flat = net.node("Constant", [], value_floats=v.reshape(-1).astype(np.float32).tolist())
    return net.node("Reshape", [flat, net.ints(*v.shape)])


def _node_float(net: Net, v: np.ndarray) -> str:
    """The first entry everywhere."""
    one = net.node("Constant", [], value_float=float(np.float32(v.reshape(-1)[0])))
    return net.node("Expand", [one, net.ints(*v.shape)])


def _identity(net: Net, v: np.ndarray) -> str:
    return net.node("Identity", [net.node("Identity", [net.const(v)])])


def _cast_from_fp16(net: Net, v: np.ndarray) -> str:
    return net.node("Cast", [net.const(v, dtype="fp16")], to=TensorProto.FLOAT)


def _cast_from_int(net: Net, v: np.ndarray) -> str:
    whole = np.sign(v) * np.ceil(np.abs(v) * 2)
    return net.node("Cast", [net.const(whole, dtype="int64")], to=TensorProto.FLOAT)


def _reshape(net: Net, v: np.ndarray) -> str:
    return net.node("Reshape", [net.const(v.reshape(-1)), net.ints(*v.shape)])


def _reshape_minus_one(net: Net, v: np.ndarray) -> str:
    tail = v.shape[1:]
    return net.node("Reshape", [net.const(v.reshape(-1)), net.ints(-1, *tail)])


def _unsqueeze(net: Net, v: np.ndarray) -> str:
    if v.size == v.shape[0]:
        return net.node("Unsqueeze", [net.const(v.reshape(-1)), net.ints(*range(1, v.ndim))])
    return (
        net.node("Unsqueeze", [net.const(v[0]), net.ints(0)]) if len(v) == 1 else net.const(v)
    )


def _squeeze(net: Net, v: np.ndarray) -> str:
    return net.node("Squeeze", [net.const(v[None]), net.ints(0)])


def _transpose(net: Net, v: np.ndarray) -> str:
    perm = list(range(v.ndim))[::-1]
    return net.node("Transpose", [net.const(v.transpose(perm))], perm=perm)


def _slice(net: Net, v: np.ndarray) -> str:
    wide = np.concatenate([v + 3, v, v - 3])
    n = v.shape[0]
    return net.node("Slice", [net.const(wide), net.ints(n), net.ints(2 * n), net.ints(0)])


def _slice_backwards(net: Net, v: np.ndarray) -> str:
    low = np.iinfo(np.int64).min
    return net.node(
        "Slice", [net.const(v[::-1]), net.ints(-1), net.ints(low), net.ints(0), net.ints(-1)]
    )


def _concat(net: Net, v: np.ndarray) -> str:
    return net.node("Concat", [net.const(v[:2]), net.const(v[2:])], axis=0)


def _gather(net: Net, v: np.ndarray) -> str:
    order = net.rng.permutation(v.shape[0])
    shuffled = np.empty_like(v)
    shuffled[order] = v
    return net.node("Gather", [net.const(shuffled), net.ints(*order)], axis=0)


def _arithmetic(net: Net, v: np.ndarray) -> str:
    half = net.node("Mul", [net.const(v), net.const(0.5)])
    return net.node(
        "Neg", [net.node("Sub", [net.const(np.zeros_like(v)), net.node("Add", [half, half])])]
    )


def _exp_log(net: Net, v: np.ndarray) -> str:
    return net.node("Exp", [net.node("Log", [net.const(np.abs(v))])])


def _constant_of_shape(net: Net, v: np.ndarray) -> str:
    fill = numpy_helper.from_array(np.asarray([0.75], np.float32))
    return net.node("ConstantOfShape", [net.ints(*v.shape)], value=fill)


def _split(net: Net, v: np.ndarray) -> str:
    both = net.const(np.concatenate([v, v + 1]))
    return net.nodes_out("Split", [both], [net.fresh("s"), net.fresh("s")], "", {"axis": 0})[0]


def _where(net: Net, v: np.ndarray) -> str:
    take = net.const(np.ones(v.shape, bool), dtype="bool")
    return net.node("Where", [take, net.const(v), net.const(v * 2)])


def _dequantized(net: Net, v: np.ndarray) -> str:
    whole = np.clip(np.round(v * 40), -127, 127)
    return net.node("DequantizeLinear", [net.const(whole, dtype="int8"), net.const(1 / 40)])


SPELLINGS: Final[dict[str, Spelling]] = {
    "initializer": lambda net, v: net.const(v),
    "constant_value": _node_value,
    "constant_floats": _node_floats,
    "constant_float": _node_float,
    "identity": _identity,
    "cast_from_fp16": _cast_from_fp16,
    "cast_from_int": _cast_from_int,
    "reshape": _reshape,
    "reshape_minus_one": _reshape_minus_one,
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    "transpose": _transpose,
    "slice": _slice,
    "slice_backwards": _slice_backwards,
    "concat": _concat,
    "gather": _gather,
    "arithmetic": _arithmetic,
    "exp_log": _exp_log,
    "constant_of_shape": _constant_of_shape,
}
# spelled by operators that the design does not list among those to see through
OPTIONAL: Final[dict[str, Spelling]] = {
    "split": _split,
    "where": _where,
    "dequantized": _dequantized,
}


def spelled_constant(spelling: str, which: str) -> onnx.ModelProto:
    """Conv → Mul → Add, with the weight, the bias or the map spelled that way."""
    say = {**SPELLINGS, **OPTIONAL}[spelling]
    net = Net(f"{spelling}{which}")
    x = net.input(["N", 4, 7, 5])
    values = {
        "weight": net.weight(C, 4, 3, 3),
        "bias": net.shift(C),
        "scale": net.scale(C).reshape(C, 1, 1),
        "shift": net.shift(C).reshape(C, 1, 1),
    }
    k = {n: say(net, v) if n in which else net.const(v) for n, v in values.items()}
    y = net.node("Conv", [x, k["weight"], k["bias"]], pads=[1, 1, 1, 1])
    y = net.node("Mul", [y, k["scale"]])
    net.output(net.node("Add", [y, k["shift"]]))
    return net.model()


def spelled_bn(spelling: str) -> onnx.ModelProto:
    """BatchNormalization with all four parameters spelled that way."""
    net = Net(f"{spelling}bn")
    y = net.conv(net.input(["N", 4, 7, 5]), 4, C)
    values = [net.scale(C), net.shift(C), net.shift(C), net.rng.uniform(0.3, 2.0, C)]
    say = SPELLINGS[spelling]
    net.output(net.node("BatchNormalization", [y, *(say(net, v) for v in values)]))
    return net.model()


def all_constant_nodes(opset: int) -> onnx.ModelProto:
    net = Net(f"nodes{opset}", opset, as_nodes=True)
    y = net.bn(net.conv(net.input(["N", 4, 7, 5]), 4, C), C)
    net.output(net.bn(net.node("Relu", [net.conv(y, C, 3)]), 3))
    return net.model()


def dynamo_bias(opset: int, dtype: str = "fp32") -> onnx.ModelProto:
    """Expand(CastLike(0, x), Shape(W)[0:1]): torch's dynamo exporter, unoptimised."""
    net = Net(f"dynamo{opset}", opset, dtype)
    x = net.input(["N", 4, 7, 5])
    w = net.const(net.weight(C, 4, 3, 3))
    zero = net.node("Constant", [], value=net.tensor(0.0, "", "fp32"))
    zero = net.node("CastLike", [zero, x])
    size = net.node("Shape", [w], start=0, end=1)
    y = net.node("Conv", [x, w, net.node("Expand", [zero, size])], pads=[1, 1, 1, 1])
    net.output(net.bn(y, C))
    return net.model()


def dynamo_bias_by_slice() -> onnx.ModelProto:
    net = Net("dynamo_slice", 13)
    x = net.input(["N", 4, 7, 5])
    w = net.const(net.weight(C, 4, 3, 3))
    size = net.node("Slice", [net.node("Shape", [w]), net.ints(0), net.ints(1)])
    zero = net.node("ConstantOfShape", [size])
    net.output(net.bn(net.node("Conv", [x, w, zero]), C))
    return net.model()


def shape_of_input() -> onnx.ModelProto:
    """A constant expanded to a size that is only known when the model runs."""
    net = Net("dynamic_expand")
    x = net.input(["N", 4, 7, "W"])
    y = net.conv(x, 4, C, pads=[1, 1, 1, 1])
    k = net.node("Expand", [net.const(net.scale(C).reshape(C, 1, 1)), net.node("Shape", [y])])
    net.output(net.node("Mul", [y, k]))
    return net.model()


def shape_of_static_input() -> onnx.ModelProto:
    """The size of the batch is free, the sliced part of the shape is not."""
    net = Net("static_expand")
    x = net.input(["N", C, 7, 5])
    size = net.node("Shape", [x], start=1, end=2)
    bias = net.node("Expand", [net.const(0.3), size])
    w = net.const(net.weight(C, C, 1, 1))
    net.output(net.bn(net.node("Conv", [x, w, bias]), C))
    return net.model()


def ir3() -> onnx.ModelProto:
    net = Net("ir3", 8, ir=3)
    net.output(net.bn(net.conv(net.input(["N", 4, 7, 5]), 4, C), C))
    return net.model()


def overridable(which: str) -> onnx.ModelProto:
    """IR 4: an initializer that is listed as an input is a default, not a constant."""
    net = Net(f"overridable{which}")
    y = net.bn(net.conv(net.input(["N", 4, 7, 5]), 4, C), C)
    net.output(net.node("Relu", [y]))
    model = net.model()
    wanted = {"weight": [0], "bias": [1], "bn": [2], "all": range(6)}[which]
    for index in wanted:
        t = model.graph.initializer[index]
        model.graph.input.append(helper.make_tensor_value_info(t.name, t.data_type, t.dims))
    return model


def initializer_is_output() -> onnx.ModelProto:
    """The weight itself is a result of the model and must keep its value."""
    net = Net("weight_output")
    w = net.const(net.weight(C, 4, 3, 3), "w")
    net.output(net.bn(net.conv(net.input(["N", 4, 7, 5]), 4, C, weight=w), C))
    model = net.model()
    model.graph.output.append(
        helper.make_tensor_value_info("w", TensorProto.FLOAT, [C, 4, 3, 3])
    )
    return model


def sparse_weight(*, coordinates: bool, source: str = "bn") -> onnx.ModelProto:
    net = Net("sparse")
    y = net.conv(net.input(["N", 4, 7, 5]), 4, C)
    net.output(apply(net, source, y, C))
    return _with_sparse_weight(net, coordinates=coordinates)


def sparse_elsewhere() -> onnx.ModelProto:
    """A sparse initializer that has nothing to do with the fold survives it."""
    net = Net("sparse_elsewhere")
    y = net.node("Relu", [net.conv(net.input(["N", 4, 7, 5]), 4, C)])
    net.output(net.bn(net.conv(y, C, 3), 3))
    return _with_sparse_weight(net, coordinates=False)


def _with_sparse_weight(net: Net, *, coordinates: bool) -> onnx.ModelProto:
    """The first weight, mostly zeros and stored as a sparse initializer."""
    model = net.model()
    array = numpy_helper.to_array(model.graph.initializer[0]).copy()
    name = model.graph.initializer[0].name
    flat = np.flatnonzero(net.rng.random(array.size) < 0.3)
    values = numpy_helper.from_array(array.reshape(-1)[flat], name)
    places = np.stack(np.unravel_index(flat, array.shape), 1) if coordinates else flat
    indices = numpy_helper.from_array(places.astype(np.int64), f"{name}_places")
    sparse = helper.make_sparse_tensor(values, indices, array.shape)
    del model.graph.initializer[0]
    model.graph.sparse_initializer.append(sparse)
    return model


def cases() -> list[Case]:
    whole = "weight bias scale shift"
    return [
        *(
            folds(f"constants/{s}/all", partial(spelled_constant, s, whole), 0)
            for s in SPELLINGS
        ),
        *(
            folds(f"constants/{s}/scale", partial(spelled_constant, s, "scale"), 0)
            for s in ("arithmetic", "gather", "constant_of_shape", "cast_from_fp16")
        ),
        *(
            folds(f"constants/{s}/bn", partial(spelled_bn, s), 0)
            for s in ("constant_value", "constant_float", "identity", "slice", "exp_log")
        ),
        *(
            folds(
                f"constants/{s}/{w}",
                partial(spelled_constant, s, w),
                None,
                "operator not listed in the design",
            )
            for s in OPTIONAL
            for w in ("weight", "scale shift")
        ),
        *(
            folds(f"constants/nodes/opset{v}", partial(all_constant_nodes, v), 1)
            for v in (8, 13, 18)
        ),
        *(
            folds(f"constants/dynamo_bias/{v}", partial(dynamo_bias, v), 0)
            for v in (15, 18, 20)
        ),
        folds("constants/dynamo_bias/fp16", partial(dynamo_bias, 18, "fp16"), 0),
        folds("constants/dynamo_bias/slice", dynamo_bias_by_slice, 0),
        stays("constants/shape_of_input", shape_of_input, None, "width is not known"),
        folds("constants/shape_of_static_input", shape_of_static_input, 0),
        folds("constants/ir3", ir3, 0),
        *(
            stays(f"constants/overridable/{w}", partial(overridable, w), 1, untouched=True)
            for w in ("weight", "bias", "bn", "all")
        ),
        folds("constants/initializer_is_output", initializer_is_output, 0),
        folds("constants/sparse/linear", partial(sparse_weight, coordinates=False), None),
        folds(
            "constants/sparse/coordinates",
            partial(sparse_weight, coordinates=True),
            None,
        ),
        folds("constants/sparse/elsewhere", sparse_elsewhere, 0),
    ]
