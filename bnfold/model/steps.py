"""Casts, ranges and quantisation of constants, on the numbers that the graph itself has."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any

import numpy as np
import onnx_ir as ir

from bnfold.expression import round_once
from bnfold.model.native import (
    OTHERS,
    Array,
    Native,
    Run,
    UndecidedError,
    as_type,
    real,
    widened,
)


def cast_run(target: ir.DataType) -> Run:
    """Return what casts to a type: floats are left in float64 where they are to be rounded."""

    def run(inputs: Sequence[Array | None]) -> list[Array]:
        (source,) = inputs
        assert source is not None
        if source.dtype == np.float64 and target in _ROUNDED:
            return [source]
        if source.dtype == np.float64 and target is not ir.DataType.BOOL:
            _check_range(source, target)
        return [source.astype(target.numpy())]

    return run


_ROUNDED = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE)


def _check_range(source: Array, target: ir.DataType) -> None:
    """What becomes of a float beyond the range of an integer type is nowhere laid down."""
    if target.is_floating_point() or target is ir.DataType.STRING:
        return
    low, high = (float(bound) for bound in _bounds(target))
    cut = np.trunc(source)
    outside = ~((cut >= low) & (cut <= high))
    if outside.any():
        worst = float(source[outside].reshape(-1)[0])
        message = f"runtimes differ in what a Cast makes of {worst!r} in {target.name.lower()}"
        raise UndecidedError(message)


def _bounds(target: ir.DataType) -> tuple[int, int]:
    bits = int(target.bitwidth)
    if target.name.startswith("U"):
        return 0, 2**bits - 1
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def range_of(inputs: Sequence[Native | None], dtype: np.dtype[Any]) -> Native:
    """Return what a Range of floats gives; its number of elements must be sure.

    The specification asks for start + i · delta, ONNX Runtime adds delta again and again.

    Raises:
        UndecidedError: If runtimes may differ in the number of elements.
    """
    plain = [_numbers(x, None) for x in inputs]
    count = _count(plain, dtype)
    variants = list(islice(cycle((_added, _twice, _once)), OTHERS))
    others: list[Array] = []
    for place, spell in enumerate(variants):
        numbers = [_numbers(x, place) for x in inputs]
        if _count(numbers, dtype) != count:
            raise UndecidedError(_UNSURE.format(*plain))
        others.append(spell(numbers[0], numbers[2], count, dtype))
    nominal = _once(plain[0], plain[2], count, dtype)
    return Native(nominal, real(nominal, others))


_UNSURE = (
    "float arithmetic on a runtime could go either way: "
    "how many elements Range({}, {}, {}) has lies within an ulp of a step"
)


def _numbers(x: Native | None, place: int | None) -> float:
    if x is None:
        return 0.0
    return float(widened(x.elements if place is None else x.other(place)).reshape(-1)[0])


def _count(numbers: Sequence[float], dtype: np.dtype[Any]) -> int:
    """⌈(limit − start) / delta⌉, if it is the same however it is rounded."""
    start, limit, delta = (np.float64(n) for n in numbers)
    way = as_type(np.asarray(limit - start), dtype).astype(np.float64)
    exact, half = (limit - start) / delta, way / delta
    ratios = (exact, half, as_type(np.asarray(half), dtype).astype(np.float64))
    counts = {float(np.ceil(ratio)) for ratio in ratios}
    if len(counts) > 1 or not np.isfinite(list(counts)).all():
        raise UndecidedError(_UNSURE.format(*numbers))
    return max(int(counts.pop()), 0)


def _once(start: float, delta: float, count: int, dtype: np.dtype[Any]) -> Array:
    return as_type(np.asarray(start + np.arange(count) * delta), dtype)


def _twice(start: float, delta: float, count: int, dtype: np.dtype[Any]) -> Array:
    products = as_type(np.asarray(np.arange(count) * delta), dtype).astype(np.float64)
    return as_type(np.asarray(start + products), dtype)


def _added(start: float, delta: float, count: int, dtype: np.dtype[Any]) -> Array:
    found = [round_once(np.asarray(start), dtype)] if count else []
    for _ in range(count - 1):
        found.append(round_once(np.asarray(found[-1].astype(np.float64) + delta), dtype))
    return np.array(found, dtype)
