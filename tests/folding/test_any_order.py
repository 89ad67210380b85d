"""Which of several maps behind one value goes does not hang on the order of nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bnfold
from tests.battery import judge
from tests.battery.graphs import Net
from tests.laws.promise import reordered

SIZE = (1, 3, 4, 2)
SHAPES = [(), (3, 1, 1), (4, 1), (2,), (3, 4, 1), (3, 4, 2)]
"""Constants that are a map, along each axis, and such that vary along several."""
ENDS = ["", "Relu", "Tanh", "MatMul", "ReduceMean"]


def _behind_one_value(
    front: list[tuple[int, ...]],
    rows: list[list[tuple[int, ...]]],
    ends: list[str],
    *,
    signed: bool,
) -> onnx.ModelProto:
    """Draw a value that several rows of constants read: ``x · … → · a · b, · c, …``."""
    net = Net(f"rows{front}{rows}{ends}", 17)

    def scaled(value: str, shape: tuple[int, ...]) -> str:
        constant = net.rng.uniform(0.5, 2.0, shape)
        if signed:
            constant = constant * np.where(net.rng.random(shape) < 0.5, -1.0, 1.0)
        return net.node("Mul", [value, net.const(constant)])

    shared = net.input(SIZE)
    for shape in front:
        shared = scaled(shared, shape)
    for row, end in zip(rows, ends, strict=True):
        value = shared
        for shape in row:
            value = scaled(value, shape)
        if end == "MatMul":
            value = net.node(end, [value, net.const(net.weight(2, 3))])
        elif end:
            value = net.node(end, [value], **({"axes": [3]} if end == "ReduceMean" else {}))
        net.output(value)
    return net.model()


def _kinds(model: onnx.ModelProto) -> Counter[str]:
    folded = bnfold.fold(model, verify=False).to_proto()
    assert judge.wrong_outputs(model, folded) == []
    return Counter(node.op_type for node in folded.graph.node)


def _orders(model: onnx.ModelProto) -> Iterator[onnx.ModelProto]:
    return (reordered(model, np.random.default_rng(seed)) for seed in range(6))


_SHAPE = st.sampled_from(SHAPES)


@given(
    st.sampled_from([[(3, 4, 2)], [(3, 4, 2)], [(3, 1, 1), (3, 4, 2)], [(4, 1)]]),
    st.lists(
        st.tuples(st.lists(_SHAPE, min_size=1, max_size=3), st.sampled_from(ENDS)),
        min_size=2,
        max_size=3,
    ),
    st.booleans(),
)
@settings(max_examples=40)
def test_rows_behind_one_value_fold_alike_in_any_order(front, rows, signed):
    model = _behind_one_value(
        front, [row for row, _ in rows], [end for _, end in rows], signed=signed
    )
    here = _kinds(model)
    for other in _orders(model):
        assert _kinds(other) == here


@pytest.mark.parametrize("first", [0, 1])
def test_a_scale_that_is_one_with_the_next_constant_leaves_the_way_up_to_another(first):
    """``v · a`` and ``v · b · c``: had b gone up, a would take its inverse, and c stay too."""
    rows = [[()], [(3, 1, 1), (2,)]]
    rows = rows[first:] + rows[:first]
    model = _behind_one_value([(3, 4, 2)], rows, ["", ""], signed=True)
    assert _kinds(model) == {"Mul": 2}
