"""Seeded inputs for a model of which only the interface is known."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bnfold.inputs.signature import Dim, Slot
from bnfold.runtime import Arrays

_SIZES: Final = (32, 64, 224, 48, 640, 16, 8, 4, 2, 1, 299, 512)
_OTHER_BATCHES: Final = (2, 4, 8, 16, 32, 64)
_INT_TOPS: Final = (8, 2, 1)
_RANKS: Final = (4, 2, 3, 5, 1)
_CHANNELS: Final = (3, 1)
_MOST_ELEMENTS: Final = 1 << 22
_PER_IMPULSE: Final = 61
LARGE: Final = 10.0


class Style(StrEnum):
    """How the numbers of one set of inputs are spread."""

    NORMAL = "normal"
    UNIFORM = "uniform"
    BORDERED = "bordered"
    CONSTANT = "constant"
    LARGE = "large"
    IMPULSES = "impulses"


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
    firsts = (other.dims[0] for other in slots if other.dims)
    batches: set[Dim] = {first for first in firsts if isinstance(first, str)}
    return tuple(_bound(axis, dim, binding, batches) for axis, dim in enumerate(dims))


def draw_inputs(slots: Sequence[Slot], case: Case, seed: int) -> Arrays:
    """Numbers for every input, in its own element type; the same for the same seed."""
    arrays: Arrays = {}
    for slot in slots:
        shape = shape_of(slot, case.binding, slots)
        key = zlib.crc32(f"{slot.name}/{case.style}/{shape}".encode())
        rng = np.random.default_rng((seed, key))
        arrays[slot.name] = _numbers(slot, case, shape, rng)
    return arrays


def shapes(arrays: Arrays) -> Mapping[str, tuple[int, ...]]:
    """The shape of every input, for the report."""
    return {name: array.shape for name, array in arrays.items()}


def _wishes(slots: Sequence[Slot]) -> Iterator[Binding]:
    ranks = _RANKS if any(slot.dims is None for slot in slots) else (4,)
    channels = _CHANNELS if len(ranks) > 1 else (3,)
    tops = _INT_TOPS if any(slot.dtype and slot.dtype.is_integer() for slot in slots) else (8,)
    for top, rank, channel, size, batch in product(tops, ranks, channels, _SIZES, (1, 3)):
        yield Binding(batch, size, rank, channel, top)
    for batch, size in product(_OTHER_BATCHES, _SIZES[:3]):
        yield Binding(batch, size)


def _bound(axis: int, dim: Dim, binding: Binding, batches: set[Dim]) -> int:
    if isinstance(dim, int) and dim > 0:
        return dim
    is_batch = axis == 0 or (isinstance(dim, str) and dim in batches)
    return binding.batch if is_batch else binding.size


def _numbers(
    slot: Slot, case: Case, shape: tuple[int, ...], rng: np.random.Generator
) -> NDArray[Any]:
    dtype = slot.dtype
    if dtype is None:
        raise TypeError(f"input {slot.name!r} is not a tensor of a known type")
    if dtype.is_floating_point():
        return _floats(case.style, shape, rng).astype(dtype.numpy())
    if dtype.name == "BOOL":
        return rng.integers(0, 2, shape).astype(np.bool_)
    if dtype.is_integer():
        low = 1 if case.binding.int_top == 1 else 0
        return rng.integers(low, case.binding.int_top + low, shape).astype(dtype.numpy())
    raise TypeError(f"input {slot.name!r} holds {dtype.name}, for which no numbers are drawn")


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
        edge[0], edge[-1] = LARGE, -LARGE
    corner = tuple(slice(0, size // 2) for size in values.shape[2:])
    if corner:
        values[:, :1, *corner] = LARGE
    return values
