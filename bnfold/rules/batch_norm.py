"""BatchNormalization at inference: ``scale · (x − mean) / √(var + epsilon) + B``."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.affine import Affine
from bnfold.expression import Expression
from bnfold.model.attributes import int_attr
from bnfold.model.constants import Constant
from bnfold.model.facts import Facts
from bnfold.model.parameters import epsilon_of, why_no_deviation
from bnfold.model.uses import is_used
from bnfold.records import Code, Refusal
from bnfold.rules.base import Maps, Rule, SetConstant, Source, Taken, name_of, wrong_axis

TRAINING_MODE_SINCE: Final = 14
IS_TEST_UNTIL: Final = 6
_SPATIAL_UNTIL: Final = 8
_CHANNEL_AXIS: Final = 1


class BatchNormalization(Rule):
    """A map on axis 1, and an absorber of other maps on that axis."""

    def source(self, node: ir.Node, facts: Facts) -> Source | Refusal:
        """Y = scale · (X − input_mean) / √(input_var + epsilon) + B (opset 7 to 15)."""
        blocked = _not_inference(node, facts)
        if blocked is not None:
            return blocked
        parameters: list[NDArray[np.float64]] = []
        for value in node.inputs[1:5]:
            constant = facts.constant(value)
            if isinstance(constant, Refusal):
                return Refusal(constant.code, name_of(node), constant.why, constant.remedy)
            parameters.append(constant.wide())
        if any(parameter.ndim != 1 for parameter in parameters):
            why = "its parameters hold one entry per element, not per channel (spatial=0)"
            return Refusal(Code.SEVERAL_AXES, name_of(node), why)
        scale, shift, mean, var = parameters
        if why := why_no_deviation(node, var):
            remedy = "check the trained statistics"
            return Refusal(Code.NOT_FINITE, name_of(node), why, remedy)
        with np.errstate(all="ignore"):
            slope = scale / np.sqrt(var + epsilon_of(node))
            affine = Affine.per_channel(_CHANNEL_AXIS, slope, shift - mean * slope)
        if not affine.is_finite:
            why = "its parameters give a scale or shift that is not finite"
            return Refusal(Code.NOT_FINITE, name_of(node), why, "check the trained statistics")
        return Source(0, affine)

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``s · bn(x) + t``: scale and B become ``s · scale`` and ``s · B + t``."""
        blocked = _not_inference(node, facts)
        return blocked or _absorb(node, maps[0], facts, shift_in_front=False)

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``bn(s · x + t)``: bn's slope a becomes ``a · s``, its offset grows by ``a · t``."""
        blocked = _not_inference(node, facts)
        if blocked is not None:
            return blocked
        if 0 not in maps or len(maps) > 1:
            why = "the map reaches its parameters, not its data"
            return Refusal(Code.DYNAMIC_WEIGHT, name_of(node), why)
        return _absorb(node, maps[0], facts, shift_in_front=True)


def rewrite_as(
    node: ir.Node, affine: Affine, facts: Facts
) -> tuple[SetConstant, ...] | Refusal:
    """Return the edits of scale and B after which a BatchNormalization applies ``affine``."""
    read = _parameters(node, facts)
    if isinstance(read, Refusal):
        return read
    constants, (_, _, mean, var) = read
    if affine.axis not in (None, _CHANNEL_AXIS) or affine.channels not in (None, mean.size):
        return wrong_axis(node, affine, "BatchNormalization works along axis 1")
    slope, offset = affine.entries(mean.size)
    scale = slope * np.sqrt(var + epsilon_of(node))
    return _edits(node, constants, scale, offset + slope * mean)


def _absorb(
    node: ir.Node, affine: Affine, facts: Facts, *, shift_in_front: bool
) -> Taken | Refusal:
    own = BatchNormalization().source(node, facts)
    if isinstance(own, Refusal):
        return own
    if affine.axis not in (None, _CHANNEL_AXIS) or not affine.composes_with(own.affine):
        return wrong_axis(node, affine, "BatchNormalization works along axis 1")
    whole = affine.then(own.affine) if shift_in_front else own.affine.then(affine)
    edits = rewrite_as(node, whole, facts)
    return edits if isinstance(edits, Refusal) else Taken(edits)


def _parameters(
    node: ir.Node, facts: Facts
) -> tuple[list[Constant], list[NDArray[np.float64]]] | Refusal:
    constants: list[Constant] = []
    for value in node.inputs[1:5]:
        constant = facts.constant(value)
        if isinstance(constant, Refusal):
            return constant
        constants.append(constant)
    return constants, [constant.wide() for constant in constants]


def _edits(
    node: ir.Node,
    constants: list[Constant],
    scale: NDArray[np.float64],
    shift: NDArray[np.float64],
) -> tuple[SetConstant, ...]:
    return (
        SetConstant(node, 1, Expression.of(scale), constants[0].dtype, 0),
        SetConstant(node, 2, Expression.of(shift), constants[1].dtype, None),
    )


def normalises_by_batch(node: ir.Node, facts: Facts) -> bool:
    """Return whether a node uses the batch's statistics, by any spelling since opset 1.

    From opset 7 to 13 the number of outputs says it: one at inference, more in training
    (BatchNormalization-7 and -9, "Output case #1"), whether they are read or not.
    """
    opset = facts.opset()
    if any(is_used(value) or value.is_graph_output() for value in node.outputs[1:]):
        return True
    if opset >= TRAINING_MODE_SINCE:
        return bool(int_attr(node, "training_mode", 0))
    if opset <= IS_TEST_UNTIL:
        return not int_attr(node, "is_test", 0)
    return any(value.name for value in node.outputs[1:])


def _not_inference(node: ir.Node, facts: Facts) -> Refusal | None:
    opset = facts.opset()
    if normalises_by_batch(node, facts):
        why = "it normalises by the batch, not by stored statistics"
        remedy = (
            "export in eval mode (torch: model.eval() before the export), or pass"
            " --assume-inference to read it by its running statistics"
        )
        if facts.permissions.inference:
            remedy = "export in eval mode: its outputs are those of training alone"
        return Refusal(Code.BATCH_STATISTICS, name_of(node), why, remedy)
    if opset <= _SPATIAL_UNTIL and not int_attr(node, "spatial", 1):
        why = "spatial=0: its statistics differ for every element, not per channel"
        return Refusal(Code.SEVERAL_AXES, name_of(node), why)
    return None
