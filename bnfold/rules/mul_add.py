"""Mul, Add, Sub, Div and Neg as maps: one operand is a constant along at most one axis.

Broadcasting follows the numpy rules of opset 7; the earlier ``axis`` attribute is refused.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.affine import Affine
from bnfold.expression import Expression
from bnfold.model.constants import FLOATS, Constant
from bnfold.model.facts import Facts
from bnfold.records import NOT_EVALUATED, Code, Refusal
from bnfold.rules.base import Maps, Rule, SetConstant, Source, Taken, name_of, wrong_axis
from bnfold.rules.meet import product_after, product_before, sum_after, sum_before
from bnfold.rules.passing import along_one_axis
from bnfold.rules.vast import refuse_vast_addend

NUMPY_BROADCAST_SINCE: Final = 7
_OF_CONSTANT: Final = frozenset({Code.SEVERAL_AXES, Code.CHANGES_SHAPE, Code.WRONG_SHAPE})
"""Why a constant is no map; in all other cases there may be none."""
_Wide = NDArray[np.float64]


class _Binary(Rule):
    """An element-wise operator of a value and a constant, in either order."""

    @abstractmethod
    def _map(self, index: int, constant: _Wide, axis: int | None) -> Affine | None:
        """Return the map of operand ``index``, given the other one; None when it is none."""

    def source(self, node: ir.Node, facts: Facts) -> Source | Refusal:
        """Y = x ∘ constant, or constant ∘ x."""
        operands = _operands(node, facts)
        if isinstance(operands, Refusal):
            return operands
        index, constant = operands
        if self._map(index, np.ones(1), None) is None:
            why = f"{node.op_type} by a value is no map"
            return Refusal(Code.NOT_AFFINE, name_of(node), why)
        along = channel_vector(node, index, constant, facts)
        if isinstance(along, Refusal):
            return along
        vector, axis = along
        with np.errstate(all="ignore"):
            affine = self._map(index, vector, axis)
        if affine is None or not affine.is_finite:
            why = "its constant gives a scale or shift that is not finite"
            return Refusal(Code.NOT_FINITE, name_of(node), why, "check the constant")
        vast = refuse_vast_addend(node, affine.shift, facts.dtype(node.outputs[0]))
        return vast or Source(index, affine)


class _Scales(_Binary):
    """Mul and Div: they absorb a scale, and pass a shift as another one."""

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``s · c · x + t = (s · c) · (x + t / (s · c))``."""
        affine, own = maps[0], self.source(node, facts)
        if isinstance(own, Refusal):
            refused = _refuse_old(node, facts) or _refuse_shift(node, own, (affine,))
            return refused or product_after(node, affine, facts)
        if not affine.has_shift:
            return _join(self, node, affine, facts)
        whole = _product(node, own.affine, affine)
        if isinstance(whole, Refusal):
            return whole
        if not whole.is_invertible:
            why = f"a shift cannot pass in front of a {node.op_type} by zero"
            return Refusal(Code.NEEDS_SCALE_ONLY, name_of(node), why)
        onward = {own.index: whole.shift_before_scale()}
        return _with_onward(_join(self, node, affine.scale_only(), facts), onward)

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``c · (s · x + t) = (s · c) · x + c · t``."""
        own = self.source(node, facts)
        if isinstance(own, Refusal):
            refused = _refuse_old(node, facts) or _refuse_shift(node, own, maps.values())
            return refused or product_before(node, maps, facts)
        if own.index not in maps:
            return _reaches_constant(node)
        affine = maps[own.index]
        if not affine.has_shift:
            return _join(self, node, affine, facts)
        whole = _product(node, affine, own.affine)
        if isinstance(whole, Refusal):
            return whole
        joined = _join(self, node, affine.scale_only(), facts)
        return _with_onward(joined, {0: whole.shift_only()})


class Mul(_Scales):
    """``x · c``."""

    def _map(self, index: int, constant: _Wide, axis: int | None) -> Affine:  # noqa: ARG002  either order
        return Affine.per_channel(axis, constant)


class Div(_Scales):
    """``x / c``; ``c / x`` is no map."""

    def _map(self, index: int, constant: _Wide, axis: int | None) -> Affine | None:
        return Affine.per_channel(axis, 1.0 / constant) if index == 0 else None


class _Shifts(_Binary):
    """Add and Sub: they absorb a shift, and pass a scale with their constant divided by it."""

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``(x ∘ c) + t``: the shift joins the constant."""
        if self._joins(node, maps[0], facts):
            return _join(self, node, maps[0], facts)
        return _refuse_old(node, facts) or sum_after(node, maps[0], facts)

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``(x + t) ∘ c``: the shift joins the constant."""
        affine = next(iter(maps.values()))
        own = self.source(node, facts)
        if isinstance(own, Source) and own.index not in maps:
            return _reaches_constant(node)
        if self._joins(node, affine, facts):
            return _join(self, node, affine, facts)
        return _refuse_old(node, facts) or sum_before(node, maps, facts)

    def _joins(self, node: ir.Node, affine: Affine, facts: Facts) -> bool:
        """Return whether the map and the node's own are shifts along one axis."""
        own = self.source(node, facts)
        return not (
            isinstance(own, Refusal)
            or affine.has_scale
            or own.affine.has_scale
            or not affine.composes_with(own.affine)
        )


class Add(_Shifts):
    """``x + c``."""

    def _map(self, index: int, constant: _Wide, axis: int | None) -> Affine:  # noqa: ARG002  either order
        return Affine.per_channel(axis, 1.0, constant)


class Sub(_Shifts):
    """``x − c``, or ``c − x``."""

    def _map(self, index: int, constant: _Wide, axis: int | None) -> Affine:
        if index == 0:
            return Affine.per_channel(axis, 1.0, -constant)
        return Affine.per_channel(axis, -1.0, constant)


class Neg(Rule):
    """``−x``."""

    def source(self, node: ir.Node, facts: Facts) -> Source | Refusal:
        """Y = −X, for floating types."""
        value = node.inputs[0]
        if value is None or facts.dtype(value) not in FLOATS:
            return _not_float(node)
        return Source(0, Affine.uniform(-1.0))


def channel_vector(
    node: ir.Node, index: int, constant: Constant, facts: Facts
) -> tuple[_Wide, int | None] | Refusal:
    """Return the entries of ``constant`` and the axis of operand ``index`` they run along.

    A constant with equal entries, whatever its shape, runs along no axis: the axis is None.
    """
    value = node.inputs[index]
    dims = None if value is None else facts.shape(value)
    blocked = _changes_shape(node, constant.shape, value, facts)
    if blocked is not None:
        return blocked
    wide = constant.wide()
    if wide.size and (wide == wide.flat[0]).all():
        return wide.reshape(-1)[:1], None
    if not wide.size:
        why = f"its constant of shape {list(constant.shape)} has no elements"
        return Refusal(Code.WRONG_SHAPE, name_of(node), why)
    found = along_one_axis([wide])
    if found is None or dims is None:
        why = f"its constant of shape {list(constant.shape)} varies along several axes"
        return Refusal(Code.SEVERAL_AXES, name_of(node), why)
    axis, (vector,) = found
    return vector, axis + len(dims) - wide.ndim


def _changes_shape(
    node: ir.Node, shape: tuple[int, ...], value: ir.Value | None, facts: Facts
) -> Refusal | None:
    """Refuse a constant that broadcasts the value, rather than the other way round."""
    if not shape:
        return None
    dims = None if value is None else facts.shape(value)
    if dims is None or value is None:
        why = "the rank of its operand is unknown, so the axis of its constant is too"
        remedy = "run onnx.shape_inference on the model first, or export it with shapes"
        return Refusal(Code.UNKNOWN_SHAPE, name_of(node), why, remedy)
    if len(shape) > len(dims):
        count = "1 axis" if len(dims) == 1 else f"{len(dims)} axes"
        why = (
            f"its constant has {len(shape)} axes, the value {count}: the result gets new ones"
        )
        return Refusal(Code.CHANGES_SHAPE, name_of(node), why)
    for axis, size in enumerate(shape, start=len(dims) - len(shape)):
        known = facts.dim(value, axis)
        if size == 1 or known == size:
            continue
        if known == 1:
            why = f"its constant repeats axis {axis} of the value {size} times"
            return Refusal(Code.CHANGES_SHAPE, name_of(node), why)
        why = f"axis {axis} of its operand has the size {known}, its constant has {size}"
        remedy = "export the model with a fixed size there"
        return Refusal(Code.UNKNOWN_SHAPE, name_of(node), why, remedy)
    return None


def _operands(node: ir.Node, facts: Facts) -> tuple[int, Constant] | Refusal:
    """Return the position of the value and the constant beside it."""
    found = [facts.constant(value) for value in node.inputs[:2]]
    constants = [entry for entry in found if not isinstance(entry, Refusal)]
    if len(constants) != 1:
        why = "both operands are constants" if constants else "neither operand is a constant"
        telling = (
            entry
            for entry in found
            if isinstance(entry, Refusal) and entry.code in NOT_EVALUATED | {Code.OVERRIDABLE}
        )
        fallback = Refusal(Code.NOT_AFFINE, name_of(node), why)
        held = next(telling, None)
        return fallback if held is None else _about(node, held)
    if not constants[0].is_float:
        return _not_float(node)
    old = _refuse_old(node, facts)
    return old or ((1 if found[0] is constants[0] else 0), constants[0])


def _about(node: ir.Node, refusal: Refusal) -> Refusal:
    return Refusal(refusal.code, name_of(node), refusal.why, refusal.remedy)


def _reaches_constant(node: ir.Node) -> Refusal:
    """Refuse a map that arrives where a constant is: as from a Constant in a loop's body."""
    why = "the map reaches its constant, not its data"
    return Refusal(Code.DYNAMIC_WEIGHT, name_of(node), why)


def _not_float(node: ir.Node) -> Refusal:
    return Refusal(Code.NOT_FLOAT, name_of(node), "it computes on integers or unknown types")


def _refuse_old(node: ir.Node, facts: Facts) -> Refusal | None:
    """Refuse an operator that broadcasts its operands by an attribute."""
    if facts.opset() >= NUMPY_BROADCAST_SINCE:
        return None
    why = f"{node.op_type} broadcasts by an axis attribute before opset 7"
    remedy = "convert the model: onnx.version_converter.convert_version(model, 13)"
    return Refusal(Code.UNKNOWN_OPERATOR, name_of(node), why, remedy)


def _refuse_shift(node: ir.Node, own: Refusal, maps: Iterable[Affine]) -> Refusal | None:
    """Refuse a shift at a constant that is no map, and say what is the matter with it."""
    if own.code not in _OF_CONSTANT or not any(affine.has_shift for affine in maps):
        return None
    why = f"a shift cannot pass its constant: {own.why}"
    return Refusal(Code.NEEDS_SCALE_ONLY, name_of(node), why)


def _product(node: ir.Node, first: Affine, second: Affine) -> Affine | Refusal:
    if first.composes_with(second):
        return first.then(second)
    return wrong_axis(node, second, f"another map runs along axis {first.axis}")


def _with_onward(taken: Taken | Refusal, onward: Maps) -> Taken | Refusal:
    return taken if isinstance(taken, Refusal) else Taken(taken.edits, onward)


def _join(rule: _Binary, node: ir.Node, affine: Affine, facts: Facts) -> Taken | Refusal:
    """Compose with the node's own map and write the constant that says so."""
    own = rule.source(node, facts)
    if isinstance(own, Refusal):
        return own
    if not affine.composes_with(own.affine):
        return wrong_axis(node, affine, f"its own constant runs along axis {own.affine.axis}")
    whole = own.affine.then(affine)
    vector = whole.scale if isinstance(rule, _Scales) else whole.shift
    if isinstance(rule, Div):
        vector = 1.0 / vector
    if isinstance(rule, Sub):
        vector = -vector
    data, constant = node.inputs[own.index], facts.constant(node.inputs[1 - own.index])
    if data is None or isinstance(constant, Refusal):
        return _not_float(node)
    rank = facts.rank(data)
    expression = laid_out(vector, whole.axis, rank)
    if expression is None:
        return wrong_axis(node, affine, "the rank of the value is unknown")
    channels = 0 if isinstance(rule, _Scales) else None
    return Taken((SetConstant(node, 1 - own.index, expression, constant.dtype, channels),))


def laid_out(vector: _Wide, axis: int | None, rank: int | None) -> Expression | None:
    """Return ``vector`` shaped to broadcast along ``axis``: [C, 1, …], or a scalar."""
    if axis is None:
        return Expression.of(vector.reshape(()))
    if rank is None:
        return None
    return Expression.of(vector.reshape(-1, *[1] * (rank - axis - 1)))
