"""Maps of constants are constants: store what they compute."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.expression import Expression
from bnfold.folding.selection import Selection
from bnfold.model.constants import FLOATS, Constant
from bnfold.model.continuity import STEEP, nature_of
from bnfold.model.edit import Editor
from bnfold.model.evaluate import is_far
from bnfold.model.facts import Facts
from bnfold.model.sources import why_too_large
from bnfold.model.uses import is_used, uses_of
from bnfold.records import Refusal, Step
from bnfold.rules.base import name_of
from bnfold.rules.quantized import hangs_on_integers

_KINDS: Final = frozenset({"Mul", "Add", "Sub", "Div", "Neg", "BatchNormalization"})
_MAY_GROW_TO: Final = 1 << 16
"""So many elements may be stored where the inputs held fewer."""
_MAY_WIDEN: Final = 1 << 10
"""So many elements may be stored as floats that were stored as integers."""


def store_mapped_constants(facts: Facts, editor: Editor, selection: Selection) -> list[Step]:
    """Replace element-wise operators whose inputs are all constant by initializers.

    Runtimes do so when they load a model, but not tools that count operators, or compile.
    What is stored is sure, and leads its inputs to no step any more: that may let others go,
    so it is looked again until nothing is found.
    """
    stored: list[_Stored] = []
    while found := _store(facts, editor, selection):
        stored.extend(found)
    if not stored:
        return []
    names, tensors, growth = zip(*stored, strict=True)
    move = "computed, it maps a constant"
    return [Step("constant", names, move, (), (), tensors, cloned_bytes=sum(growth))]


_Stored = tuple[str, str, int]
"""Names of a node and of its tensor, and the growth of the model in bytes."""


def _store(facts: Facts, editor: Editor, selection: Selection) -> list[_Stored]:
    """Store in one pass what may be."""
    stored: list[_Stored] = []
    steps = _Steps(facts)
    for node in facts.nodes():
        if node.op_type not in _KINDS or not facts.is_standard(node):
            continue
        constant = _result(node, facts, steps)
        if constant is None or selection.refuse_site(node) is not None:
            continue
        facts.forget_behind(node)
        name = name_of(node)
        tensor, growth = editor.store_result(node, constant.expression, constant.dtype)
        stored.append((name, tensor, growth))
    return stored


def _result(node: ir.Node, facts: Facts, steps: _Steps) -> Constant | None:
    """Return what a node computes, if that is known and may be stored."""
    result, *others = node.outputs
    if not is_used(result) or result.is_graph_output():
        return None
    if any(is_used(value) or value.is_graph_output() for value in others):
        return None
    found = facts.constant(result)
    if isinstance(found, Refusal) or not found.is_float:
        return None
    stored = steps.as_stored(result, found)
    if stored is None:
        return None
    inputs = [facts.constant(value) for value in node.inputs if value is not None]
    held = sum(math.prod(entry.shape) for entry in inputs if isinstance(entry, Constant))
    size = math.prod(stored.shape)
    if size > max(held, _MAY_GROW_TO) or (size > _MAY_WIDEN and hangs_on_integers(node)):
        return None
    size_bytes = size * stored.dtype.bitwidth // 8
    return None if why_too_large(result, stored.dtype, size_bytes) else stored


class _Steps:
    """Knows which constants reach an operator that is not continuous."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._reach: dict[ir.Value, bool] = {}

    def as_stored(self, value: ir.Value, held: Constant) -> Constant | None:
        """Return what to store for a constant; None if its last bit may decide anything.

        What is stored is rounded once, where the graph rounds after every operator. That is
        nearer to what is meant, but an operator that is not continuous may answer otherwise:
        what reaches one is stored only if both are the same, and is those numbers from then
        on, as it will be for whoever reads the model.
        """
        if not self._reaches(value):
            return held
        once = held.expression.rounded(held.dtype.numpy())
        # where nothing is known of the graph's own roundings, they may differ
        known = held.rounding is not None and held.rounding.is_sure()
        if not known or not np.array_equal(once, held.stored()):
            return None
        return Constant(Expression.of(once), held.dtype)

    def _reaches(self, value: ir.Value) -> bool:
        """Look at each constant once, those that are computed from it first."""
        stack = [value]
        while stack:
            current = stack[-1]
            behind = [] if current in self._reach else list(self._behind(current))
            waiting = [one for one in behind if one not in self._reach]
            if current in self._reach or not waiting:
                stack.pop()
                self._reach.setdefault(
                    current,
                    any(self._reach[one] for one in behind) or self._meets_one(current),
                )
            else:
                stack.extend(waiting)
        return self._reach[value]

    def _behind(self, value: ir.Value) -> Iterator[ir.Value]:
        """Yield the constants that are computed from a constant."""
        for reader, _ in uses_of(value):
            for result in reader.outputs:
                if not isinstance(self._facts.constant(result), Refusal):
                    yield result

    def _meets_one(self, value: ir.Value) -> bool:
        return any(self._is_step(reader, place, value) for reader, place in uses_of(value))

    def _is_step(self, node: ir.Node, place: int, value: ir.Value) -> bool:
        """Return whether the last bit of an input may decide; casts to floats only round."""
        if not self._facts.is_standard(node):
            return True
        if STEEP.get(node.op_type) == place:
            held, result = (self._facts.constant(one) for one in (value, node.outputs[0]))
            # a map is divided by the unrounded number; a constant, by what is left of it
            return isinstance(held, Constant) and isinstance(result, Constant) and is_far(held)
        if node.op_type in ("Cast", "CastLike"):
            return self._facts.dtype(node.outputs[0]) not in FLOATS
        return not nature_of(node.op_type).continuous
