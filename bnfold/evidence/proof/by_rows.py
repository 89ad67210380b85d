"""Large matrices in float64 by rows: a weight of a gigabyte would be two, and fresh memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.blocks import InParts, in_order
from bnfold.evidence import clock
from bnfold.evidence.reference.arrays import widen
from bnfold.model.attributes import float_attr, int_attr
from bnfold.model.constants import expression_of

Array = NDArray[Any]
Mask = NDArray[np.bool_]

LARGE: Final = 1 << 22
"""From so many elements on a matrix is not held as a whole."""

_BLOCK: Final = 1 << 18
"""Elements of rows that are widened at once: they stay in the cache."""

_SAMPLED_ROWS: Final = 256
"""Rows that a sample is taken from at the least: to read all takes as long as to multiply."""

_HEAD: Final = 1 << 10
"""Elements of a row that are looked at first: one page of a file."""

_COMPARED: Final = (np.dtype(np.float32), np.dtype(np.float64))
"""Types whose largest element numpy finds as fast as it reads them."""

_ONE_THREAD: Final = 1 << 18
"""Multiplications up to which OpenBLAS wakes no other threads (interface/gemm.c).

To wake them for little costs more than it gains, on a machine that is busy ten times as much.
"""

_FEWEST_ROWS: Final = 8
"""Cut smaller, the calls cost more than the threads."""

_PRODUCTS: Final = ("MatMul", "Gemm")


class Rows(NamedTuple):
    """A large tensor that is read by rows, along axis 0.

    Attributes:
        shape: Its shape.
        read: Gives rows as they are stored, or in float64.
    """

    shape: tuple[int, ...]
    read: Callable[[slice], Array]

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """Yield all rows in float64, some at a time; the next ones are read meanwhile.

        Raises:
            OutOfTimeError: If the time is up.
        """
        for part, rows in in_order(self._wide, self._parts()):
            clock.check()
            yield part, rows

    def _parts(self) -> Iterator[slice]:
        height = max(1, _BLOCK // max(1, math.prod(self.shape[1:])))
        for start in range(0, self.shape[0], height):
            yield slice(start, min(start + height, self.shape[0]))

    def _wide(self, part: slice) -> Array:
        return widen(self.read(part))

    def exceed(self, kept: Sequence[int], least: float) -> bool:
        """Whether each slice along some axes holds a magnitude above a bound.

        Reads no more than it takes to know: where axis 0 is summed over, often one block of
        rows; where it is kept, the beginning of each row.

        Args:
            kept: The axes along which slices are told apart.
            least: The bound.

        Raises:
            OutOfTimeError: If the time is up.
        """
        if 0 in kept:
            for _, is_shown in in_order(
                lambda part: self._all_exceed(part, kept, least), self._parts()
            ):
                clock.check()
                if not is_shown:
                    return False
            return True
        shown = np.zeros([n if axis in kept else 1 for axis, n in enumerate(self.shape)], bool)
        for _, some in in_order(lambda part: self._exceed(part, kept, least), self._parts()):
            clock.check()
            shown |= some
            if shown.all():
                break
        return bool(shown.all())

    def _all_exceed(self, part: slice, kept: Sequence[int], least: float) -> bool:
        rows = self.read(part)
        if tuple(kept) == (0,):
            flat = rows.reshape(len(rows), -1)
            rows = flat[~_exceeds(flat[:, :_HEAD], (0,), least)[:, 0]]
        return bool(_exceeds(rows, kept, least).all())

    def _exceed(self, part: slice, kept: Sequence[int], least: float) -> Mask:
        return _exceeds(self.read(part), kept, least)

    def sample(self, most: int) -> Array:
        """Return so many of its elements in float64, from rows that are evenly spread."""
        apart = max(self.shape[0] // _SAMPLED_ROWS, 1)
        rows = range(0, self.shape[0], apart)
        each = math.prod(self.shape[1:])
        step, found = max(len(rows) * each // most, 1), []
        for place, row in enumerate(rows):
            first = (-place * each) % step  # as if the rows lay one behind the other
            found.append(self._wide(slice(row, row + 1)).reshape(-1)[first::step].copy())
        return np.concatenate(found)


def _exceeds(rows: Array, kept: Sequence[int], least: float) -> Mask:
    """Return where a magnitude is above a bound; axes that are not kept have length one."""
    others = tuple(axis for axis in range(rows.ndim) if axis not in kept)
    rows = rows if rows.dtype in _COMPARED else widen(rows)
    high = widen(rows.max(axis=others, initial=0.0, keepdims=True))
    low = widen(rows.min(axis=others, initial=0.0, keepdims=True))
    return np.asarray(np.maximum(high, -low) > least)


def rows_of_tensor(tensor: ir.TensorProtocol, *, is_computed: bool = False) -> Rows | None:
    """Return a stored tensor by rows, as it is stored; None where rows hang together.

    Args:
        tensor: The tensor.
        is_computed: Whether it may be one that is computed each time.
    """
    shape = tuple(int(size) for size in tensor.shape.numpy())
    each = math.prod(shape[1:])
    if isinstance(tensor, InParts):
        mapped = tensor

        def read(part: slice) -> Array:
            found = mapped.part(part.start * each, part.stop * each)
            return found.reshape(part.stop - part.start, *shape[1:])

        return Rows(shape, read)
    expression = expression_of(tensor)
    if expression is not None and is_computed:
        return Rows(shape, expression.rounded_rows(tensor.dtype.numpy()))
    if isinstance(tensor, ir.Tensor | ir.serde.TensorProtoTensor):
        held = tensor.numpy()
        return Rows(shape, held.__getitem__)
    return None


def is_product(node: ir.Node) -> bool:
    """Whether a node is a product with a matrix that may be read by rows."""
    return (
        node.op_type in _PRODUCTS
        and node.domain in ("", "ai.onnx")
        and len(node.inputs) > 1
        and not any(attribute.is_ref() for attribute in node.attributes.values())
    )


def multiplied(node: ir.Node, data: Array, rows: Rows, addend: Array | None) -> Array:
    """Return what MatMul or Gemm gives for a second input [K, N], or turned.

    Args:
        node: The node; what `is_product` takes.
        data: Its first input, in float64.
        rows: The second.
        addend: The third of Gemm, if there is one.
    """
    if node.op_type == "MatMul":
        flat = data.reshape(-1, data.shape[-1])
        return _summed(flat, rows).reshape(*data.shape[:-1], rows.shape[1])
    data = data.T if int_attr(node, "transA", 0) else data
    y = _beside(data, rows) if int_attr(node, "transB", 0) else _summed(data, rows)
    y *= float_attr(node, "alpha", 1.0)
    if addend is not None:
        y = y + float_attr(node, "beta", 1.0) * addend
    return y


def _summed(data: Array, rows: Rows) -> Array:
    """[M, K] · [K, N], the rows being what is summed over."""
    y = np.zeros((data.shape[0], rows.shape[1]))
    for part, some in rows.blocks():
        for few in _few(part, y.size):
            y += data[:, few] @ some[few.start - part.start : few.stop - part.start]
    return y


def _beside(data: Array, rows: Rows) -> Array:
    """[M, K] · [N, K]ᵀ, the rows being what the results run along."""
    y = np.empty((data.shape[0], rows.shape[0]))
    for part, some in rows.blocks():
        for few in _few(part, data.size):
            y[:, few] = data @ some[few.start - part.start : few.stop - part.start].T
    return y


def _few(part: slice, each: int) -> Iterator[slice]:
    """Cut a range of rows so that a product of each piece is computed by one thread.

    Args:
        part: The rows.
        each: How many products one row takes part in.
    """
    height = max(_FEWEST_ROWS, _ONE_THREAD // max(each, 1))
    for start in range(part.start, part.stop, height):
        yield slice(start, min(start + height, part.stop))
