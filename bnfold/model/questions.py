"""How an operator asks for the sizes of its inputs while those of its result are followed."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Final, Literal

import onnx_ir as ir

from bnfold.model.attributes import ints_attr
from bnfold.model.sizes import Maybe, Symbols

Sizes = tuple[Maybe, ...]
"""Sizes by axis, or the entries of a list of integers; None for one that is unknown."""

MOST_ENTRIES: Final = 64
"""A list of sizes that is followed has no more entries than this."""

Asked = tuple[Literal["extents", "contents"], ir.Value]
Following = Generator[Asked, Sizes | None, Sizes | None]
"""It yields what it must know, is sent the answer, and returns what it found."""

Integers = Generator[Asked, Sizes | None, tuple[int, ...] | None]


@dataclass(frozen=True, slots=True)
class At:
    """A node, the result of it that is asked for, and the symbols of the model."""

    node: ir.Node
    value: ir.Value
    symbols: Symbols

    def has(self, index: int) -> bool:
        """Return whether an optional input is there."""
        return index < len(self.node.inputs) and self.node.inputs[index] is not None

    def extents(self, index: int) -> Following:
        """Ask for the sizes of an input; None where its rank is unknown or it is absent."""
        value = self.node.inputs[index] if self.has(index) else None
        if value is None:
            return None
        return (yield "extents", value)

    def contents(self, index: int) -> Following:
        """Ask for the integers in an input; None where unknown or absent."""
        value = self.node.inputs[index] if self.has(index) else None
        if value is None:
            return None
        return (yield "contents", value)

    def integers(self, index: int) -> Integers:
        """Ask for integers that are all known."""
        found = yield from self.contents(index)
        numbers = [None if size is None else size.number for size in found or ()]
        known = [number for number in numbers if number is not None]
        return tuple(known) if found is not None and len(known) == len(numbers) else None

    def listed(self, name: str, index: int) -> Integers:
        """Ask for integers that early versions have as an attribute, later ones as an input.

        Returns:
            The integers, () where neither is there, None where they are unknown.
        """
        if name in self.node.attributes:
            return ints_attr(self.node, name)
        return (yield from self.integers(index)) if self.has(index) else ()


def axes_of(axes: tuple[int, ...], rank: int) -> tuple[int, ...] | None:
    """Return axes counted from the front; None where one is out of range or given twice."""
    found = tuple(axis + rank if axis < 0 else axis for axis in axes)
    fits = all(0 <= axis < rank for axis in found) and len(set(found)) == len(found)
    return found if fits else None
