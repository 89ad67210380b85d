"""Reasons that were false or could not be understood, and what was refused by them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import bnfold
from bnfold.records import Refusal
from tests.battery import judge
from tests.battery.graphs import Net
from tests.proving import assert_proved, with_larger_weights
from tests.small import operators


def refusals(net: Net) -> list[Refusal]:
    model = net.model(infer=True)
    result = bnfold.fold(model, verify=False)
    assert judge.wrong_outputs(model, result.to_proto()) == []
    return list(result.report.refusals)


def said(net: Net) -> list[str]:
    return [f"{one.code}: {one.why}" for one in refusals(net)]


def test_copies_of_one_value_that_want_different_maps() -> None:
    """It was said that the Concat needs the value as it is: both copies want a map."""
    net = Net("copies")
    y = net.conv(net.input([1, 4, 5, 5]), 4, 4)
    net.output(net.bn(net.node("Concat", [y, y], axis=1), 8))
    (one,) = refusals(net)
    assert one.code == "maps-differ"
    assert "several times, each with another map" in one.why


def test_readers_that_want_different_maps() -> None:
    net = Net("two readers")
    y = net.conv(net.input([1, 4, 5, 5]), 4, 4)
    both = [net.node("Tanh", [net.bn(y, 4)]) for _ in range(2)]
    net.output(*both)
    assert any("maps-differ" in one or "shared-value" in one for one in said(net))


@pytest.mark.parametrize(("shape", "words"), [([4], "1 axis"), ([2, 3, 4], "3 axes")])
def test_a_product_without_an_addend_says_what_is_no_matrix(
    shape: list[int | str], words: str
) -> None:
    """A vector was called a stack of matrices."""
    net = Net("no addend")
    y = net.node("MatMul", [net.input(shape), net.const(net.weight(4, 5))])
    net.output(net.node("Add", [y, net.const(net.shift(5))]))
    (one,) = said(net)
    assert one.endswith(f"multiplies two matrices: its data has {words}")


def test_a_constant_that_repeats_an_axis_is_not_called_a_second_value() -> None:
    net = Net("grows")
    x = net.node("Relu", [net.input([1, 1, 3, 3])])
    y = net.node("Mul", [x, net.const(net.scale(4).reshape(4, 1, 1))])
    net.output(net.bn(y, 4))
    found = said(net)
    assert not any("two values" in one for one in found)
    assert (
        "needs-scale-only: a shift cannot pass its constant: its constant repeats"
        in " ".join(found)
    )


def test_an_empty_constant_does_not_vary() -> None:
    net = Net("empty")
    x = net.node("Relu", [net.input([1, 0, 3, 3])])
    net.output(net.node("Mul", [x, net.const(np.ones((0, 1, 1), np.float32))]))
    assert said(net) == ["wrong-shape: its constant of shape [0, 1, 1] has no elements"]


def test_a_constant_of_more_axes_says_so() -> None:
    net = Net("more axes")
    x = net.node("Relu", [net.input([4])])
    net.output(net.node("Add", [x, net.const(net.weight(2, 3, 4))]))
    assert said(net) == [
        "changes-shape: its constant has 3 axes, the value 1 axis: the result gets new ones"
    ]


def test_what_is_said_of_a_batch_normalization_does_not_contradict_itself() -> None:
    net = Net("norm")
    net.output(net.bn(net.conv(net.input([1, 4, 5, 5]), 4, 4), 4))
    (norm,) = bnfold.fold(net.model(), verify=False).report.normalisations
    assert norm.can_fold.startswith("All of it:")
    assert norm.cannot_fold == ""


# ------------------------------------------------------------------------------- Einsum


def einsums(equation: str, shape: list[int | str], *weight: int) -> onnx.ModelProto:
    """A Mul along the last axis in front of an Einsum, and one behind it."""
    net = Net(equation)
    x = net.node("Relu", [net.input(shape)])
    front = net.node("Mul", [x, net.const(net.scale(int(shape[-1])))])
    held = [net.const(net.weight(*weight))] if weight else []
    y = net.node("Einsum", [front, *held], equation=equation)
    last = net.const(net.scale(weight[-1])) if weight else net.const(np.float32(0.5))
    net.output(net.node("Mul", [y, last]))
    return net.model(infer=True)


@pytest.mark.parametrize(
    ("equation", "shape"),
    [
        ("...i,ij->...j", [2, 3, 4]),
        ("... i, ij", [2, 4]),
        ("a...i,ij->...aj", [2, 3, 2, 4]),
        ("...i,ij->...j", [4]),
    ],
)
def test_an_ellipsis_stands_for_the_axes_that_have_no_letter(
    equation: str, shape: list[int | str]
) -> None:
    model = einsums(equation, shape, 4, 5)
    result = bnfold.fold(model, verify=False, certificate=True)
    folded = result.to_proto()
    assert judge.wrong_outputs(model, folded) == []
    assert operators(folded) == ["Relu", "Einsum"]
    assert_proved(model, result, with_larger_weights(folded))


@pytest.mark.parametrize("equation", ["abc->acb", "cab", "a...->...a", "...ab->...ba"])
def test_an_einsum_of_one_operand_is_a_transpose(equation: str) -> None:
    shape = np.einsum(equation, np.zeros((1, 4, 5))).shape
    for axis, size in enumerate(shape):
        one = Net(f"{equation} {axis}")
        z = one.conv(one.input([1, 3, 7]), 3, 4, kernel=(3,))
        z = one.node("Einsum", [z], equation=equation)
        tail = [size, *[1] * (len(shape) - axis - 1)]
        z = one.node("Mul", [z, one.const(one.scale(size).reshape(tail))])
        z = one.node("Add", [z, one.const(one.shift(size).reshape(tail))])
        one.output(z)
        full = one.model(infer=True)
        result = bnfold.fold(full, verify=False, certificate=True)
        folded = result.to_proto()
        assert judge.wrong_outputs(full, folded) == []
        if size != 5:  # what varies along the places no Conv can take
            assert operators(folded) == ["Conv", "Einsum"], (axis, shape)
            assert_proved(full, result, with_larger_weights(folded))


@pytest.mark.parametrize(
    ("equation", "words"),
    [
        ("ab->a", "it sums over axes"),
        ("aa->a", "a diagonal"),
        ("a...,...b->ab...", "broadcasts"),
    ],
)
def test_an_einsum_that_is_refused_says_why(equation: str, words: str) -> None:
    net = Net(equation)
    x = net.node("Relu", [net.input([4, 4])])
    more = [net.const(net.weight(4, 4))] if "," in equation else []
    y = net.node("Einsum", [x, *more], equation=equation)
    net.output(net.node("Mul", [y, net.const(net.scale(4))]))
    assert any(words in one for one in said(net))
