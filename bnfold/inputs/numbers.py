"""Numbers of one input: spread as a style says, or such as its use asks for."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.inputs.signature import Role, Slot, Use

_PER_IMPULSE: Final = 61
_PADDED: Final = 4
"""Of the last axis of a mask, the tail of up to one such part is closed."""

_LEAST: Final = 1e-3
"""So far from an end at which a root or a logarithm stops are the numbers that it reads."""

_STEPS: Final = 1000
"""Diffusion models count their time in so many steps."""

LARGE: Final = 10.0
_TOP: Final = 8
_HALF: Final = 0.5
_LARGEST: Final = 0.1
"""So often, a large integer is the largest."""


class Style(StrEnum):
    """How the numbers of one set of inputs are spread."""

    NORMAL = "normal"
    UNIFORM = "uniform"
    BORDERED = "bordered"
    CONSTANT = "constant"
    LARGE = "large"
    IMPULSES = "impulses"


_WIDE: Final = frozenset({Style.BORDERED, Style.LARGE})
"""In these sets, integers that may be of any size are."""


@dataclass(frozen=True, slots=True)
class Need:
    """What one draw wants of its numbers.

    Attributes:
        int_top: Integers of no known use are below it; 1 makes them ones, and says of flags
            that they are set, 2 that they are not.
        amplitude: What floating numbers are multiplied by.
        positive: Whether they are made positive.
        all_open: Whether masks shut nothing out.
        flipped: Whether flags are the other way.
        most: The largest index or length that the sizes of others allow.
        image: Height and width of the image that sizes are given of.
    """

    int_top: int = _TOP
    amplitude: float = 1.0
    positive: bool = False
    all_open: bool = False
    flipped: bool = False
    most: float = math.inf
    image: tuple[int, ...] = ()

    def of(self, most: float, image: tuple[int, ...]) -> Need:
        """Return the same for an input that is bounded so."""
        return replace(self, most=most, image=image)


def why_not_drawn(slot: Slot) -> str:
    """Return why no numbers can be drawn for an input; empty if they can."""
    dtype, kind = slot.dtype, slot.kind
    if isinstance(kind, ir.SequenceType | ir.OptionalType):
        word = "a sequence" if isinstance(kind, ir.SequenceType) else "an optional"
        return f"input {slot.name!r} is {word}, for which no numbers are drawn"
    if dtype is None:
        return f"input {slot.name!r} is not a tensor of a known type"
    if dtype.is_floating_point() or dtype.is_integer() or dtype.name == "BOOL":
        return ""
    return f"input {slot.name!r} holds {dtype.name}, for which no numbers are drawn"


def numbers(
    slot: Slot, style: Style, shape: tuple[int, ...], rng: np.random.Generator, need: Need
) -> NDArray[Any]:
    """Draw numbers in the element type of an input.

    Raises:
        TypeError: If it holds something else than numbers.
    """
    why, dtype = why_not_drawn(slot), slot.dtype
    if why or dtype is None:
        raise TypeError(why)
    is_float = dtype.is_floating_point()
    if slot.use.role is not Role.NUMBERS:
        found = _meant(slot.use, shape, rng, need, is_float=is_float)
    elif is_float:
        found = _between(_floats(style, shape, rng), slot.use, need)
    elif dtype.name == "BOOL":
        found = rng.integers(0, 2, shape)
    elif slot.use.is_free:
        found = rng.integers(0, _TOP, shape)
        if style in _WIDE:
            found = _widened(found, slot.use, rng, is_signed=style is Style.LARGE)
    else:
        low = 1 if need.int_top == 1 else 0
        found = rng.integers(low, need.int_top + low, shape)
    return np.asarray(found).astype(dtype.numpy())


def _widened(
    values: NDArray[Any], use: Use, rng: np.random.Generator, *, is_signed: bool
) -> NDArray[Any]:
    """Half of the numbers of any size up to the largest: a byte holds all the others."""
    sizes = np.exp2(rng.uniform(0, math.log2(use.high), values.shape)).astype(np.int64)
    sizes = np.where(rng.random(values.shape) < _LARGEST, int(use.high), sizes)
    if is_signed and use.low < 0:
        sizes *= rng.choice([-1, 1], values.shape)
    return np.where(rng.random(values.shape) < _HALF, sizes, values)


def _meant(
    use: Use, shape: tuple[int, ...], rng: np.random.Generator, need: Need, *, is_float: bool
) -> NDArray[Any]:
    """Numbers for a use."""
    match use.role:
        case Role.INDEX:
            return _indices(use, shape, rng, need, is_float=is_float)
        case Role.MASK:
            return _mask(use, shape, rng, need)
        case Role.LENGTH:
            return _lengths(use, shape, rng, need)
        case Role.COUNT:
            most = min(use.high, need.most, need.int_top)
            return rng.integers(1, max(int(most), 1) + 1, shape)
        case Role.FLAG:
            return _flags(shape, rng, need)
        case Role.STEP:
            return rng.integers(0, _STEPS, shape)
        case _:
            return _along_last(use, shape, need)


def _along_last(use: Use, shape: tuple[int, ...], need: Need) -> NDArray[Any]:
    """Numbers that are the same in every row."""
    size = shape[-1] if shape else 1
    row = np.ones(size)
    if use.role is Role.POSITION:
        row = _positions(use, size, need)
    elif use.role is Role.SIZES and need.image:
        # Height and width, as the image has them; scales of 1 behind.
        row[:2] = (*need.image, *need.image)[: min(size, 2)]
    return np.broadcast_to(row, (*shape[:-1], size)).reshape(shape)


def _indices(
    use: Use, shape: tuple[int, ...], rng: np.random.Generator, need: Need, *, is_float: bool
) -> NDArray[Any]:
    """Spread over the whole table; floats that are made indices also lie in between."""
    low = use.low if math.isfinite(use.low) else 0.0
    high = min(use.high, need.most)
    if need.int_top < _TOP or not math.isfinite(high):
        high = min(high, low + need.int_top - 1)
    if is_float:
        return rng.uniform(low, max(low, high), shape)
    first = math.ceil(low)
    return rng.integers(first, max(math.floor(high), first) + 1, shape)


def _positions(use: Use, size: int, need: Need) -> NDArray[Any]:
    """0, 1, 2 … and from the start again where the table ends."""
    first = math.ceil(use.low) if math.isfinite(use.low) else 0
    high = min(use.high, need.most)
    count = np.arange(size)
    if math.isfinite(high):
        count %= max(math.floor(high) - first + 1, 1)
    return count + first


def _mask(
    use: Use, shape: tuple[int, ...], rng: np.random.Generator, need: Need
) -> NDArray[Any]:
    """Open but for a tail of some rows, as batches of texts are padded; the first always."""
    size = shape[-1] if shape else 1
    tail = rng.integers(0, size // _PADDED + 1, (*shape[:-1], 1))
    closed = np.arange(size) >= np.maximum(size - tail, 1)
    if need.all_open:
        closed = np.zeros_like(closed)
    return np.where(closed, 1 - use.opened, use.opened).reshape(shape)


def _lengths(
    use: Use, shape: tuple[int, ...], rng: np.random.Generator, need: Need
) -> NDArray[Any]:
    """The first is the whole length and none is 0; the longest come first."""
    most = min(use.high, need.most)
    known = math.isfinite(most)
    longest = max(int(most if known else min((need.int_top, *need.image))), 1)
    found = np.sort(rng.integers(1, longest + 1, shape), axis=None)[::-1]
    found[:1] = longest
    return found.reshape(shape)


def _flags(shape: tuple[int, ...], rng: np.random.Generator, need: Need) -> NDArray[Any]:
    if need.int_top < _TOP:
        return np.full(shape, need.int_top == 1)
    return np.asarray(rng.integers(0, 2, shape) == (0 if need.flipped else 1))


def _between(values: NDArray[np.float64], use: Use, need: Need) -> NDArray[np.float64]:
    """The numbers made smaller or positive, and folded back at what they must stay above."""
    values = values * need.amplitude if need.amplitude != 1 else values
    values = np.abs(values) if need.positive else values
    low, high = math.isfinite(use.low), math.isfinite(use.high)
    if low and high:
        middle, half = (use.low + use.high) / 2, (use.high - use.low) / 2
        return middle + half * np.tanh(values) * (1 - _LEAST)
    if low:
        return use.low + np.abs(values - use.low) + _LEAST
    if high:
        return use.high - np.abs(values - use.high) - _LEAST
    return values


def _floats(
    style: Style, shape: tuple[int, ...], rng: np.random.Generator
) -> NDArray[np.float64]:
    match style:
        case Style.NORMAL:
            return rng.standard_normal(shape)
        case Style.UNIFORM:
            return rng.random(shape)
        case Style.BORDERED:
            return _bordered(rng.standard_normal(shape) * LARGE)
        case Style.CONSTANT:
            return np.full(shape, rng.standard_normal())
        case Style.LARGE:
            return rng.standard_normal(shape) * LARGE**2
        case Style.IMPULSES:
            return _impulses(shape, rng)


def _impulses(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float64]:
    """Zero but for one number in a few dozen."""
    values = np.zeros(shape)
    flat = values.reshape(-1)
    count = -(-flat.size // _PER_IMPULSE)
    flat[rng.choice(flat.size, count, replace=False)] = rng.choice([-LARGE, LARGE], count)
    return values


def _bordered(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Constant along every border and over one corner, so that padding shows."""
    for axis in range(2, values.ndim):
        edge = np.moveaxis(values, axis, 0)
        edge[:1], edge[-1:] = LARGE, -LARGE  # an axis may have no elements
    corner = tuple(slice(0, size // 2) for size in values.shape[2:])
    if corner:
        values[:, :1, *corner] = LARGE
    return values
