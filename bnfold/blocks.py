"""Large arrays block by block: no memory for the whole, and pages of files are given back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

MOST_ELEMENTS: Final = 1 << 20
"""Elements of a block: its float64 numbers stay in the cache, and calls cost nothing."""


@runtime_checkable
class Stored(Protocol):
    """Anything that hands out its elements: an onnx_ir tensor, or an array that is held."""

    def numpy(self) -> NDArray[np.generic]:
        """Return the elements."""
        ...


@runtime_checkable
class InParts(Protocol):
    """A tensor of which parts can be read: what was read of the rest is not kept."""

    def part(self, start: int, stop: int) -> NDArray[np.generic]:
        """Return the elements ``start`` to ``stop`` in C order, as an array of one axis."""
        ...


class Block(NamedTuple):
    """A part of an array that lies in one piece in C order.

    Attributes:
        start: The flat index of its first element.
        stop: The one behind its last element.
        at: The slices of every axis that select it.
    """

    start: int
    stop: int
    at: tuple[slice, ...]

    def of(self, factor: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the part of an array that broadcasts to the whole, which meets this block."""
        whole = slice(None)
        return factor[
            tuple(
                whole if size == 1 else part
                for size, part in zip(factor.shape, self.at, strict=True)
            )
        ]

    @property
    def shape(self) -> tuple[int, ...]:
        """How long it is along every axis."""
        return tuple(part.stop - part.start for part in self.at)


def blocks(shape: Sequence[int], most: int = MOST_ELEMENTS) -> Iterator[Block]:
    """Yield blocks of so many elements at most that make up an array, in C order.

    An array of no axes, or of no more elements, is one block; an empty one is none.
    """
    size = math.prod(shape)
    if size <= most:
        if size:
            yield Block(0, size, tuple(slice(0, length) for length in shape))
        return
    axis = next(a for a in range(len(shape)) if math.prod(shape[a + 1 :]) <= most)
    row = math.prod(shape[axis + 1 :])
    step = most // row
    rest = tuple(slice(0, length) for length in shape[axis + 1 :])
    for outer, places in enumerate(np.ndindex(*shape[:axis])):
        leading = tuple(slice(place, place + 1) for place in places)
        first = outer * shape[axis] * row
        for begin in range(0, shape[axis], step):
            end = min(begin + step, shape[axis])
            at = (*leading, slice(begin, end), *rest)
            yield Block(first + begin * row, first + end * row, at)


def reader(stored: Stored) -> Callable[[int, int], NDArray[np.generic]]:
    """Return what reads flat ranges of elements; a tensor that has no parts is held for it."""
    if isinstance(stored, InParts):
        return stored.part
    flat = np.ascontiguousarray(stored.numpy()).reshape(-1)
    return lambda start, stop: flat[start:stop]
