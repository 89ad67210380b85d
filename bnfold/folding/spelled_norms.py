"""Recognise normalisations that exporters spell out in several nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.model.attributes import ints_attr
from bnfold.model.facts import Facts
from bnfold.records import Refusal

_AXES_ARE_AN_INPUT_SINCE: Final = 18
_SQUARE: Final = 2.0


@dataclass(frozen=True, slots=True)
class Spelled:
    """``(x − mean(x)) / √(mean((x − mean(x))²) + epsilon)``, or the same without a mean.

    Attributes:
        node: The Sqrt.
        data: The value x.
        axes: The axes that means are taken over, counted from the front; empty if unknown.
        centred: Whether the mean is subtracted.
    """

    node: ir.Node
    data: ir.Value
    axes: tuple[int, ...]
    centred: bool


def spelled_at(root: ir.Node, facts: Facts) -> Spelled | None:
    """Return the normalisation whose deviation this Sqrt computes, if it is one."""
    total = _made_by(root.inputs[0], "Add", facts)
    if total is None:
        return None
    means = [_made_by(value, "ReduceMean", facts) for value in total.inputs]
    mean = next((node for node in means if node is not None), None)
    squared = None if mean is None else _squared(mean.inputs[0], facts)
    if mean is None or squared is None:
        return None
    centred = _centred(squared, facts)
    data = squared if centred is None else centred
    return Spelled(root, data, _axes(mean, data, facts), centred is not None)


def grouped_by_reshape(node: ir.Node, facts: Facts) -> ir.Value | None:
    """Return what is gathered in groups by a Reshape in front of an InstanceNormalization.

    A Reshape behind undoes it. One that keeps the channels apart only flattens the rest.
    """
    front = _made_by(node.inputs[0], "Reshape", facts)
    readers = [reader for reader, _ in facts.element_uses(node.outputs[0])]
    if front is None or not readers or any(r.op_type != "Reshape" for r in readers):
        return None
    data = front.inputs[0]
    channels = None if data is None else facts.dim(data, 1)
    inner = None if node.inputs[0] is None else facts.dim(node.inputs[0], 1)
    return None if channels is not None and channels == inner else data


def _made_by(value: ir.Value | None, kind: str, facts: Facts) -> ir.Node | None:
    node = None if value is None else value.producer()
    if node is None or node.op_type != kind or not facts.is_standard(node):
        return None
    return node


def _squared(value: ir.Value | None, facts: Facts) -> ir.Value | None:
    """Return v where ``value`` is v² as Pow(v, 2) or Mul(v, v)."""
    product = _made_by(value, "Mul", facts)
    if product is not None and product.inputs[0] is product.inputs[1]:
        return product.inputs[0]
    power = _made_by(value, "Pow", facts)
    if power is None:
        return None
    exponent = facts.constant(power.inputs[1])
    if isinstance(exponent, Refusal):
        return None
    return power.inputs[0] if bool(np.all(exponent.stored() == _SQUARE)) else None


def _centred(value: ir.Value, facts: Facts) -> ir.Value | None:
    """Return x where ``value`` is x − mean(x)."""
    difference = _made_by(value, "Sub", facts)
    mean = None if difference is None else _made_by(difference.inputs[1], "ReduceMean", facts)
    if difference is None or mean is None or mean.inputs[0] is not difference.inputs[0]:
        return None
    return difference.inputs[0]


def _axes(mean: ir.Node, data: ir.Value, facts: Facts) -> tuple[int, ...]:
    rank = facts.rank(data)
    if rank is None:
        return ()
    named: tuple[int, ...] = ints_attr(mean, "axes")
    if facts.opset() >= _AXES_ARE_AN_INPUT_SINCE and len(mean.inputs) > 1:
        constant = facts.constant(mean.inputs[1])
        if isinstance(constant, Refusal):
            return ()
        named = tuple(int(axis) for axis in constant.stored().reshape(-1))
    return tuple(sorted(axis % rank for axis in named)) or tuple(range(rank))
