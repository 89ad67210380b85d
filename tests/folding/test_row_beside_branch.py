"""A row that is cheaper apart, beside a branch that holds it: W + s·A·B, as in LoRA."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

import bnfold
from tests.battery import judge
from tests.battery.graphs import Net
from tests.proving import assert_proved, with_larger_weights
from tests.small import operators


def matmuls(net: Net, x: str) -> tuple[str, str]:
    whole = net.node("MatMul", [x, net.const(net.weight(6, 8))])
    low = net.node("MatMul", [x, net.const(net.weight(6, 2))])
    low = net.node("MatMul", [low, net.const(net.weight(2, 8))])
    return whole, net.node("Mul", [low, net.const(np.float32(0.5))])


def gemms(net: Net, x: str) -> tuple[str, str]:
    whole = net.node(
        "Gemm", [x, net.const(net.weight(8, 6)), net.const(net.shift(8))], transB=1
    )
    low = net.node("Gemm", [x, net.const(net.weight(6, 2)), net.const(net.shift(2))])
    return whole, net.node("Gemm", [low, net.const(net.weight(2, 8))], alpha=0.5)


def three_in_a_row(net: Net, x: str) -> tuple[str, str]:
    whole = net.node("MatMul", [x, net.const(net.weight(6, 8))])
    for rows, columns in ((6, 1), (1, 2), (2, 8)):
        x = net.node("MatMul", [x, net.const(net.weight(rows, columns))])
    return whole, x


def points(net: Net, x: str) -> tuple[str, str]:
    whole = net.conv(x, 4, 6, kernel=(1, 1))
    low = net.conv(x, 4, 2, kernel=(1, 1))
    return whole, net.conv(low, 2, 6, kernel=(1, 1))


def windows(net: Net, x: str) -> tuple[str, str]:
    whole = net.conv(x, 4, 6, pads=[1] * 4)
    low = net.conv(x, 4, 2, pads=[1] * 4)
    return whole, net.mul(net.conv(low, 2, 6, kernel=(1, 1)), 6)


Branches = Callable[[Net, str], tuple[str, str]]
CASES: dict[str, tuple[Branches, list[int | str], str]] = {
    "stacked": (matmuls, ["N", 5, 6], "MatMul"),
    "matrices": (matmuls, [3, 6], "MatMul"),
    "gemms": (gemms, ["N", 6], "Gemm"),
    "three in a row": (three_in_a_row, [3, 5, 6], "MatMul"),
    "1x1": (points, [1, 4, 5, 5], "Conv"),
    "3x3 and 1x1": (windows, ["N", 4, 5, 6], "Conv"),
}


@pytest.mark.parametrize("sum_of", ["Add", "Sub"])
@pytest.mark.parametrize("name", sorted(CASES))
def test_a_row_joins_the_branch_beside_it(name: str, sum_of: str) -> None:
    build, shape, left = CASES[name]
    net = Net(f"{name} {sum_of}")
    net.output(net.node(sum_of, build(net, net.input(shape))))
    model = net.model()
    result = bnfold.fold(model, verify=False, certificate=True)
    folded = result.to_proto()
    assert operators(folded) == [left]
    assert judge.wrong_outputs(model, folded) == []
    assert judge.newly_invalid(model, folded) == ""
    assert_proved(model, result, with_larger_weights(folded))
    assert bnfold.fold(folded, verify=False).report.steps == ()


def stays(net: Net, count: int, **options: object) -> None:
    model = net.model()
    folded = bnfold.fold(model, verify=False, **options).to_proto()
    assert len([op for op in operators(folded) if op in {"MatMul", "Conv"}]) == count
    assert judge.wrong_outputs(model, folded) == []


def test_a_row_whose_middle_is_read_elsewhere_stays() -> None:
    net = Net("middle")
    x = net.input([3, 5, 6])
    whole, scaled = matmuls(net, x)
    middle = net.nodes[-2].input[0]
    net.output(net.node("Add", [whole, scaled]), net.node("Tanh", [middle]))
    stays(net, 3)


def test_a_row_stays_where_the_sum_would_be_dearer() -> None:
    """A depthwise branch that took a dense row would become dense itself."""
    net = Net("dearer")
    x = net.input([1, 16, 5, 5])
    whole = net.conv(x, 16, 16, groups=16, pads=[1] * 4)
    low = net.conv(net.conv(x, 16, 1, kernel=(1, 1)), 1, 16, kernel=(1, 1))
    net.output(net.node("Add", [whole, low]))
    stays(net, 3)


def test_a_row_behind_whose_bias_zeros_are_padded_stays() -> None:
    net = Net("border")
    x = net.input([1, 4, 5, 5])
    whole = net.conv(x, 4, 4, pads=[1] * 4)
    low = net.conv(net.conv(x, 4, 1, kernel=(1, 1)), 1, 4, pads=[1] * 4)
    net.output(net.node("Add", [whole, low]))
    stays(net, 3)


def test_a_row_with_a_bend_between_stays() -> None:
    net = Net("bend")
    x = net.input([3, 5, 6])
    low = net.node("Relu", [net.node("MatMul", [x, net.const(net.weight(6, 2))])])
    low = net.node("MatMul", [low, net.const(net.weight(2, 8))])
    net.output(net.node("Add", [net.node("MatMul", [x, net.const(net.weight(6, 8))]), low]))
    stays(net, 3)


def test_a_skipped_row_stays() -> None:
    net = Net("skipped")
    net.output(net.node("Add", matmuls(net, net.input([3, 5, 6]))))
    first_low = [n for n in net.nodes if n.op_type == "MatMul"][1].name
    stays(net, 3, skip=(first_low,))


def test_a_weight_that_others_read_too_is_cloned_and_counted() -> None:
    net = Net("tied")
    x = net.input([3, 5, 6])
    shared = net.const(net.weight(6, 6))
    low = net.node("MatMul", [x, net.const(net.weight(6, 1))])
    low = net.node("MatMul", [low, net.const(net.weight(1, 6))])
    y = net.node("Add", [net.node("MatMul", [x, shared]), low])
    net.output(net.node("MatMul", [net.node("Tanh", [y]), shared]))
    result = bnfold.fold(net.model(), verify=False)
    assert result.report.cloned_bytes == 6 * 6 * 4
    assert judge.wrong_outputs(net.model(), result.to_proto()) == []


def test_inspect_lists_the_merge() -> None:
    net = Net("listed")
    net.output(net.node("Add", gemms(net, net.input([3, 6]))))
    model: onnx.ModelProto = net.model()
    (step,) = bnfold.fold(model, verify=False).report.steps
    assert (step.rule, step.move) == ("Add", "parallel branches")
    assert len(step.site) == 3
