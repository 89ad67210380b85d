"""MatMul with one constant factor: a scale goes into it, a shift makes it a Gemm or goes on.

A product of two matrices and a constant addend is one Gemm. A stack of matrices has no such
operator: a shift in front of it goes on as a shift behind it, one behind it is refused.
"""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import (
    Edit,
    Maps,
    ReshapeFirst,
    Rule,
    SetOperator,
    Taken,
    name_of,
    together,
    wrong_axis,
)
from bnfold.rules.product import matrix_product_after, matrix_product_before
from bnfold.rules.weights import Weight, bias_edit, only_map, read_weight

_LEFT: Final = 0
_RIGHT: Final = 1
_ADDEND: Final = 2
_MATRIX: Final = 2
_GEMM_BROADCASTS_SINCE: Final = 7
"""Before, its addend has the shape of the result, or an attribute says that it broadcasts."""
_LAY_OUT: Final = frozenset({"Reshape", "Flatten"})


class MatMul(Rule):
    """``Y = A · B`` with the numpy rules for stacks of matrices (MatMul-1 to -13)."""

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``s · y + t``: the weight times s; for t, two matrices become a Gemm with C = t."""
        affine = maps[0]
        weight = _weight(node, facts)
        if isinstance(weight, Refusal):
            return _unless(weight, matrix_product_after(node, affine, facts))
        first = _reshape_first(node, weight, facts) if affine.has_shift else ()
        if affine.has_shift and not (first or _is_gemm(node, weight, facts)):
            why = _why_no_addend(node, weight, facts)
            remedy = "the scale alone can be folded"
            return Refusal(Code.NEEDS_SCALE_ONLY, name_of(node), why, remedy)
        if affine.axis is None:
            return together(first, weight.times(affine.scale), _addend(node, affine, weight))
        axis = _weight_axis(node, weight, affine, facts)
        if axis is None:
            refusal = wrong_axis(node, affine, "its weight does not run along that axis")
            return _unless(refusal, matrix_product_after(node, affine, facts))
        columns = axis == _outer_axis(weight) and len(weight.shape) == _MATRIX
        alike = affine.scale.size if columns else 1
        scaled = weight.times(affine.scale, axis, alike=alike)
        return together(first, scaled, _addend(node, affine, weight))

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``(s · x + t) · W``: the weight times s; the image of t as above, or onward."""
        weight = _weight(node, facts)
        if isinstance(weight, Refusal):
            return _unless(weight, matrix_product_before(node, maps, facts))
        affine = only_map(node, maps, 1 - weight.index, "weight")
        if isinstance(affine, Refusal):
            return affine
        summed = _summed_axis(weight)
        data = node.inputs[1 - weight.index]
        rank = None if data is None else facts.rank(data)
        contracted = None if rank is None else _contracted(weight, rank)
        if affine.axis is not None and (
            affine.axis != contracted or affine.channels != weight.shape[summed]
        ):
            refusal = wrong_axis(node, affine, f"it sums over axis {contracted} of its data")
            return _unless(refusal, matrix_product_before(node, maps, facts))
        scale, _ = affine.entries(weight.shape[summed])
        onward = _image(node, affine, weight, summed, facts)
        if isinstance(onward, Refusal):
            return onward
        outer = _outer_axis(weight)
        alike = weight.shape[outer] if len(weight.shape) == _MATRIX else 1
        edits = weight.times(scale, summed, channels=outer, alike=alike)
        if isinstance(edits, Refusal):
            return edits
        if onward.has_shift and _is_gemm(node, weight, facts):
            return Taken((*edits, *_addend(node, onward, weight)))
        return Taken(edits, {0: onward} if onward.has_shift else {})


def _unless(refusal: Refusal, answer: Taken | Refusal) -> Taken | Refusal:
    """Return a second answer if it is yes or says more than that there is no constant."""
    if isinstance(answer, Refusal) and refusal.code is not Code.DYNAMIC_WEIGHT:
        return refusal
    return answer


def _weight(node: ir.Node, facts: Facts) -> Weight | Refusal:
    """Return the constant factor; the right one where both are."""
    right = read_weight(node, _RIGHT, facts)
    if not isinstance(right, Refusal):
        return right
    left = read_weight(node, _LEFT, facts)
    return right if isinstance(left, Refusal) else left


def _is_gemm(node: ir.Node, weight: Weight, facts: Facts) -> bool:
    """Return whether both factors are matrices, so that Gemm computes the same."""
    data = node.inputs[1 - weight.index]
    if data is None or facts.opset() < _GEMM_BROADCASTS_SINCE:
        return False
    return facts.rank(data) == len(weight.shape) == _MATRIX


def _why_no_addend(node: ir.Node, weight: Weight, facts: Facts) -> str:
    """Say why the product cannot become a Gemm: which factor is no matrix."""
    data = node.inputs[1 - weight.index]
    ranks = ("weight", len(weight.shape)), ("data", None if data is None else facts.rank(data))
    for name, rank in ranks:
        if rank is None:
            return f"only a Gemm has an addend for it, and the rank of its {name} is unknown"
        if rank != _MATRIX:
            axes = "1 axis" if rank == 1 else f"{rank} axes"
            return (
                "a MatMul has no addend that could take the shift, and a Gemm, which has one,"
                f" multiplies two matrices: its {name} has {axes}"
            )
    return "before opset 7 a Gemm, whose addend could take the shift, does not broadcast it"


def _reshape_first(node: ir.Node, weight: Weight, facts: Facts) -> tuple[Edit, ...]:
    """Return the edit that makes a stack of matrices one, where its reader does so anyway.

    ``[…, T, K] · [K, N]``, read by a Reshape to ``[M, N]`` alone: the rows can be laid out
    first, and a product of two matrices has an addend.
    """
    result = node.outputs[0]
    uses = facts.reads(result)
    if len(uses) != 1 or result.is_graph_output() or facts.opset() < _GEMM_BROADCASTS_SINCE:
        return ()
    reader, index = uses[0]
    shapes = tuple(blind for blind, _ in result.uses() if blind is not reader)
    if any(isinstance(facts.constant(blind.outputs[0]), Refusal) for blind in shapes):
        return ()
    if weight.index != _RIGHT or len(weight.shape) != _MATRIX or index != 0:
        return ()
    if reader.op_type not in _LAY_OUT or reader.graph is not node.graph:
        return ()
    laid, data = reader.outputs[0], node.inputs[0]
    if not facts.is_standard(reader) or facts.rank(laid) != _MATRIX or data is None:
        return ()
    if facts.dim(laid, 1) != weight.shape[1] or (facts.rank(data) or 0) <= _MATRIX:
        return ()
    return (ReshapeFirst(node, reader, weight.shape[0], shapes),)


def _addend(node: ir.Node, affine: Affine, weight: Weight) -> tuple[Edit, ...]:
    """Return the edits that make the node a Gemm with the shift as its C."""
    if not affine.has_shift:
        return ()
    along = affine.shift
    if affine.axis is not None and weight.index == _LEFT:
        along = along.reshape(-1, 1)
    addend = bias_edit(node, _ADDEND, along, weight.constant.dtype)
    return SetOperator(node, "Gemm"), addend


def _summed_axis(weight: Weight) -> int:
    """Return the axis of the weight that is summed over: A[…, m, k] · B[…, k, n]."""
    rank = len(weight.shape)
    if rank == 1:
        return 0
    return rank - 1 if weight.index == _LEFT else rank - 2


def _outer_axis(weight: Weight) -> int:
    """Return the axis of the weight that its outputs run along."""
    rank = len(weight.shape)
    if rank == 1:
        return 0
    return rank - 2 if weight.index == _LEFT else rank - 1


def _contracted(weight: Weight, data_rank: int) -> int:
    """Return the axis of the data that is summed over."""
    if data_rank == 1:
        return 0
    return data_rank - 1 if weight.index == _RIGHT else data_rank - 2


def _weight_axis(node: ir.Node, weight: Weight, affine: Affine, facts: Facts) -> int | None:
    """Return the axis of the weight that axis ``affine.axis`` of Y comes from, if any."""
    rank, out_rank = len(weight.shape), facts.rank(node.outputs[0])
    data = node.inputs[1 - weight.index]
    data_rank = None if data is None else facts.rank(data)
    if affine.axis is None or out_rank is None or data_rank is None or rank == 1:
        return None
    if data_rank == 1:
        # The data's own matrix axis is dropped from Y: only the weight's axes are left in it.
        axes = [axis for axis in range(rank) if axis != _summed_axis(weight)]
        axis = axes[affine.axis]
    else:
        from_back = out_rank - affine.axis
        if from_back > rank or from_back == (2 if weight.index == _RIGHT else 1):
            return None
        axis = rank - from_back
    return axis if weight.shape[axis] == affine.channels else None


def _image(
    node: ir.Node, affine: Affine, weight: Weight, summed: int, facts: Facts
) -> Affine | Refusal:
    """Return the shift ``t · W`` of Y; refuse one that varies along several axes."""
    if not affine.has_shift:
        return Affine.uniform()
    _, shift = affine.entries(weight.shape[summed])
    image = weight.constant.expression.contracted(shift, summed)
    out_rank = facts.rank(node.outputs[0])
    if not image.size:
        return Affine.uniform()
    if image.size == 1 or (image == image.flat[0]).all():
        return Affine.uniform(shift=float(image.flat[0]))
    if out_rank is None or any(size > 1 for size in image.shape[:-1]):
        why = "the shift behind it differs for every matrix of the stack"
        return Refusal(Code.SHIFT_NOT_CONSTANT, name_of(node), why)
    data = node.inputs[1 - weight.index]
    vector_data = data is not None and facts.rank(data) == 1
    axis = out_rank - (1 if weight.index == _RIGHT or vector_data else 2)
    return Affine.per_channel(axis, 1.0, image.reshape(-1))
