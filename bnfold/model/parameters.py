"""Do the numbers make sense? Parameters no export of a trained network can have."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnfold.errors import ModelError
from bnfold.model.attributes import int_attr
from bnfold.model.facts import Facts
from bnfold.records import Refusal

_NAMES = ("scale", "B", "input_mean", "input_var")


def check_parameters(facts: Facts) -> None:
    """Refuse a model with a BatchNormalization that no runtime could give a meaning.

    Raises:
        ModelError: If parameters differ in length from each other or from the channels, or a
            variance is negative or not finite.
    """
    for node in facts.nodes():
        if node.op_type == "BatchNormalization" and facts.is_standard(node):
            _check_batch_norm(node, facts)


def _check_batch_norm(node: ir.Node, facts: Facts) -> None:
    if len(node.inputs) < 5 or any(value is None for value in node.inputs[:5]):
        raise _fault(
            node, "BatchNormalization needs five inputs", f"it has {len(node.inputs)}"
        )
    lengths = _lengths(node, facts)
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise _fault(node, "the parameters of a BatchNormalization do not fit", found)
    variance = facts.constant(node.inputs[4])
    if isinstance(variance, Refusal):
        return
    wide = variance.wide()
    if not np.isfinite(wide).all() or (wide < 0).any():
        wrong = wide[~np.isfinite(wide) | (wide < 0)][0]
        raise _fault(node, "a variance is negative or not finite", f"input_var holds {wrong}")


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


def _fault(node: ir.Node, what: str, why: str) -> ModelError:
    return ModelError(
        what,
        where=f"node {node.name or node.outputs[0].name!r} (BatchNormalization)",
        why=why,
        remedy="check the trained statistics and export the model again",
    )
