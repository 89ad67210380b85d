"""One budget of time for everything that a check does."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

_LEAST_S = 1.0


@dataclass(frozen=True, slots=True)
class Budget:
    """So many seconds from when it was made.

    Attributes:
        seconds: How many.
        start: When it was made.
    """

    seconds: float
    start: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """What is left; never negative."""
        return max(self.start + self.seconds - time.monotonic(), 0.0)

    @property
    def timeout(self) -> float:
        """How long a child may run: what is left, and enough to start in any case."""
        return max(self.left, _LEAST_S)
