"""Move scale and bias of normalisations into the linear operators behind them: ``--norms``.

A LayerNormalization and the like apply ``scale · n(x) + bias``, n without parameters. What
reads the result can take this map like any other. The operator then keeps a scale of ones and
no bias, or zeros where it must have one: it stays, so this saves no operator and is off unless
asked for. Mul and Add spelled out behind a normalisation are ordinary sites.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.expression import Expression
from bnfold.folding.carry_out import write_edits
from bnfold.folding.downwards import lower_alone
from bnfold.folding.journey import Journey
from bnfold.folding.ranges import check_ranges
from bnfold.folding.selection import Selection, rule_of
from bnfold.model.constants import Constant
from bnfold.model.edit import Editor
from bnfold.model.facts import Facts
from bnfold.model.uses import uses_of
from bnfold.records import Code, Refusal, Stay, Step
from bnfold.rules.base import DropInput, Edit, SetConstant, name_of
from bnfold.rules.norms import BIAS, SCALE, Normalization
from bnfold.rules.passing import along_one_axis
from bnfold.rules.weights import has_input, read_weight

_MAY_BE_STORED_TWICE: Final = 1 << 16
"""A weight of at most so many elements may be written anew beside the old one."""
_MAY_LACK_BIAS: Final = frozenset({"LayerNormalization"})


@dataclass(frozen=True, slots=True, eq=False)
class _Tail:
    """The affine end of a normalisation: its constants, and the map of Y that they make."""

    node: ir.Node
    scale: Constant
    bias: Constant | None
    affine: Affine

    def without_scale(self) -> tuple[Edit, ...]:
        """Make scale ones."""
        ones = Expression.of(np.ones(self.scale.shape))
        return (SetConstant(self.node, SCALE, ones, self.scale.dtype, None),)

    def without_bias(self) -> tuple[Edit, ...]:
        """Drop the bias, or make it zeros where the operator must have one."""
        if self.bias is None:
            return ()
        if self.node.op_type in _MAY_LACK_BIAS:
            return (DropInput(self.node, BIAS),)
        zeros = Expression.of(np.zeros(self.bias.shape))
        return (SetConstant(self.node, BIAS, zeros, self.bias.dtype, None),)

    def with_bias_in_front(self) -> tuple[Edit, ...]:
        """Make the bias what it is in front of the scale: ``σ·n + β = σ · (n + β / σ)``."""
        if self.bias is None:
            return ()
        early = self.bias.wide() / self.scale.wide()
        return (SetConstant(self.node, BIAS, Expression.of(early), self.bias.dtype, None),)


@dataclass(frozen=True, slots=True, eq=False)
class _Move:
    """A part of a tail that goes down, and what the normalisation keeps."""

    name: str
    journey: Journey
    kept: tuple[Edit, ...]


def fold_norm_tails(facts: Facts, editor: Editor, selection: Selection) -> list[Step]:
    """Move every tail, or its scale or bias alone, into what reads it, where that is exact."""
    steps: list[Step] = []
    for node in _normalizations(facts):
        while isinstance(move := _plan(node, facts, selection), _Move):
            tensors, growth = write_edits((*move.journey.edits, *move.kept), editor)
            steps.append(
                Step(
                    rule=node.op_type,
                    site=(name_of(node),),
                    move=move.name,
                    routes=move.journey.routes(),
                    absorbed_by=tuple(name_of(n) for n in move.journey.absorbed_by),
                    tensors=tensors,
                    left=(node.op_type,),
                    cloned_bytes=growth,
                )
            )
    return steps


def norm_stays(facts: Facts, selection: Selection) -> list[Stay]:
    """Return the tails that stay, and why."""
    stays: list[Stay] = []
    for node in _normalizations(facts):
        refusals = _plan(node, facts, selection)
        if isinstance(refusals, tuple) and refusals:
            stays.append(Stay(node.op_type, (name_of(node),), refusals))
    return stays


def _normalizations(facts: Facts) -> list[ir.Node]:
    """Return those of data: one of a constant is a constant, and goes when that is written."""
    return [
        node
        for node in facts.nodes()
        if isinstance(rule_of(node, facts), Normalization)
        and 0 not in facts.constant_inputs(node)
    ]


def _plan(node: ir.Node, facts: Facts, selection: Selection) -> _Move | tuple[Refusal, ...]:
    """Return the move that takes most of a tail away; no refusal either if there is none."""
    tail = selection.refuse_site(node) or _tail(node, facts)
    if isinstance(tail, Refusal):
        return (tail,)
    refusals: list[Refusal] = []
    for name, part, kept in _parts(tail):
        journey = lower_alone(node.outputs[0], part, facts, selection)
        if isinstance(journey, Refusal):
            refusals.append(journey)
            continue
        fault = _refuse_growth(journey.edits) or check_ranges((*journey.edits, *kept))
        if fault is None and journey.absorbed_by:
            return _Move(name, journey, kept)
        refusals.extend([] if fault is None else [fault])
    return tuple(dict.fromkeys(refusals))


def _refuse_growth(edits: Iterable[Edit]) -> Refusal | None:
    """Refuse to store a large weight twice: what is gained here is less than an operator."""
    for edit in edits:
        if not isinstance(edit, SetConstant) or edit.index >= len(edit.node.inputs):
            continue
        value = edit.node.inputs[edit.index]
        size = math.prod(edit.expression.shape)
        if value is not None and size > _MAY_BE_STORED_TWICE and _is_shared(value):
            why = f"{value.name!r} is read elsewhere too: {size} numbers would be stored twice"
            return Refusal(Code.NO_GAIN, name_of(edit.node), why)
    return None


def _is_shared(value: ir.Value) -> bool:
    """Return whether anything else reads a constant, or what it is computed from."""
    pending, seen = [value], {value}
    while pending:
        current = pending.pop()
        if len(uses_of(current)) > 1:
            return True
        producer = current.producer()
        inputs = () if producer is None else producer.inputs
        pending.extend(i for i in inputs if i is not None and i not in seen)
        seen.update(pending)
    return False


def _parts(tail: _Tail) -> Iterator[tuple[str, Affine, tuple[Edit, ...]]]:
    whole = tail.affine
    if whole.is_identity or not whole.is_finite:
        return
    if not whole.has_scale:
        yield "down", whole, tail.without_bias()
        return
    yield "down", whole, (*tail.without_scale(), *tail.without_bias())
    if not whole.has_shift:
        return
    yield "shift down", whole.shift_only(), tail.without_bias()
    if whole.is_invertible and _same_shape(tail):
        kept = (*tail.without_scale(), *tail.with_bias_in_front())
        yield "scale down", whole.scale_only(), kept


def _same_shape(tail: _Tail) -> bool:
    return tail.bias is not None and tail.bias.shape == tail.scale.shape


def _tail(node: ir.Node, facts: Facts) -> _Tail | Refusal:
    scale = read_weight(node, SCALE, facts)
    if isinstance(scale, Refusal):
        return scale
    bias = read_weight(node, BIAS, facts) if has_input(node, BIAS) else None
    if isinstance(bias, Refusal):
        return bias
    constant = None if bias is None else bias.constant
    affine = _map_of(node, scale.constant, constant, facts)
    if isinstance(affine, Refusal):
        return affine
    return _Tail(node, scale.constant, constant, affine)


def _broadcast(one: Sequence[int], other: Sequence[int]) -> bool:
    """Return whether shapes broadcast: onnx's checker accepts others too."""
    pairs = zip(reversed(one), reversed(other), strict=False)
    return all(a == b or 1 in (a, b) for a, b in pairs)


def _map_of(
    node: ir.Node, scale: Constant, bias: Constant | None, facts: Facts
) -> Affine | Refusal:
    added = np.zeros(()) if bias is None else bias.wide()
    if not _broadcast(scale.shape, added.shape):
        why = f"its bias of shape {list(added.shape)} does not fit its scale"
        return Refusal(Code.WRONG_SHAPE, name_of(node), why)
    parts = np.broadcast_arrays(scale.wide(), added)
    if not parts[0].size or all((part == part.flat[0]).all() for part in parts):
        first = [float(part.flat[0]) if part.size else 1.0 for part in parts]
        return Affine.uniform(*first)
    found = along_one_axis(parts)
    rule = rule_of(node, facts)
    if found is None or not isinstance(rule, Normalization):
        why = f"its scale and bias of shape {list(parts[0].shape)} vary along several axes"
        return Refusal(Code.SEVERAL_AXES, name_of(node), why)
    axis, (slope, offset) = found
    behind = axis - (parts[0].ndim - len(scale.shape))
    if behind < 0:
        why = "its bias runs along an axis that its scale does not have"
        return Refusal(Code.SEVERAL_AXES, name_of(node), why)
    return rule.on_result(node, Affine.per_channel(behind, slope, offset), facts)
