"""Constants on their way to new values: float64 until they are rounded once, at the end.

A fold does not write a weight; it multiplies an `Expression`. The stored tensor is read again
when the model is written, so several folds into one weight cost one rounding, and no float64
copy of a large tensor outlives its use.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bnfold.blocks import (
    CACHED_ELEMENTS,
    MOST_ELEMENTS,
    Block,
    Stored,
    blocks,
    in_order,
    reader,
)

Wide = NDArray[np.float64]
_NATIVE: Final = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))


@dataclass(frozen=True, slots=True)
class Named:
    """Origin of elements: a constant of the model as it was before any fold, by its name."""

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """Origin of elements: made of other expressions.

    Attributes:
        kind: How, as a word that a certificate can hold.
        settings: Numbers, texts, lists and arrays that say it exactly.
        sources: What they were made of.
    """

    kind: str
    settings: Mapping[str, object]
    sources: tuple[Expression, ...]


Origin = Named | Made


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """An array kept in memory, and where it came from if that is known."""

    array: NDArray[np.generic]
    origin: Origin | None = None

    def numpy(self) -> NDArray[np.generic]:
        """Return the elements."""
        return self.array


@dataclass(frozen=True, slots=True, eq=False)
class Derived:
    """An array that is computed anew whenever it is asked for, so that no copy is kept."""

    compute: Callable[[], NDArray[np.generic]]
    origin: Made

    def numpy(self) -> NDArray[np.generic]:
        """Return the elements."""
        return self.compute()


@dataclass(frozen=True, slots=True, eq=False)
class Expression:
    """``base · factors[0] · factors[1] …``, evaluated in float64.

    Attributes:
        base: Where the elements come from.
        shape: Shape of the result, equal to that of ``base``.
        factors: Arrays of the rank of ``base`` that broadcast to ``shape``.
    """

    base: Stored
    shape: tuple[int, ...]
    factors: tuple[Wide, ...] = ()

    @classmethod
    def of(cls, array: NDArray[np.generic], origin: Origin | None = None) -> Expression:
        """Return the expression that is ``array`` itself."""
        return cls(Held(array, origin), array.shape)

    @classmethod
    def derived(
        cls,
        compute: Callable[[], NDArray[np.generic]],
        shape: tuple[int, ...],
        origin: Made,
    ) -> Expression:
        """Return the expression that ``compute`` makes, as ``origin`` says in data.

        It is computed when it is asked for, unless a source is of that kind already: so the
        work and the depth of calls stay bounded, however often weights are merged.
        """
        if any(isinstance(source.base, Derived) for source in origin.sources):
            return cls.of(compute(), origin)
        return cls(Derived(compute, origin), shape)

    def times(self, vector: Wide, axes: Sequence[int]) -> Expression:
        """Return this expression multiplied by ``vector``, laid along ``axes``.

        ``vector`` has one dimension for each of ``axes`` (ascending), or is a single number.
        """
        shape = [1] * len(self.shape)
        if vector.size > 1:
            for axis, size in zip(axes, vector.shape, strict=True):
                shape[axis] = size
        return Expression(self.base, self.shape, _merge(self.factors, vector.reshape(shape)))

    def equals(self, other: Expression) -> bool:
        """Return whether another expression is made of the same elements and factors."""
        if self.shape != other.shape or len(self.factors) != len(other.factors):
            return False
        pairs = zip(self.factors, other.factors, strict=True)
        if not all(np.array_equal(mine, theirs) for mine, theirs in pairs):
            return False
        if self.base is other.base:
            return True
        if not (isinstance(self.base, Held) and isinstance(other.base, Held)):
            return False
        mine, theirs = self.base.array, other.base.array
        return mine.dtype == theirs.dtype and np.array_equal(mine, theirs)

    def mapped(self, scale: Wide, shift: Wide) -> Expression:
        """Return ``scale · this + shift``; both broadcast with it. Computed at once."""
        elements = self.evaluate() * scale + shift
        origin = Made("map", {"scale": scale, "shift": shift}, (self,))
        return Expression.of(np.asarray(elements), origin)

    # Weights are read late, and any may overflow: see `storable`.
    @np.errstate(all="ignore")
    def evaluate(self) -> Wide:
        """Return the elements in float64: a new array unless ``base`` holds float64."""
        if self.size > MOST_ELEMENTS and self.factors:
            wide = np.empty(self.shape)
            for block, part in self._stored_blocks(CACHED_ELEMENTS):
                self._times_factors(block, part, wide[block.at])
            return wide
        base = np.asarray(self.base.numpy())
        if not self.factors:
            return base.astype(np.float64, copy=False)
        wide = np.multiply(base, self.factors[0], dtype=np.float64)
        for factor in self.factors[1:]:
            wide *= factor
        return wide

    def wide_blocks(self) -> Iterator[tuple[Block, Wide]]:
        """Yield the elements in float64 block by block, in C order."""
        for block, part in self._stored_blocks(MOST_ELEMENTS):
            with np.errstate(all="ignore"):
                wide = self._times_factors(block, part)
            yield block, wide

    def rounded_blocks(
        self, dtype: np.dtype[np.generic]
    ) -> Iterator[tuple[Block, NDArray[np.generic]]]:
        """Yield the elements in ``dtype``, rounded once, block by block in C order."""
        for block, part in self._stored_blocks(CACHED_ELEMENTS):
            yield block, self._rounded_block(block, part, dtype)

    @np.errstate(all="ignore")
    def _rounded_block(
        self, block: Block, part: NDArray[np.generic], dtype: np.dtype[np.generic]
    ) -> NDArray[np.generic]:
        return round_once(self._times_factors(block, part), dtype)

    def rounded_rows(
        self, dtype: np.dtype[np.generic]
    ) -> Callable[[slice], NDArray[np.generic]]:
        """Return what gives rows along axis 0 in ``dtype``, rounded once."""
        read, each = reader(self.base), math.prod(self.shape[1:])
        rest = tuple(slice(0, size) for size in self.shape[1:])

        def rows(part: slice) -> NDArray[np.generic]:
            block = Block(part.start * each, part.stop * each, (part, *rest))
            base = read(block.start, block.stop).reshape(block.shape)
            return self._rounded_block(block, base, dtype)

        return rows

    def _stored_blocks(self, most: int) -> Iterator[tuple[Block, NDArray[np.generic]]]:
        """Yield what the expression is based on block by block; nothing is kept of it."""
        read = reader(self.base)
        for block in blocks(self.shape, most):
            yield block, read(block.start, block.stop).reshape(block.shape)

    def _times_factors(
        self, block: Block, part: NDArray[np.generic], out: Wide | None = None
    ) -> Wide:
        if not self.factors:
            return part.astype(np.float64, copy=False)
        if out is None:
            out = np.empty(block.shape)
        out[...] = part  # a cast of its own: numpy's cast inside of a product is slower
        for factor in self.factors:
            out *= block.of(factor)
        return out

    @property
    def size(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    @np.errstate(all="ignore")
    def rounded(self, dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
        """Return the elements in ``dtype``, rounded once from float64."""
        if self.size > MOST_ELEMENTS:
            out = np.empty(self.shape, dtype)
            for block, part in self.rounded_blocks(dtype):
                out[block.at] = part
            return out
        if len(self.factors) != 1 or dtype not in _NATIVE:
            return round_once(self.evaluate(), dtype)
        out = np.empty(self.shape, dtype)
        _multiplied(np.asarray(self.base.numpy()), self.factors[0], out)
        return out

    def peaks(self, axis: int | None) -> Wide:
        """Return the peak of every slice along ``axis``, or the one of all for None."""
        along = [size if place == axis else 1 for place, size in enumerate(self.shape)]
        if axis is None or any(
            np.broadcast_shapes(f.shape, along) != tuple(along) for f in self.factors
        ):
            return self._peaks(axis, lambda block, part: self._times_factors(block, part))
        peaks = self._peaks(axis, lambda _, part: part)
        for factor in self.factors:
            peaks = peaks * np.abs(factor).reshape(-1)
        return peaks

    def _peaks(
        self, axis: int | None, made: Callable[[Block, NDArray[np.generic]], NDArray[Any]]
    ) -> Wide:
        """Largest magnitude of every slice along ``axis``, or of all, of what is made."""
        place = None if axis is None or not self.shape else axis % len(self.shape)
        peaks = np.zeros(1 if place is None else self.shape[place])
        if self.size == 0:
            return peaks
        read = reader(self.base)

        def size_of(block: Block) -> Wide:
            part = made(block, read(block.start, block.stop).reshape(block.shape))
            others = tuple(other for other in range(part.ndim) if other != place)
            high, low = part, part
            if others:
                high, low = part.max(axis=others), part.min(axis=others)
            return np.maximum(np.abs(_wide(high)), np.abs(_wide(low)))

        with np.errstate(all="ignore"):
            for block, size in in_order(size_of, blocks(self.shape, CACHED_ELEMENTS)):
                mine = slice(None) if place is None else block.at[place]
                peaks[mine] = np.maximum(peaks[mine], size)
        return peaks

    def contracted(self, vector: Wide, axis: int) -> Wide:
        """Return the sum over ``axis`` of these elements times a vector that runs along it.

        Shape and order of the result are those of the other axes.
        """
        if self.size <= MOST_ELEMENTS:
            return np.asarray(np.tensordot(self.evaluate(), vector, axes=([axis], [0])))
        others = [size for place, size in enumerate(self.shape) if place != axis]
        whole = np.zeros(others)
        for block, wide in self.wide_blocks():
            kept = tuple(part for place, part in enumerate(block.at) if place != axis)
            whole[kept] += np.tensordot(wide, vector[block.at[axis]], axes=([axis], [0]))
        return whole

    def summed(self, kept: int) -> Wide:
        """Return the sums over all axes but the first ``kept`` ones."""
        whole = np.zeros(self.shape[:kept])
        for block, wide in self.wide_blocks():
            rows = wide.reshape(*wide.shape[:kept], -1)
            whole[block.at[:kept]] += rows.sum(axis=-1)
        return whole


def _multiplied(base: NDArray[np.generic], factor: Wide, out: NDArray[np.generic]) -> None:
    """Multiply in one pass: numpy does so in float64, and rounds as it stores."""
    np.multiply(base, factor, out=out, dtype=np.float64, casting="same_kind")


def _merge(factors: tuple[Wide, ...], factor: Wide) -> tuple[Wide, ...]:
    """Multiply ``factor`` into one of the same shape, so that folds do not pile up."""
    for place, known in enumerate(factors):
        if known.shape == factor.shape:
            return (*factors[:place], known * factor, *factors[place + 1 :])
    return (*factors, factor)


def round_once(wide: Wide, dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    """Leave float64, here and nowhere else: nearest value of ``dtype``, ties to even.

    numpy rounds float64 to float16 and float32 in one step. The cast to bfloat16 of ml_dtypes
    goes through float32 and would round twice, so the float32 in between is rounded to odd.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if dtype.name == "bfloat16":
            return _round_to_odd(wide).astype(dtype)
        return wide.astype(dtype)


def _round_to_odd(wide: Wide) -> NDArray[np.float32]:
    """Round to zero, set the last bit where that was inexact (Boldo, Melquiond 2008)."""
    near = np.asarray(wide, np.float32)
    bits = near.view(np.uint32).copy()
    inexact = np.isfinite(near) & (near.astype(np.float64) != wide)
    bits[inexact & (np.abs(near.astype(np.float64)) > np.abs(wide))] -= 1
    bits[inexact] |= 1
    return bits.view(np.float32)


def _wide(elements: NDArray[np.generic]) -> Wide:
    return np.asarray(elements).astype(np.float64)
