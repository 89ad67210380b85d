"""Products of one value with constant matrices, and what counts as one: sums, and rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.affine import Affine, Vector
from bnfold.expression import Expression, Made
from bnfold.folding.merging.taps import Wide
from bnfold.model.attributes import float_attr, int_attr
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import Edit, SetAttribute, SetConstant, SetOperator, name_of
from bnfold.rules.weights import bias_edit, has_input, read_float_weight

_RIGHT: Final = 1
_ADDEND: Final = 2
_MATRIX: Final = 2


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """``factor · x · W + addend``, or with the constant on the left.

    Attributes:
        index: Which factor is the constant: 1 for x · W, 0 for W · x.
        weight: The matrix as stored, or a stack of them.
        transposed: Whether it is stored the other way round.
        factor: A number before it.
        addend: One number for each output; None when absent.
        dtype: Type of the weight.
        turned: Whether x is transposed first.
    """

    index: int
    weight: Expression
    transposed: bool
    factor: float
    addend: Vector | None
    dtype: ir.DataType
    turned: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the matrix as it is multiplied."""
        shape = self.weight.shape
        return (*shape[:-2], shape[-1], shape[-2]) if self.transposed else shape

    @property
    def summed(self) -> int:
        """Axis of the matrix that is summed over."""
        return len(self.shape) - (2 if self.index == _RIGHT else 1)

    def wide(self) -> Wide:
        """Return the matrix as it is multiplied, in float64."""
        stored = self.weight.evaluate()
        return self.factor * (np.swapaxes(stored, -1, -2) if self.transposed else stored)

    def as_data(self) -> dict[str, object]:
        """Return how its matrix is stored as plain data, as a certificate holds it."""
        return {"transposed": self.transposed, "factor": self.factor}

    def fits(self, other: Product) -> bool:
        """Return whether a sum of both is one product."""
        return (
            self.index == other.index
            and self.shape == other.shape
            and self.dtype == other.dtype
            and self.turned == other.turned
        )


def read_product(node: ir.Node, facts: Facts) -> Product | Refusal:
    """Return what a MatMul or Gemm with one constant factor computes."""
    if node.op_type == "Gemm":
        return _read_gemm(node, facts)
    for index in (1, 0):
        weight = read_float_weight(node, index, facts)
        if not isinstance(weight, Refusal):
            break
    if isinstance(weight, Refusal):
        return weight
    if len(weight.shape) < _MATRIX:
        return Refusal(Code.WRONG_SHAPE, name_of(node), "its constant is a vector")
    dtype = weight.constant.dtype
    return Product(index, weight.constant.expression, False, 1.0, None, dtype)  # noqa: FBT003  a field


def _read_gemm(node: ir.Node, facts: Facts) -> Product | Refusal:
    weight = read_float_weight(node, _RIGHT, facts)
    if isinstance(weight, Refusal):
        return weight
    transposed = bool(int_attr(node, "transB", 0))
    outputs = weight.shape[0 if transposed else 1]
    addend = None
    beta = float_attr(node, "beta", 1.0)
    if has_input(node, _ADDEND) and beta != 0.0:
        held = read_float_weight(node, _ADDEND, facts)
        if isinstance(held, Refusal):
            return held
        if held.constant.dtype != weight.constant.dtype or not _is_row(held.shape, outputs):
            why = "its addend is of another type, or differs from row to row"
            return Refusal(Code.WRONG_SHAPE, name_of(node), why)
        row = held.constant.wide().reshape(-1) * beta
        addend = np.array(np.broadcast_to(row, outputs))
    return Product(
        _RIGHT,
        weight.constant.expression,
        transposed,
        float_attr(node, "alpha", 1.0),
        addend,
        weight.constant.dtype,
        bool(int_attr(node, "transA", 0)),
    )


def _is_row(shape: tuple[int, ...], outputs: int) -> bool:
    """Return whether an addend is the same for every row: [], [1], [N] or [1, N]."""
    if len(shape) == _MATRIX and shape[0] != 1:
        return False
    return not shape or shape[-1] in (1, outputs)


@dataclass(frozen=True, slots=True, eq=False)
class Summand:
    """``sign · outer · product``, or ``sign · diag(outer)`` where there is no product.

    Attributes:
        sign: Its sign in the sum.
        product: The product; None for a map of the value itself.
        outer: Scales of the outputs.
        shift: What is added behind, one number for each output.
    """

    sign: float
    product: Product | None
    outer: Vector
    shift: Vector

    def added(self) -> Vector:
        """Return all that is added, the product's own addend included."""
        own = self.product.addend if self.product is not None else None
        whole = self.shift if own is None else self.shift + self.outer * own
        return self.sign * whole

    def as_data(self) -> dict[str, object]:
        """Return it as plain data, as a certificate holds it."""
        product = None if self.product is None else self.product.as_data()
        return {"sign": self.sign, "outer": self.outer, "product": product}

    def wide(self, like: Product) -> Wide:
        """Return its part of the matrix of a sum."""
        if self.product is None:
            return self.sign * np.diag(self.outer)
        if like.index == _RIGHT:
            return self.sign * self.product.wide() * self.outer
        return self.sign * self.product.wide() * self.outer.reshape(-1, 1)


def summand(
    sign: float, product: Product | None, affine: Affine, like: Product, axis: int | None
) -> Summand | Refusal:
    """Return a term as a summand beside ``like``, whose outputs run along ``axis``."""
    outputs = like.shape[1 - like.summed] if len(like.shape) == _MATRIX else 1
    if len(like.shape) > _MATRIX and (product is None or not affine.is_identity):
        return Refusal(Code.WRONG_SHAPE, "", "a stack of matrices takes no map here")
    if affine.axis is not None and (affine.axis != axis or affine.channels != outputs):
        return Refusal(Code.WRONG_AXIS, "", f"the map runs along axis {affine.axis}")
    if product is None and (like.shape[0] != like.shape[1] or like.turned):
        return Refusal(Code.WRONG_SHAPE, "", "the matrix is not square, or x is transposed")
    scale, shift = affine.entries(outputs)
    return Summand(sign, product, scale, shift)


def sum_edits(
    node: ir.Node, own: Product, parts: Sequence[Summand], added: Vector | None
) -> list[Edit]:
    """Return the edits after which ``node`` is the sum of ``parts``, plus ``added``."""
    settings = {
        "constant_is_left": own.index != _RIGHT,
        "transposed": own.transposed,
        "parts": [part.as_data() for part in parts],
    }
    sources = tuple(part.product.weight for part in parts if part.product is not None)
    origin = Made("sum of products", settings, sources)
    weight = Expression.derived(partial(_sum, own, tuple(parts)), own.weight.shape, origin)
    return product_edits(node, own, weight, added)


def _sum(own: Product, parts: Sequence[Summand]) -> Wide:
    whole = np.zeros(own.shape)
    for part in parts:
        whole += part.wide(own)
    return np.swapaxes(whole, -1, -2) if own.transposed else whole


def in_a_row(first: Product, second: Product, *, transposed: bool = False) -> Product:
    """Return ``second`` behind ``first`` as one product, x · (A · B), stored as asked."""
    rows, columns = first.shape[0], second.shape[1]
    settings = {
        "first": first.as_data(),
        "second": second.as_data(),
        "transposed": transposed,
    }
    origin = Made("product behind product", settings, (first.weight, second.weight))
    shape = (columns, rows) if transposed else (rows, columns)
    weight = Expression.derived(partial(_behind, first, second, transposed), shape, origin)
    added = second.addend
    if first.addend is not None:
        image = first.addend @ second.wide()
        added = image if added is None else added + image
    return Product(_RIGHT, weight, transposed, 1.0, added, second.dtype)


def sequence_edits(node: ir.Node, own: Product, first: Product, second: Product) -> list[Edit]:
    """Return the edits after which ``node`` is ``second`` behind ``first``: x · A · B."""
    whole = in_a_row(first, second, transposed=own.transposed)
    return product_edits(node, own, whole.weight, whole.addend)


def _behind(first: Product, second: Product, transposed: bool) -> Wide:  # noqa: FBT001  a fact, no switch
    whole = first.wide() @ second.wide()
    return whole.T if transposed else whole


def product_edits(
    node: ir.Node, own: Product, weight: Expression, added: Vector | None
) -> list[Edit]:
    """Return the edits that give a product another matrix and addend.

    A MatMul that gets an addend becomes a Gemm; whether it may is for the caller to know.
    """
    channels = _channels(own)
    edits: list[Edit] = [SetConstant(node, own.index, weight, own.dtype, channels)]
    is_gemm = node.op_type == "Gemm"
    if is_gemm and own.factor != 1.0:
        edits.append(SetAttribute(node, ir.AttrFloat32("alpha", 1.0)))
    if added is None or not (added.any() or has_input(node, _ADDEND)):
        return edits
    if not is_gemm:
        edits.append(SetOperator(node, "Gemm"))
    elif float_attr(node, "beta", 1.0) != 1.0:
        edits.append(SetAttribute(node, ir.AttrFloat32("beta", 1.0)))
    return [*edits, bias_edit(node, _ADDEND, added, own.dtype)]


def _channels(own: Product) -> int:
    """Return the axis of the stored matrix that outputs run along."""
    axis = len(own.shape) * 2 - 3 - own.summed
    return (len(own.shape) * 2 - 3 - axis) if own.transposed else axis
