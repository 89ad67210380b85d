"""Large arrays block by block: no memory for the whole, and pages of files are given back."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Final, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

MOST_ELEMENTS: Final = 1 << 20
"""Elements of a block of which sums are made: another size would add in another order."""

CACHED_ELEMENTS: Final = 1 << 18
"""Elements of a block that is computed element by element.

Its numbers in float64 (2 MiB) stay in the caches of one core: with 2²⁰ of them each pass over
them took twice as long (measured: 2.3 against 1.6 ns an element for a product and comparison).
"""

_THREADS: Final = 2
_AHEAD: Final = 3
"""So many blocks are computed, or have been, while one is used: they are memory."""

_Part = TypeVar("_Part")
_Result = TypeVar("_Result")


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


def in_order(
    call: Callable[[_Part], _Result], parts: Iterable[_Part]
) -> Iterator[tuple[_Part, _Result]]:
    """Yield parts and what a call gives for each, in order; the next ones are begun meanwhile.

    The call runs in threads, for reading files and the loops of numpy let others run. A single
    part costs no thread. Threads know neither the deadline nor the `numpy.errstate` of their
    caller: numpy's warnings are off in them, and the deadline is the caller's to look at.

    Args:
        call: What is computed of a part; of several at once.
        parts: The parts; taken as they are needed.
    """
    rest = iter(parts)
    first = list(islice(rest, 2))
    if len(first) < 2:
        for part in first:
            yield part, call(part)
        return

    def quiet(part: _Part) -> _Result:
        with np.errstate(all="ignore"):
            return call(part)

    with ThreadPoolExecutor(_THREADS) as pool:
        begun: deque[tuple[_Part, Future[_Result]]] = deque()
        try:
            for part in (*first, *islice(rest, _AHEAD - len(first))):
                begun.append((part, pool.submit(quiet, part)))
            while begun:
                part, future = begun.popleft()
                result = future.result()
                begun.extend((one, pool.submit(quiet, one)) for one in islice(rest, 1))
                yield part, result
        finally:
            for _, future in begun:
                future.cancel()
