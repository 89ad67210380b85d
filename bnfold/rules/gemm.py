"""Gemm: ``Y = alpha · A' · B' + beta · C`` with A' or B' transposed (Gemm-7 and later)."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.affine import Affine
from bnfold.model.attributes import float_attr, int_attr
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import (
    Edit,
    Maps,
    Rule,
    SetAttribute,
    Taken,
    name_of,
    together,
    wrong_axis,
)
from bnfold.rules.mul_add import NUMPY_BROADCAST_SINCE
from bnfold.rules.vast import refuse_to_change
from bnfold.rules.weights import (
    Weight,
    bias_edit,
    has_input,
    integer_addend,
    only_map,
    read_weight,
    refuse_scaled_inputs,
)

_A: Final = 0
_B: Final = 1
_C: Final = 2
_Wide = NDArray[np.float64]


class Gemm(Rule):
    """Either A or B is the weight; output axis 0 runs along A', axis 1 along B'."""

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``s · y + t``: the weight's outputs times s, C becomes ``s · beta · C + t``."""
        affine = maps[0]
        weight = _weight(node, facts)
        if isinstance(weight, Refusal):
            return weight
        own_axis = _output_axis(weight)
        outputs = weight.shape[_outer(node, weight.index)]
        if affine.axis not in (None, own_axis) or affine.channels not in (None, outputs):
            return wrong_axis(node, affine, f"its weight has {outputs} on axis {own_axis}")
        addend = _addend_after(node, affine, weight, facts)
        scale, _ = affine.entries(outputs)
        outer = _outer(node, weight.index)
        return together(weight.times(scale, outer, alike=outputs), addend)

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``A · (s · x + t)``: the weight's inputs times s, C grows by the image of t."""
        weight = _weight(node, facts)
        if isinstance(weight, Refusal):
            return weight
        data_index = _A if weight.index == _B else _B
        affine = only_map(node, maps, data_index, "weight or addend")
        if isinstance(affine, Refusal):
            return affine
        inner = 1 - _outer(node, weight.index)
        inputs = weight.shape[inner]
        contracted = 1 - _outer(node, data_index)
        if affine.axis not in (None, contracted) or affine.channels not in (None, inputs):
            return wrong_axis(node, affine, f"it sums over axis {contracted} of its data")
        scale, shift = affine.entries(inputs)
        grown: tuple[Edit, ...] | Refusal = ()
        if affine.has_shift:
            image = weight.constant.expression.contracted(shift, inner)
            grown = _addend_plus(node, image * float_attr(node, "alpha", 1.0), weight, facts)
        blocked = refuse_scaled_inputs(node, _C, affine, facts)
        outputs = weight.shape[1 - inner]
        scaled = weight.times(scale, inner, channels=1 - inner, alike=outputs)
        return blocked or together(scaled, grown)


def _weight(node: ir.Node, facts: Facts) -> Weight | Refusal:
    """Return the constant factor; B where both are."""
    right = read_weight(node, _B, facts)
    if not isinstance(right, Refusal):
        return right
    left = read_weight(node, _A, facts)
    return right if isinstance(left, Refusal) else left


def _outer(node: ir.Node, index: int) -> int:
    """Return the axis of A or B as stored that is not summed over."""
    if index == _A:
        return 1 if int_attr(node, "transA", 0) else 0
    return 0 if int_attr(node, "transB", 0) else 1


def _output_axis(weight: Weight) -> int:
    return 1 if weight.index == _B else 0


def _addend_after(
    node: ir.Node, affine: Affine, weight: Weight, facts: Facts
) -> tuple[Edit, ...] | Refusal:
    """Return the edits that make ``beta · C`` into ``s · beta · C + t``, with beta 1."""
    if affine.is_identity:
        return ()
    integers = _integer_addend(node, affine, weight, facts)
    if integers is not None:
        return integers
    outputs = weight.shape[_outer(node, weight.index)]
    scale, shift = affine.entries(outputs)
    addend = _read_addend(node, facts)
    if isinstance(addend, Refusal):
        return addend
    if addend is None:
        if not affine.has_shift:
            return ()
        return _write_addend(node, _laid(shift, weight), weight.constant.dtype, facts)
    dtype = _addend_dtype(node, facts, weight)
    if vast := refuse_to_change(node, addend, dtype, scale, shift):
        return vast
    changed = addend * _laid(scale, weight) + _laid(shift, weight)
    return _write_addend(node, _slim(changed, addend, affine), dtype, facts)


def _addend_plus(
    node: ir.Node, added: _Wide, weight: Weight, facts: Facts
) -> tuple[Edit, ...] | Refusal:
    integers = _integer_addend(node, Affine.per_channel(0, 1.0, added), weight, facts)
    if integers is not None:
        return integers
    addend = _read_addend(node, facts)
    if isinstance(addend, Refusal):
        return addend
    laid, dtype = _laid(added, weight), _addend_dtype(node, facts, weight)
    if addend is None:
        return _write_addend(node, laid, dtype, facts)
    vast = refuse_to_change(node, addend, dtype, np.ones(1), added)
    return vast or _write_addend(node, addend + laid, dtype, facts)


def _integer_addend(
    node: ir.Node, affine: Affine, weight: Weight, facts: Facts
) -> tuple[Edit, ...] | Refusal | None:
    """Map an addend stored as integers, where it is one row of outputs; None for floats."""
    held = read_weight(node, _C, facts) if has_input(node, _C) else None
    if held is None or isinstance(held, Refusal) or held.stored is None:
        return None
    if held.shape != (weight.shape[_outer(node, weight.index)],) or weight.index != _B:
        why = f"its integer addend has the shape {list(held.shape)}, not one entry per output"
        return Refusal(Code.WRONG_SHAPE, name_of(node), why, "fold before quantising")
    beta = float_attr(node, "beta", 1.0)
    if affine.has_shift and beta != 1.0:
        why = f"its integer addend is multiplied by beta {beta:g}"
        return Refusal(Code.NOT_FLOAT, name_of(node), why, "fold before quantising")
    return integer_addend(held, held.stored, affine.on_axis(0), facts)


def _slim(changed: _Wide, addend: _Wide, affine: Affine) -> _Wide:
    """Keep the shape of C where a uniform map left it one number."""
    if affine.axis is None and addend.size == 1:
        return changed.reshape(-1)[:1].reshape(addend.shape)
    return changed


def _laid(vector: _Wide, weight: Weight) -> _Wide:
    """Lay a vector of outputs along its axis of Y: a row for B, a column for A."""
    return vector if weight.index == _B else vector.reshape(-1, 1)


def _read_addend(node: ir.Node, facts: Facts) -> _Wide | Refusal | None:
    """Return ``beta · C`` in float64; None when absent."""
    beta = float_attr(node, "beta", 1.0)
    if not has_input(node, _C) or beta == 0.0:
        return None
    constant = read_weight(node, _C, facts)
    if isinstance(constant, Refusal):
        why = f"its addend C cannot be changed: {constant.why}"
        return Refusal(constant.code, name_of(node), why, constant.remedy)
    return constant.constant.wide() * beta


def _addend_dtype(node: ir.Node, facts: Facts, weight: Weight) -> ir.DataType:
    if not has_input(node, _C):
        return weight.constant.dtype
    held = facts.constant(node.inputs[_C])
    return weight.constant.dtype if isinstance(held, Refusal) else held.dtype


def _write_addend(
    node: ir.Node, elements: _Wide, dtype: ir.DataType, facts: Facts
) -> tuple[Edit, ...] | Refusal:
    edits: list[Edit] = [bias_edit(node, _C, np.ascontiguousarray(elements), dtype)]
    if float_attr(node, "beta", 1.0) != 1.0:
        edits.append(SetAttribute(node, ir.AttrFloat32("beta", 1.0)))
    if facts.opset() < NUMPY_BROADCAST_SINCE and elements.shape != facts.shape(
        node.outputs[0]
    ):
        if elements.ndim != 1:
            why = f"before opset 7 it takes no addend of the shape {list(elements.shape)}"
            remedy = "convert the model: onnx.version_converter.convert_version(model, 13)"
            return Refusal(Code.WRONG_SHAPE, name_of(node), why, remedy)
        edits.append(SetAttribute(node, ir.AttrInt64("broadcast", 1)))
    return tuple(edits)
