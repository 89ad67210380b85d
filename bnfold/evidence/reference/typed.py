"""Constants with the numbers that the model's own types give them.

Beside its unrounded value, what depends on constants only has a *typed* one: computed in
float64 from typed inputs, and rounded to its type after every operator. For + − · ÷ √ of
float32 that is what float32 arithmetic gives, as 53 ≥ 2 · 24 + 2 (Figueroa 1995). Nothing is
computed before an operator that makes a step asks for it.

Where runtimes may differ a typed value has a *doubt*, how far each element may be off. A step
whose answer depends on it has none: `UndecidedError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.evidence.reference.arrays import Array, NoKernelError, widen
from bnfold.evidence.reference.smooth import (
    CURVES,
    FOLDS,
    IEEE,
    MOVES,
    NORMALISATIONS,
    SURE_STEPS,
    WINDOWS,
    is_float,
    last_place,
)
from bnfold.expression import round_once

Wide = NDArray[np.float64]
Run = Callable[[Sequence[Any]], Sequence[Any]]
"""Computes an operator on inputs in which every float is float64."""

_DRAWS: Final = 4
_LAST_PLACES: Final = 8.0
"""ONNX Runtime's worst function of float32, Tanh, is off by 5.2 (200,000 values)."""
_OF_ONE: Final = 4.0
"""Its Sigmoid and Elu are off by 2 units in the last place of 1."""
_OF_LARGEST: Final = 2.0**-10
"""What is divided by a deviation that was computed is off by no more of its largest number."""
_POWERS: Final = (0.0, 1.0, 2.0)
_NO_STEP: Final = 2.0**-10


class UndecidedError(NoKernelError):
    """A constant hangs on the last bit of what runtimes compute differently."""


@dataclass(frozen=True, slots=True, eq=False)
class Typed:
    """Elements that are numbers of their type, in float64 if that is a float.

    Attributes:
        elements: The numbers.
        dtype: The type, of floats.
        doubt: How far a runtime's may be off, element by element; None if they are sure.
    """

    elements: Array
    dtype: ir.DataType | None = None
    doubt: Wide | None = None


class Maker:
    """Computes the typed results of one operator, once."""

    __slots__ = ("_compute", "_results", "is_computed", "sources")

    def __init__(
        self,
        sources: Sequence[Known | None],
        compute: Callable[[Sequence[Typed | None]], Sequence[Typed]],
    ) -> None:
        self.sources, self._compute = sources, compute
        self.is_computed = any(source is not None for source in sources)
        self._results: Sequence[Typed] | None = None

    @property
    def is_done(self) -> bool:
        """Whether it has computed."""
        return self._results is not None

    def get(self) -> Sequence[Typed]:
        """Return the results; what they hang on is computed first, without recursion."""
        waiting: list[Maker] = [self]
        while self._results is None:
            last = waiting[-1]
            missing = [s.maker for s in last.sources if s is not None and not s.maker.is_done]
            if missing:
                waiting.extend(missing)
            else:
                waiting.pop().make()
        return self._results

    def make(self) -> None:
        """Compute, of sources that are there."""
        if self._results is None:
            self._results = self._compute(
                [None if s is None else s.get() for s in self.sources]
            )
            self.sources = ()


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """A typed value that is computed when it is asked for.

    Attributes:
        maker: What computes it.
        place: Which of the results it is.
        dtype: Its type if it is a float.
        without_doubt: What computes it and no doubts; the maker itself where that has none.
    """

    maker: Maker
    place: int
    dtype: ir.DataType | None
    without_doubt: Maker | None = None

    def get(self) -> Typed:
        """Return it."""
        return self.maker.get()[self.place]

    @property
    def plain(self) -> Known:
        """The same, without its doubt: much is not computed then."""
        return Known(self.without_doubt or self.maker, self.place, self.dtype)


def known(dtype: ir.DataType | None, read: Callable[[], Array]) -> Known:
    """Return a typed value that is read, not computed: a weight, an integer, a shape."""
    return Known(Maker((), lambda _: [Typed(rounded(read(), dtype), dtype)]), 0, dtype)


def rounded(result: Array, dtype: ir.DataType | None) -> Array:
    """Return float64 numbers as the nearest of their type; anything else as it is."""
    if dtype is None or not is_float(dtype) or result.dtype != np.float64:
        return result
    return widen(round_once(result, dtype.numpy()))


# ---------------------------------------------------------------------- smooth operators


def smooth_results(
    node: ir.Node, run: Run, dtypes: Sequence[ir.DataType | None], x: Sequence[Typed | None]
) -> list[Typed]:
    """Return what an operator gives that hands rounding on as it is."""
    plain = [None if one is None else one.elements for one in x]
    with np.errstate(all="ignore"):
        exact = list(run(plain))
        doubts = _carried_on(run, x, exact)
        own = _own_doubts(node, run, x, exact, dtypes)
    found = []
    for result, dtype, carried, made in zip(exact, dtypes, doubts, own, strict=False):
        doubt = made if carried is None else carried if made is None else carried + made
        found.append(_with_doubt(result, dtype, doubt))
    return found


def _with_doubt(result: Array, dtype: ir.DataType | None, doubt: Wide | None) -> Typed:
    """Round a result, and what it may be in its place: most doubts do not outlive that."""
    nearest = rounded(result, dtype)
    if doubt is None or result.dtype != np.float64:
        return Typed(nearest, dtype)
    with np.errstate(all="ignore"):
        ends = [np.abs(rounded(result + d, dtype) - nearest) for d in (doubt, -doubt)]
    left = np.nan_to_num(np.maximum(*ends), nan=0.0, posinf=0.0)
    return Typed(nearest, dtype, left if left.any() else None)


def plain_results(
    run: Run, dtypes: Sequence[ir.DataType | None], x: Sequence[Typed | None]
) -> list[Typed]:
    """Return the same without doubts."""
    with np.errstate(all="ignore"):
        found = run([None if one is None else one.elements for one in x])
    return [Typed(rounded(r, d), d) for r, d in zip(found, dtypes, strict=False)]


def _carried_on(run: Run, x: Sequence[Typed | None], exact: Sequence[Any]) -> list[Any]:
    """Return how far doubts of the inputs move the results."""
    far: list[Any] = [None] * len(exact)
    for moved in _moved(x):
        for place, (was, now) in enumerate(zip(exact, run(moved), strict=True)):
            if isinstance(was, np.ndarray) and was.dtype == np.float64:
                gap = np.nan_to_num(np.abs(now - was), nan=0.0, posinf=0.0)
                far[place] = gap if far[place] is None else np.maximum(far[place], gap)
    return far


def _moved(x: Sequence[Typed | None]) -> Iterator[list[Array | None]]:
    """Yield the inputs at the corners of their doubts, and at corners drawn by element."""
    loose = [place for place, one in enumerate(x) if one is not None and one.doubt is not None]
    if not loose:
        return
    for signs in product((1.0, -1.0), repeat=min(len(loose), 3)):
        towards: dict[int, Any] = dict(zip(loose, (*signs, *loose), strict=False))
        yield [_off(one, towards.get(place)) for place, one in enumerate(x)]
    rng = np.random.default_rng(len(loose))
    for _ in range(_DRAWS):
        drawn = {k: rng.choice([1.0, -1.0], _shape(x[k])) for k in loose}
        yield [_off(one, drawn.get(place)) for place, one in enumerate(x)]


def _shape(one: Typed | None) -> tuple[int, ...]:
    return () if one is None else one.elements.shape


def _off(one: Typed | None, signs: Any) -> Array | None:
    if one is None or one.doubt is None or signs is None:
        return None if one is None else one.elements
    return np.asarray(one.elements + np.sign(signs) * one.doubt)


def _own_doubts(
    node: ir.Node,
    run: Run,
    x: Sequence[Typed | None],
    exact: Sequence[Any],
    dtypes: Sequence[ir.DataType | None],
) -> list[Any]:
    """Return how far runtimes may be off in this operator."""
    kind = node.op_type
    if kind in MOVES or kind in IEEE or "Cast" in kind or (kind == "Pow" and _is_product(x)):
        return [None] * len(exact)
    sizes = exact
    if kind in FOLDS:
        sizes = run([None if one is None else _size(one.elements) for one in x])
        if _counts_only(kind, x, exact, sizes, dtypes):
            return [None] * len(exact)
    return [
        _unsure(kind, x, result, size, dtype)
        if dtype is not None and is_float(dtype)
        else None
        for result, size, dtype in zip(exact, sizes, dtypes, strict=False)
    ]


def _counts_only(
    kind: str,
    x: Sequence[Typed | None],
    exact: Sequence[Any],
    sizes: Sequence[Any],
    dtypes: Sequence[ir.DataType | None],
) -> bool:
    """Return whether only whole numbers are added that no partial sum rounds."""
    most = 1.0 / last_place(dtypes[0]) if dtypes and dtypes[0] in _SUMMED else 0.0
    if "Average" in kind:
        return False  # how often each window is divided by, is not known here
    whole = all(_are_whole(one.elements) for one in x if one is not None)
    small = all(np.abs(size).max(initial=0.0) <= most for size in sizes)
    count = _terms(kind, x, exact[0])
    halves = "Mean" not in kind or (count & (count - 1)) == 0
    return whole and small and halves and all(_are_whole(r * 1.0) for r in exact)


_SUMMED: Final = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16)


def _are_whole(elements: Array) -> bool:
    return elements.dtype.kind in "iub" or bool(np.all(elements == np.rint(elements)))


def _terms(kind: str, x: Sequence[Typed | None], result: Any) -> int:
    """Bound how many terms every sum has."""
    most = max((one.elements.size for one in x if one is not None), default=1)
    longest = max((max(_shape(one), default=1) for one in x), default=1)
    if kind in WINDOWS:
        return most
    terms = -(-most // max(result.size, 1)) if "Reduce" in kind else longest
    return max(terms, len(x))


def _unsure(
    kind: str, x: Sequence[Typed | None], result: Any, size: Any, dtype: ir.DataType
) -> Wide:
    ulp = last_place(dtype)
    if kind in FOLDS:  # n · u · Σ |term| (Higham 2002, 4.2)
        return np.asarray(ulp * _terms(kind, x, result) * np.abs(size))
    if kind in NORMALISATIONS:
        return np.full(result.shape, _OF_LARGEST * np.abs(result).max(initial=0.0))
    relative = _LAST_PLACES * ulp * np.abs(result)
    if kind in CURVES:
        return np.asarray(relative)
    return np.asarray(relative + ulp * (_OF_ONE + np.abs(result).max(initial=0.0)))


def _size(elements: Array) -> Array:
    return np.abs(elements) if elements.dtype == np.float64 else elements


def _is_product(x: Sequence[Typed | None]) -> bool:
    """x⁰, x¹ and x² are rounded once."""
    exponent = x[1] if len(x) > 1 else None
    if exponent is None or exponent.doubt is not None:
        return False
    return bool(np.isin(exponent.elements, _POWERS).all())


# --------------------------------------------------------------------------------- steps


def step_results(
    node: ir.Node, run: Run, dtypes: Sequence[ir.DataType | None], x: Sequence[Typed | None]
) -> list[Typed]:
    """Return what an operator gives that turns a last bit into a step.

    Raises:
        UndecidedError: If it could be something else on another runtime.
    """
    sure = node.op_type in SURE_STEPS
    if not sure:  # it rounds inside, who knows how: as if its inputs were off by an ulp
        x = [None if one is None else _doubted(one) for one in x]
    with np.errstate(all="ignore"):
        found = list(run([None if one is None else one.elements for one in x]))
        for moved in _moved(x):
            for was, now in zip(found, run(moved), strict=True):
                if not _same(was, now, 0.0 if sure else _NO_STEP):
                    raise UndecidedError(why_undecided(node, x, moved))
    return [Typed(rounded(r, d), d) for r, d in zip(found, dtypes, strict=False)]


def _doubted(one: Typed) -> Typed:
    if one.dtype is None or not is_float(one.dtype):
        return one
    own = last_place(one.dtype) * np.abs(one.elements)
    return Typed(one.elements, one.dtype, own if one.doubt is None else own + one.doubt)


def _same(was: Any, now: Any, slack: float) -> bool:
    if isinstance(was, list):
        return len(was) == len(now) and all(map(_same, was, now, [slack] * len(was)))
    if was is None or not isinstance(was, np.ndarray) or was.dtype != np.float64:
        return bool(was is now or np.array_equal(was, now))
    if was.shape != now.shape:
        return False
    allowed = slack * np.abs(was).max(initial=0.0)
    with np.errstate(invalid="ignore"):
        return bool(((np.abs(was - now) <= allowed) | (was == now) | np.isnan(was)).all())


def why_undecided(
    node: ir.Node, x: Sequence[Typed | None], moved: Sequence[Array | None]
) -> str:
    """Say of which number it depends, and that it may be another."""
    name = f"{node.op_type} {node.name!r}"
    for one, other in zip(x, moved, strict=True):
        if one is None or one.dtype is None or other is None:
            continue
        away = np.flatnonzero(np.asarray(one.elements != other).reshape(-1))
        if away.size:
            value = float(one.elements.reshape(-1)[away[0]])
            kind = one.dtype.numpy().name
            return (
                f"{kind} arithmetic on a runtime could go either way: {name} reads {value!r}, "
                "which lies within an ulp of a step"
            )
    return f"arithmetic on a runtime could go either way in {name}"
