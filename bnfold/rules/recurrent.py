"""LSTM, GRU and RNN: what is applied to their inputs goes into W and B (versions 1 to 22).

Every gate reads ``W · x + Wb`` as one summand, whatever stands around it: the direction, the
layout, lengths of sequences, peepholes, a clip, the activations, a coupled forget gate, and
for a GRU a reset gate behind or in front of R. So ``W · (s · x + t) + Wb`` may be written with
other W and Wb. Places behind the end of a sequence are not read. The results are another
matter: each is the state that the next step reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

import numpy as np
import onnx_ir as ir

from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import Edit, Maps, Rule, Taken, name_of, together, wrong_axis
from bnfold.rules.weights import (
    Weight,
    bias_edit,
    has_input,
    only_map,
    read_float_weight,
    read_weight,
)

_DATA: Final = 0
_WEIGHT: Final = 1
_BIAS: Final = 3
_INPUTS_AXIS: Final = 2
"""Of X, in both layouts, and of W [directions, gates · hidden, inputs]."""
_GATES_AXIS: Final = 1


class Recurrent(Rule):
    """W [directions, gates · hidden, inputs], B [directions, 2 · gates · hidden]: Wb, Rb."""

    words: ClassVar[Mapping[str, frozenset[str]]] = {
        "direction": frozenset({"forward", "reverse", "bidirectional"})
    }

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:  # noqa: ARG002  contract
        """Refused: the result is also the state that the next step reads."""
        why = (
            "its result is also the state that its next step reads, through gates that are"
            " not linear"
        )
        remedy = "fold the map into what reads the result"
        return Refusal(Code.FEEDS_BACK, name_of(node), why, remedy)

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``f(s · x + t)``: ``W[:, :, i] · s[i]``, ``Wb + Σ W[:, :, i] · t[i]``."""
        affine = only_map(node, maps, _DATA, "weights, state or lengths")
        weight = read_weight(node, _WEIGHT, facts)
        if isinstance(affine, Refusal):
            return affine
        if isinstance(weight, Refusal):
            return weight
        inputs = weight.shape[_INPUTS_AXIS]
        if affine.axis not in (None, _INPUTS_AXIS) or affine.channels not in (None, inputs):
            return wrong_axis(node, affine, f"its weight has {inputs} inputs on axis 2")
        scale, shift = affine.entries(inputs)
        bias: tuple[Edit, ...] | Refusal = ()
        if affine.has_shift:
            image = weight.constant.expression.contracted(shift, _INPUTS_AXIS)
            bias = _bias_plus(node, image, weight, facts)
        alike = weight.shape[_GATES_AXIS]
        scaled = weight.times(scale, _INPUTS_AXIS, channels=_GATES_AXIS, alike=alike)
        return together(scaled, bias)


def _bias_plus(
    node: ir.Node, image: np.typing.NDArray[np.float64], weight: Weight, facts: Facts
) -> tuple[Edit, ...] | Refusal:
    """Return the edit that adds to Wb, the first half of every row of B; Rb stays."""
    directions, wide = weight.shape[:_INPUTS_AXIS]
    added = np.concatenate([image, np.zeros((directions, wide))], axis=1)
    if not has_input(node, _BIAS):
        return (bias_edit(node, _BIAS, added, weight.constant.dtype),)
    bias = read_float_weight(node, _BIAS, facts)
    if isinstance(bias, Refusal):
        return bias
    if bias.shape != added.shape:
        why = f"its bias has the shape {list(bias.shape)}, {list(added.shape)} is required"
        return Refusal(Code.WRONG_SHAPE, name_of(node), why, "export the model again")
    return (bias_edit(node, _BIAS, bias.constant.wide() + added, bias.constant.dtype),)
