"""Constants that are not known: say which operator it is that nobody computes here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from bnfold.records import Code, Refusal

if TYPE_CHECKING:
    from bnfold.model.facts import Facts


def why_uncomputed(value: ir.Value, facts: Facts) -> Refusal | None:
    """Say why a value that hangs on constants only is not known; None where it is dynamic.

    The same at every run, it is a constant to whoever reads the report: "computed at run
    time" would send them looking for an input.
    """
    if not facts.is_fixed(value):
        return None
    node = _first_unknown(value, facts)
    if node is None or node.op_type == "Constant":
        return None
    where = node.name or node.outputs[0].name or node.op_type
    version = f"{node.op_type} of operator set {facts.opset()}"
    why = f"{value.name!r} hangs on constants only, but {version} is not computed here"
    remedy = f"store the result of {node.op_type} {where!r} in the model before the fold"
    return Refusal(Code.UNDECIDED_CONSTANT, where, why, remedy)


_FOLLOWED: Final = 64
"""So far back the operator is looked for, for every constant anew."""


def _first_unknown(value: ir.Value, facts: Facts) -> ir.Node | None:
    """Return the operator on the way to a value that nobody computes."""
    node = value.producer()
    for _ in range(_FOLLOWED):
        if node is None:
            break
        given = (v for v in node.inputs if v is not None)
        found = next((v for v in given if v.producer() and facts.held(v) is None), None)
        if found is None:
            return node
        node = found.producer()
    return node
