"""Constants stored as integers: QuantizeLinear and DequantizeLinear by the specification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.blocks import Stored
from bnfold.expression import Expression
from bnfold.model.attributes import int_attr
from bnfold.model.constants import FLOATS, Constant
from bnfold.model.native import UndecidedError

Array = NDArray[Any]

EXACT: Final = "bnfold.exact"
"""Where a node remembers the constant that its integers were rounded from."""

INTEGERS: Final = frozenset(
    {
        ir.DataType.INT4,
        ir.DataType.UINT4,
        ir.DataType.INT8,
        ir.DataType.UINT8,
        ir.DataType.INT16,
        ir.DataType.UINT16,
        ir.DataType.INT32,
    }
)
"""The storage types whose values are ``(integer − zero point) · scale``."""


@dataclass(frozen=True, slots=True, eq=False)
class Centred:
    """Integers minus their zero point."""

    integers: Stored
    zero: NDArray[np.float64]

    def numpy(self) -> NDArray[np.generic]:
        """Return the differences, in float64: they are exact there."""
        return np.asarray(self.integers.numpy()).astype(np.float64) - self.zero


def limits(dtype: ir.DataType) -> tuple[int, int]:
    """Return the smallest and the largest integer of a type."""
    bits = int(dtype.bitwidth)
    if dtype.name.startswith("U"):
        return 0, 2**bits - 1
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def scale_axis(node: ir.Node, scale: Constant, rank: int) -> int | None:
    """Return the axis that the scales of a (De)QuantizeLinear run along; None: one scale."""
    if int(np.prod(scale.shape)) == 1 or rank == 0:
        return None
    return int_attr(node, "axis", 1) % rank


def fits(node: ir.Node, shape: tuple[int, ...], scale: Constant) -> bool:
    """Return whether one scale, or one for each slice along an axis, belongs to ``shape``."""
    if int_attr(node, "block_size", 0) or len(scale.shape) > 1 or not scale.is_float:
        return False
    axis = scale_axis(node, scale, len(shape))
    return axis is None or scale.shape == (shape[axis],)


def laid(vector: NDArray[np.float64], axis: int | None, rank: int) -> NDArray[np.float64]:
    """Return scales or zero points in a shape that broadcasts along ``axis``."""
    along = [1] * rank
    if axis is not None:
        along[axis] = vector.size
    return vector.reshape(along)


def dequantized(
    node: ir.Node, integers: Constant, scale: Constant, zero: Constant | None
) -> Constant | None:
    """Return ``(integers − zero) · scale``, unrounded; None for blocks and other types."""
    rank = len(integers.shape)
    if integers.dtype not in INTEGERS or not fits(node, integers.shape, scale):
        return None
    axis = scale_axis(node, scale, rank)
    if zero is not None and zero.shape != scale.shape and int(np.prod(zero.shape)) != 1:
        return None
    dtype = ir.DataType(int_attr(node, "output_dtype", 0)) or scale.dtype
    if dtype not in FLOATS:
        return None
    base: Stored = integers.expression.base
    if zero is not None:
        offset = zero.stored().astype(np.float64)
        base = Centred(base, laid(offset, axis if offset.size > 1 else None, rank))
    expression = Expression(base, integers.shape, (laid(scale.wide(), axis, rank),))
    return Constant(expression, dtype)


def dequantize(node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
    """Return ``(integers − zero) · scale`` in float64, of inputs that fit."""
    integers, scale, zero = (*inputs, None)[:3]
    assert integers is not None
    assert scale is not None
    rank = integers.ndim
    axis = None if scale.size == 1 or rank == 0 else int_attr(node, "axis", 1) % rank
    wide = integers.astype(np.float64)
    if zero is not None:
        wide = wide - laid(zero.astype(np.float64), axis if zero.size > 1 else None, rank)
    return [wide * laid(scale, axis, rank)]


def quantized_type(
    node: ir.Node, value: Constant, scale: Constant, zero: Constant | None
) -> ir.DataType | None:
    """Return what type a QuantizeLinear gives that `quantize` can compute.

    None for blocks, and for types where the precision of the division is not laid down.
    """
    dtype = ir.DataType(int_attr(node, "output_dtype", 0)) or (
        ir.DataType.UINT8 if zero is None else zero.dtype
    )
    if dtype not in INTEGERS or not fits(node, value.shape, scale):
        return None
    return dtype if value.dtype == scale.dtype == ir.DataType.FLOAT else None


def quantize(node: ir.Node, dtype: ir.DataType, inputs: Sequence[Array | None]) -> list[Array]:
    """Return ``saturate(round(value / scale) + zero)``, ties to even, divided in float32.

    Raises:
        UndecidedError: If a quotient is not finite.
    """
    value, scale, zero = (*inputs, None)[:3]
    assert value is not None
    assert scale is not None
    rank = value.ndim
    axis = None if scale.size == 1 or rank == 0 else int_attr(node, "axis", 1) % rank
    # IEEE division: float64 rounded once is what float32 gives
    whole = np.rint((value / laid(scale, axis, rank)).astype(np.float32)).astype(np.float64)
    if not np.isfinite(whole).all():
        message = "what runtimes make of an infinite quotient in integers is not laid down"
        raise UndecidedError(message)
    if zero is not None:
        offset = zero.astype(np.float64)
        whole = whole + laid(offset, axis if offset.size > 1 else None, rank)
    return [np.clip(whole, *limits(dtype)).astype(dtype.numpy())]
