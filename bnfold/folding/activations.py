"""Hard sigmoids that are spelled out: write the operator, which needs no constants beside it.

``clip(x + c, 0, h) / h = HardSigmoid(x)`` with alpha 1 / h and beta c / h. The division stands
behind the Clip, or behind the product with x; with c = 3 and h = 6 that is a HardSwish.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.folding.selection import Selection
from bnfold.model.attributes import float_attr
from bnfold.model.edit import Editor
from bnfold.model.facts import Facts
from bnfold.records import Refusal, Step
from bnfold.rules.base import name_of

_BOUNDS_ARE_INPUTS_SINCE: Final = 11
_HARD_SIGMOID_SINCE: Final = 6
_HARD_SWISH_SINCE: Final = 14
_TYPES: Final = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16})


@dataclass(frozen=True, slots=True, eq=False)
class _Spelled:
    """``clip(x + offset, 0, height) / height``, and maybe times x.

    Attributes:
        data: x.
        nodes: Add, Clip, then the division and, before or behind it, the product if any.
        product: The product with x, if there is one.
        offset: c.
        height: h.
    """

    data: ir.Value
    nodes: tuple[ir.Node, ...]
    product: ir.Node | None
    offset: float
    height: float

    @property
    def is_swish(self) -> bool:
        """Whether HardSwish computes the whole."""
        return self.product is not None and (self.offset, self.height) == (3.0, 6.0)


def write_activations(facts: Facts, editor: Editor, selection: Selection) -> list[Step]:
    """Replace spelled-out HardSigmoid and HardSwish by the operators."""
    steps: list[Step] = []
    for node in facts.nodes():
        if node.op_type != "Clip" or node.graph is None:
            continue
        spelled = _spelled(node, facts)
        if spelled is None or _is_held(spelled, selection):
            continue
        names = tuple(name_of(inner) for inner in spelled.nodes)
        kept = _rewrite(spelled, facts, editor)
        steps.append(Step("activation", names, "spelled out", (), (), (), kept))
    return steps


def _is_held(spelled: _Spelled, selection: Selection) -> bool:
    touched = [selection.refuse_touch(node) for node in spelled.nodes]
    return any(touched) or selection.refuse_site(spelled.nodes[0]) is not None


def _rewrite(spelled: _Spelled, facts: Facts, editor: Editor) -> tuple[str, ...]:
    """Write the operator in the place of the last node that it covers."""
    clip, last = spelled.nodes[1], spelled.nodes[-1]
    if spelled.is_swish and facts.opset() >= _HARD_SWISH_SINCE:
        editor.rewrite(last, "HardSwish", spelled.data)
        return ("HardSwish",)
    behind = spelled.product is not None and last is not spelled.product
    gate = clip if behind else spelled.nodes[2]
    editor.rewrite(gate, "HardSigmoid", spelled.data)
    for name, value in (("alpha", 1.0), ("beta", spelled.offset)):
        editor.set_attribute(gate, ir.AttrFloat32(name, value / spelled.height))
    if behind and spelled.product is not None:
        editor.rename(clip.outputs[0])
        editor.bypass([last], spelled.product.outputs[0], renamed=True)
    return ("HardSigmoid",) if spelled.product is None else ("HardSigmoid", "Mul")


def _spelled(clip: ir.Node, facts: Facts) -> _Spelled | None:
    """Read the pattern around a Clip."""
    add = None if clip.inputs[0] is None else clip.inputs[0].producer()
    height = _height(clip, facts)
    if add is None or height is None or facts.opset() < _HARD_SIGMOID_SINCE:
        return None
    added = _with_number(add, "Add", facts)
    after = _only_reader(clip, facts)
    if added is None or after is None or _only_reader(add, facts) is not clip:
        return None
    data, offset = added
    if facts.dtype(data) not in _TYPES:
        return None
    if _divides(after, height, facts):
        product = _only_reader(after, facts)
        if product is not None and _multiplies(product, after, data, facts):
            return _Spelled(data, (add, clip, after, product), product, offset, height)
        return _Spelled(data, (add, clip, after), None, offset, height)
    division = _only_reader(after, facts) if _multiplies(after, clip, data, facts) else None
    if division is None or not _divides(division, height, facts):
        return None
    return _Spelled(data, (add, clip, after, division), after, offset, height)


def _only_reader(node: ir.Node, facts: Facts) -> ir.Node | None:
    """Return the one node of the same graph that reads a result, if nothing else does."""
    value = node.outputs[0]
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output():
        return None
    reader = uses[0][0]
    return reader if reader.graph is node.graph and facts.is_standard(reader) else None


def _with_number(node: ir.Node, kind: str, facts: Facts) -> tuple[ir.Value, float] | None:
    """Return the computed operand of a binary operator, and the number beside it."""
    if node.op_type != kind or not facts.is_standard(node) or len(node.inputs) != 2:
        return None
    for index in (1, 0) if kind != "Div" else (1,):
        value, other = node.inputs[1 - index], node.inputs[index]
        held = facts.constant(other)
        if value is None or isinstance(held, Refusal) or held.shape not in ((), (1,)):
            continue
        if facts.rank(value):
            return value, float(held.stored().astype(np.float64).reshape(-1)[0])
    return None


def _divides(node: ir.Node, height: float, facts: Facts) -> bool:
    """Return whether a node divides by ``height``, or multiplies by what is stored for it."""
    divided = _with_number(node, "Div", facts)
    if divided is not None:
        return divided[1] == height
    scaled = _with_number(node, "Mul", facts)
    if scaled is None:
        return False
    dtype = facts.dtype(scaled[0])
    return dtype is not None and scaled[1] == float(dtype.numpy().type(1.0 / height))


def _multiplies(node: ir.Node, gate: ir.Node, data: ir.Value, facts: Facts) -> bool:
    """Return whether a node is the product of the result of ``gate`` and ``data``."""
    if node.op_type != "Mul" or not facts.is_standard(node):
        return False
    return set(node.inputs) == {gate.outputs[0], data}


def _height(clip: ir.Node, facts: Facts) -> float | None:
    """Return the upper bound of a Clip whose lower one is zero."""
    if not facts.is_standard(clip):
        return None
    if facts.opset() < _BOUNDS_ARE_INPUTS_SINCE:
        low, high = float_attr(clip, "min", -1.0), float_attr(clip, "max", -1.0)
    elif len(clip.inputs) == 3:
        held = [facts.constant(value) for value in clip.inputs[1:]]
        numbers = [
            float(h.stored().reshape(-1)[0])
            for h in held
            if not isinstance(h, Refusal) and h.shape in ((), (1,))
        ]
        low, high = numbers if len(numbers) == 2 else (-1.0, -1.0)
    else:
        return None
    return high if low == 0.0 and high > 0.0 else None
