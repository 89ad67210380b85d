"""Two constants in a row are one: ``(x · a) · b = x · (a · b)``, and the same for sums.

Where a constant is a map, it goes on its own; these are those that vary along several axes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.expression import Expression, Made, Wide
from bnfold.folding.merging.sums import Reader
from bnfold.folding.ranges import check_ranges
from bnfold.folding.selection import Selection
from bnfold.model.facts import Facts
from bnfold.model.uses import is_used_once
from bnfold.records import Code, Refusal
from bnfold.rules.base import SetConstant, name_of
from bnfold.rules.weights import Weight, read_float_weight
from bnfold.storable import has_subnormal

_FACTORS: Final = {"Mul": 1, "Div": -1}
_TERMS: Final = {"Add": 1, "Sub": -1}
ELEMENTWISE: Final = frozenset({*_FACTORS, *_TERMS})
_MAY_GROW_TO: Final = 1 << 16
"""Constants along different axes make one of so many elements at most, or no larger one."""


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Two element-wise operators that become the second.

    Attributes:
        first: The one that goes.
        data: What it reads besides its constant.
        second: The one that becomes both.
        op_type: What that one is then.
        edit: Its constant.
    """

    first: ir.Node
    data: ir.Value
    second: ir.Node
    op_type: str
    edit: SetConstant


@dataclass(frozen=True, slots=True, eq=False)
class _Operand:
    """A node as ``x · cᵖ`` or ``x + p · c``.

    Attributes:
        node: The node.
        index: The input that is x.
        constant: The other one.
        power: The number p, 1 or −1.
        keeps: Whether x stands there with the power 1 itself; not in ``c − x``.
    """

    node: ir.Node
    index: int
    constant: Weight
    power: int
    keeps: bool


def plan_pair(
    second: ir.Node, reader: Reader, facts: Facts, selection: Selection
) -> Pair | Refusal:
    """Return how ``second`` takes the operator in front of it, or why it does not."""
    behind = _operand(second, facts)
    if isinstance(behind, Refusal):
        return behind
    value = second.inputs[behind.index]
    first = None if value is None else value.producer()
    if value is None or first is None or first.graph is not second.graph:
        return Refusal(Code.NOT_AFFINE, name_of(second), "no operator stands before it")
    if _family(first) is not _family(second) or not facts.is_standard(first):
        return Refusal(Code.NOT_AFFINE, name_of(second), "no like operator stands before it")
    in_front = _operand(first, facts)
    if isinstance(in_front, Refusal):
        return in_front
    data = first.inputs[in_front.index]
    if data is None or not in_front.keeps:
        return Refusal(Code.NOT_AFFINE, name_of(first), "it turns its input around")
    if not reader.read_once(value):
        return Refusal(Code.SHARED_VALUE, name_of(second), "its input is read elsewhere")
    blocked = selection.refuse_site(first) or selection.refuse_touch(second)
    if blocked is not None:
        return blocked
    return _pair(in_front, data, behind)


def _family(node: ir.Node) -> dict[str, int] | None:
    return next((kind for kind in (_FACTORS, _TERMS) if node.op_type in kind), None)


def _operand(node: ir.Node, facts: Facts) -> _Operand | Refusal:
    """Read a node of a value and a constant, in either order where that makes sense."""
    family = _family(node)
    constants = [index for index in facts.constant_inputs(node) if index < 2]
    if family is None or len(constants) != 1 or not facts.is_standard(node):
        return Refusal(Code.NOT_AFFINE, name_of(node), "it has no constant operand")
    (place,) = constants
    constant = read_float_weight(node, place, facts)
    if isinstance(constant, Refusal):
        return constant
    power = family[node.op_type]
    if power > 0 or place == 1:
        return _Operand(node, 1 - place, constant, power, keeps=True)
    if node.op_type == "Sub":
        return _Operand(node, 1, constant, 1, keeps=False)
    return Refusal(Code.NOT_AFFINE, name_of(node), "a constant is divided by its input")


def _pair(first: _Operand, data: ir.Value, second: _Operand) -> Pair | Refusal:
    node = second.node
    shapes = (first.constant.shape, second.constant.shape)
    try:
        shape = np.broadcast_shapes(*shapes)
    except ValueError:
        return Refusal(Code.WRONG_SHAPE, name_of(node), "the constants do not broadcast")
    if sum(size > 1 for size in shape) <= 1:
        # One chain is one fold in the report, however long; a pair at a time is one each.
        why = "both are maps along one axis, which are composed"
        return Refusal(Code.NO_GAIN, name_of(node), why)
    most = max(*map(math.prod, shapes), _MAY_GROW_TO)
    if math.prod(shape) > most:
        why = f"one constant would have {math.prod(shape)} elements, {most} are the most"
        return Refusal(Code.NO_GAIN, name_of(node), why)
    for one in (first, second):
        held = one.node.inputs[1 - one.index]
        if held is None or not is_used_once(held) or held.is_graph_output():
            why = "its constant is read elsewhere and would stay beside the merged one"
            return Refusal(Code.NO_GAIN, name_of(one.node), why)
    op_type, powers = _powers(first, second)
    expression = _combined(first, second, powers, shape)
    edit = SetConstant(
        node, 1 - second.index, expression, second.constant.constant.dtype, None
    )
    return _check(edit) or Pair(first.node, data, node, op_type, edit)


def _powers(first: _Operand, second: _Operand) -> tuple[str, tuple[int, int]]:
    """Return what the one operator is, and with which powers its constant has the two.

    ``c − (x + p · a)`` is ``(c − p · a) − x``; two Divs or Subs are one, a mixed pair is a Mul
    or an Add.
    """
    if not second.keeps:
        return second.node.op_type, (-first.power, 1)
    if first.power == second.power:
        return second.node.op_type, (1, 1)
    kind = "Mul" if _family(second.node) is _FACTORS else "Add"
    return kind, (first.power, second.power)


def _combined(
    first: _Operand, second: _Operand, powers: tuple[int, int], shape: tuple[int, ...]
) -> Expression:
    sources = (first.constant.constant.expression, second.constant.constant.expression)
    product = _family(second.node) is _FACTORS
    kind = "product of elements" if product else "sum of elements"

    def compute() -> Wide:
        one, two = (source.evaluate() for source in sources)
        if not product:
            return np.asarray(powers[0] * one + powers[1] * two)
        with np.errstate(all="ignore"):
            numerator = one if powers[0] > 0 else np.ones(())
            whole = numerator * two if powers[1] > 0 else numerator / two
            return np.asarray(whole if powers[0] > 0 else whole / one)

    return Expression.derived(compute, shape, Made(kind, {"powers": list(powers)}, sources))


def _check(edit: SetConstant) -> Refusal | None:
    """Refuse what the type cannot hold, and what would lose digits that both have now.

    Every element of the value reads an element of its own: that another one is larger does
    not excuse a subnormal one.
    """
    blocked = check_ranges((edit,))
    dtype = edit.dtype.numpy()
    if blocked is not None or _family(edit.node) is _TERMS:
        return blocked
    if not has_subnormal(edit.expression, dtype):
        return None
    why = f"an element of the product would lie below the normal range of {dtype}"
    return Refusal(Code.OUT_OF_RANGE, name_of(edit.node), why)
