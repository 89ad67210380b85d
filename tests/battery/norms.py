"""Layer, RMS, group and instance normalisation, as operators and spelled out by exporters."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx

from tests.battery.graphs import Case, Net, apply, folds, stays

C, L = 6, 8
OPERATORS = (
    ("layer", "LayerNormalization", 17),
    ("rms", "RMSNormalization", 23),
    ("instance", "InstanceNormalization", 17),
    ("group18", "GroupNormalization", 18),
    ("group21", "GroupNormalization", 21),
)
_issue3 = {"scope": "issue3"}


def norm(net: Net, x: str, kind: str, *, c: int = C) -> str:
    """The operator over [N, C, …], or over the last axis of size L."""
    if kind in {"LayerNormalization", "RMSNormalization"}:
        inputs = [x, net.const(net.scale(L)), net.const(net.shift(L))]
        return net.node(kind, inputs[: 2 if kind[0] == "R" else 3], epsilon=0.01)
    size, attributes = c, {"epsilon": 0.01}
    if kind == "GroupNormalization":
        attributes["num_groups"] = 3
        size = 3 if net.opset < 21 else c
    inputs = [x, net.const(net.scale(size)), net.const(net.shift(size))]
    return net.node(kind, inputs, **attributes)


def sandwich(kind: str, opset: int, before: str, after: str, dtype: str) -> onnx.ModelProto:
    """conv → map → normalisation → map → conv, the maps along axis 1."""
    net = Net(f"{kind}{before}{after}", opset, dtype)
    y = net.conv(net.input(["N", 4, 6, L]), 4, C, kernel=(1, 1))
    y = apply(net, before, y, C) if before else y
    y = norm(net, y, kind)
    net.shapes[y] = ["N", C, 6, L]
    y = apply(net, after, y, C) if after else y
    net.output(net.conv(y, C, 5, kernel=(1, 1)), shape=["N", 5, 6, L])
    return net.model()


def rows(kind: str, opset: int, after: str) -> onnx.ModelProto:
    """map → normalisation of the last axis → map → MatMul → Add."""
    net = Net(f"rows{kind}{after}", opset)
    y = apply(net, "scalar_mul", net.input(["N", 3, L]), L, 3, 2)
    y = apply(net, after, norm(net, y, kind), L, 3, 2)
    y = net.node("MatMul", [y, net.const(net.weight(L, 5))])
    net.output(net.add(y, 5, 3, 2))
    return net.model()


def exported_group_norm(*, equal: bool, padded: bool, dynamic: bool) -> onnx.ModelProto:
    """Reshape → InstanceNormalization of ones and zeros → Reshape → Mul → Add → Conv."""
    net = Net(f"exported{equal}{padded}{dynamic}")
    x = net.input(["N", C, 6, L])
    y = net.conv(x, C, C, pads=[1, 1, 1, 1])
    size = net.node("Shape", [y]) if dynamic else net.ints(0, C, 6, L)
    y = net.node("Reshape", [y, net.ints(0, 3, -1)])
    y = net.node("InstanceNormalization", [y, net.const(np.ones(3)), net.const(np.zeros(3))])
    y = net.node("Reshape", [y, size])
    for op, values in (("Mul", net.scale(C)), ("Add", net.shift(C))):
        values = np.repeat(values[::2], 2) if equal else values
        y = net.node(op, [y, net.const(values.reshape(C, 1, 1))])
    if padded:
        net.output(net.conv(y, C, 4, pads=[1, 1, 1, 1]))
    else:
        net.output(net.conv(y, C, 4))
    return net.model()


def spelled_layer_norm(*, power: bool, reader: str, axis: int = -1) -> onnx.ModelProto:
    """ReduceMean, Sub, Pow or Mul, ReduceMean, Add, Sqrt, Div, Mul, Add → linear."""
    net = Net(f"spelled{power}{reader}{axis}")
    channels = axis == 1
    x = net.input(["N", C, 6, L] if channels else ["N", 3, L])
    mean = net.node("ReduceMean", [x], axes=[axis])
    d = net.node("Sub", [x, mean])
    square = net.node("Pow", [d, net.const(2.0)]) if power else net.node("Mul", [d, d])
    var = net.node("ReduceMean", [square], axes=[axis])
    root = net.node("Sqrt", [net.node("Add", [var, net.const(1e-3)])])
    y = net.node("Div", [d, root])
    c, rank = (C, 4) if channels else (L, 3)
    y = net.add(net.mul(y, c, rank, 1 if channels else 2), c, rank, 1 if channels else 2)
    if channels:
        y = net.conv(y, C, 4)
    elif reader == "gemm":
        y = net.node("Reshape", [y, net.ints(-1, L)])
        y = net.node("Gemm", [y, net.const(net.weight(L, 5))])
    elif reader == "matmul":
        y = net.add(net.node("MatMul", [y, net.const(net.weight(L, 5))]), 5, 3, 2)
    net.output(y)
    return net.model()


def spelled_rms_norm(*, reciprocal: bool) -> onnx.ModelProto:
    """Pow, ReduceMean, Add, Sqrt, Div (or Reciprocal, Mul), Mul → MatMul."""
    net = Net(f"rms{reciprocal}")
    x = net.input(["N", 3, L])
    var = net.node("ReduceMean", [net.node("Pow", [x, net.const(2.0)])], axes=[-1])
    root = net.node("Sqrt", [net.node("Add", [var, net.const(1e-3)])])
    if reciprocal:
        y = net.node("Mul", [x, net.node("Reciprocal", [root])])
    else:
        y = net.node("Div", [x, root])
    y = net.mul(y, L, 3, 2)
    net.output(net.node("MatMul", [y, net.const(net.weight(L, 5))]))
    return net.model()


def two_norms(kind: str, opset: int) -> onnx.ModelProto:
    """A scalar map and a residual sum between two normalisations."""
    net = Net(f"two{kind}", opset)
    x = net.input(["N", C, 5, L])
    y = apply(net, "scalar_mul_add", norm(net, x, kind), C)
    y = norm(net, net.node("Add", [x, y]), kind)
    net.output(apply(net, "scalar_add", y, C), shape=["N", C, 5, L])
    return net.model()


def statistics_read() -> onnx.ModelProto:
    net = Net("statistics_read")
    y = apply(net, "scalar_add", net.input(["N", 3, L]), L, 3, 2)
    inputs = [y, net.const(net.scale(L)), net.const(net.shift(L))]
    outputs = net.nodes_out("LayerNormalization", inputs, ["y", "mean", "inverse"])
    net.output(*outputs)
    return net.model()


def without_parameters(op: str) -> onnx.ModelProto:
    """MeanVarianceNormalization and LpNormalization: bnfold has no rule for them."""
    net = Net(f"bare{op}")
    y = net.mul(net.conv(net.input(["N", 4, 5, L]), 4, C), C)
    y = net.node(op, [y])
    net.output(net.conv(net.mul(y, C), C, 3))
    return net.model()


def cases() -> list[Case]:
    return [
        *(
            Case(
                f"norms/{name}/{before or 'none'}/{after or 'none'}/{dtype}",
                partial(sandwich, kind, opset, before, after, dtype),
                0,
                **_issue3,
                foldable=bool(before or after),
            )
            for name, kind, opset in OPERATORS
            for before, after in (("", ""), ("mul_add", ""), ("", "mul_add"), ("bn", "bn"))
            for dtype in ("fp32", "fp16")
        ),
        *(
            folds(
                f"norms/{name}/rows/{after}", partial(rows, kind, opset, after), 1, **_issue3
            )
            for name, kind, opset in OPERATORS[:2]
            for after in ("mul", "mul_add", "scalar_mul_add")
        ),
        *(
            folds(
                f"norms/exported_group/{equal}/{padded}/{dynamic}",
                partial(exported_group_norm, equal=equal, padded=padded, dynamic=dynamic),
                0 if (equal and not dynamic) or not padded else 1,
                **_issue3,
            )
            for equal in (True, False)
            for padded in (True, False)
            for dynamic in (True, False)
        ),
        *(
            folds(
                f"norms/spelled_layer/{power}/{reader}",
                partial(spelled_layer_norm, power=power, reader=reader),
                2,  # epsilon, and the Add that took the shift; or epsilon and Gemm
                **_issue3,
            )
            for power in (True, False)
            for reader in ("gemm", "matmul")
        ),
        folds(
            "norms/spelled_layer/channels",
            partial(spelled_layer_norm, power=True, reader="conv", axis=1),
            1,
            **_issue3,
        ),
        *(
            folds(
                f"norms/spelled_rms/{r}", partial(spelled_rms_norm, reciprocal=r), 1, **_issue3
            )
            for r in (True, False)
        ),
        *(
            folds(
                f"norms/two/{name}",
                partial(two_norms, kind, opset),
                2 * (name == "rms"),
                **_issue3,
            )
            for name, kind, opset in OPERATORS
        ),
        stays("norms/statistics_read", statistics_read, 1, **_issue3, untouched=True),
        *(
            folds(f"norms/bare/{op}", partial(without_parameters, op), 0, **_issue3)
            for op in ("MeanVarianceNormalization", "LpNormalization")
        ),
    ]
