"""What normalisations share: ``scale · n(x) + bias``, where n computes the statistics of x.

Behind n, any map that the parameters can hold goes into them. In front of it, n cancels a
shift that is the same throughout every set of elements it takes mean and variance of. A scale
changes n by its sign, and by the weight that epsilon has beside the variance:
``n(s · x; epsilon) = sign(s) · n(x; epsilon / s²)``.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Final

import numpy as np
import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.model.attributes import float_attr, int_attr
from bnfold.model.facts import Facts
from bnfold.model.uses import is_used
from bnfold.records import Code, Refusal
from bnfold.rules.base import Edit, Maps, Rule, SetAttribute, Taken, name_of, wrong_axis
from bnfold.rules.passing import refuse_vast
from bnfold.rules.weights import Weight, bias_edit, has_input, only_map, read_weight

SCALE: Final = 1
BIAS: Final = 2
_DEFAULT_EPSILON: Final = 1e-5
_FARTHEST: Final = 2.0**20
"""No scale beyond this (or its inverse) is given to epsilon: squares of x could overflow."""
_SMALLEST_NORMAL: Final = float(np.finfo(np.float32).smallest_normal)
_LARGEST: Final = float(np.finfo(np.float32).max)


class Normalization(Rule):
    """``scale · n(x) + bias`` with scale at input 1 and bias, if any, at input 2."""

    takes_bias: ClassVar[bool] = True
    stashes_since: ClassVar[int | None] = None
    """First opset whose stash_type names the type that statistics are computed in."""

    @abstractmethod
    def on_scale(self, node: ir.Node, affine: Affine, facts: Facts) -> Affine | Refusal:
        """Return a map of Y as one on an axis of the scale tensor."""

    @abstractmethod
    def on_result(self, node: ir.Node, affine: Affine, facts: Facts) -> Affine | Refusal:
        """Return a map on an axis of the scale tensor as one of Y."""

    @abstractmethod
    def refuse_mixed(self, node: ir.Node, affine: Affine, facts: Facts) -> Refusal | None:
        """Refuse a map of X that differs within a set that is normalised together."""

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``s · norm(x) + t``: scale and bias become ``s · scale`` and ``s · bias + t``."""
        if set(maps) != {0}:
            return _refuse_statistics(node)
        placed = self.on_scale(node, maps[0], facts)
        scale = read_weight(node, SCALE, facts)
        if isinstance(placed, Refusal):
            return placed
        if isinstance(scale, Refusal):
            return scale
        bias = self._bias_after(node, placed, scale, facts)
        scaled = _times(scale, placed)
        if isinstance(bias, Refusal):
            return bias
        return scaled if isinstance(scaled, Refusal) else Taken((*scaled, *bias))

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``norm(s · x + t)``: t cancels; sign(s) goes into scale, epsilon becomes / s²."""
        affine = only_map(node, maps, 0, "scale or bias")
        if isinstance(affine, Refusal):
            return affine
        if any(is_used(value) or value.is_graph_output() for value in node.outputs[1:]):
            return _refuse_statistics(node)
        blocked = self.refuse_mixed(node, affine, facts) or refuse_vast(node, affine)
        if blocked is not None:
            return blocked
        if not affine.has_scale:
            return Taken()
        epsilon = self._scaled_epsilon(node, affine, facts)
        if isinstance(epsilon, Refusal):
            return epsilon
        signs = self._signs(node, affine, facts)
        return signs if isinstance(signs, Refusal) else Taken((*epsilon, *signs))

    def _signs(
        self, node: ir.Node, affine: Affine, facts: Facts
    ) -> tuple[Edit, ...] | Refusal:
        """Return the edit that gives the signs of a scale in front of n to the scale behind.

        The bias stays: it is added behind both.
        """
        signs = Affine.per_channel(affine.axis, np.sign(affine.scale))
        if not signs.has_scale:
            return ()
        placed, scale = self.on_scale(node, signs, facts), read_weight(node, SCALE, facts)
        if isinstance(placed, Refusal):
            return placed
        return scale if isinstance(scale, Refusal) else _times(scale, placed)

    def _bias_after(
        self, node: ir.Node, affine: Affine, scale: Weight, facts: Facts
    ) -> tuple[Edit, ...] | Refusal:
        """Return the edit after which the bias is ``s · bias + t``."""
        if affine.is_identity or not (affine.has_shift or has_input(node, BIAS)):
            return ()
        if not self.takes_bias:
            why = f"{node.op_type} has a scale but no bias that could take the shift"
            remedy = "the scale alone can be folded"
            return Refusal(Code.NEEDS_SCALE_ONLY, name_of(node), why, remedy)
        if not has_input(node, BIAS):
            added = affine.on_axis(affine.axis or 0)(np.zeros(scale.shape))
            return (bias_edit(node, BIAS, added, scale.constant.dtype),)
        bias = read_weight(node, BIAS, facts)
        if isinstance(bias, Refusal):
            return bias
        axis = (
            None if affine.axis is None else affine.axis + len(bias.shape) - len(scale.shape)
        )
        if axis is not None and (axis < 0 or bias.shape[axis] != affine.channels):
            return wrong_axis(node, affine, f"its bias has the shape {list(bias.shape)}")
        mapped = affine.on_axis(axis or 0)(bias.constant.wide())
        return (bias_edit(node, BIAS, mapped, bias.constant.dtype),)

    def _scaled_epsilon(
        self, node: ir.Node, affine: Affine, facts: Facts
    ) -> tuple[Edit, ...] | Refusal:
        """Return the edit that divides epsilon by s², where that is as good as exact.

        The attribute is a float32. Rounding it moves the result by a part of at most
        ``2^-25 · epsilon / (variance + epsilon)``: less than rounding the result does.
        """
        sizes = np.abs(affine.scale)
        if (sizes != sizes[0]).any():
            why = (
                f"{node.op_type} divides a scale out again, but for its epsilon: one epsilon"
                f" cannot serve scales of {sizes.min():.3g} and {sizes.max():.3g}"
            )
            return Refusal(Code.EPSILON, name_of(node), why, "a shift alone can be folded")
        size = float(sizes[0])
        if size == 1.0:
            return ()
        epsilon = float(np.float32(float_attr(node, "epsilon", _DEFAULT_EPSILON)))
        wanted = epsilon / size**2 if 1 / _FARTHEST <= size <= _FARTHEST else np.inf
        stored = float(np.float32(min(wanted, _LARGEST)))
        fits = wanted == 0.0 or _SMALLEST_NORMAL <= wanted <= _LARGEST
        if fits and self._tolerates(node, facts, exact=stored == wanted):
            return (SetAttribute(node, ir.AttrFloat32("epsilon", stored)),)
        why = (
            f"a scale in front of {node.op_type} changes its result through epsilon:"
            f" {epsilon:.3g} / {size:.3g}² cannot be stored or computed exactly enough"
        )
        return Refusal(Code.EPSILON, name_of(node), why, "a shift alone can be folded")

    def _tolerates(self, node: ir.Node, facts: Facts, *, exact: bool) -> bool:
        """Return whether another epsilon and other squares do no harm in the node's type.

        In float64 the rounding of epsilon would show. In a narrow type squares that are not
        scaled down any more could overflow, unless statistics are computed in float32.
        """
        dtype = None if node.inputs[0] is None else facts.dtype(node.inputs[0])
        if dtype == ir.DataType.FLOAT:
            return True
        if dtype == ir.DataType.DOUBLE:
            return exact
        if self.stashes_since is None or facts.opset() < self.stashes_since:
            return False
        narrow = dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
        return narrow and int_attr(node, "stash_type", 1) == int(ir.DataType.FLOAT)


def _times(scale: Weight, affine: Affine) -> tuple[Edit, ...] | Refusal:
    """Return the edit of scale for a map on one of its axes."""
    return scale.times(affine.scale, *(() if affine.axis is None else (affine.axis,)))


def mixed(node: ir.Node, affine: Affine, together: str) -> Refusal:
    """Refuse a map that differs among elements whose mean and variance are taken together."""
    why = f"it normalises {together} together, and its mean and variance mix their maps"
    return wrong_axis(node, affine, why)


def _refuse_statistics(node: ir.Node) -> Refusal:
    why = "its mean or deviation is read, and that depends on the data as it is"
    return Refusal(Code.SHARED_VALUE, name_of(node), why)
