"""Nodes with what is known of their operands, and what may be demanded of these."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import onnx_ir as ir

from bnfold.inputs.reading import Reading
from bnfold.inputs.signature import Dim
from bnfold.model.shapes import Dims


@dataclass(frozen=True, slots=True)
class Demand:
    """One axis of a value has this size.

    Attributes:
        value: The value.
        axis: Which of its axes.
        size: The size: a number, or the symbol of another axis.
        node: Who demands it.
        weak: Whether 1 would do as well, as broadcasting allows.
        multiple: Whether every multiple of ``size`` will do.
    """

    value: ir.Value
    axis: int
    size: int | str
    node: ir.Node
    weak: bool = False
    multiple: bool = False


@dataclass(frozen=True, slots=True)
class Rank:
    """A value has so many axes."""

    value: ir.Value
    axes: int


@dataclass(frozen=True, slots=True)
class Most:
    """The dimension with this symbol is not larger: a table has no more rows."""

    symbol: str
    size: int


Found: TypeAlias = Iterator[Demand | Rank | Most]


@dataclass(frozen=True, slots=True)
class Site:
    """A node, with what is known of its operands."""

    node: ir.Node
    reading: Reading

    def value(self, index: int) -> ir.Value | None:
        """Return an operand; None where it is absent."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def dims(self, index: int) -> Dims | None:
        """Return the dimensions of an operand."""
        return self.reading.dims(self.value(index))

    def size(self, index: int, axis: int) -> int | None:
        """Return one size of an operand; None where it is open."""
        dims = self.dims(index)
        if dims is None or not -len(dims) <= axis < len(dims):
            return None
        dim = dims[axis]
        return dim if isinstance(dim, int) else None

    def axis(self, index: int, axis: int, size: Dim, *, weak: bool = False) -> Found:
        """Demand a size of one axis of an operand, counted from the end if negative."""
        value, dims = self.value(index), self.dims(index)
        if value is None or dims is None or not size or not -len(dims) <= axis < len(dims):
            return
        if dims[axis] != size:
            yield Demand(value, axis % len(dims), size, self.node, weak)

    def multiple(self, index: int, axis: int, step: int) -> Found:
        """Demand a multiple of a number."""
        value, dims = self.value(index), self.dims(index)
        if value is not None and dims is not None and step > 1 and axis < len(dims):
            yield Demand(value, axis, step, self.node, multiple=True)

    def rank(self, index: int, axes: int) -> Found:
        """Demand so many axes."""
        value = self.value(index)
        if value is not None:
            yield Rank(value, axes)

    def alike(self, one: tuple[int, int], other: tuple[int, int]) -> Found:
        """Demand that two axes, (operand, axis) each, have one size."""
        for (index, axis), (source, place) in ((one, other), (other, one)):
            dims = self.dims(source)
            if dims is not None and -len(dims) <= place < len(dims):
                yield from self.axis(index, axis, dims[place])
