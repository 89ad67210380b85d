"""Numbers as the graph's own types give them: rounded after every operator.

One operator of IEEE 754 evaluated in float64 and rounded once gives what the type itself
gives: 53 ≥ 2·24 + 2 bits make the double rounding of + − · ÷ √ harmless (Figueroa, When is
double rounding innocuous?, 1995), for float16 and bfloat16 the more so.

Runtimes differ in the last bits of everything else. Such results carry along what another
runtime may have in their place; an operator that is not continuous and would answer
otherwise for one of these cannot be decided.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from bnfold.expression import round_once
from bnfold.model.continuity import Precision

Array = NDArray[Any]
Run = Callable[[Sequence[Array | None]], Sequence[Array]]
"""Computes one operator; floats are float64."""

OTHERS: Final = 6
"""So many variants of a result are carried: all up, all down, and signs drawn at random."""
_ULPS: Final = 8.0
"""Largest error of float32 functions seen on ONNX Runtime: 5.2 units, in Tanh."""
_UNITS: Final = 4.0
"""The same in units of the last place of 1, for approximations: Sigmoid is off by 2."""
_MARGIN: Final = 2.0
"""Six variants show less than the largest deviation that is possible."""
_ALL_SIGNS: Final = 3
"""Inputs in so great a number are moved in every combination of directions."""
_NARROW: Final = frozenset({"float16", "float32", "bfloat16", "float64"})


class UndecidedError(Exception):
    """Runtimes may differ in what a constant is; says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Native:
    """A constant in its own type.

    Attributes:
        elements: Its numbers.
        others: What runtimes may have in their place; empty if they agree.
    """

    elements: Array
    others: tuple[Array, ...] = ()

    def other(self, place: int) -> Array:
        """Return one of the variants; the numbers themselves where there are none."""
        return self.others[place] if self.others else self.elements


def widened(elements: Array) -> Array:
    """Return floats in float64, everything else as it is."""
    is_float = elements.dtype.name in _NARROW
    return elements.astype(np.float64, copy=False) if is_float else elements


def last_place(dtype: np.dtype[Any]) -> float:
    """Return the distance from 1 to the next number of a floating type."""
    return float(ml_dtypes.finfo(dtype).eps)  # type: ignore[no-untyped-call]  # it has no types


def as_type(result: Array, dtype: np.dtype[Any]) -> Array:
    """Round a float64 result to a type; what is not float64 is final already."""
    return round_once(result, dtype) if result.dtype == np.float64 else result


def stepwise(
    run: Run, inputs: Sequence[Native | None], dtype: np.dtype[Any], precision: Precision
) -> list[Native]:
    """Compute an operator that is continuous, or a rounding, in a type of its own.

    Args:
        run: Computes it in float64.
        inputs: Its inputs.
        dtype: The floating type of its results.
        precision: How well runtimes agree on it.
    """
    nominal = run([_wide(x, None) for x in inputs])
    rounded = [as_type(result, dtype) for result in nominal]
    uncertain = any(x is not None and x.others for x in inputs)
    if precision is Precision.EXACT and not uncertain:
        return [Native(result) for result in rounded]
    reach = _reach(run, inputs, nominal, dtype, precision)
    variants: list[list[Array]] = [[] for _ in nominal]
    for place in range(OTHERS):
        moved = run([_wide(x, place) for x in inputs]) if uncertain else nominal
        for kept, result, by in zip(variants, moved, reach, strict=True):
            shifted = result + _signs(place, result.shape) * by if by is not None else result
            kept.append(as_type(np.asarray(shifted), dtype))
    pairs = zip(rounded, variants, strict=True)
    return [Native(result, real(result, others)) for result, others in pairs]


def _wide(x: Native | None, place: int | None) -> Array | None:
    if x is None:
        return None
    return widened(x.elements if place is None else x.other(place))


def real(nominal: Array, others: Sequence[Array]) -> tuple[Array, ...]:
    """Return variants; none if they are all the same."""
    return tuple(others) if any(differ(nominal, other) for other in others) else ()


def differ(one: Array, other: Array) -> bool:
    """Return whether two arrays differ; NaN is equal to itself."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return True
    return not np.array_equal(widened(one), widened(other), equal_nan=one.dtype.kind in "fV")


def _signs(place: int, shape: tuple[int, ...]) -> Array:
    if place < 2:
        return np.full(shape, 1.0 - 2.0 * place)
    return np.random.default_rng(place).choice([-1.0, 1.0], shape)


def _reach(
    run: Run,
    inputs: Sequence[Native | None],
    nominal: Sequence[Array],
    dtype: np.dtype[Any],
    precision: Precision,
) -> list[Array | None]:
    """Return how far results may be off in units of numbers; None where they are exact."""
    if precision is Precision.EXACT:
        return [None for _ in nominal]
    eps = last_place(dtype)
    if precision in _SUMS:
        sizes = run([None if x is None else _magnitude(x.elements) for x in inputs])
        terms = [_terms(inputs, size, precision) for size in sizes]
        if _adds_integers(inputs, nominal, sizes, terms, eps):
            return [None for _ in nominal]
        return [_of_sums(size, n, eps) for size, n in zip(sizes, terms, strict=True)]
    if precision is Precision.LOOSE:
        return [_of_largest(result) for result in nominal]
    units = _UNITS if precision is Precision.ABSOLUTE else 0.0
    return [
        eps * (_ULPS * np.abs(result) + units) if result.dtype == np.float64 else None
        for result in nominal
    ]


_SUMS: Final = (Precision.REDUCTION, Precision.PRODUCT, Precision.WINDOW)
_OF_LARGEST: Final = 2.0**-10


def _of_largest(result: Array) -> Array | None:
    """Whatever a normalisation is off by, it is less than this part of its largest result."""
    if result.dtype != np.float64:
        return None
    return np.full(result.shape, _OF_LARGEST * np.abs(result).max(initial=0.0))


def _magnitude(elements: Array) -> Array:
    wide = widened(elements)
    return np.abs(wide) if wide.dtype == np.float64 else wide


def _terms(inputs: Sequence[Native | None], result: Array, precision: Precision) -> int:
    """Bound the number of terms of every sum."""
    if precision is Precision.PRODUCT:
        return max((max(x.elements.shape, default=1) for x in inputs if x), default=1)
    if precision is Precision.WINDOW:
        return max((x.elements.size for x in inputs if x), default=1)
    whole = sum(x.elements.size for x in inputs if x is not None)
    return -(-whole // max(result.size, 1))


def _adds_integers(
    inputs: Sequence[Native | None],
    nominal: Sequence[Array],
    sizes: Sequence[Array],
    terms: Sequence[int],
    eps: float,
) -> bool:
    """Return whether no order of adding rounds: small integers, and a mean of 2ⁿ of them."""
    arrays = [*(widened(x.elements) for x in inputs if x is not None), *nominal]
    if not all(bool((array == np.rint(array)).all()) for array in arrays):
        return False
    small = all(bool((np.abs(size) <= 1 / eps).all()) for size in sizes)
    return small and all(count & (count - 1) == 0 for count in terms)


def _of_sums(size: Array, terms: int, eps: float) -> Array | None:
    """A sum of n terms is off by (n − 1) eps/2 · Σ |term| at most (Higham 2002, 4.2)."""
    return eps * max(terms, 1) * np.abs(size) if size.dtype == np.float64 else None


def decided(run: Run, inputs: Sequence[Native | None], what: str, slack: float) -> list[Array]:
    """Compute an operator that is not continuous.

    Args:
        run: Computes it in float64.
        inputs: Its inputs.
        what: The operator and its name, for the reason.
        slack: Floats may differ by so much, relative to the largest, and be no step.

    Raises:
        UndecidedError: If it gives something else on numbers that a runtime may have.
    """
    nominal = run([_wide(x, None) for x in inputs])
    for variant in _variants(inputs):
        moved = run(variant)
        if any(_jumps(a, b, slack) for a, b in zip(nominal, moved, strict=True)):
            raise UndecidedError(_reason(what, inputs, variant))
    return list(nominal)


def _jumps(one: Array, other: Array, slack: float) -> bool:
    if not slack or one.shape != other.shape or one.dtype != np.float64:
        return differ(one, other)
    gap = np.abs(one - other)
    return bool((gap > slack * np.abs(one).max(initial=0.0)).any())


def _variants(inputs: Sequence[Native | None]) -> list[list[Array | None]]:
    """Return the inputs as they may be elsewhere: as carried along, and twice as far off."""
    loose = [place for place, x in enumerate(inputs) if x is not None and x.others]
    if not loose:
        return []
    found = [[_wide(x, place) for x in inputs] for place in range(OTHERS)]
    directions = [*product((1.0, -1.0), repeat=min(len(loose), _ALL_SIGNS))]
    for signs in directions:
        chosen = dict(zip(loose, [*signs, *[1.0] * len(loose)], strict=False))
        found.append([_moved(x, chosen.get(place)) for place, x in enumerate(inputs)])
    found.extend(_scattered(inputs, draw) for draw in range(2, OTHERS))
    return found


def _scattered(inputs: Sequence[Native | None], draw: int) -> list[Array | None]:
    """Move every element in a direction of its own."""
    seeds = (10 * draw + place for place in range(len(inputs)))
    return [
        None if x is None else _moved(x, _signs(seed, x.elements.shape))
        for seed, x in zip(seeds, inputs, strict=True)
    ]


def _moved(x: Native | None, signs: Array | float | None) -> Array | None:
    if x is None or not x.others or signs is None:
        return _wide(x, None)
    wide = widened(x.elements)
    with np.errstate(invalid="ignore"):
        spread = np.max([np.abs(widened(other) - wide) for other in x.others], axis=0)
    return np.asarray(wide + np.nan_to_num(_MARGIN * spread * signs, posinf=0.0, neginf=0.0))


def _reason(
    what: str, inputs: Sequence[Native | None], variant: Sequence[Array | None]
) -> str:
    start = "float32 arithmetic on a runtime could go either way: "
    for x, other in zip(inputs, variant, strict=True):
        if x is None or other is None or not x.others:
            continue
        wide = widened(x.elements)
        away = np.flatnonzero((wide != other).reshape(-1))
        if away.size:
            kind, value = x.elements.dtype.name, float(wide.reshape(-1)[away[0]])
            start = start.replace("float32", kind)
            return f"{start}{what} reads {value!r}, which lies within an ulp of a step"
    return f"{start}{what} reads numbers that lie within an ulp of a step"
