"""Defaults of inputs that a caller may leave out: a part of the function, for who does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import onnx_ir as ir

from bnfold.model.digests import tensor_digest
from bnfold.records import Charge, Finding

_OVERRIDABLE_SINCE_IR: Final = 4
"""Before, every initializer had to be listed as an input, and none was meant to be one."""


def other_defaults(original: ir.Model, folded: ir.Model) -> Iterator[Finding]:
    """Yield the inputs with a default that are gone, or have another one.

    Inside of the graphs such an input is a number like any other, so that is compared for all
    numbers; but who gives none computes with the default.
    """
    if original.ir_version < _OVERRIDABLE_SINCE_IR:
        return
    theirs = {value.name for value in folded.graph.inputs}
    for value in original.graph.inputs:
        name, held = value.name or "", original.graph.initializers.get(value.name or "")
        if held is None or held.const_value is None:
            continue
        other = folded.graph.initializers.get(name)
        if name not in theirs or other is None or other.const_value is None:
            why = "an input with a default, which can no longer be given"
            yield Finding(Charge.INTERFACE, "", name, why)
        elif tensor_digest(held.const_value) != tensor_digest(other.const_value):
            why = "an input whose default is another one: left out, it gives other results"
            yield Finding(Charge.TENSOR, "", name, why)
