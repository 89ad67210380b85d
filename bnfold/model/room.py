"""What constants of one model may take while they are computed: elements, and time."""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from bnfold import limits
from bnfold.model.amounts import stored_elements
from bnfold.model.growth import Growth

_HELD_FREE: Final = 2 * limits.FREE_ELEMENTS
_HELD_TIMES: Final = 4
"""So many times what is stored may be held in computed constants: casts, copies."""
_NS_FREE: Final = 3e9
_NS_PER_STORED: Final = 1000.0


class Room:
    """Says which constants are computed; what is stored is counted once it matters."""

    def __init__(self, model: ir.Model) -> None:
        """Begin with nothing held.

        Args:
            model: The model whose constants are computed.
        """
        self._model = model
        self._stored: int | None = None
        self._held = 0.0
        self._ns = 0.0

    def why_not(self, growth: Growth) -> str:
        """Say why something is too large to be computed; empty if it is not."""
        if growth.elements > limits.FREE_ELEMENTS:
            most = limits.current().constant_elements(self._there)
            if growth.elements > most:
                return f"it would have {_count(growth.elements)} elements, {most} are allowed"
        if self._held + growth.elements > _HELD_FREE:
            most = max(_HELD_FREE, _HELD_TIMES * self._there)
            if self._held + growth.elements > most:
                return f"computed constants would have more than {most} elements together"
        if self._ns + growth.ns > _NS_FREE + _NS_PER_STORED * self._there_if(growth):
            return "computing constants would take too long"
        return ""

    def take(self, growth: Growth, elements: int) -> None:
        """Take note of what was computed."""
        self._held += elements
        self._ns += growth.ns

    @property
    def _there(self) -> int:
        if self._stored is None:
            self._stored = stored_elements(self._model)
        return self._stored

    def _there_if(self, growth: Growth) -> int:
        return self._there if self._ns + growth.ns > _NS_FREE else 0


def _count(elements: float) -> str:
    return f"{elements:.0f}" if elements < 1e15 else "far more than 10^15"
