"""Resize and Upsample: interpolation weights sum to one, so a map of the channels passes."""

from __future__ import annotations

from typing import ClassVar, Final

import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.model.attributes import float_attr, int_attr, string_attr
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import Maps, Rule, Taken, name_of, wrong_axis
from bnfold.rules.passing import channels_of
from bnfold.rules.weights import has_input, only_map

_ROI_SINCE: Final = 11
_SIZES: Final = 3
_SCALES_ATTRIBUTE_UNTIL: Final = 8


class Resize(Rule):
    """Nearest, linear and cubic (Resize-10 to -19, Upsample-7, -9)."""

    words: ClassVar = {
        "mode": frozenset({"nearest", "linear", "cubic"}),
        "nearest_mode": frozenset(
            {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"}
        ),
        "keep_aspect_ratio_policy": frozenset({"stretch", "not_larger", "not_smaller"}),
        "coordinate_transformation_mode": frozenset(
            {
                "half_pixel",
                "half_pixel_symmetric",
                "pytorch_half_pixel",
                "align_corners",
                "asymmetric",
                "tf_half_pixel_for_nn",
                "tf_crop_and_resize",
            }
        ),
    }

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``s · resize(x) + t = resize(s · x + t)`` along an axis that keeps its size."""
        return _pass(node, maps[0], facts)

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """The same, read from right to left."""
        affine = only_map(node, maps, 0, "sizes")
        return affine if isinstance(affine, Refusal) else _pass(node, affine, facts)


def _pass(node: ir.Node, affine: Affine, facts: Facts) -> Taken | Refusal:
    refusal = _refuse_border(node, affine)
    if refusal is not None:
        return refusal
    if affine.axis is not None and not _keeps_axis(node, affine.axis, facts):
        return wrong_axis(node, affine, "it resizes that axis, or may do so")
    return Taken(onward={0: affine})


def _refuse_border(node: ir.Node, affine: Affine) -> Refusal | None:
    """Refuse what a value from beyond the border would not follow."""
    crops = string_attr(node, "coordinate_transformation_mode", "") == "tf_crop_and_resize"
    outside = crops and float_attr(node, "extrapolation_value", 0.0) != 0.0
    if outside or (affine.has_shift and (crops or int_attr(node, "exclude_outside", 0))):
        why = "beyond the border it takes a value that the map does not reach"
        return Refusal(Code.SHIFT_MEETS_PADDING, name_of(node), why)
    if crops and affine.axis is not None:
        return wrong_axis(node, affine, "it may crop that axis")
    return None


def _keeps_axis(node: ir.Node, axis: int, facts: Facts) -> bool:
    """Return whether the sizes along ``axis`` are equal and the scale there is one."""
    if string_attr(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
        return False
    if len(node.inputs) > _SIZES and has_input(node, _SIZES):
        size = channels_of(node.inputs[0], axis, facts)
        return size is not None and size == channels_of(node.outputs[0], axis, facts)
    scales = _scales(node, facts)
    if scales is None:
        return False
    rank = None if node.inputs[0] is None else facts.rank(node.inputs[0])
    axes = _axes(node, rank)
    if axes is not None and axis not in axes:
        return True
    place = axis if axes is None else axes.index(axis)
    return place < len(scales) and scales[place] == 1.0


def _axes(node: ir.Node, rank: int | None) -> list[int] | None:
    """Return the axes that sizes and scales are given for (Resize-18); None means all."""
    attribute = node.attributes.get("axes")
    if attribute is None or attribute.is_ref() or rank is None:
        return None
    return [axis % rank for axis in attribute.as_ints()]


def _scales(node: ir.Node, facts: Facts) -> tuple[float, ...] | None:
    if node.op_type == "Upsample" and facts.opset() <= _SCALES_ATTRIBUTE_UNTIL:
        attribute = node.attributes.get("scales")
        return None if attribute is None else tuple(attribute.as_floats())
    roi = node.op_type == "Resize" and facts.opset() >= _ROI_SINCE
    index = 2 if roi else 1
    constant = facts.constant(node.inputs[index]) if has_input(node, index) else None
    if constant is None or isinstance(constant, Refusal):
        return None
    return tuple(float(entry) for entry in constant.stored().reshape(-1))
