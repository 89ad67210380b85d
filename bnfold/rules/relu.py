"""Relu, LeakyRelu, PRelu: ``f(s · x) = s · f(x)`` for s ≥ 0; no shift passes.

With a slope a > 0 a negative scale passes too: it makes the flat side the steep one, and
``s · f_a(x) = f_{1/a}(a · s · x)``.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.affine import Affine
from bnfold.model.attributes import float_attr
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import (
    Edit,
    Maps,
    Rule,
    SetConstant,
    Taken,
    name_of,
    wrong_axis,
)
from bnfold.rules.float_attributes import set_float
from bnfold.rules.mul_add import NUMPY_BROADCAST_SINCE, channel_vector, laid_out
from bnfold.rules.passing import refuse_negative, turns_around
from bnfold.rules.weights import Weight, only_map, read_weight

_SLOPE: Final = 1
_ALPHA: Final = 0.01
_Wide = NDArray[np.float64]


class Relu(Rule):
    """A line through zero, bent there (Relu-1 to -14, LeakyRelu-1 to -16, PRelu-1 to -16)."""

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``s · f(x) = f(s · x)``; for s < 0 and slopes a > 0 ``f_{1/a}(a · s · x)``."""
        return _pass(node, maps, facts)

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``f(s · x) = s · f(x)``; for s < 0 and slopes a > 0 ``a · s · f_{1/a}(x)``."""
        return _pass(node, maps, facts)


def _pass(node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
    affine = only_map(node, maps, 0, "slope")
    if isinstance(affine, Refusal):
        return affine
    if affine.has_shift:
        why = f"{node.op_type} bends at zero, a shift would move the bend"
        return Refusal(Code.NEEDS_SCALE_ONLY, name_of(node), why)
    negative = refuse_negative(node, affine)
    if negative is None:
        return Taken(onward={0: affine})
    if node.op_type == "LeakyRelu" and turns_around(affine):
        return _turn_alpha(node, affine, negative, facts)
    if node.op_type == "PRelu" and facts.opset() >= NUMPY_BROADCAST_SINCE:
        weight = read_weight(node, _SLOPE, facts)
        return negative if isinstance(weight, Refusal) else _turn(node, affine, weight, facts)
    return negative


def _turn_alpha(
    node: ir.Node, affine: Affine, negative: Refusal, facts: Facts
) -> Taken | Refusal:
    slope = float(np.float32(float_attr(node, "alpha", _ALPHA)))
    if slope <= 0.0:
        return negative
    edits = set_float(node, "alpha", 1.0 / slope, facts)
    if isinstance(edits, Refusal):
        return edits
    return Taken(edits, {0: Affine.per_channel(affine.axis, affine.scale * slope)})


def _turn(node: ir.Node, affine: Affine, weight: Weight, facts: Facts) -> Taken | Refusal:
    """Turn the slopes of the channels with a negative scale around."""
    along = channel_vector(node, 0, weight.constant, facts)
    if isinstance(along, Refusal):
        return along
    slopes, axis = along
    if axis is not None and affine.axis is not None and axis != affine.axis:
        return wrong_axis(node, affine, f"its slopes run along axis {axis}")
    axis = affine.axis if axis is None else axis
    scales, slopes = np.broadcast_arrays(affine.scale, slopes)
    turned = scales < 0
    if (slopes[turned] <= 0).any():
        why = "a negative scale turns a slope that is not positive around to none"
        return Refusal(Code.NEGATIVE_SCALE, name_of(node), why)
    with np.errstate(all="ignore"):
        changed = np.where(turned, 1.0 / slopes, slopes)
    edit = _slope_edit(node, changed, axis, weight.constant.dtype, facts)
    onward = Affine.per_channel(axis, np.where(turned, slopes * scales, scales))
    return edit if isinstance(edit, Refusal) else Taken((edit,), {0: onward})


def _slope_edit(
    node: ir.Node, slopes: _Wide, axis: int | None, dtype: ir.DataType, facts: Facts
) -> Edit | Refusal:
    data = node.inputs[0]
    rank = None if data is None else facts.rank(data)
    uniform = bool((slopes == slopes[0]).all())
    vector = slopes[:1] if uniform else slopes
    expression = laid_out(vector, None if uniform else axis, rank)
    if expression is None:
        why = "the rank of its input is unknown"
        return Refusal(Code.UNKNOWN_SHAPE, name_of(node), why)
    return SetConstant(node, _SLOPE, expression, dtype, None)
