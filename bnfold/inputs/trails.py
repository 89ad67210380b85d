"""Where the elements of an input go: what they become on the way, and who reads them there.

A trail knows what an element is at some place in the graph if it was 0, or 1, at the input.
For as long as only scales and offsets lie between, that is a straight line and tells which
numbers reach an index (`Trail.straight`). Behind comparisons and choices it still tells which
of 0 and 1 opens a mask: ``(1 − mask)·−3.4e38`` is −3.4e38 at 0 and 0 at 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import numpy as np
import onnx_ir as ir

from bnfold.inputs.reading import Reading
from bnfold.inputs.signature import Dim

CLOSED: Final = -1e3
"""What is added to a score to shut it out is lower than this: −1e4 and −65504 are usual."""


@dataclass(frozen=True, slots=True)
class Trail:
    """An element of an input at some value of the graph.

    Attributes:
        value: Where it is.
        zero: What it is there if it was 0.
        one: What it is there if it was 1.
        straight: Whether it is a straight line through these two.
    """

    value: ir.Value
    zero: float = 0.0
    one: float = 1.0
    straight: bool = True

    @property
    def slope(self) -> float:
        """What one more at the input is here."""
        return self.one - self.zero


@dataclass(frozen=True, slots=True)
class Within:
    """The element is an index: at least ``low``, and below every size of ``dims``."""

    dims: tuple[Dim, ...]
    trail: Trail


@dataclass(frozen=True, slots=True)
class Above:
    """The element has a root or a logarithm taken: it must be above 0."""

    trail: Trail


@dataclass(frozen=True, slots=True)
class Opens:
    """The element opens something if it was this number (0 or 1) at the input."""

    number: int
    certain: bool = True


@dataclass(frozen=True, slots=True)
class Lasts:
    """The element is a length along axes of these sizes."""

    dims: tuple[Dim, ...] = ()


@dataclass(frozen=True, slots=True)
class Counts:
    """The element is a number of things: small and above 0."""

    dims: tuple[Dim, ...] = ()


@dataclass(frozen=True, slots=True)
class Chooses:
    """The element decides which branch is taken."""


Sign: TypeAlias = Within | Above | Opens | Lasts | Counts | Chooses
Step: TypeAlias = Trail | Sign


@dataclass(frozen=True, slots=True)
class Place:
    """A node that reads a trail by its operand ``index``."""

    node: ir.Node
    index: int
    trail: Trail
    reading: Reading

    def operand(self, index: int) -> ir.Value | None:
        """Return an operand; None where it is absent."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def dims(self, index: int) -> tuple[Dim, ...]:
        """Return the dimensions of an operand; empty if they are unknown."""
        return self.reading.dims(self.operand(index)) or ()

    def ends(self, index: int) -> tuple[float, ...] | None:
        """Return the smallest and the largest element of a constant; one if they are equal."""
        found = self.reading.elements(self.operand(index))
        if found is None or not found.size:
            return None
        return tuple(dict.fromkeys((float(found.min()), float(found.max()))))

    def onward(self, zero: float, one: float, *, straight: bool = True) -> Iterator[Step]:
        """The same element in the result, where it is another number now."""
        if np.isnan(zero) or np.isnan(one) or zero == one:
            return
        if min(zero, one) <= CLOSED and -1 <= max(zero, one) <= 1:
            yield Opens(int(one > zero))
        straight = straight and self.trail.straight
        yield Trail(self.node.outputs[0], float(zero), float(one), straight)

    def same(self) -> Iterator[Step]:
        """The same element, unchanged, in every result."""
        for value in self.node.outputs:
            yield replace(self.trail, value=value)
