"""A constant behind a product of two matrices, different from row to row, is the C of a Gemm.

A constant that is one row is a map, which the rules of Gemm and MatMul take.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.expression import Expression, Made, Wide
from bnfold.folding.merging.sums import Reader
from bnfold.folding.ranges import check_ranges
from bnfold.folding.selection import Selection
from bnfold.model.attributes import float_attr
from bnfold.model.facts import Facts
from bnfold.model.uses import is_used_once
from bnfold.records import Code, Refusal
from bnfold.rules.base import Edit, SetAttribute, SetConstant, SetOperator, name_of
from bnfold.rules.weights import Weight, has_input, read_float_weight

SIGNS: Final = {"Add": 1, "Sub": -1}
_C: Final = 2
_MATRIX: Final = 2
_ALONG_AXES: Final = 2
"""A constant along fewer axes is a map."""


@dataclass(frozen=True, slots=True, eq=False)
class Addend:
    """A node that adds a constant to a product, which takes it.

    Attributes:
        product: The Gemm, or the MatMul that becomes one.
        node: The Add or Sub that goes.
        edits: The product's new constants, attributes and operator.
    """

    product: ir.Node
    node: ir.Node
    edits: tuple[Edit, ...]


def plan_addend(
    node: ir.Node, reader: Reader, facts: Facts, selection: Selection
) -> Addend | Refusal:
    """Return how the product in front of an Add or Sub takes its constant, or why not."""
    places = [index for index in facts.constant_inputs(node) if index < _MATRIX]
    if len(places) != 1 or not facts.is_standard(node):
        return Refusal(Code.NOT_AFFINE, name_of(node), "it has no constant operand")
    (place,) = places
    value = node.inputs[1 - place]
    product = None if value is None else value.producer()
    if value is None or product is None or (node.op_type == "Sub" and place == 0):
        return Refusal(Code.NOT_AFFINE, name_of(node), "it adds nothing to a product")
    if not _is_product(product, facts) or product.graph is not node.graph:
        return Refusal(Code.NOT_AFFINE, name_of(node), "no product of two matrices before it")
    if not reader.read_once(value):
        return Refusal(Code.SHARED_VALUE, name_of(node), "its input is read elsewhere")
    blocked = selection.refuse_site(node) or selection.refuse_touch(product)
    if blocked is not None:
        return blocked
    added = _own(node, place, facts)
    if isinstance(added, Refusal):
        return added
    return _taken(product, node, added, facts)


def _is_product(node: ir.Node, facts: Facts) -> bool:
    """Return whether a node is a Gemm, or computes what one does."""
    if not facts.is_standard(node) or node.op_type not in ("Gemm", "MatMul"):
        return False
    ranks = [None if value is None else facts.rank(value) for value in node.inputs[:2]]
    return node.op_type == "Gemm" or ranks == [_MATRIX, _MATRIX]


def _own(node: ir.Node, index: int, facts: Facts) -> Weight | Refusal:
    """Return a constant that is nobody else's: another one would come on top."""
    value = node.inputs[index]
    if value is None or not is_used_once(value) or value.is_graph_output():
        return Refusal(Code.NO_GAIN, name_of(node), "its constant is read elsewhere")
    return read_float_weight(node, index, facts)


def _taken(product: ir.Node, node: ir.Node, added: Weight, facts: Facts) -> Addend | Refusal:
    result = facts.shape(product.outputs[0])
    shape = added.shape
    if result is None or len(shape) > _MATRIX or sum(size > 1 for size in shape) < _ALONG_AXES:
        return Refusal(Code.NO_GAIN, name_of(node), "its constant is one row, or is no addend")
    if shape != tuple(result) or added.constant.dtype != facts.dtype(product.outputs[0]):
        why = "its constant is not known to have the shape and type of the product"
        return Refusal(Code.UNKNOWN_SHAPE, name_of(node), why)
    sign = SIGNS[node.op_type]
    expression = added.constant.expression
    edits: list[Edit] = []
    beta = float_attr(product, "beta", 1.0)
    if has_input(product, _C):
        held = _own(product, _C, facts)
        if isinstance(held, Refusal):
            return held
        if beta != 1.0 or held.constant.dtype != added.constant.dtype:
            return Refusal(
                Code.NO_GAIN, name_of(product), "its addend has a beta or other type"
            )
        expression = _sum(held.constant.expression, expression, sign)
    else:
        expression = expression if sign > 0 else expression.times(np.array(-1.0), ())
        if beta != 1.0:
            edits.append(SetAttribute(product, ir.AttrFloat32("beta", 1.0)))
    if product.op_type == "MatMul":
        edits.append(SetOperator(product, "Gemm"))
    edits.append(SetConstant(product, _C, expression, added.constant.dtype, None))
    return check_ranges(edits) or Addend(product, node, tuple(edits))


def _sum(one: Expression, two: Expression, sign: int) -> Expression:
    origin = Made("sum of elements", {"powers": [1, sign]}, (one, two))
    return Expression.derived(partial(_added, one, two, sign), two.shape, origin)


def _added(one: Expression, two: Expression, sign: int) -> Wide:
    return np.asarray(one.evaluate() + sign * two.evaluate())
