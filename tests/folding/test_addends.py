"""A constant that differs from row to row goes into the C of the product in front of it."""

from __future__ import annotations

import numpy as np
import pytest

import bnfold
from tests.battery import judge
from tests.battery.graphs import Net
from tests.proving import assert_proved, with_larger_weights
from tests.small import operators


def product(net: Net, kind: str, x: str) -> str:
    """A product [3, 4] · [4, 5], with or without an addend of its own."""
    weight = net.const(net.weight(4, 5))
    if kind == "matmul":
        return net.node("MatMul", [x, weight])
    if kind == "dynamic":
        return net.node("MatMul", [x, net.input([4, 5], "w")])
    held = {"row": net.shift(5), "whole": net.weight(3, 5)}.get(kind)
    more = [] if held is None else [net.const(held)]
    return net.node("Gemm", [x, weight, *more], alpha=0.5, beta=1.0 if more else 2.0)


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("op", ["Add", "Sub"])
@pytest.mark.parametrize("kind", ["bare", "row", "whole", "matmul", "dynamic"])
def test_the_constant_becomes_the_addend(kind: str, op: str, opset: int) -> None:
    net = Net(f"{kind} {op}", opset=opset)
    y = product(net, kind, net.input([3, 4]))
    net.output(net.node(op, [y, net.const(net.weight(3, 5))]))
    model = net.model(infer=True)
    result = bnfold.fold(model, verify=False, certificate=True)
    folded = result.to_proto()
    assert operators(folded) == ["Gemm"]
    assert judge.wrong_outputs(model, folded) == []
    assert judge.newly_invalid(model, folded) == ""
    assert judge.interface(folded) == judge.interface(model)
    assert_proved(model, result, with_larger_weights(folded))
    assert bnfold.fold(folded, verify=False).report.steps == ()


def stays(net: Net) -> None:
    model = net.model(infer=True)
    result = bnfold.fold(model, verify=False)
    assert "Add" in operators(result.to_proto()) or "Sub" in operators(result.to_proto())
    assert judge.wrong_outputs(model, result.to_proto()) == []


def test_an_open_batch_stays() -> None:
    """One row of data would be repeated by the Add, and a Gemm repeats none."""
    net = Net("open")
    y = product(net, "bare", net.input(["N", 4]))
    net.output(net.node("Add", [y, net.const(net.weight(3, 5))]))
    result = bnfold.fold(net.model(), verify=False)
    assert operators(result.to_proto()) == ["Gemm", "Add"]


def test_a_constant_that_repeats_the_row_stays() -> None:
    net = Net("repeats")
    y = product(net, "bare", net.input([1, 4]))
    net.output(net.node("Add", [y, net.const(net.weight(3, 5))]))
    stays(net)


def test_a_product_that_is_subtracted_stays() -> None:
    net = Net("turned")
    y = product(net, "bare", net.input([3, 4]))
    net.output(net.node("Sub", [net.const(net.weight(3, 5)), y]))
    stays(net)


@pytest.mark.parametrize("what", ["product", "constant"])
def test_what_others_read_stays(what: str) -> None:
    net = Net(f"read {what}")
    y = product(net, "bare", net.input([3, 4]))
    constant = net.const(net.weight(3, 5))
    net.output(net.node("Add", [y, constant]))
    net.output(net.node("Tanh", [y if what == "product" else constant]))
    stays(net)


def test_stacked_matrices_stay() -> None:
    net = Net("stacked")
    y = net.node("MatMul", [net.input([2, 3, 4]), net.const(net.weight(4, 5))])
    net.output(net.node("Add", [y, net.const(np.float32(net.weight(3, 5)))]))
    stays(net)
