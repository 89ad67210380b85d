"""Parallel branches and linear behind linear: drawn sums, blocks of real nets, refusals."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bnfold
from tests.battery import judge
from tests.battery.graphs import Net
from tests.battery.parallel import BLOCKS

INTEGERS = st.integers(0, 2**20)


def fold_exactly(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold, and require the same function, a valid graph and nothing left to do."""
    folded = bnfold.fold(model, verify=False).to_proto()
    assert judge.wrong_outputs(model, folded) == []
    assert judge.newly_invalid(model, folded) == ""
    assert judge.duplicate_names(folded) == []
    assert judge.interface(folded) == judge.interface(model)
    assert bnfold.fold(folded, verify=False).report.steps == ()
    return folded


def kinds(model: onnx.ModelProto) -> dict[str, int]:
    return {k: n for k, n in judge._kinds(model.graph).items() if k != "Constant"}


def work(model: onnx.ModelProto) -> int:
    """Elements of all weights of convolutions: multiply-adds for one place."""
    sizes = {t.name: int(np.prod(t.dims)) for t in model.graph.initializer}
    return sum(sizes[n.input[1]] for n in model.graph.node if n.op_type == "Conv")


def join(draw, net: Net, terms: list[str]) -> str:
    """A drawn tree of Add, Sub and Sum over ``terms``."""
    terms = list(terms)
    while len(terms) > 1:
        op = draw(st.sampled_from(["Add", "Add", "Sub", "Sum"]))
        count = min(len(terms), draw(st.integers(2, 3))) if op == "Sum" else 2
        picked = [terms.pop(draw(st.integers(0, len(terms) - 1))) for _ in range(count)]
        terms.append(net.node(op, picked))
    return terms[0]


@st.composite
def conv_sums(draw) -> onnx.ModelProto:
    """Convolutions of one value with drawn kernels, dilations, groups and uneven pads."""
    rank = draw(st.integers(1, 3))
    dtype = draw(st.sampled_from(["fp32", "fp32", "fp16", "bf16", "fp64"]))
    net = Net(f"sum{draw(INTEGERS)}", dtype=dtype)
    size = [7, 6, 5][:rank]
    x = net.node("Relu", [net.input([2, 4, *size])])
    stride = draw(st.sampled_from([1, 1, 2]))
    kinds = ["conv", "conv", "bn", "x", "mul", "other"] if stride == 1 else ["conv"]
    drawn = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=3))
    return _close(draw, net, [_term(draw, net, x, k, rank, stride) for k in ["conv", *drawn]])


def _term(draw, net: Net, x: str, kind: str, rank: int, stride: int) -> str:
    if kind == "conv":
        kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
        dilations = [draw(st.integers(1, 2)) for _ in range(rank)]
        total = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
        front = [draw(st.integers(0, t)) for t in total]
        return net.conv(
            x,
            4,
            4,
            kernel=kernel,
            dilations=dilations,
            strides=[stride] * rank,
            pads=[*front, *(t - f for t, f in zip(total, front, strict=True))],
            groups=draw(st.sampled_from([1, 1, 2, 4])),
            bias=draw(st.sampled_from([True, False, None])),
        )
    if kind == "bn":
        return net.bn(x, 4)
    if kind == "mul":
        return net.add(net.mul(x, 4, rank + 2), 4, rank + 2)
    return x if kind == "x" else net.node("Tanh", [x])


def _close(draw, net: Net, terms: list[str]) -> onnx.ModelProto:
    y = join(draw, net, terms)
    net.output(net.node("Relu", [y]) if draw(st.booleans()) else y)
    return net.model()


@given(conv_sums())
def test_drawn_sums_of_convolutions(model):
    folded = fold_exactly(model)
    assert work(folded) <= work(model)
    assert judge.node_count(folded) <= judge.node_count(model)


@st.composite
def product_sums(draw) -> onnx.ModelProto:
    net = Net(f"products{draw(INTEGERS)}", dtype=draw(st.sampled_from(["fp32", "fp64"])))
    rank = draw(st.integers(2, 3))
    x = net.node("Relu", [net.input([2, 3, 4][3 - rank :])])
    names = ["matmul", "biased", "x", "site", "left", "other"]
    names += ["gemm", "gemm"] if rank == 2 else []
    drawn = draw(st.lists(st.sampled_from(names), min_size=1, max_size=4))
    return _close(draw, net, [_factor(draw, net, x, kind, rank) for kind in drawn])


def _factor(draw, net: Net, x: str, kind: str, rank: int) -> str:
    if kind in ("matmul", "biased"):
        y = net.node("MatMul", [x, net.const(net.weight(4, 4))])
        return net.add(y, 4, rank, rank - 1) if kind == "biased" else y
    if kind == "left":
        return net.node("MatMul", [net.const(net.weight(3, 3)), x])
    if kind == "gemm":
        flags = {
            "alpha": draw(st.sampled_from([1.0, 0.5])),
            "beta": draw(st.sampled_from([1.0, -2.0])),
            "transB": draw(st.integers(0, 1)),
        }
        inputs = [x, net.const(net.weight(4, 4))]
        if draw(st.booleans()):
            inputs.append(net.const(net.shift(draw(st.sampled_from([1, 4])))))
        return net.node("Gemm", inputs, **flags)
    if kind == "site":
        return net.add(net.mul(x, 4, rank, rank - 1), 4, rank, rank - 1)
    return x if kind == "x" else net.node("Tanh", [x])


@given(product_sums())
def test_drawn_sums_of_products(model):
    folded = fold_exactly(model)
    assert judge.node_count(folded) <= judge.node_count(model)


@st.composite
def rows(draw) -> onnx.ModelProto:
    """Two convolutions in a row with drawn kernels, groups, strides and pads."""
    rank = draw(st.integers(1, 2))
    net = Net(f"row{draw(INTEGERS)}")
    y = net.input([2, 4, *[15, 14][:rank]])
    middle = draw(st.sampled_from([4, 8]))
    for c_in, c_out in ((4, middle), (middle, 4)):
        kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
        y = net.conv(
            y,
            c_in,
            c_out,
            kernel=kernel,
            dilations=[draw(st.integers(1, 2)) for _ in range(rank)],
            strides=[draw(st.integers(1, 2)) for _ in range(rank)],
            pads=[draw(st.integers(0, min(k, 2) - 1)) for k in kernel * 2],
            groups=draw(st.sampled_from([1, 1, 2, 4])),
            bias=draw(st.sampled_from([True, False, None])),
        )
    net.output(y)
    return net.model()


@given(rows())
def test_drawn_rows_of_convolutions(model):
    folded = fold_exactly(model)
    assert work(folded) <= work(model)


@pytest.mark.parametrize(("first", "second", "merged"), [(2, 3, False), (8, 3, True)])
def test_products_in_a_row_only_where_that_is_no_dearer(first, second, merged):
    net = Net(f"lora{first}")
    y = net.node("MatMul", [net.input(["N", 5, 6]), net.const(net.weight(6, first))])
    net.output(net.node("MatMul", [y, net.const(net.weight(first, second * 2))]))
    assert kinds(fold_exactly(net.model())) == {"MatMul": 1 if merged else 2}


def test_gemms_in_a_row():
    net = Net("gemms")
    x = net.input(["N", 6])
    y = net.node("Gemm", [x, net.const(net.weight(6, 6)), net.const(net.shift(6))], alpha=0.5)
    w, c = net.const(net.weight(4, 6)), net.const(net.shift(4))
    net.output(net.node("Gemm", [y, w, c], transB=1, beta=2.0))
    assert kinds(fold_exactly(net.model())) == {"Gemm": 1}


@pytest.mark.parametrize("name", sorted(BLOCKS))
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_blocks_become_their_deploy_form(name, dtype):
    build, expected = BLOCKS[name]
    assert kinds(fold_exactly(build(dtype))) == expected


# ---------------------------------------------------------------------------- refusals


def two_convs(**changes) -> tuple[Net, str, str, str]:
    net = Net("refusals")
    x = net.node("Relu", [net.input(["N", 4, 7, 6])])
    a = net.conv(x, 4, 4, pads=[1, 1, 1, 1])
    b = net.conv(x, 4, 4, **({"kernel": (1, 1)} | changes))
    return net, x, a, b


def test_a_dense_kernel_is_not_made_of_a_depthwise_one():
    net = Net("dearer")
    x = net.node("Relu", [net.input(["N", 4, 7, 6])])
    dw = net.conv(x, 4, 4, groups=4, pads=[1, 1, 1, 1])
    net.output(net.node("Add", [dw, net.conv(x, 4, 4, kernel=(1, 1))]))
    model = net.model()
    assert work(model) < 4 * 4 * 9
    assert kinds(fold_exactly(model))["Conv"] == 2


def test_a_cross_is_not_made_a_square():
    net = Net("cross")
    x = net.node("Relu", [net.input(["N", 4, 7, 6])])
    row = net.conv(x, 4, 4, kernel=(1, 3), pads=[0, 1, 0, 1])
    column = net.conv(x, 4, 4, kernel=(3, 1), pads=[1, 0, 1, 0])
    net.output(net.node("Sum", [row, column, x]))
    folded = fold_exactly(net.model())
    assert kinds(folded)["Conv"] == 2
    (total,) = (node for node in folded.graph.node if node.op_type == "Sum")
    assert len(total.input) == 2


def test_a_branch_that_is_read_elsewhere_stays():
    net, _, a, b = two_convs()
    net.output(net.node("Add", [a, b]), net.node("Tanh", [b]))
    folded = fold_exactly(net.model())
    assert kinds(folded)["Conv"] == 2


def test_branches_that_are_results_stay():
    net, _, a, b = two_convs()
    net.output(net.node("Add", [a, b]), a, b)
    assert kinds(fold_exactly(net.model()))["Conv"] == 2


def test_overridable_weights_stay():
    net, _, a, b = two_convs()
    net.output(net.node("Add", [a, b]))
    model = net.model()
    weight = next(n for n in model.graph.node if n.output[0] == b).input[1]
    model.graph.input.append(onnx.helper.make_tensor_value_info(weight, 1, [4, 4, 1, 1]))
    assert bnfold.fold(model, verify=False).report.steps == ()


@pytest.mark.parametrize("options", [{"skip": ("Add",)}, {"only": ("Mul",)}])
def test_selection_is_respected(options):
    net, _, a, b = two_convs()
    net.output(net.node("Add", [a, b]))
    assert bnfold.fold(net.model(), verify=False, **options).report.steps == ()


def test_shared_weights_are_cloned():
    net = Net("shared")
    x = net.node("Relu", [net.input(["N", 4, 7, 6])])
    w = net.const(net.weight(4, 4, 3, 3))
    y = net.node("Add", [net.conv(x, 4, 4, weight=w, pads=[1] * 4), x])
    net.output(net.conv(net.node("Tanh", [y]), 4, 4, weight=w))
    model = net.model()
    result = bnfold.fold(model, verify=False)
    assert result.report.cloned_bytes == 4 * 4 * 9 * 4
    assert kinds(fold_exactly(model)) == {"Relu": 1, "Conv": 2, "Tanh": 1}


def test_a_bias_in_front_of_padding_stays():
    for bias, expected in ((True, 2), (False, 1)):
        net = Net("border")
        y = net.conv(net.input(["N", 4, 7, 6]), 4, 4, kernel=(1, 1), bias=bias)
        net.output(net.conv(y, 4, 4, pads=[1, 1, 1, 1]))
        assert kinds(fold_exactly(net.model()))["Conv"] == expected


def test_a_plain_residual_is_no_line_in_the_report():
    net = Net("residual")
    x = net.input(["N", 4, 7, 6])
    y = net.conv(net.node("Relu", [net.conv(x, 4, 4, pads=[1] * 4)]), 4, 4, pads=[1] * 4)
    net.output(net.node("Add", [x, y]))
    report = bnfold.fold(net.model(), verify=False).report
    assert (report.steps, report.stays) == ((), ())


def test_a_sum_that_nothing_reads_is_left_alone():
    """With it the convolution that took the other branch left the graph: the fold crashed."""
    net = Net("unread sum")
    x = net.input([2, 4, 5, 5])
    conv = [x, net.const(net.weight(4, 4, 1, 1)), net.const(net.shift(4))]
    net.node("Add", [x, net.node("Conv", conv)])
    net.output(net.node("Tanh", [net.node("Mul", [x, net.const(net.scale(5))])]))
    model = net.model()
    assert judge.wrong_outputs(model, bnfold.fold(model, verify=False).to_proto()) == []
