"""Seeded inputs for a model of which only the interface is known."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Final

import numpy as np

from bnfold import limits
from bnfold.errors import ModelError
from bnfold.inputs.numbers import Need, Style, numbers
from bnfold.inputs.signature import Dim, Role, Slot
from bnfold.runtime import Arrays

__all__ = ["Binding", "Case", "Style", "bindings", "draw_inputs", "redraw_inputs", "shape_of"]

_SIZES: Final = (32, 64, 224, 96, 640, 48, 16, 8, 4, 2, 1, 299, 512)
_OTHER_BATCHES: Final = (2, 4, 8, 16, 32, 64)
_INT_TOPS: Final = (8, 2, 1)
_RANKS: Final = (4, 2, 3, 5, 1)
_CHANNELS: Final = (3, 1)
_MOST_ELEMENTS: Final = 1 << 22
_COPIES: Final = 4
"""Inputs are drawn in float64, rounded, nudged and written: so many are held at once."""
_ANOTHER_SEED: Final = 7919
_AMPLITUDES: Final = (1.0, 1 / 8, 1 / 8, 1 / 64)


@dataclass(frozen=True, slots=True)
class Binding:
    """What the interface leaves open: batch, other sizes, rank, and the range of integers."""

    batch: int = 1
    size: int = 64
    rank: int = 4
    channels: int = 3
    int_top: int = 8


@dataclass(frozen=True, slots=True)
class Case:
    """One set of inputs: a binding and a spread of numbers."""

    binding: Binding
    style: Style


def bindings(slots: Sequence[Slot]) -> tuple[Binding, ...]:
    """What to try, the plausible first, without repeating shapes or exceeding memory."""
    seen: dict[tuple[tuple[int, ...], ...], Binding] = {}
    for binding in _wishes(slots):
        shapes = tuple(shape_of(slot, binding, slots) for slot in slots)
        seen.setdefault((*shapes, (binding.int_top,)), binding)
    sizes = {key: sum(math.prod(shape) for shape in key[:-1]) for key in seen}
    most = max(_MOST_ELEMENTS, min(sizes.values()))
    return tuple(binding for key, binding in seen.items() if sizes[key] <= most)


def shape_of(slot: Slot, binding: Binding, slots: Sequence[Slot]) -> tuple[int, ...]:
    """The shape of one input: fixed dimensions as declared, one size for one symbol."""
    dims = slot.dims
    if dims is None:
        dims = (None, binding.channels, *[None] * binding.rank)[: binding.rank]
    bound = _Bound(binding, slots)
    limits = slot.bounds or ((1, 0),) * len(dims)
    pairs = enumerate(zip(dims, limits, strict=True))
    return tuple(bound.size(axis, dim, *limit) for axis, (dim, limit) in pairs)


def check_amount(slots: Sequence[Slot], binding: Binding) -> None:
    """Refuse inputs that are too large to be drawn: a model may declare any size.

    Raises:
        ModelError: Naming the largest.
    """
    sizes = {slot.name: shape_of(slot, binding, slots) for slot in slots}
    most = limits.current().elements // _COPIES
    if sum(map(math.prod, sizes.values())) > most:
        name = max(sizes, key=lambda one: math.prod(sizes[one]))
        shape = "×".join(map(str, sizes[name]))
        raise ModelError(
            "the inputs of the model are too large to be drawn",
            where=f"input {name!r} of {shape}",
            why=f"{most} elements are drawn at most, for all inputs together",
            remedy="name smaller sizes with --shape, or allow more with --max-elements",
        )


def is_too_much(slots: Sequence[Slot], binding: Binding) -> bool:
    """Return whether inputs of these sizes are not drawn, see `check_amount`."""
    try:
        check_amount(slots, binding)
    except ModelError:
        return True
    return False


def draw_inputs(slots: Sequence[Slot], case: Case, seed: int) -> Arrays:
    """Numbers for every input, in its own element type; the same for the same seed.

    What `with_hints` found out about an input is kept to: masks are 0 and 1, indices lie in
    their tables. The spread of the case is for what holds any numbers.
    """
    return _drawn(slots, case, seed, Need(int_top=case.binding.int_top))


def redraw_inputs(slots: Sequence[Slot], case: Case, seed: int, attempt: int) -> Arrays:
    """Other numbers that make as much sense, for inputs that left outputs NaN or unmoved.

    Attempt 0 is `draw_inputs`. Each further one has another seed; the second numbers an eighth
    as large and flags the other way, the third the same, none negative and no mask closed, the
    fourth even smaller ones, and so on in turn.

    Args:
        slots: The inputs, with hints.
        case: Their sizes, and the spread to begin with.
        seed: As of `draw_inputs`; the same seed and attempt give the same numbers.
        attempt: How often it was tried before.
    """
    turn = attempt % len(_AMPLITUDES)
    need = Need(
        int_top=case.binding.int_top,
        amplitude=_AMPLITUDES[turn],
        positive=turn >= 2,
        all_open=turn >= 2,
        flipped=turn == 1,
    )
    tame = case if turn == 0 else replace(case, style=Style.NORMAL)
    return _drawn(slots, tame, seed + _ANOTHER_SEED * attempt, need)


def _drawn(slots: Sequence[Slot], case: Case, seed: int, need: Need) -> Arrays:
    check_amount(slots, case.binding)
    arrays: Arrays = {}
    bound = _Bound(case.binding, slots)
    for slot in slots:
        shape = shape_of(slot, case.binding, slots)
        key = zlib.crc32(f"{slot.name}/{case.style}/{shape}".encode())
        rng = np.random.default_rng((seed, key))
        tops = (bound.symbol(word) - below for word, below in slot.use.within)
        most = min(tops, default=math.inf)
        arrays[slot.name] = numbers(slot, case.style, shape, rng, need.of(most, bound.image))
    return arrays


def shapes(arrays: Arrays) -> Mapping[str, tuple[int, ...]]:
    """The shape of every input, for the report."""
    return {name: array.shape for name, array in arrays.items()}


def _wishes(slots: Sequence[Slot]) -> Iterator[Binding]:
    ranks = _RANKS if any(slot.dims is None for slot in slots) else (4,)
    channels = _CHANNELS if len(ranks) > 1 else (3,)
    tops = _INT_TOPS if any(map(_has_tops, slots)) else _INT_TOPS[:1]
    for top, rank, channel, size, batch in product(tops, ranks, channels, _SIZES, (1, 3)):
        yield Binding(batch, size, rank, channel, top)
    for batch, size in product(_OTHER_BATCHES, _SIZES[:3]):
        yield Binding(batch, size)


def _has_tops(slot: Slot) -> bool:
    """Whether other whole numbers, or a flag the other way, may be worth a try."""
    whole = slot.dtype is not None and slot.dtype.is_integer()
    return slot.use.role is Role.FLAG or (
        whole and slot.use.role is not Role.MASK and not slot.use.is_free
    )


class _Bound:
    """Sizes of dimensions under a binding."""

    def __init__(self, binding: Binding, slots: Sequence[Slot]) -> None:
        self._binding = binding
        self._slots = slots
        firsts = (slot.dims[0] for slot in slots if slot.dims)
        self._batches = {first for first in firsts if isinstance(first, str)}

    def size(self, axis: int, dim: Dim, step: int = 1, most: int = 0) -> int:
        """Return the size of a dimension: a sum of symbols has the sum of their sizes."""
        if isinstance(dim, int) and dim >= 0:  # a declared 0 is no open size
            return dim
        if isinstance(dim, str) and "+" in dim:
            return sum(map(self._part, dim.split("+")))
        is_batch = axis == 0 or dim in self._batches
        wanted = self._binding.batch if is_batch else self._binding.size
        size = -(-wanted // step) * step
        return size if not most or size <= most else max(most // step, 1) * step

    def symbol(self, symbol: str) -> int:
        """Return the size that a symbol has in the first input that has it."""
        for slot in self._slots:
            pairs = zip(slot.dims or (), slot.bounds, strict=True)
            for axis, (dim, limit) in enumerate(pairs):
                if dim == symbol:
                    return self.size(axis, dim, *limit)
        return self.size(1, symbol)

    @property
    def image(self) -> tuple[int, ...]:
        """The last two sizes of the first input that has four axes; one size of any."""
        for slot in self._slots:
            if len(slot.dims or ()) == 4:
                return shape_of(slot, self._binding, self._slots)[-2:]
        return (self._binding.size,)

    def _part(self, word: str) -> int:
        word = word.strip()
        return int(word) if word.isdigit() else self.symbol(word)
