"""The promise of the fold, on drawn graphs and on ONNX's own suite, in plain words and others.

The graphs are those of the campaign: drawn ones of every family, and every operator of the
backend suite of the onnx package with maps and layers around it. `python -m pytest -m thorough
tests/laws/test_any_graph.py` draws thousands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pytest

import bnfold
from benchmarks.campaign import drawn, suite
from benchmarks.campaign.sketch import Case, NoCaseError, Sketch, named
from tests.laws.promise import broken, is_accepted, reordered
from tests.laws.respelling import respelled
from tests.laws.spoiling import spoiled_by

FAMILIES = sorted(drawn.FAMILIES)
SMALL_SIZES = (
    *((2, 0), (2, 1), (1, 1), (2, 0, 8), (2, 3, 0), (2, 1, 5), (2, 0, 4, 4), (2, 3, 0, 4)),
    *((2, 4, 4, 0), (2, 1, 1, 1), (2, 3, 1, 1), (2, 1, 4, 4), (2, 0, 0, 0), (2, 5, 1, 1, 1)),
)
"""Axes without elements, and of one."""


def of_a_family(seed: int) -> Case:
    return drawn.case_of(FAMILIES[seed % len(FAMILIES)], 300_000 + seed // len(FAMILIES))


def of_small_sizes(seed: int) -> Case:
    rng = np.random.default_rng((seed, 99))
    kind = str(rng.choice(drawn.KINDS))
    sketch = Sketch(rng, kind, int(rng.integers(13, 27)))
    try:
        place = drawn.chain(sketch, SMALL_SIZES)
    except (ValueError, ZeroDivisionError) as error:
        raise NoCaseError("no layer has these sizes") from error
    return Case(sketch.model([place]), "small", kind, ({"N": 2, "H": 3, "W": 4, "L": 5},))


def of_the_suite(number: int) -> Case:
    return suite.case_of(number)[1]


Draw = Callable[[int], Case]


def faults(draw: Draw, numbers: Iterable[int]) -> tuple[dict[int, list[str]], int]:
    """Return what is wrong by number, odd ones in other words, and how many were drawn."""
    found: dict[int, list[str]] = {}
    count = 0
    for number in numbers:
        try:
            case = draw(number)
        except NoCaseError:
            continue
        plain = named(case.model)
        other = plain
        if number % 2:
            other = respelled(plain, np.random.default_rng((number, 3)))
        count += is_accepted(other)
        if told := broken(replace(case, model=other), number, plain):
            found[number] = told
    return found, count


@pytest.mark.parametrize(
    ("draw", "numbers", "least"),
    [
        (of_a_family, range(54), 48),
        (of_small_sizes, range(40), 20),
        (of_the_suite, range(0, 2000, 71), 14),
    ],
)
def test_some_graphs(draw, numbers, least):
    found, count = faults(draw, numbers)
    assert found == {}
    assert count >= least


@pytest.mark.thorough
@pytest.mark.parametrize("start", range(0, 6000, 500))
@pytest.mark.parametrize("draw", [of_a_family, of_small_sizes, of_the_suite])
def test_thousands_of_graphs(draw, start):
    found, count = faults(draw, range(start, start + 500))
    assert found == {}
    assert count > 100


# --------------------------------------------------------------- the instrument itself


def a_case() -> Case:
    return next(case for case in map(of_a_family, range(9)) if case.source == "chain")


def test_another_order_is_another_order_of_the_same():
    model = named(a_case().model)
    others = [reordered(model, np.random.default_rng(seed)) for seed in range(8)]
    names = [[node.name for node in other.graph.node] for other in others]
    assert {frozenset(one) for one in names} == {frozenset(n.name for n in model.graph.node)}
    assert all(is_accepted(other) for other in others)


def test_most_models_are_valid_in_other_words_and_every_way_is_taken():
    text = ""
    accepted = 0
    for seed in range(40):
        other = respelled(named(of_a_family(seed).model), np.random.default_rng(seed))
        accepted += is_accepted(other)
        text += str(other)
    assert accepted >= 36
    for word in ("is_it_so", "Whole", "Identity", "again_", '"Constant"'):
        assert word in text
    assert re.search(r'input: ""', text)


def test_a_fold_that_is_wrong_is_noticed(monkeypatch):
    """All weights are a thousandth off, and a second fold writes other bytes."""

    def spoil(proto):
        for tensor in proto.graph.initializer:
            if tensor.data_type == 1 and tensor.raw_data:
                array = np.frombuffer(tensor.raw_data, np.float32) * np.float32(1.001)
                tensor.raw_data = array.tobytes()

    fp32 = next(c for c in map(of_a_family, range(1, 40)) if c.kind == "fp32" and folds(c))
    assert broken(fp32, 0) == []
    monkeypatch.setattr(bnfold, "fold", spoiled_by(spoil))
    assert any("bounds of rounding off" in one for one in broken(fp32, 0))


def folds(case: Case) -> bool:
    return bool(bnfold.fold(case.model, verify=False, **case.options).report.steps)
