"""The original's own rounding noise: what half a unit in the last place does to its outputs.

Every stored number x becomes x·(1 + u·r) with r = ±1 and u the unit roundoff of its storage
type, rounded to that type. That is the freedom which any exporter, runtime or fold has; a
difference counts only where it exceeds what this freedom does. Signs come in three patterns,
because errors of real folds do too: independent for each number, one per row (a per-channel
scale rounds all weights of a channel alike when they are equal), or one for the whole tensor.

Numbers that are exact on purpose have no such freedom: a 1.0 in (1 - mask) · lowest that moves
by half an ulp opens the mask, and the noise becomes 10⁵ times too large. They are known by
their values (`is_structure`) and by what reads them (`variants.fixed_constants`).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Any, Final

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.evidence.variants import Change
from bnfold.runtime import Arrays

_PIECE: Final = 1 << 22
_MEETS_TIES: Final = 2.0**-11
"""A sixteenth of a step at the end of the range of 8 bits."""

_GLANCE: Final = 256
_FEW: Final = 16
_WHOLE: Final = 65536.0
_NEXT_TO_LARGEST: Final = 0.9
_NOISY: Final = frozenset(
    {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}
)
_NOISY_IN_NUMPY: Final = frozenset(kind.numpy() for kind in _NOISY)


class Pattern(StrEnum):
    """Which numbers share the direction of their nudge."""

    EACH = "each"
    ROWS = "rows"
    WHOLE = "whole"


@dataclass(frozen=True, slots=True)
class Draw:
    """One perturbation of a model and its inputs.

    Attributes:
        seed: Of its signs.
        pattern: Which numbers share a sign.
        unit: How far numbers move, relative; half an ulp of their type if 0.
    """

    seed: int
    pattern: Pattern
    unit: float = 0.0


def first_draws(seed: int) -> tuple[Draw, ...]:
    """The draws that every check makes."""
    patterns = (Pattern.EACH, Pattern.ROWS, Pattern.EACH, Pattern.WHOLE)
    return tuple(Draw(seed + index, pattern) for index, pattern in enumerate(patterns))


def further_draws(seed: int) -> tuple[Draw, ...]:
    """More of them, before a model is convicted: chance has less room then."""
    patterns = (Pattern.EACH, Pattern.ROWS, Pattern.EACH, Pattern.WHOLE) * 3
    return tuple(Draw(seed + 100 + index, pattern) for index, pattern in enumerate(patterns))


def for_quantisers(draws: Sequence[Draw]) -> tuple[Draw, ...]:
    """The same draws with nudges that meet ties of a quantiser.

    Behind a quantiser all depends on which numbers lie next to a tie: half an ulp hardly ever
    moves one across, so it says nothing of what single steps do to the outputs.
    """
    return tuple(replace(draw, unit=_MEETS_TIES) for draw in draws)


def is_structure(array: NDArray[Any]) -> bool:
    """Whether an array holds nothing but numbers that are exact on purpose.

    These are zero, powers of two, whole numbers up to 65536, round numbers like -1e9, the
    largest of the type, and what is not finite. Weights in narrow types are often powers of
    two, but never all of them.
    """
    flat = np.asarray(array).reshape(-1)
    return _all_exact(flat[:_GLANCE]) and (flat.size <= _GLANCE or _all_exact(flat))


def _all_exact(flat: NDArray[Any]) -> bool:
    with np.errstate(all="ignore"):
        sizes = np.abs(flat.astype(np.float64))
        mantissas, _ = np.frexp(sizes)
        largest = float(ml_dtypes.finfo(flat.dtype).max)  # type: ignore[no-untyped-call]  # untyped there
        whole = (sizes == np.floor(sizes)) & (sizes <= _WHOLE)
        plain = (mantissas == 0.5) | (sizes == 0) | ~np.isfinite(sizes)
        exact = plain | whole | (sizes >= largest * _NEXT_TO_LARGEST)
        rest = flat[~exact]
    return rest.size <= _FEW and all(map(_is_round, rest))


def _is_round(value: Any) -> bool:
    """Whether a large number is one digit and zeros, in the precision of its type."""
    near = float(f"{float(value):.1g}")
    return abs(near) > _WHOLE and type(value)(near) == value


def roundoff(dtype: np.dtype[Any]) -> float:
    """Half the distance from one to the next larger number."""
    return float(ml_dtypes.finfo(dtype).eps) / 2  # type: ignore[no-untyped-call]  # untyped there


def nudging(draw: Draw, fixed: frozenset[str], widened: frozenset[ir.DataType]) -> Change:
    """A change that nudges every float constant that is not fixed.

    Args:
        draw: Seed and pattern.
        fixed: Names of constants to leave alone.
        widened: Types that are run in float32; float64 among them is nudged by the roundoff of
            float32, or the nudge would vanish.
    """
    return partial(_nudge_constant, draw, fixed, widened)


def nudge_inputs(
    arrays: Arrays,
    draw: Draw,
    widened: frozenset[ir.DataType],
    fixed: frozenset[str] = frozenset(),
) -> Arrays:
    """Nudge every float input in the same way, but for the fixed ones."""
    return {
        name: _moved(array, _key(name, draw), draw, widened)
        if array.dtype in _NOISY_IN_NUMPY and name not in fixed
        else array
        for name, array in arrays.items()
    }


def widening(narrow: frozenset[ir.DataType]) -> Change:
    """A change that stores tensors of the given types as float32."""
    return lambda _, tensor: _widen_constant(narrow, tensor)


def widen_inputs(arrays: Arrays, narrow: frozenset[ir.DataType]) -> Arrays:
    """The same numbers as float32 where their type is one of those."""
    kinds = {kind.numpy() for kind in narrow}
    return {
        name: _as_float32(array) if array.dtype in kinds else array
        for name, array in arrays.items()
    }


def chained(first: Change, then: Change) -> Change:
    """One change after another."""
    return lambda name, tensor: then(name, first(name, tensor))


def nudge(
    array: NDArray[Any], key: tuple[int, int], pattern: Pattern, unit: float
) -> NDArray[Any]:
    """x·(1 + u·r), rounded to the type of x; numbers that would become infinite stay."""
    rng = np.random.default_rng(key)
    flat = np.ascontiguousarray(array).reshape(-1)
    signs = _signs(pattern, array.shape, rng)
    nudged = np.empty_like(flat)
    move = _by_one_ulp if unit == roundoff(array.dtype) else _by_unit
    for start in range(0, flat.size, _PIECE):
        piece = flat[start : start + _PIECE]
        with np.errstate(over="ignore", invalid="ignore"):
            moved = move(piece, signs(start, piece.size), unit)
        nudged[start : start + piece.size] = np.where(np.isfinite(moved), moved, piece)
    return nudged.reshape(array.shape)


def _by_unit(piece: NDArray[Any], signs: NDArray[np.int8], unit: float) -> NDArray[Any]:
    wide = piece.astype(np.float64)
    return np.asarray((wide + wide * (signs * unit)).astype(piece.dtype))


def _by_one_ulp(piece: NDArray[Any], signs: NDArray[np.int8], _: float) -> NDArray[Any]:
    """Where half an ulp leads: sizes are ordered as their bits are; zero and infinity stay."""
    bits = piece.view(f"i{piece.dtype.itemsize}")
    moving = signs * ((piece != 0) & np.isfinite(piece))
    return np.asarray((bits + moving.astype(bits.dtype)).view(piece.dtype))


Signs = Callable[[int, int], NDArray[np.int8]]


def _signs(pattern: Pattern, shape: tuple[int, ...], rng: np.random.Generator) -> Signs:
    match pattern:
        case Pattern.EACH:
            return lambda _, size: _coins(rng, size)
        case Pattern.WHOLE:
            one = _coins(rng, 1)
            return lambda _, size: np.broadcast_to(one, size)
        case Pattern.ROWS:
            rows = _coins(rng, shape[0] if shape else 1)
            width = int(np.prod(shape[1:])) if shape else 1
            return lambda start, size: rows[np.arange(start, start + size) // width]


def _coins(rng: np.random.Generator, size: int) -> NDArray[np.int8]:
    return rng.integers(0, 2, size, dtype=np.int8) * np.int8(2) - np.int8(1)


def _key(name: str, draw: Draw) -> tuple[int, int]:
    return draw.seed, zlib.crc32(f"{draw.pattern}/{name}".encode())


def _nudge_constant(
    draw: Draw,
    fixed: frozenset[str],
    widened: frozenset[ir.DataType],
    name: str,
    tensor: ir.TensorProtocol,
) -> ir.TensorProtocol:
    if name in fixed or tensor.dtype not in _NOISY or tensor.size == 0:
        return tensor
    make = partial(_nudged, tensor, _key(name, draw), draw, widened)
    return _lazily(tensor, make, tensor.dtype)


def _widen_constant(
    narrow: frozenset[ir.DataType], tensor: ir.TensorProtocol
) -> ir.TensorProtocol:
    if tensor.dtype not in narrow:
        return tensor
    return _lazily(tensor, partial(_as_float, tensor), ir.DataType.FLOAT)


def _unit(dtype: np.dtype[Any], widened: frozenset[ir.DataType]) -> float:
    coarse = dtype == np.float64 and ir.DataType.DOUBLE in widened
    return roundoff(np.dtype(np.float32) if coarse else dtype)


def _nudged(
    tensor: ir.TensorProtocol,
    key: tuple[int, int],
    draw: Draw,
    widened: frozenset[ir.DataType],
) -> NDArray[Any]:
    return _moved(tensor.numpy(), key, draw, widened)


def _moved(
    array: NDArray[Any], key: tuple[int, int], draw: Draw, widened: frozenset[ir.DataType]
) -> NDArray[Any]:
    if is_structure(array):
        return array
    return nudge(array, key, draw.pattern, draw.unit or _unit(array.dtype, widened))


def _as_float(tensor: ir.TensorProtocol) -> NDArray[Any]:
    return _as_float32(tensor.numpy())


def _as_float32(array: NDArray[Any]) -> NDArray[np.float32]:
    # A double beyond float32 becomes infinite, as it does where a runtime computes in float32:
    # that is what the noise is to show, and nothing to warn of.
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return array.astype(np.float32)


def _lazily(
    tensor: ir.TensorProtocol, make: Callable[[], NDArray[Any]], to: ir.DataType
) -> ir.TensorProtocol:
    """A tensor of the same shape and name that is computed when it is written."""
    shape = ir.Shape(tuple(int(size) for size in tensor.shape.numpy()))
    return ir.LazyTensor(lambda: ir.tensor(make(), dtype=to), to, shape, name=tensor.name)
