"""Drop biases that a normalisation behind them takes away again: ``n(x + t) = n(x)``."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.folding.carry_out import write_edits
from bnfold.folding.downwards import lower_alone
from bnfold.folding.journey import Journey
from bnfold.folding.selection import Selection, rule_of
from bnfold.model.attributes import float_attr
from bnfold.model.edit import Editor
from bnfold.model.facts import Facts
from bnfold.records import Refusal, Step
from bnfold.rules.base import DropInput, name_of
from bnfold.rules.norms import Normalization
from bnfold.rules.weights import has_input

_BIAS: Final = 2
_CHANNEL_AXIS: Final = 1
_OPTIONAL_C_SINCE: Final = 11


def drop_cancelled_biases(facts: Facts, editor: Editor, selection: Selection) -> list[Step]:
    """Take away each constant bias of a linear operator that changes no output at all."""
    nodes = facts.nodes()
    if not any(_may_cancel(node, facts) for node in nodes):
        return []
    steps: list[Step] = []
    for node in nodes:
        shift = _bias(node, facts)
        if shift is None or selection.refuse_site(node) is not None:
            continue
        journey = lower_alone(node.outputs[0], shift, facts, selection)
        if not isinstance(journey, Refusal) and journey.absorbed_by and not journey.edits:
            write_edits([DropInput(node, _BIAS)], editor)
            steps.append(_step(node, journey))
    return steps


def _may_cancel(node: ir.Node, facts: Facts) -> bool:
    """Return whether a node subtracts a mean, or may compute one for a Sub to subtract."""
    return node.op_type == "ReduceMean" or isinstance(rule_of(node, facts), Normalization)


def _step(node: ir.Node, journey: Journey) -> Step:
    return Step(
        rule=node.op_type,
        site=(name_of(node),),
        move="bias dropped, a normalisation cancels it",
        routes=journey.routes(),
        absorbed_by=tuple(name_of(taker) for taker in journey.absorbed_by),
        tensors=(),
        left=(node.op_type,),
    )


def _bias(node: ir.Node, facts: Facts) -> Affine | None:
    """Return the constant bias of a Conv, ConvTranspose or Gemm as a shift of its output."""
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm") or not facts.is_standard(node):
        return None
    is_gemm = node.op_type == "Gemm"
    if not has_input(node, _BIAS) or (is_gemm and facts.opset() < _OPTIONAL_C_SINCE):
        return None
    constant = facts.constant(node.inputs[_BIAS])
    if isinstance(constant, Refusal) or not constant.is_float:
        return None
    added = constant.wide()
    if any(size > 1 for size in added.shape[:-1]):
        return None
    beta = float_attr(node, "beta", 1.0) if is_gemm else 1.0
    shift = Affine.per_channel(_CHANNEL_AXIS, 1.0, np.asarray(beta * added).reshape(-1))
    return shift if shift.has_shift and shift.is_finite else None
