"""What an operator would take, in elements and time: judged before it runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from bnfold import limits
from bnfold.evidence import clock
from bnfold.evidence.reference.arrays import NoKernelError
from bnfold.evidence.reference.call import Call, name_of
from bnfold.evidence.reference.kernels import BY_DOMAIN
from bnfold.model.growth import Given, growth_of, in_reference, is_small


def check_size(node: ir.Node, inputs: Sequence[Any], opset: int) -> None:
    """Stop in front of an operator that would make too much, or take too long.

    Raises:
        NoKernelError: If its results would have more elements than a value may.
        OutOfTimeError: If there is no time for it.
    """
    if is_small(node.op_type, map(_size, inputs)):
        return
    shapes = [x.shape if isinstance(x, np.ndarray) else _whole(x) for x in inputs]
    given = Given(node, shapes, lambda place: np.asarray(inputs[place]), opset)
    growth = growth_of(given)
    if node.op_type not in BY_DOMAIN.get(node.domain, {}):
        growth = in_reference(growth, node.op_type)
    most = limits.current().elements
    if growth.elements > most:
        known = math.isfinite(growth.elements)
        made = f"{growth.elements:.0f} elements" if known else "who knows how many elements"
        raise NoKernelError(f"{name_of(node)}: it would make {made}, {most} are allowed")
    clock.check(growth.ns)


def _size(x: Any) -> int:
    """Return how many elements an input has; a sequence those of all its tensors."""
    if isinstance(x, np.ndarray):
        return x.size
    return sum(np.size(one) for one in x) if isinstance(x, list) else 0


def _whole(x: Any) -> tuple[int, ...] | None:
    """Return a sequence as if it were one row of all its elements."""
    if isinstance(x, list):
        return (sum(np.size(one) for one in x),)
    return None


class Held:
    """Counts what a loop piles up."""

    def __init__(self, call: Call) -> None:
        """Begin with nothing.

        Args:
            call: The loop.
        """
        self._call = call
        self._elements = 0

    def add(self, rows: Iterable[Any]) -> None:
        """Take note of what one turn adds.

        Raises:
            NoKernelError: If it is too much by now.
            OutOfTimeError: If the time is up.
        """
        clock.check()
        self._elements += sum(np.size(row) for row in rows)
        if self._elements > limits.current().elements:
            raise self._call.no_kernel("its results pile up without end")
