"""The original's own rounding noise: what half a unit in the last place does to its outputs.

Every stored number x becomes x·(1 + u·r) with r = ±1 and u the unit roundoff of its storage
type, rounded to that type. That is the freedom which any exporter, runtime or fold has; a
difference counts only where it exceeds what this freedom does. Signs come in three patterns,
because errors of real folds do too: independent for each number, one per row (a per-channel
scale rounds all weights of a channel alike when they are equal), or one for the whole tensor.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
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
    """One perturbation of a model and its inputs."""

    seed: int
    pattern: Pattern


def first_draws(seed: int) -> tuple[Draw, ...]:
    """The draws that every check makes."""
    patterns = (Pattern.EACH, Pattern.ROWS, Pattern.EACH, Pattern.WHOLE)
    return tuple(Draw(seed + index, pattern) for index, pattern in enumerate(patterns))


def further_draws(seed: int) -> tuple[Draw, ...]:
    """More of them, before a model is convicted."""
    patterns = (Pattern.EACH, Pattern.ROWS, Pattern.WHOLE) * 2
    return tuple(Draw(seed + 100 + index, pattern) for index, pattern in enumerate(patterns))


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


def nudge_inputs(arrays: Arrays, draw: Draw, widened: frozenset[ir.DataType]) -> Arrays:
    """Nudge every float input in the same way."""
    return {
        name: nudge(array, _key(name, draw), draw.pattern, _unit(array.dtype, widened))
        if array.dtype in _NOISY_IN_NUMPY
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
        name: array.astype(np.float32) if array.dtype in kinds else array
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
    for start in range(0, flat.size, _PIECE):
        piece = flat[start : start + _PIECE]
        with np.errstate(over="ignore", invalid="ignore"):
            moved = piece.astype(np.float64)
            moved = (moved + moved * unit * signs(start, piece.size)).astype(piece.dtype)
        nudged[start : start + piece.size] = np.where(np.isfinite(moved), moved, piece)
    return nudged.reshape(array.shape)


Signs = Callable[[int, int], NDArray[np.float64]]


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


def _coins(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    return rng.integers(0, 2, size).astype(np.float64) * 2 - 1


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
    make = partial(_nudged, tensor, _key(name, draw), draw.pattern, widened)
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
    pattern: Pattern,
    widened: frozenset[ir.DataType],
) -> NDArray[Any]:
    array = tensor.numpy()
    return nudge(array, key, pattern, _unit(array.dtype, widened))


def _as_float(tensor: ir.TensorProtocol) -> NDArray[Any]:
    return tensor.numpy().astype(np.float32)


def _lazily(
    tensor: ir.TensorProtocol, make: Callable[[], NDArray[Any]], to: ir.DataType
) -> ir.TensorProtocol:
    """A tensor of the same shape and name that is computed when it is written."""
    shape = ir.Shape(tuple(int(size) for size in tensor.shape.numpy()))
    return ir.LazyTensor(lambda: ir.tensor(make(), dtype=to), to, shape, name=tensor.name)
