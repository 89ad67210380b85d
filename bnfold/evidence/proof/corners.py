"""Numbers and branches that usual draws do not meet: ties, zeros, thresholds, other bodies.

A proof by drawn numbers holds for functions that are known everywhere once they are known
almost everywhere. A comparison is none: ``>`` and ``>=`` are the same for every number that is
drawn at random, and behind a Relu half of all numbers are equal. So where nodes that are no
affine operators are others, not only their constants, zeros are drawn, equal numbers, and the
very constants that either side compares with. Where only such a constant is another, numbers
between the two are drawn: not the constants themselves, for a factor that moved into one is
rounded, and a number that meets it falls to either side. And where data decide which body
runs, each is made to run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.evidence.proof.comparer import Comparer, Pair
from bnfold.evidence.proof.extents import Sizes
from bnfold.evidence.proof.impulses import keeps_affine
from bnfold.evidence.proof.sides import CannotEvaluateError, Segment, Side
from bnfold.evidence.proof.storage import MORE_NUDGES, Trial
from bnfold.evidence.reference.control import forced_branches
from bnfold.model.attributes import int_attr
from bnfold.model.graphs import subgraphs_of

Array = NDArray[Any]

_FEW_NUMBERS: Final = 64
"""Constants of more elements are no thresholds."""

_APART: Final = 2.0**-18
"""Numbers that are nearer, relative to themselves, may be one number, rounded to float32."""

_MOST_MARKS: Final = 256
_DRAWS: Final = 3
_USUAL: Final = 4
"""So many numbers drawn at random are among those that are drawn again and again."""

_PATTERNS: Final = 6
"""Ways through bodies: all first branches, all second ones, and mixtures."""

_GRID: Final = frozenset(
    {"QuantizeLinear", "DynamicQuantizeLinear", "Round", "Floor", "Ceil", "Mod", "Cast"}
)
"""Steps of arithmetic: a number computed of their constants lies on a tie, where a factor that
was rounded moves it to either side."""

_FLOATS: Final = frozenset({ir.AttributeType.FLOAT, ir.AttributeType.FLOATS})


class Corner(NamedTuple):
    """One kind of numbers, or one way through bodies.

    Attributes:
        trials: Both results, each time.
        what: In words.
    """

    trials: list[Trial]
    what: str


class _Marks(NamedTuple):
    """Numbers at which something may happen.

    Attributes:
        between: Numbers between two constants.
        at: The constants themselves; None where a right fold may have rounded them.
    """

    between: list[float]
    at: list[float] | None


def corners(comparer: Comparer, pair: Pair, sizes: Sizes) -> Iterator[Corner]:
    """Evaluate both segments where usual numbers do not take them; nothing where they do.

    Raises:
        CannotEvaluateError: Where what differs cannot be seen by any numbers.
    """
    unseen = _unseen(pair)
    if unseen:
        raise CannotEvaluateError(unseen)
    marks = _marks(comparer, pair)
    if marks is not None:
        yield from _at(comparer, pair, sizes, marks)
    for pattern in range(_patterns(pair)):
        yield from _evaluated(comparer, pair, sizes, forced_branches(pattern), "another body")


def _evaluated(
    comparer: Comparer,
    pair: Pair,
    sizes: Sizes,
    way: AbstractContextManager[None],
    what: str,
    feeds: Mapping[str, Array] | None = None,
) -> Iterator[Corner]:
    """Evaluate; a body that cannot run with what it is given is none that ever runs."""
    try:
        with way:
            if feeds is None:
                yield Corner(comparer.trials(pair, sizes), what)
            else:
                yield Corner([_finite(comparer.trial(pair, feeds, MORE_NUDGES))], what)
    except CannotEvaluateError:
        return


def _at(comparer: Comparer, pair: Pair, sizes: Sizes, marks: _Marks) -> Iterator[Corner]:
    shapes = comparer.shapes(pair, sizes)
    usual = comparer.trials(pair, sizes)[0].feeds
    rng = np.random.default_rng((comparer.seed, len(marks.between), len(shapes)))
    # Apart: at a constant that nudges move they make noise, and not between two of them.
    kinds = [one for one in marks if one is not None]
    for numbers in kinds * _DRAWS:
        pool = np.array([0.0, *numbers, *rng.standard_normal(_USUAL)])
        drawn = {name: rng.choice(pool, shape) for name, shape in shapes.items()}
        own = {name: x for name, x in drawn.items() if usual[name].dtype == np.float64}
        feeds = {**usual, **own}
        yield from _evaluated(comparer, pair, sizes, nullcontext(), "ties", feeds)


def _finite(trial: Trial) -> Trial:
    """Return a trial in which what is no number on either side is none that differs.

    Zeros are drawn here, also for what is divided by: no fold is asked what it makes of these.
    """
    sides = [trial.original, trial.folded, *trial.nudged]
    if any(one.shape != trial.original.shape or one.dtype != np.float64 for one in sides):
        return trial
    usable = np.logical_and.reduce([np.isfinite(one) for one in sides])
    original, folded, *nudged = (np.where(usable, one, 0.0) for one in sides)
    return trial._replace(original=original, folded=folded, nudged=nudged)


def _marks(comparer: Comparer, pair: Pair) -> _Marks | None:
    """Return the numbers at which something may happen; None where nothing is looked for."""
    edited = comparer.edited(pair)
    one, two = set(pair.original.nodes), comparer
    bent = [
        node
        for node in edited
        if not keeps_affine(node, two.original if node in one else two.folded)
    ]
    if not bent:
        return None
    anew = [node for node in bent if _is_other_in_kind(comparer, node)]
    numbers = sorted(
        {*_numbers(pair.original, comparer.original), *_numbers(pair.folded, comparer.folded)}
    )
    between = [(a + b) / 2 for a, b in pairwise(numbers) if b - a > _APART * max(-a, b)]
    if any(node.op_type in _GRID for segment in pair[:2] for node in segment.nodes):
        return _Marks([], None) if anew else None
    return _Marks(between, numbers if anew else None)


def _is_other_in_kind(comparer: Comparer, node: ir.Node) -> bool:
    """Return whether a node differs in more than numbers from that of the other model."""
    if not comparer.has_twin(node):
        return True
    held = [
        {
            key: repr(one.value)
            for key, one in twin.attributes.items()
            if one.type not in _FLOATS
        }
        for twin in comparer.both(node)
    ]
    return held[0] != held[1]


def _numbers(segment: Segment, side: Side) -> Iterator[float]:
    found = 0
    for node in segment.nodes:
        arrays = [
            np.asarray(one.value, np.float64)
            for one in node.attributes.values()
            if one.type in _FLOATS
        ]
        for value in node.inputs:
            tensor = None if value is None else value.const_value
            if (
                value is not None
                and tensor is not None
                and tensor.size <= _FEW_NUMBERS
                and tensor.dtype.is_floating_point()
            ):
                arrays.append(np.asarray(side.constant(value), np.float64))
        for array in arrays:
            for number in array.reshape(-1):
                if math.isfinite(number) and found < _MOST_MARKS:
                    found += 1
                    yield float(number)


def _patterns(pair: Pair) -> int:
    """Return how many ways through bodies are tried: mixtures where both meet as many."""
    counts = [list(_controls(segment)) for segment in pair[:2]]
    if not any(counts):
        return 0
    ifs = [sum(node.op_type == "If" for node in found) for found in counts]
    return _PATTERNS if ifs[0] == ifs[1] > 1 else 2


def _controls(segment: Segment) -> Iterator[ir.Node]:
    waiting = list(segment.nodes)
    while waiting:
        node = waiting.pop()
        bodies = list(subgraphs_of(node))
        if bodies and node.op_type in ("If", "Loop"):
            yield node
        waiting.extend(inner for body in bodies for inner in body)


def _unseen(pair: Pair) -> str:
    """Say what of the folded segment no float64 evaluation shows; empty if nothing is.

    Between floats a Cast rounds, and that is left out of the comparison; to integers it may
    wrap. A TopK that does not sort may give any order.
    """
    before, after = (_casts(segment) for segment in pair[:2])
    new = after - before
    if new:
        names = ", ".join(sorted(ir.DataType(one).name.lower() for one in new))
        return f"it casts to {names}, and the original does not: only a run can tell"
    if _unsorted(pair.folded) > _unsorted(pair.original):
        return "its TopK does not sort, and that of the original does: only a run can tell"
    return ""


def _casts(segment: Segment) -> set[int]:
    return {int_attr(node, "to", 0) for node in segment.nodes if node.op_type == "Cast"}


def _unsorted(segment: Segment) -> int:
    return sum(
        node.op_type == "TopK" and not int_attr(node, "sorted", 1) for node in segment.nodes
    )
