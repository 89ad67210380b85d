"""Casts, quantisation and ranges of constants: steps with a rounding of their own inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from bnfold.evidence import clock
from bnfold.evidence.reference.arrays import Array, widen
from bnfold.evidence.reference.call import Call
from bnfold.evidence.reference.kernels.quantized import laid_out
from bnfold.evidence.reference.smooth import is_float
from bnfold.evidence.reference.typed import (
    Run,
    Typed,
    UndecidedError,
    rounded,
    smooth_results,
    step_results,
)
from bnfold.model.attributes import int_attr


def cast_results(
    node: ir.Node, run: Run, target: ir.DataType | None, x: Sequence[Typed | None]
) -> list[Typed]:
    """Round to a narrower float: that moves a number by half a unit, and is no step.

    Raises:
        UndecidedError: If a float is so near to a step of an integer type, or outside of it.
    """
    assert target is not None
    source = x[0]
    if is_float(target):
        return smooth_results(_IDENTITY, _as_float, [target], [source])
    if source is not None and source.elements.dtype == np.float64:
        _check_range(node, source.elements, target)
    return step_results(node, run, [None if not target.is_floating_point() else target], x)


_IDENTITY: Final = ir.Node("", "Identity", ())


def _as_float(x: Sequence[Any]) -> list[Array]:
    return [np.asarray(x[0], np.float64)]


def _check_range(node: ir.Node, elements: Array, target: ir.DataType) -> None:
    """No specification says what a float beyond an integer type becomes."""
    if target is ir.DataType.BOOL or not target.is_integer():
        return
    cut = np.trunc(elements)
    inside = (cut >= float(target.min)) & (cut <= float(target.max))
    if not inside.all():
        value = float(elements[~inside].reshape(-1)[0])
        message = f"runtimes differ in what {node.op_type} {node.name!r} makes of {value!r}"
        raise UndecidedError(message)


def quantize_results(
    node: ir.Node, run: Run, dtypes: Sequence[ir.DataType | None], x: Sequence[Typed | None]
) -> list[Typed]:
    """Divide in the type of the scale, and in float32, which must make no difference.

    Raises:
        UndecidedError: If it does.
    """
    value, scale = x[0], x[1]
    assert value is not None
    assert scale is not None
    found = None
    for kind in {scale.dtype or ir.DataType.FLOAT, ir.DataType.FLOAT}:

        def divided(arrays: Sequence[Any], kind: ir.DataType = kind) -> Sequence[Any]:
            steps = arrays[0] / laid_out(Call(node, arrays, 0), arrays[1])
            return run([rounded(steps, kind), np.ones_like(arrays[1]), *arrays[2:]])

        results = step_results(node, divided, dtypes, x)
        if found is not None and not np.array_equal(found[0].elements, results[0].elements):
            message = f"{node.op_type} {node.name!r} depends on the type that it divides in"
            raise UndecidedError(message)
        found = results
    assert found is not None
    return found


def remainder_results(
    node: ir.Node, run: Run, dtypes: Sequence[ir.DataType | None], x: Sequence[Typed | None]
) -> list[Typed]:
    """Return a remainder, which moves with its inputs while the quotient stays the same.

    Raises:
        UndecidedError: If the quotient may be another.
    """
    cut = np.trunc if int_attr(node, "fmod", 0) else np.floor
    step_results(node, lambda a: [cut(a[0] / a[1])], [None], x)
    return smooth_results(_IDENTITY, run, dtypes, x)


def range_results(
    node: ir.Node, dtype: ir.DataType | None, x: Sequence[Typed | None]
) -> Typed:
    """Return start + i · delta; a runtime that adds up delta makes other roundings.

    Raises:
        UndecidedError: If it is not sure how many elements there are.
    """
    start, limit, delta = (0.0 if one is None else float(one.elements.item()) for one in x)
    if any(one is not None and one.doubt is not None for one in x):
        raise UndecidedError(
            f"{node.op_type} {node.name!r} depends on numbers that are not sure"
        )
    way = rounded(np.asarray(limit - start), dtype)
    with np.errstate(all="ignore"):
        ratios = np.array([(limit - start) / np.float64(delta), way / np.float64(delta)])
        ratios = np.array([*ratios, rounded(ratios[1], dtype)])
    counts = np.unique(np.ceil(ratios))
    if counts.size > 1 or not np.isfinite(counts).all():
        message = (
            f"arithmetic on a runtime could go either way: how many elements {node.op_type} "
            f"{node.name!r} has lies within an ulp of a step"
        )
        raise UndecidedError(message)
    turns = np.arange(max(int(counts[0]), 0))
    exact = np.asarray(start + turns * delta)
    added = _added(start, delta, turns.size, dtype)
    elements = rounded(exact, dtype)
    doubt = np.abs(added - elements) * 2
    twice = rounded(np.asarray(start + rounded(np.asarray(turns * delta), dtype)), dtype)
    doubt = np.maximum(doubt, np.abs(twice - elements) * 2)
    return Typed(elements, dtype, doubt if doubt.any() else None)


_LOOKED_AT: Final = 1 << 12


def _added(start: float, delta: float, count: int, dtype: ir.DataType | None) -> Array:
    found = [rounded(np.asarray(start), dtype)][:count]
    while len(found) < count:
        if len(found) % _LOOKED_AT == 0:
            clock.check()
        found.append(rounded(np.asarray(found[-1] + delta), dtype))
    return widen(np.array(found, np.float64))
