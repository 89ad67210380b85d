"""Do the numbers make sense? Parameters no export of a trained network can have."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnfold.errors import ModelError
from bnfold.model.attribute_kinds import types_of_inputs
from bnfold.model.attributes import float_attr, int_attr
from bnfold.model.facts import Facts
from bnfold.records import Refusal

_NAMES = ("scale", "B", "input_mean", "input_var")


def check_parameters(facts: Facts) -> tuple[str, ...]:
    """Refuse a model with a BatchNormalization that no runtime could give a meaning.

    Returns:
        What is to be said of those that have one, but give numbers that are none.

    Raises:
        ModelError: If parameters differ in length from each other or from the channels, or in
            type from what the operator takes; with ``permissions.strict`` also if a variance
            gives no deviation.
    """
    warnings: list[str] = []
    for node in facts.nodes():
        if node.op_type != "BatchNormalization" or not facts.is_standard(node):
            continue
        _check_batch_norm(node, facts)
        variance = facts.constant(node.inputs[4])
        why = "" if isinstance(variance, Refusal) else why_no_deviation(node, variance.wide())
        if why and facts.permissions.strict:
            raise _fault(node, "a variance is negative or not finite", why)
        if why:
            warnings.append(f"{_where(node)} stays: {why}; --strict makes that an error")
    return tuple(warnings)


def epsilon_of(node: ir.Node) -> float:
    """Return the epsilon of a BatchNormalization; it and its default are float32."""
    return float(np.float32(float_attr(node, "epsilon", 1e-5)))


def why_no_deviation(node: ir.Node, variance: np.ndarray) -> str:
    """Say why ``√(variance + epsilon)`` is no positive number somewhere; empty if it is.

    A variance a little below zero is what rounding leaves of one that is zero: with epsilon it
    is well defined.

    Args:
        node: A BatchNormalization.
        variance: Its input_var, in float64.
    """
    wrong = ~np.isfinite(variance) | (variance + epsilon_of(node) <= 0)
    if not wrong.any():
        return ""
    found = float(variance[wrong][0])
    beside = f", with epsilon {epsilon_of(node):.3g}" if np.isfinite(found) else ""
    return f"input_var holds {found}{beside}"


def _check_batch_norm(node: ir.Node, facts: Facts) -> None:
    if len(node.inputs) < 5 or any(value is None for value in node.inputs[:5]):
        raise _fault(
            node, "BatchNormalization needs five inputs", f"it has {len(node.inputs)}"
        )
    _check_types(node, facts)
    lengths = _lengths(node, facts)
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise _fault(node, "the parameters of a BatchNormalization do not fit", found)


def _check_types(node: ir.Node, facts: Facts) -> None:
    """Compare element types with the specification: which are possible, which equal."""
    bound: dict[str, tuple[str, ir.DataType]] = {}
    asked = types_of_inputs(node.op_type, facts.opset())
    for name, value, (variable, allowed) in zip(
        ("X", *_NAMES), node.inputs, asked, strict=False
    ):
        found = None if value is None else facts.dtype(value)
        if found is None:
            continue
        other, wanted = bound.setdefault(variable, (name, found))
        if int(found) in allowed and found == wanted:
            continue
        why = f"{name} holds {found.name}"
        if found != wanted:
            why += f", {other} {wanted.name}: {node.op_type} of operator set"
            why += f" {facts.opset()} takes one type for both"
        raise _fault(node, "a parameter of a BatchNormalization has the wrong type", why)


def _lengths(node: ir.Node, facts: Facts) -> dict[str, int]:
    """Return the known lengths of the parameters, and of the channels they must equal."""
    spatial = bool(int_attr(node, "spatial", 1))
    lengths: dict[str, int] = {}
    for name, value in zip(_NAMES, node.inputs[1:5], strict=True):
        dims = None if value is None else facts.shape(value)
        if dims is not None and len(dims) != 1 and spatial:
            found = f"{name} has the shape {list(dims)}, [C] is required"
            raise _fault(node, "a parameter of a BatchNormalization has the wrong rank", found)
        if dims is not None and len(dims) == 1 and isinstance(dims[0], int):
            lengths[name] = dims[0]
    channels = None if node.inputs[0] is None else facts.dim(node.inputs[0], 1)
    if isinstance(channels, int) and spatial:
        lengths["the channels of its input"] = channels
    return lengths


def _where(node: ir.Node) -> str:
    return f"node {node.name or node.outputs[0].name!r} (BatchNormalization)"


def _fault(node: ir.Node, what: str, why: str) -> ModelError:
    return ModelError(
        what,
        where=_where(node),
        why=why,
        remedy="check the trained statistics and export the model again",
    )
