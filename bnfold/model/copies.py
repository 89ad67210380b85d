"""Constants that were made for some readers of one that others read too."""

from __future__ import annotations

import onnx_ir as ir

from bnfold.expression import Expression
from bnfold.model.constants import expression_of


class Copies:
    """What was made of shared constants: readers that need the same are given the same.

    An unrolled recurrent layer reads its weights once for every step. A fold that changes
    them for all steps alike must not write them once for each.
    """

    def __init__(self) -> None:
        """Start with none."""
        self._made: dict[ir.Value, list[ir.Value]] = {}

    def add(self, old: ir.Value, made: ir.Value) -> None:
        """Remember a constant that was made for a reader of ``old``."""
        self._made.setdefault(old, []).append(made)

    def find(
        self,
        old: ir.Value,
        expression: Expression,
        dtype: ir.DataType,
        graph: ir.Graph | None,
    ) -> ir.Value | None:
        """Return a constant of ``graph`` that was made of ``old`` and still is that."""
        for made in self._made.get(old, ()):
            tensor = made.const_value
            if made.graph is not graph or not made.is_initializer() or tensor is None:
                continue
            own = expression_of(tensor)
            if tensor.dtype == dtype and own is not None and own.equals(expression):
                return made
        return None

    def held(self, old: ir.Value) -> int:
        """Return how many bytes stand beside ``old`` for readers that need something else."""
        return sum(
            made.const_value.nbytes
            for made in self._made.get(old, ())
            if made.is_initializer() and made.const_value is not None
        )
