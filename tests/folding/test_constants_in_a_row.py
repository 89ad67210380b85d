"""Element-wise constants in a row that are no maps of their own become one constant."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

import bnfold
from bnfold.records import Verdict
from tests.battery import judge
from tests.battery.graphs import Net

SIZE = (2, 3, 4, 5)
FULL = SIZE[1:]
FORMS = [(op, place) for op in ("Mul", "Div", "Add", "Sub") for place in (0, 1)]
"""Operators, and which of their operands the constant is."""


def _row(forms, shapes, dtype: str = "fp32", opset: int = 17, ending: str = "Tanh") -> Net:
    net = Net(f"row{forms}{shapes}{dtype}", opset, dtype)
    value = net.input(SIZE)
    for (op, place), shape in zip(forms, shapes, strict=True):
        size = net.rng.uniform(0.5, 2.0, shape)
        constant = net.const(size * np.where(net.rng.random(shape) < 0.5, -1.0, 1.0))
        value = net.node(op, [constant, value] if place == 0 else [value, constant])
    net.output(net.node(ending, [value]))
    return net


def _is_one(first, second) -> bool:
    """Whether two operators are one: of a kind, no constant in front of ``−`` or ``/``."""
    products = [form[0] in ("Mul", "Div") for form in (first, second)]
    if products[0] != products[1] or first in (("Sub", 0), ("Div", 0)):
        return False
    return second != ("Div", 0)


@pytest.mark.parametrize("second", FORMS, ids=str)
@pytest.mark.parametrize("first", FORMS, ids=str)
def test_two_of_a_kind_are_one(first, second):
    model = _row([first, second], [FULL, FULL]).model()
    folded = bnfold.fold(model, verify=False).to_proto()
    assert judge.wrong_outputs(model, folded) == []
    assert len(folded.graph.node) == (2 if _is_one(first, second) else 3)
    assert judge.newly_invalid(model, folded) == ""


@given(
    st.lists(st.sampled_from(FORMS), min_size=2, max_size=4),
    st.data(),
    st.sampled_from(["fp32", "fp32", "fp16", "fp64", "bf16"]),
    st.sampled_from([7, 13, 17, 22]),
)
@settings(max_examples=60)
def test_whatever_constants_stand_in_a_row_the_function_stays(forms, data, dtype, opset):
    opset = 22 if dtype == "bf16" else opset
    shapes = [_part_of(data.draw) for _ in forms]
    model = _row(forms, shapes, dtype, opset).model()
    folded = bnfold.fold(model, verify=False).to_proto()
    assert judge.wrong_outputs(model, folded) == []
    assert judge.newly_invalid(model, folded) == ""
    assert judge.foul_numbers(model, folded) == []
    assert bnfold.fold(folded, verify=False).report.steps == ()


def _part_of(draw) -> tuple[int, ...]:
    """A shape that broadcasts to the value: some axes of it, from the back."""
    whole = SIZE[draw(st.integers(0, len(SIZE))) :]
    return tuple(size if draw(st.booleans()) else 1 for size in whole)


def test_a_long_row_is_one_constant():
    forms = [("Mul", 1), ("Mul", 0), ("Div", 1), ("Mul", 1)]
    folded = bnfold.fold(_row(forms, [FULL] * 4).model(), verify=False).to_proto()
    assert [node.op_type for node in folded.graph.node] == ["Mul", "Tanh"]
    assert len(folded.graph.initializer) == 1


def _ops(net: Net) -> list[str]:
    folded = bnfold.fold(net.model(), verify=False).to_proto()
    return [node.op_type for node in folded.graph.node]


def test_a_value_that_is_read_elsewhere_keeps_both():
    net = _row([("Mul", 1), ("Mul", 1)], [FULL, FULL])
    net.output(net.node("Sigmoid", [net.nodes[0].output[0]]))
    assert _ops(net).count("Mul") == 2


def test_a_constant_that_is_read_elsewhere_keeps_both():
    """The merged one would come on top of it."""
    net = _row([("Mul", 1), ("Mul", 1)], [FULL, FULL])
    net.output(net.node("Add", [net.input(SIZE, "z"), net.nodes[0].input[1]]))
    assert _ops(net).count("Mul") == 2


def test_constants_that_make_a_large_one_stay():
    net = Net("outer")
    x = net.input([1, 300, 300, 2])
    x = net.node("Mul", [x, net.const(net.rng.uniform(0.5, 2, (300, 1, 2)))])
    net.output(net.node("Mul", [x, net.const(net.rng.uniform(0.5, 2, (300, 2)))]))
    assert _ops(net) == ["Mul", "Mul"]


@pytest.mark.parametrize(
    ("dtype", "numbers"),
    [("fp16", (1e3, 1e3)), ("fp16", (1e-3, 1e-3)), ("fp32", (1e30, 1e30))],
)
def test_constants_whose_product_the_type_cannot_hold_stay(dtype, numbers):
    net = Net("range", dtype=dtype)
    x = net.input(SIZE)
    for number in numbers:
        x = net.node("Mul", [x, net.const(number * net.rng.uniform(0.5, 1.5, FULL))])
    net.output(x)
    assert _ops(net) == ["Mul", "Mul"]


def test_a_division_by_zero_stays():
    net = Net("zero")
    zero = net.rng.uniform(0.5, 1.5, FULL)
    zero[0, 0, 0] = 0.0
    x = net.node("Div", [net.input(SIZE), net.const(zero)])
    net.output(net.node("Mul", [x, net.const(net.rng.uniform(0.5, 1.5, FULL))]))
    assert _ops(net) == ["Div", "Mul"]


@pytest.mark.parametrize("ops", [("Mul", "Mul"), ("Mul", "Div"), ("Sub", "Add")], ids="-".join)
@pytest.mark.parametrize("rows", [4, 80])
def test_the_fold_is_proved_and_a_wrong_constant_is_seen(ops, rows):
    """With few elements the certificate has the numbers, with many what they are made of."""
    net = Net("proof")
    x, size = net.input([2, rows, 60]), (rows, 60)
    for op in ops:
        x = net.node(op, [x, net.const(net.rng.uniform(0.5, 2.0, size))])
    net.output(net.node("Tanh", [x]))
    model = net.model()
    result = bnfold.fold(model, verify=False, certificate=True)
    folded, certificate = result.to_proto(), result.certificate
    wrong = _spoiled(folded)
    for claim in (certificate, None):
        verdicts = [
            bnfold.verify(model, one, certificate=claim, run=False).verdict
            for one in (folded, wrong)
        ]
        assert verdicts == [Verdict.PASSED, Verdict.FAILED]


def _spoiled(model: onnx.ModelProto) -> onnx.ModelProto:
    wrong = onnx.ModelProto()
    wrong.CopyFrom(model)
    (tensor,) = wrong.graph.initializer
    array = numpy_helper.to_array(tensor).copy()
    array[1, 7] *= 1.02
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return wrong
