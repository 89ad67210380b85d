"""Negative scales, gates, sums of many, constants of constants."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx

from tests.battery.graphs import Case, Net, apply, first_conv, folds, spread, stays

C = 6
NEGATIVE = -np.array([0.4, 1.5, 0.8, 1.1, 2.0, 0.6])
MIXED = np.array([0.4, -1.5, 0.8, -1.1, 2.0, -0.6])


def _turn(net: Net, x: str, scale, shift: float | None = None) -> str:
    scale = np.asarray(scale)
    x = net.node("Mul", [x, net.const(spread(scale, 4, 1) if scale.ndim else scale)])
    return x if shift is None else net.node("Add", [x, net.const(shift)])


OPERATORS = {
    "clip": lambda net, x: net.node("Clip", [x, net.const(-0.4), net.const(0.9)]),
    "clip_low": lambda net, x: net.node("Clip", [x, net.const(-0.4)]),
    "clip_high": lambda net, x: net.node("Clip", [x, "", net.const(0.9)]),
    "clip_zero": lambda net, x: net.node("Clip", [x, net.const(0.0)]),
    "reduce_max": lambda net, x: net.node("ReduceMax", [x], axes=[2, 3]),
    "reduce_min": lambda net, x: net.node("ReduceMin", [x], axes=[2, 3]),
    "max": lambda net, x: net.node("Max", [x, net.const(net.rng.normal(size=(C, 1, 1)))]),
    "min": lambda net, x: net.node("Min", [net.const(0.2), x]),
    "prelu": lambda net, x: net.node("PRelu", [x, net.const(np.full((C, 1, 1), 0.25))]),
    "prelu_one": lambda net, x: net.node("PRelu", [x, net.const(np.full((1,), 0.25))]),
    "prelu_each": lambda net, x: net.node(
        "PRelu", [x, net.const(net.rng.uniform(0.1, 1.5, (C, 1, 1)))]
    ),
    "leaky": lambda net, x: net.node("LeakyRelu", [x], alpha=0.3),
    "leaky_default": lambda net, x: net.node("LeakyRelu", [x]),
    "relu": lambda net, x: net.node("Relu", [x]),
    "max_pool": lambda net, x: net.node("MaxPool", [x], kernel_shape=[2, 2]),
    "global_max_pool": lambda net, x: net.node("GlobalMaxPool", [x]),
}
UNIFORM = frozenset({"clip", "clip_low", "clip_high"})
SHIFTS = frozenset({"reduce_max", "reduce_min", "max", "min"}) | UNIFORM
REFUSE = frozenset({"relu", "max_pool", "global_max_pool"})


def behind(kind: str, scale, shift: float | None = None) -> onnx.ModelProto:
    """Conv → operator → negative map."""
    net, y = first_conv(f"behind{kind}")
    net.output(_turn(net, OPERATORS[kind](net, y), scale, shift))
    return net.model()


def in_front(kind: str, scale, shift: float | None = None) -> onnx.ModelProto:
    """Tanh → negative map → operator → Conv."""
    net = Net(f"front{kind}")
    x = net.node("Tanh", [net.input(["N", C, 7, 6])])
    y = OPERATORS[kind](net, _turn(net, x, scale, shift))
    if kind.startswith("reduce"):
        y = net.node("Unsqueeze", [y, net.ints(2, 3)]) if kind == "none" else y
    net.output(net.conv(y, C, 4, kernel=(1, 1)))
    return net.model()


def old_clip(side: str) -> onnx.ModelProto:
    net, y = first_conv(f"old{side}", 7)
    y = _turn(net, y, -0.7, 0.2) if side == "front" else y
    y = net.node("Clip", [y], max=0.5)
    y = _turn(net, y, -0.7, 0.2) if side == "behind" else y
    net.output(net.conv(y, C, 4, kernel=(1, 1)))
    return net.model()


def gate(op: str, source: str) -> onnx.ModelProto:
    net, y = first_conv(f"{op}{source}")
    y = net.node("Relu", [y])
    net.output(net.node(op, [apply(net, source, y, C)]))
    return net.model()


def hard(form: str, opset: int = 11) -> onnx.ModelProto:
    """Add 3 → Clip 0, 6 → division, before or behind a product, or without one."""
    net, y = first_conv(f"hard{form}{opset}", opset)
    gated = net.node("Add", [y, net.const(3.0)])
    if opset < 11:
        gated = net.node("Clip", [gated], min=0.0, max=6.0)
    else:
        gated = net.node("Clip", [gated, net.const(0.0), net.const(6.0)])
    by = ("Mul", 1 / 6) if "mul" in form else ("Div", 6.0)
    if "late" in form:
        gated = net.node("Mul", [y, gated])
    gated = net.node(by[0], [gated, net.const(by[1])])
    if "early" in form:
        gated = net.node("Mul", [gated, y])
    net.output(net.conv(gated, C, 4, pads=[1, 1, 1, 1]) if "conv" in form else gated)
    return net.model()


def softmax(op: str, axis: int, map_axis: int | None, opset: int) -> onnx.ModelProto:
    net = Net(f"{op}{axis}{map_axis}{opset}", opset)
    x = net.node("Tanh", [net.input([2, 3, 4])])
    size = [2, 3, 4]
    k = 0.7 if map_axis is None else spread(net.shift(size[map_axis]), 3, map_axis)
    net.output(net.node(op, [net.node("Add", [x, net.const(k)])], axis=axis))
    return net.model()


def einsum(equation: str, side: str, source: str, axis: int) -> onnx.ModelProto:
    """Letters: n and t are free, c is 4, d is 5, h is 2; the second operand is constant."""
    sizes = {"n": 2, "t": 3, "c": 4, "d": 5, "h": 2}
    net = Net(f"{equation}{side}{source}{axis}")
    left, result = equation.split("->")
    data, inner = left.split(",")
    x = net.node("Tanh", [net.input([sizes[c] for c in data])])
    if side == "below":
        x = apply(net, source, x, sizes[data[axis]], len(data), axis)
    w = net.const(net.weight(*(sizes[c] for c in inner)))
    y = net.node("Einsum", [x, w], equation=equation)
    if side == "above":
        y = apply(net, source, y, sizes[result[axis]], len(result), axis)
    elif side == "below":
        y = net.node("Add", [y, net.const(net.rng.normal(size=[sizes[c] for c in result]))])
    net.output(y)
    return net.model()


def many(op: str, source: str, side: str) -> onnx.ModelProto:
    """Sum or Mean of two convolutions and a constant."""
    net = Net(f"many{op}{source}{side}")
    x = net.input(["N", 4, 7, 6])
    parts = [net.conv(x, 4, C), net.conv(x, 4, C, bias=False)]
    if side == "below":
        parts[0] = net.add(net.node("Relu", [parts[0]]), C)
    y = net.node(op, [*parts, net.const(net.rng.normal(size=(C, 5, 4)))])
    y = apply(net, source, y, C) if side == "above" else net.conv(y, C, 4)
    net.output(y)
    return net.model()


def mapped_constant(op: str) -> onnx.ModelProto:
    """A constant goes through a map before a value meets it."""
    net, y = first_conv(f"mapped{op}")
    k = net.const(net.rng.normal(size=(1, C, 5, 4)))
    k = (
        net.node("Neg", [k])
        if op == "Neg"
        else (
            net.bn(k, C)
            if op == "bn"
            else (net.node(op, [k, net.const(net.scale(C).reshape(C, 1, 1))]))
        )
    )
    net.output(net.node("Max", [y, k]))
    return net.model()


def _case(name: str, build, left: int = 0) -> Case:
    return folds(f"signs/{name}", build, left, scope="issue3")


def _kept(name: str, build, left: int | None = None) -> Case:
    return stays(f"signs/{name}", build, left, scope="issue3")


def _sign_cases() -> list[Case]:
    found: list[Case] = []
    for kind in OPERATORS:
        scale = -0.7 if kind in UNIFORM else NEGATIVE
        keep = _kept if kind in REFUSE else _case
        shift = 0.3 if kind in SHIFTS else None
        found.append(keep(f"behind/{kind}", partial(behind, kind, scale, shift)))
        if not kind.startswith("reduce"):
            found.append(keep(f"front/{kind}", partial(in_front, kind, scale, None)))
        each = _case if kind.startswith("prelu") else _kept
        found.append(each(f"mixed/{kind}", partial(behind, kind, MIXED)))
    return [
        *found,
        *(_case(f"old_clip/{s}", partial(old_clip, s)) for s in ("front", "behind")),
    ]


def cases() -> list[Case]:
    return [
        *_sign_cases(),
        _case("gate/HardSigmoid/uniform", partial(gate, "HardSigmoid", "scalar_mul_add")),
        _kept("gate/HardSigmoid/channels", partial(gate, "HardSigmoid", "add"), 1),
        _case("gate/Softmax/uniform", partial(gate, "Softmax", "scalar_add")),
        *(
            _case(f"hard/{form}/{opset}", partial(hard, form, opset))
            for form in (
                "plain",
                "mul",
                "late",
                "early",
                "late_mul",
                "early_conv",
                "late_conv",
            )
            for opset in (7, 11, 14)
        ),
        *(
            _case(f"{op}/{a}/{m}/{o}", partial(softmax, op, a, m, o))
            for op in ("Softmax", "LogSoftmax")
            for a, m, o in ((-1, 1, 13), (1, 2, 17), (2, None, 17), (1, 0, 11), (2, 1, 11))
        ),
        _kept("Softmax/along", partial(softmax, "Softmax", 1, 1, 17), 1),
        _kept("Softmax/flattened", partial(softmax, "Softmax", 1, 2, 11), 1),
        *(
            _case(
                f"einsum/{e}/{side}/{s}/{a}",
                partial(einsum, e, side, s, a),
                int(side == "below"),  # an Add that varies along all axes ends it
            )
            for e, side, s, a in (
                ("nct,cd->ndt", "below", "mul", 1),
                ("nct,cd->ndt", "below", "mul_add", 1),
                ("nct,cd->ndt", "below", "scalar_mul_add", 1),
                ("nct,cd->ndt", "below", "scalar_mul", 2),
                ("nct,cd->ndt", "above", "mul", 1),
                ("nct,cd->ndt", "above", "scalar_mul", 1),
                ("ntc,hcd->nhtd", "below", "mul", 2),
                ("ntc,hcd->nhtd", "above", "mul", 1),
                ("ntc,hcd->nhtd", "above", "mul", 3),
                ("nhc,hcd->nhd", "below", "scalar_mul", 1),
                ("nct,cd->nd", "below", "mul_add", 1),
            )
        ),
        *(
            _case(f"{op}/{side}/{s}", partial(many, op, s, side))
            for op in ("Sum", "Mean")
            for side, s in (("above", "bn"), ("above", "add"), ("below", "add"))
        ),
        *(
            _kept(f"mapped/{op}", partial(mapped_constant, op), 0)
            for op in ("Mul", "Add", "Sub", "Div", "Neg", "bn")
        ),
    ]
