"""The evaluator of a side: its weights, and what is known of its constants and sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.evidence.reference import Evaluator
from bnfold.evidence.reference.typed import Known

if TYPE_CHECKING:
    from bnfold.evidence.proof.sides import Side

Array = NDArray[Any]


class Weighted(Evaluator):
    """Evaluates nodes with the weights of a side."""

    def __init__(self, side: Side) -> None:
        super().__init__(side.model)
        self._side = side
        self._typed: dict[ir.Value, Known | None] = {}
        self._from_sizes: dict[ir.Value, Known] = {}

    @contextmanager
    def anew(self) -> Iterator[None]:
        """Forget, for as long as this lasts, what is known of values that hang on sizes.

        They are constant within one evaluation only: the next has arrays of other lengths.
        """
        before, self._from_sizes = self._from_sizes, {}
        try:
            yield
        finally:
            self._from_sizes = before

    def stored(self, value: ir.Value) -> Array:
        """Return a weight as the side has it."""
        found = self._side.stored(value)
        return super().stored(value) if found is None else found

    def known_outside(self, value: ir.Value) -> Known | None:
        """Return what the model's own types make of a constant of the main graph, or of sizes.

        What a model computes from a Shape it rounds as it rounds its constants, and a fold
        that knows the sizes stores that number.
        """
        side = self._side
        if not side.is_constant(value):
            return self._from_sizes.get(value)
        if value.producer() is None:
            return super().known_outside(value)
        if value not in self._typed:
            side.constant(value)
        return self._typed.get(value)

    def run_node(
        self, node: ir.Node, inputs: Sequence[Any], captured: Mapping[ir.Value, Any]
    ) -> Sequence[Any]:
        """Return the outputs of one node; what is known of constants is kept."""
        outcome = self.run_known(node, inputs, captured)
        for value, known in zip(node.outputs, outcome.known, strict=False):
            if self._side.is_constant(value):
                self._typed[value] = known
            elif known is not None:
                self._from_sizes[value] = known
        return outcome.results
