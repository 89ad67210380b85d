"""Which constants of a folded model are constants of the original too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.evidence.proof.sides import CannotEvaluateError, Side, TooLateError

Array = NDArray[Any]


@dataclass(slots=True)
class SameConstants:
    """Decides each constant once: what is computed from constants may be chains of thousands.

    Attributes:
        original: The one model.
        folded: The other.
        is_same_node: Says of a node of the folded model whether it is the same, byte for byte.
        same_tensors: Initializers that are the same in both.
    """

    original: Side
    folded: Side
    is_same_node: Callable[[ir.Node], bool]
    same_tensors: frozenset[str]
    _known: dict[ir.Value, bool] = field(default_factory=dict)

    def is_same(self, value: ir.Value) -> bool:
        """Return whether a constant of the folded model is one of the original's too."""
        waiting: list[tuple[ir.Value, Iterator[ir.Value]]] = []
        self._begin_with(value, waiting)
        while waiting:
            here, reads = waiting[-1]
            one = next(reads, None)
            if one is None:
                self._known[here] = True
                waiting.pop()
                continue
            self._begin_with(one, waiting)
            if self._known.get(one) is False:
                self._known.update((another, False) for another, _ in waiting)
                break
        return self._known[value]

    def _begin_with(
        self, value: ir.Value, waiting: list[tuple[ir.Value, Iterator[ir.Value]]]
    ) -> None:
        """Decide about a constant; one that hangs on what its node reads has to wait."""
        producer = value.producer()
        if value in self._known:
            return
        if producer is None:
            is_stored = self.folded.key_of(value) in self.same_tensors
            self._known[value] = is_stored or self._is_computed(value)
        elif not self.is_same_node(producer):
            self._known[value] = False
        else:
            waiting.append((value, iter(self.folded.reads(producer))))

    def _is_computed(self, value: ir.Value) -> bool:
        """Return whether an initializer is what the original computes by its name: every bit.

        A fold of constants stores it; what it is used for is no other than before.
        """
        other = self.original.values.get(value.name or "")
        if other is None or other.producer() is None or not self.original.is_constant(other):
            return False
        try:
            return _are_equal(self.original.constant(other), self.folded.constant(value))
        except TooLateError:
            raise
        except CannotEvaluateError:  # nobody knows: so it is not known to be the same
            return False


def _are_equal(one: Array, other: Array) -> bool:
    return one.dtype == other.dtype and np.array_equal(one, other)
