"""Layer normalisations that are spelled out: write the operator, which takes scale and bias.

From opset 17 on there is LayerNormalization, from 23 on RMSNormalization. The Mul and Add
behind the spelled form become their scale and bias: two maps and five passes less are left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.expression import Expression
from bnfold.folding.carry_out import write_edits
from bnfold.folding.idioms import tail_of_norm
from bnfold.folding.selection import Selection
from bnfold.folding.spelled_norms import Spelled, spelled_at
from bnfold.model.constants import FLOATS, Constant
from bnfold.model.edit import Editor
from bnfold.model.facts import Facts
from bnfold.records import Refusal, Step
from bnfold.rules.base import Edit, SetAttribute, SetConstant, name_of

_STASHED: Final = FLOATS - {ir.DataType.DOUBLE}
"""Types whose mean and variance lose nothing in float32, where the operators compute them
(stash_type 1, LayerNormalization-17)."""

_SINCE: Final = {"LayerNormalization": 17, "RMSNormalization": 23}


@dataclass(frozen=True, slots=True, eq=False)
class _Norm:
    """The operator that a spelled form is.

    Attributes:
        kind: Its name.
        spelled: The spelled form up to its square root.
        tail: Mul, and Add if there is one, in the order of the graph.
        sizes: Sizes of the normalised axes, which are the last ones.
        epsilon: What is added to the variance.
    """

    kind: str
    spelled: Spelled
    tail: tuple[ir.Node, ...]
    sizes: tuple[int, ...]
    epsilon: float


def write_norms(facts: Facts, editor: Editor, selection: Selection) -> list[Step]:
    """Replace spelled-out layer and RMS normalisations by the operators."""
    steps: list[Step] = []
    for node in facts.nodes():
        if node.op_type != "Sqrt" or node.graph is None or not facts.is_standard(node):
            continue
        norm = _norm_at(node, facts)
        if norm is None or any(selection.refuse_site(part) for part in norm.tail):
            continue
        edits = _edits(norm, facts)
        if edits is None:
            continue
        names = tuple(name_of(part) for part in norm.tail)
        last = norm.tail[-1]
        editor.rewrite(last, norm.kind, norm.spelled.data)
        tensors, _ = write_edits(edits, editor)
        step = Step(norm.kind, names, "spelled out", (), (name_of(last),), tensors)
        steps.append(step)
    return steps


def _norm_at(root: ir.Node, facts: Facts) -> _Norm | None:
    spelled = spelled_at(root, facts)
    tail = tuple(tail_of_norm(root, facts))
    if spelled is None or not tail:
        return None
    kind = "LayerNormalization" if spelled.centred else "RMSNormalization"
    epsilon = _epsilon(root, facts)
    dims = facts.shape(spelled.data) or ()
    sizes = tuple(d for d in dims[len(dims) - len(spelled.axes) :] if isinstance(d, int))
    if facts.opset() < _SINCE[kind] or epsilon is None or len(sizes) < len(spelled.axes):
        return None
    if facts.dtype(spelled.data) not in _STASHED:
        return None
    tail = tail if kind == "LayerNormalization" else tail[:1]
    return _Norm(kind, spelled, tail, sizes, epsilon)


def _epsilon(root: ir.Node, facts: Facts) -> float | None:
    """Return the number that is added in front of the square root."""
    total = None if root.inputs[0] is None else root.inputs[0].producer()
    for value in () if total is None else total.inputs:
        held = facts.constant(value)
        if isinstance(held, Constant) and int(np.prod(held.shape)) == 1:
            return float(held.wide().reshape(-1)[0])
    return None


def _edits(norm: _Norm, facts: Facts) -> list[Edit] | None:
    """Return scale, bias and attributes; None if a constant does not fit the axes."""
    last = norm.tail[-1]
    edits: list[Edit] = [
        SetAttribute(last, ir.AttrInt64("axis", -len(norm.sizes))),
        SetAttribute(last, ir.AttrFloat32("epsilon", norm.epsilon)),
    ]
    for index, node in enumerate(norm.tail, start=1):
        held = [facts.constant(node.inputs[place]) for place in facts.constant_inputs(node)]
        constant = held[0]
        if isinstance(constant, Refusal):
            return None
        shape = constant.shape
        kept = shape[max(len(shape) - len(norm.sizes), 0) :]
        if int(np.prod(shape)) != int(np.prod(kept)):
            return None
        laid = np.broadcast_to(constant.wide().reshape(kept), norm.sizes)
        expression = Expression.of(np.ascontiguousarray(laid))
        edits.append(SetConstant(last, index, expression, constant.dtype, None))
    return edits
