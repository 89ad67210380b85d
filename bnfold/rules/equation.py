"""Read the equation of an Einsum: a letter for every axis, those of ``...`` too."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Final

import onnx_ir as ir

from bnfold.model.attributes import string_attr
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import name_of

_REST: Final = "..."


@dataclass(frozen=True, slots=True)
class Equation:
    """The letters of the operands and of the result (Einsum-12)."""

    operands: tuple[str, ...]
    result: str

    @property
    def is_permutation(self) -> bool:
        """Whether the result is the one operand with its axes in another order."""
        return len(self.operands) == 1 and sorted(self.operands[0]) == sorted(self.result)


def read_equation(node: ir.Node, facts: Facts) -> Equation | Refusal:
    """Return the equation of an Einsum, or why its axes are not known by name."""
    written = string_attr(node, "equation", "").replace(" ", "")
    left, arrow, result = written.partition("->")
    operands = left.split(",")
    letters = "".join(operands).replace(_REST, "")
    if not arrow:
        once = sorted(c for c in set(letters) if letters.count(c) == 1)
        result = (_REST if _REST in left else "") + "".join(once)
    spelled = [_REST in operand for operand in operands]
    if any(spelled):
        rest = _rest(node, operands, result, facts)
        if isinstance(rest, Refusal):
            return rest
        operands = [operand.replace(_REST, rest, 1) for operand in operands]
        result = result.replace(_REST, rest, 1)
    names = set("".join(operands))
    if not names | set(result) <= set(string.ascii_letters) or not set(result) <= names:
        why = f"its equation {written!r} is not made of letters that its operands have"
        return Refusal(Code.UNKNOWN_OPERATOR, name_of(node), why)
    if any(len(set(axes)) < len(axes) for axes in (*operands, result)):
        why = f"its equation {written!r} reads a diagonal: a letter twice in one operand"
        return Refusal(Code.UNKNOWN_OPERATOR, name_of(node), why)
    return Equation(tuple(operands), result)


def _rest(node: ir.Node, operands: list[str], result: str, facts: Facts) -> str | Refusal:
    """Return letters for the axes that ``...`` stands for, in the one operand that has it."""
    places = [index for index, operand in enumerate(operands) if _REST in operand]
    if len(places) != 1 or _REST not in result:
        why = "'...' of its equation broadcasts operands, or is summed over"
        return Refusal(Code.UNKNOWN_OPERATOR, name_of(node), why)
    value = node.inputs[places[0]]
    rank = None if value is None else facts.rank(value)
    if rank is None:
        why = "the rank of its data is unknown, so it is not known what '...' stands for"
        remedy = "run onnx.shape_inference on the model first, or export it with shapes"
        return Refusal(Code.UNKNOWN_SHAPE, name_of(node), why, remedy)
    used = set("".join(operands))
    free = [letter for letter in string.ascii_letters if letter not in used]
    count = rank - (len(operands[places[0]]) - len(_REST))
    if not 0 <= count <= len(free):
        why = f"its data has {rank} axes, its equation names others"
        return Refusal(Code.WRONG_SHAPE, name_of(node), why)
    return "".join(free[:count])
