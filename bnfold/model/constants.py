"""Constants, wherever they live: initializers, Constant nodes and what computes from them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.expression import Expression, Wide

_EXPRESSION: Final = "bnfold.expression"

FLOATS: Final = frozenset(
    {ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE}
)
"""The storage types a map may live in."""


class Rounding(Protocol):
    """Knows what the graph's own types give for a computed constant."""

    def elements(self) -> NDArray[np.generic]:
        """Return the numbers, rounded after every operator."""
        ...

    def is_sure(self) -> bool:
        """Return whether every runtime computes the same numbers."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A constant value: its elements (floats in float64, unrounded) and its type.

    Attributes:
        expression: What its elements are, unrounded.
        dtype: Its element type.
        rounding: Knows its elements as the graph rounds them, after every operator; None where
            nothing but the last rounding is between them and ``expression``.
    """

    expression: Expression
    dtype: ir.DataType
    rounding: Rounding | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions of the constant."""
        return self.expression.shape

    @property
    def is_float(self) -> bool:
        """Whether its elements are of a floating type that a map may live in."""
        return self.dtype in FLOATS

    def wide(self) -> Wide:
        """Return the elements in float64, unrounded: what maps are composed from."""
        return self.expression.evaluate()

    def stored(self) -> NDArray[np.generic]:
        """Return the elements in their own type, as the graph itself has them.

        Whatever decides a shape, an index or a branch, or is not continuous, reads these.
        """
        if self.rounding is not None:
            return self.rounding.elements()
        elements = np.asarray(self.expression.base.numpy())
        if self.is_float and (self.expression.factors or elements.dtype != self.dtype.numpy()):
            return self.expression.rounded(self.dtype.numpy())
        return elements


def constant_of(tensor: ir.TensorProtocol) -> Constant:
    """Return the constant a tensor holds; a folded tensor gives its unrounded expression."""
    expression = expression_of(tensor)
    if expression is None:
        shape = tuple(int(size) for size in tensor.shape.numpy())
        expression = Expression(tensor, shape)
    return Constant(expression, tensor.dtype)


def expression_of(tensor: ir.TensorProtocol) -> Expression | None:
    """Return what a folded tensor evaluates; None for a tensor that no fold wrote."""
    found = tensor.meta.get(_EXPRESSION) if isinstance(tensor, ir.LazyTensor) else None
    return found if isinstance(found, Expression) else None


def folded_tensor(
    expression: Expression, dtype: ir.DataType, like: ir.TensorProtocol | None
) -> ir.LazyTensor:
    """Return a tensor that evaluates and rounds ``expression`` whenever it is read.

    Nothing large is kept: the float64 elements live only while one tensor is being written.
    """
    tensor = ir.LazyTensor(
        functools.partial(_rounded, expression, dtype),
        dtype=dtype,
        shape=ir.Shape(expression.shape),
        doc_string=None if like is None else like.doc_string,
        metadata_props=None if like is None else dict(like.metadata_props),
    )
    tensor.meta[_EXPRESSION] = expression
    return tensor


def _rounded(expression: Expression, dtype: ir.DataType) -> ir.TensorProtocol:
    return ir.Tensor(expression.rounded(dtype.numpy()), dtype=dtype)


def constant_node(node: ir.Node) -> Constant | None:
    """Return what a Constant node holds (Constant-13, every attribute form)."""
    for name, attribute in node.attributes.items():
        if attribute.is_ref():
            return None
        if name == "value":
            return constant_of(attribute.as_tensor())
        if name in ("value_float", "value_floats"):
            elements = np.array(attribute.value, dtype=np.float32)
            return Constant(Expression.of(elements), ir.DataType.FLOAT)
        if name in ("value_int", "value_ints"):
            whole = np.array(attribute.value, dtype=np.int64)
            return Constant(Expression.of(whole), ir.DataType.INT64)
    return None
