"""A source right behind or right before Gemm and MatMul, and sources among themselves."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import onnx

from tests.battery.graphs import SOURCES, Case, Net, apply, folds, spread, stays

C_SHAPES: Final[dict[str, tuple[int, ...] | None]] = {
    "absent": None,
    "scalar": (),
    "size1": (1,),
    "n": (5,),
    "1n": (1, 5),
    "mn": (3, 5),
    "m1": (3, 1),
    "11": (1, 1),
}
GEMMS: Final[dict[str, dict[str, Any]]] = {
    "plain": {},
    "alpha": {"alpha": 0.5},
    "beta": {"beta": 2.5},
    "alpha_beta": {"alpha": -0.25, "beta": 0.5},
    "trans_b": {"transB": 1},
    "trans_a": {"transA": 1},
    "trans_both": {"transA": 1, "transB": 1, "alpha": 1.5, "beta": -2.0},
    "beta_zero": {"beta": 0.0},
}


def _gemm(
    net: Net, x: str, k: int, n: int, c: str, *, empty: bool = False, **attributes: Any
) -> str:
    w = net.weight(n, k) if attributes.get("transB") else net.weight(k, n)
    inputs = [x, net.const(w)]
    shape = C_SHAPES[c]
    if shape is not None:
        inputs.append(net.const(net.rng.uniform(0.3, 1.4, shape)))
    elif empty:
        inputs.append("")
    return net.node("Gemm", inputs, **attributes)


def gemm_below(
    source: str,
    c: str,
    kind: str,
    opset: int = 17,
    dtype: str = "fp32",
    *,
    empty: bool = False,
) -> onnx.ModelProto:
    net = Net(f"{source}{c}{kind}{opset}gemm", opset, dtype)
    attributes = GEMMS[kind]
    rows: int | str = 3 if c in {"mn", "m1"} else "N"
    x = net.input([4, rows] if attributes.get("transA") else [rows, 4])
    y = _gemm(net, x, 4, 5, c, empty=empty, **attributes)
    net.output(apply(net, source, y, 5, 2))
    return net.model()


def gemm_above(
    source: str, c: str, kind: str, opset: int = 17, dtype: str = "fp32"
) -> onnx.ModelProto:
    net = Net(f"{source}{c}{kind}{opset}gemm_above", opset, dtype)
    attributes = GEMMS[kind]
    rows: int | str = 3 if c in {"mn", "m1"} else "N"
    if attributes.get("transA"):
        x = net.input([4, rows])
        y = apply(net, source, x, 4, 2, 0)
    else:
        x = net.input([rows, 4])
        y = apply(net, source, x, 4, 2)
    net.output(_gemm(net, y, 4, 5, c, **attributes))
    return net.model()


def gemm_constant_left(source: str, axis: int, c: str, place: str) -> onnx.ModelProto:
    """W · x: the rows of the result are W's channels, its columns are not."""
    net = Net(f"{source}{axis}{c}{place}constant_left")
    x = net.input([4, 5])
    if place == "above":
        x = apply(net, source, x, (4, 5)[axis], 2, axis)
    inputs = [net.const(net.weight(3, 4)), x]
    shape = C_SHAPES[c]
    if shape is not None:
        inputs.append(net.const(net.rng.uniform(0.3, 1.4, shape)))
    y = net.node("Gemm", inputs, alpha=0.5, beta=1.5)
    if place == "below":
        y = apply(net, source, y, (3, 5)[axis], 2, axis)
    net.output(y)
    return net.model()


def gemm_then_rows(source: str) -> onnx.ModelProto:
    """A map along the rows of x · W: no constant of the Gemm has that axis."""
    net = Net(f"{source}rows")
    y = _gemm(net, net.input([3, 4]), 4, 5, "n")
    net.output(apply(net, source, y, 3, 2, 0))
    return net.model()


def gemm_dynamic(source: str) -> onnx.ModelProto:
    """Both operands computed: only the scale of a scalar map could go anywhere."""
    net = Net(f"{source}dynamic_gemm")
    x, w = net.input(["N", 4]), net.input([4, 5], "w")
    net.output(apply(net, source, net.node("Gemm", [x, w]), 5, 2))
    return net.model()


# MatMul: (name of case) -> input shape, weight shape, weight on the left
MATMULS: Final[dict[str, tuple[tuple[Any, ...], tuple[int, ...], bool]]] = {
    "2d": (("N", 4), (4, 5), False),
    "rank3": (("N", 3, 4), (4, 5), False),
    "rank4": (("N", 2, 3, 4), (4, 5), False),
    "batched_weight": ((2, 3, 4), (2, 4, 5), False),
    "broadcast_weight": (("N", 3, 4), (1, 4, 5), False),
    "weight_adds_rank": ((3, 4), (2, 4, 5), False),
    "left": ((4, 5), (3, 4), True),
    "left_rank3": (("N", 4, 5), (3, 4), True),
    "vector_right": (("N", 3, 4), (4,), False),
    "vector_input": ((4,), (4, 5), False),
}


def _matmul(net: Net, x: str, kind: str) -> tuple[str, int, int]:
    """Return the product, its rank and its channel axis (-1: none)."""
    shape, weight, left = MATMULS[kind]
    w = net.const(net.weight(*weight))
    y = net.node("MatMul", [w, x] if left else [x, w])
    rank = max(len(shape), len(weight)) - (len(weight) == 1) - (len(shape) == 1)
    if len(weight) == 1:
        return y, rank, -1
    return y, rank, rank - 2 if left else rank - 1


def matmul_below(
    source: str, kind: str, *, bias: bool, left_bias: bool = False
) -> onnx.ModelProto:
    net = Net(f"{source}{kind}{bias}matmul")
    y, rank, axis = _matmul(net, net.input(MATMULS[kind][0]), kind)
    c = 3 if MATMULS[kind][2] else 5
    if bias:
        k = net.const(spread(net.shift(c), rank, axis))
        y = net.node("Add", [k, y] if left_bias else [y, k])
    net.output(apply(net, source, y, c, rank, axis))
    return net.model()


def matmul_above(source: str, kind: str, *, bias: bool) -> onnx.ModelProto:
    net = Net(f"{source}{kind}{bias}matmul_above")
    shape, _, left = MATMULS[kind]
    axis = len(shape) - (2 if left else 1)
    x = apply(net, source, net.input(shape), 4, len(shape), axis)
    y, rank, out_axis = _matmul(net, x, kind)
    if bias:
        y = net.add(y, 3 if left else 5, rank, out_axis)
    net.output(y)
    return net.model()


def attention_scale(where: str) -> onnx.ModelProto:
    """softmax(q·kᵀ·s)·v with linear q, k, v: s belongs into one of the weights."""
    net = Net(f"attention{where}")
    x = net.input(["N", 3, 4])
    q, k, v = (net.add(_matmul(net, x, "rank3")[0], 5, 3, 2) for _ in range(3))
    scale = net.const(0.447)
    if where == "q":
        q = net.node("Mul", [q, scale])
    k = net.node("Transpose", [k], perm=[0, 2, 1])
    scores = net.node("MatMul", [q, k])
    if where == "scores":
        scores = net.node("Div", [scores, net.const(2.236)])
    net.output(net.node("MatMul", [net.node("Softmax", [scores], axis=-1), v]))
    return net.model()


def layer_scale() -> onnx.ModelProto:
    net = Net("layer_scale")
    x = net.input(["N", 3, 4])
    y = net.node("MatMul", [x, net.const(net.weight(4, 4))])
    y = net.add(y, 4, 3, 2)
    net.output(net.node("Add", [x, net.mul(y, 4, 3, 2)]))
    return net.model()


def alone(*sources: str, rank: int = 4) -> onnx.ModelProto:
    """Sources with nothing to go into; they may only compose."""
    net = Net("alone" + "".join(sources))
    y = net.input(["N", 4, 5, 5][:rank])
    for source in sources:
        y = apply(net, source, y, 4, rank)
    net.output(y)
    return net.model()


def _gemm_cases() -> list[Case]:
    out = [
        folds(f"linear/gemm_below/{s}", partial(gemm_below, s, "n", "plain"), 0)
        for s in SOURCES
    ]
    out += [
        folds(f"linear/gemm_below/bn/{c}/{k}", partial(gemm_below, "bn", c, k), 0)
        for c in C_SHAPES
        for k in ("plain", "alpha_beta")
    ]
    out += [
        folds(f"linear/gemm_below/{s}/n/{k}", partial(gemm_below, s, "n", k), 0)
        for s in ("bn", "scalar_mul_add")
        for k in GEMMS
        if k not in {"plain", "alpha_beta"}
    ]
    out += [
        folds(
            f"linear/gemm_below/bn/opset{v}",
            partial(gemm_below, "bn", "n", "alpha_beta", v),
            0,
        )
        for v in (7, 9, 11, 13, 21)
    ]
    out += [
        folds(
            "linear/gemm_below/bn/empty_c",
            partial(gemm_below, "bn", "absent", "plain", empty=True),
            0,
        )
    ]
    out += [
        folds(f"linear/gemm_above/{s}", partial(gemm_above, s, "n", "plain"), 0)
        for s in SOURCES
    ]
    out += [
        folds(f"linear/gemm_above/bn/{c}", partial(gemm_above, "bn", c, "alpha_beta"), 0)
        for c in C_SHAPES
    ]
    out += [
        folds(f"linear/gemm_above/mul_add/{k}", partial(gemm_above, "mul_add", "n", k), 0)
        for k in GEMMS
        if k not in {"plain", "beta_zero"}
    ]
    out += [
        folds(f"linear/gemm_{n}/bn/{d}", partial(f, "bn", "n", "alpha_beta", 17, d), 0)
        for n, f in (("below", gemm_below), ("above", gemm_above))
        for d in ("fp16", "bf16", "fp64")
    ]
    return out


def _left_cases() -> list[Case]:
    rows, columns = 0, 1
    return [
        folds(
            "linear/gemm_left/rows_below",
            partial(gemm_constant_left, "mul_add", rows, "m1", "below"),
            0,
        ),
        folds(
            "linear/gemm_left/rows_below_c_absent",
            partial(gemm_constant_left, "mul_add", rows, "absent", "below"),
            0,
        ),
        stays(
            "linear/gemm_left/columns_below",
            partial(gemm_constant_left, "mul", columns, "m1", "below"),
            None,
            "the columns are the input's",
        ),
        stays(
            "linear/gemm_left/bn_below",
            partial(gemm_constant_left, "bn", columns, "n", "below"),
            None,
            "BatchNormalization acts on the columns, which the constant does not have",
        ),
        folds(
            "linear/gemm_left/rows_above",
            partial(gemm_constant_left, "mul", rows, "m1", "above"),
            0,
        ),
        folds(
            "linear/gemm_left/shift_above",
            partial(gemm_constant_left, "mul_add", rows, "mn", "above"),
            0,
        ),
        stays(
            "linear/gemm_left/columns_above",
            partial(gemm_constant_left, "mul", columns, "absent", "above"),
            None,
        ),
        stays("linear/gemm_rows/mul", partial(gemm_then_rows, "mul"), 1),
        stays("linear/gemm_rows/add", partial(gemm_then_rows, "add"), None),
        stays("linear/gemm_dynamic/bn", partial(gemm_dynamic, "bn"), 1),
        stays("linear/gemm_dynamic/mul", partial(gemm_dynamic, "mul"), 1),
        stays("linear/gemm_dynamic/scalar_mul", partial(gemm_dynamic, "scalar_mul"), None),
        stays("linear/gemm_dynamic/add", partial(gemm_dynamic, "add"), None),
    ]


def _matmul_cases() -> list[Case]:
    out = []
    for kind, (_, weight, _) in MATMULS.items():
        vector = len(weight) == 1
        mul, both = ("scalar_mul", "scalar_mul_add") if vector else ("mul", "mul_add")
        out += [
            folds(
                f"linear/matmul/{kind}/{mul}",
                partial(matmul_below, mul, kind, bias=False),
                0,
            ),
            folds(
                f"linear/matmul/{kind}/{both}",
                partial(matmul_below, both, kind, bias=False),
                1,
            ),
        ]
        if not vector:
            out += [
                folds(
                    f"linear/matmul/{kind}/bias_{both}",
                    partial(matmul_below, both, kind, bias=True),
                    1,
                ),
                folds(
                    f"linear/matmul/{kind}/above_mul",
                    partial(matmul_above, "mul", kind, bias=False),
                    0,
                ),
                folds(
                    f"linear/matmul/{kind}/above_mul_add",
                    partial(matmul_above, "mul_add", kind, bias=True),
                    2 if len(weight) == 3 and weight[0] > 1 else 1,
                    "a batched weight turns the shift into a constant along two axes",
                ),
            ]
    return [
        *out,
        folds("linear/matmul/2d/bn", partial(matmul_below, "bn", "2d", bias=False), 0),
        folds("linear/matmul/2d/bias_bn", partial(matmul_below, "bn", "2d", bias=True), 1),
        folds(
            "linear/matmul/2d/left_bias_bn",
            partial(matmul_below, "bn", "2d", bias=True, left_bias=True),
            1,
        ),
        folds("linear/matmul/2d/above_bn", partial(matmul_above, "bn", "2d", bias=True), 1),
        folds(
            "linear/matmul/2d/above_bn_no_bias",
            partial(matmul_above, "bn", "2d", bias=False),
            0,
        ),
        folds(
            "linear/matmul/rank3/bias_scalar_mul",
            partial(matmul_below, "scalar_mul", "rank3", bias=True),
            1,
        ),
        folds("linear/attention/q", partial(attention_scale, "q"), 3),
        folds(
            "linear/attention/scores",
            partial(attention_scale, "scores"),
            None,
            "through a product of computed values",
            "issue3",
        ),
        folds("linear/layer_scale", layer_scale, 1),
    ]


def _alone_cases() -> list[Case]:
    return [
        stays("linear/alone/bn", partial(alone, "bn"), 1, untouched=True),
        stays("linear/alone/mul", partial(alone, "mul"), 1, untouched=True),
        folds("linear/alone/bn_bn", partial(alone, "bn", "bn"), 1),
        folds("linear/alone/mul_mul", partial(alone, "mul", "scalar_mul", "div"), 1),
        folds("linear/alone/add_add", partial(alone, "add", "sub", "scalar_add"), 1),
        folds("linear/alone/long", partial(alone, "mul", "add", "mul", "add"), 2),
        folds("linear/alone/bn_mul_add", partial(alone, "bn", "mul", "add"), 2),
        folds("linear/alone/neg_neg", partial(alone, "neg", "neg"), None, "the identity"),
        folds("linear/alone/bn_rank2", partial(alone, "bn", "mul", rank=2), 2),
    ]


def cases() -> list[Case]:
    return [*_gemm_cases(), *_left_cases(), *_matmul_cases(), *_alone_cases()]
