"""Open sizes of inputs, solved from what the operators that read them demand."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Final

import onnx_ir as ir

from bnfold.inputs.demands import demands_of
from bnfold.inputs.producers import asked_of_operands
from bnfold.inputs.reading import Reading, kind_of
from bnfold.inputs.signature import Dim, Slot, with_sizes, words_of
from bnfold.inputs.sites import Demand, Most, Rank
from bnfold.model.graphs import subgraphs_of

_ROUNDS: Final = 6
"""A size that is found makes others computable; so often the graph is read again."""

_RANKS: Final = (4, 2, 3, 5, 1)
_MOST_PLACES: Final = 10_000
_MOST_STEP: Final = 4096
_DEEPEST: Final = 20


@dataclass(frozen=True, slots=True)
class Solution:
    """Inputs with the sizes that could be found.

    Attributes:
        slots: The inputs; every open dimension has a symbol, also those without a name.
        named: The same as their interface spells it, where nothing new is known.
        sources: For each size found, by input and axis, the node that demands it.
        reading: The graph with these sizes.
    """

    slots: tuple[Slot, ...]
    named: tuple[Slot, ...]
    sources: Mapping[tuple[str, int], str]
    reading: Reading


def solve(slots: Sequence[Slot], copy: ir.Model) -> Solution:
    """Find sizes and ranks that the interface leaves open.

    Args:
        slots: The inputs.
        copy: A private copy of the model; the dimensions of its inputs are written.
    """
    if all(_is_fixed(slot) for slot in slots):
        return Solution(tuple(slots), tuple(slots), {}, Reading(copy, {}))
    slots = _ranked(slots, copy)
    opened = tuple(replace(slot, dims=_all_named(slot)) for slot in slots)
    book = _Book({dim for slot in opened for dim in slot.dims or () if isinstance(dim, str)})
    reading = _read(opened, book, copy)
    for _ in range(_ROUNDS):
        if not _take(book, reading):
            break
        reading = _read(opened, book, copy)
    found = tuple(_settled(slot, book) for slot in opened)
    sources = {
        (slot.name, axis): book.sources[dim]
        for slot in opened
        for axis, dim in enumerate(slot.dims or ())
        if isinstance(dim, str) and dim in book.sources
    }
    named = tuple(_spelled(slot, one, found) for slot, one in zip(slots, found, strict=True))
    return Solution(found, named, sources, reading)


def anonymous(slot: Slot, axis: int) -> str:
    """Return the symbol of a dimension that has none."""
    return f"{slot.name}[{axis}]"


def _is_fixed(slot: Slot) -> bool:
    return slot.dims is not None and all(
        isinstance(dim, int) and dim >= 0 for dim in slot.dims
    )


def _all_named(slot: Slot) -> tuple[Dim, ...] | None:
    if slot.dims is None:
        return None
    pairs = enumerate(slot.dims)
    return tuple(dim if dim and dim != -1 else anonymous(slot, axis) for axis, dim in pairs)


def _spelled(slot: Slot, found: Slot, every: Sequence[Slot]) -> Slot:
    """Leave a dimension without a name where its symbol would say nothing."""
    if slot.dims is None or found.dims is None:
        return found
    words = [word for one in every for dim in one.dims or () for word in words_of(dim)]
    dims = tuple(
        None if dim == anonymous(slot, axis) and words.count(str(dim)) == 1 else dim
        for axis, dim in enumerate(found.dims)
    )
    return replace(found, dims=dims)


@dataclass(slots=True)
class _Book:
    """What is known of symbols: which are one, their sizes, and what sizes divide by."""

    symbols: set[str]
    sizes: dict[str, int] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    mosts: dict[str, int] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    _same: dict[str, str] = field(default_factory=dict)

    def dim(self, dim: Dim) -> Dim:
        """Return what stands for a dimension: its size, or a symbol for all alike."""
        if not isinstance(dim, str):
            return dim
        while dim in self._same:
            dim = self._same[dim]
        return with_sizes(dim, self.sizes)

    def give(self, symbol: str, size: int, node: ir.Node) -> bool:
        """Note a size; false where there is one already."""
        name = self.dim(symbol)
        if not isinstance(name, str) or size < 1:
            return False
        self.sizes[name] = size
        said = f"{kind_of(node)} {node.name or node.outputs[0].name!r}"
        self.sources.update(dict.fromkeys(self._alike(name), said))
        return True

    def join(self, one: str, other: str) -> bool:
        """Note that two symbols, or a symbol and a sum of them, are of one size."""
        left, right = self.dim(one), self.dim(other)
        if left == right or not isinstance(left, str) or not isinstance(right, str):
            return False
        if "+" in left or (right.endswith("]") and "+" not in right):
            left, right = right, left
        if "+" in left or left in words_of(right):
            return False
        self._same[left] = right
        return True

    def divide(self, symbol: str, step: int) -> bool:
        """Note that a size is a multiple of a number."""
        name = self.dim(symbol)
        if not isinstance(name, str):
            return False
        before = self.steps.get(name, 1)
        after = math.lcm(before, step)
        if after == before or after > _MOST_STEP:
            return False
        self.steps[name] = after
        return True

    def limit(self, symbol: str, most: int) -> bool:
        """Note that a size is not larger than a number."""
        name = self.dim(symbol)
        if not isinstance(name, str) or self.mosts.get(name, most + 1) <= most:
            return False
        self.mosts[name] = most
        return True

    def most(self, dim: Dim) -> int:
        """Return the largest size of a dimension; 0 if there is none."""
        name = self.dim(dim)
        return self.mosts.get(name, 0) if isinstance(name, str) else 0

    def step(self, dim: Dim) -> int:
        """Return what the sizes of a dimension are multiples of."""
        name = self.dim(dim)
        return self.steps.get(name, 1) if isinstance(name, str) else 1

    def _alike(self, name: str) -> Iterator[str]:
        yield from (symbol for symbol in self.symbols if self._root(symbol) == name)

    def _root(self, symbol: str) -> str:
        while symbol in self._same:
            symbol = self._same[symbol]
        return symbol


def _settled(slot: Slot, book: _Book) -> Slot:
    if slot.dims is None:
        return slot
    steps = tuple(book.step(dim) for dim in slot.dims)
    mosts = tuple(book.most(dim) for dim in slot.dims)
    return replace(
        slot,
        dims=tuple(book.dim(dim) for dim in slot.dims),
        steps=steps if any(step > 1 for step in steps) else (),
        mosts=mosts if any(mosts) else (),
    )


def _read(slots: Sequence[Slot], book: _Book, copy: ir.Model) -> Reading:
    known = {slot.name: slot.dims and [book.dim(dim) for dim in slot.dims] for slot in slots}
    return Reading(copy, known)


def _take(book: _Book, reading: Reading) -> bool:
    """Note what the graph demands; what broadcasting only suggests, where nothing else is."""
    found = [one for node in reading.nodes for one in demands_of(node, reading)]
    for one in found:
        if isinstance(one, Most) and one.symbol in book.symbols:
            book.limit(one.symbol, one.size)
    demands = [one for one in found if isinstance(one, Demand)]
    strict = [one for one in demands if not one.weak]
    suggested = [one for one in demands if one.weak]
    return _noted(strict, book, reading) or _noted(suggested, book, reading)


def _noted(demands: Sequence[Demand], book: _Book, reading: Reading) -> bool:
    """Note all of them; whether any said something new."""
    return sum(_note(one, book, reading) for one in demands) > 0


def _note(demand: Demand, book: _Book, reading: Reading) -> bool:
    dims = reading.dims(demand.value)
    dim = dims[demand.axis] if dims is not None and demand.axis < len(dims) else None
    if not isinstance(dim, str):
        return False
    if demand.multiple:
        return dim in book.symbols and book.divide(dim, int(demand.size))
    if isinstance(demand.size, str):
        return _joined(dim, demand.size, book, reading)
    return _followed(demand, dim, book, reading)


def _joined(one: str, other: str, book: _Book, reading: Reading) -> bool:
    left, right = _in_symbols(one, book, reading), _in_symbols(other, book, reading)
    return left is not None and right is not None and book.join(left, right)


def _in_symbols(symbol: str, book: _Book, reading: Reading, depth: int = 0) -> str | None:
    """Return a symbol of the inputs, or the sum of them that a Concat makes of it."""
    if all(word in book.symbols or word.isdigit() for word in words_of(symbol)):
        return symbol
    value, axis = reading.origins.get(symbol, (None, 0))
    node = None if value is None else value.producer()
    if value is None or node is None or depth > _DEEPEST:
        return None
    if node.op_type == "If":
        handed = [graph.outputs[value.index() or 0] for graph in subgraphs_of(node)]
        parts = [_dim_in_symbols(one, axis, book, reading, depth) for one in handed]
        return next((part for part in parts if part is not None), None)
    if node.op_type != "Concat":
        return None
    words = [_dim_in_symbols(one, axis, book, reading, depth) for one in node.inputs]
    return None if None in words else " + ".join(word for word in words if word is not None)


def _dim_in_symbols(
    value: ir.Value | None, axis: int, book: _Book, reading: Reading, depth: int
) -> str | None:
    dims = reading.dims(value)
    dim = dims[axis] if dims is not None and axis < len(dims) else None
    return None if dim is None else _in_symbols(str(dim), book, reading, depth + 1)


def _followed(demand: Demand, dim: str, book: _Book, reading: Reading) -> bool:
    """Follow a size back to the inputs that it depends on."""
    waiting, seen, news = [(dim, demand.size)], {dim}, False
    while waiting and len(seen) < _MOST_PLACES:
        symbol, size = waiting.pop()
        if symbol in book.symbols:
            news |= book.give(symbol, int(size), demand.node)
            continue
        value, axis = reading.origins.get(symbol, (None, 0))
        if value is None:
            continue
        for one in asked_of_operands(value, axis, int(size), reading):
            dims = reading.dims(one.value)
            inner = dims[one.axis] if dims is not None else None
            if isinstance(inner, str) and inner not in seen:
                seen.add(inner)
                waiting.append((inner, one.size))
    return news


def _ranked(slots: Sequence[Slot], copy: ir.Model) -> tuple[Slot, ...]:
    """Give a rank to inputs without one, if operators ask for it."""
    found = list(slots)
    for place, slot in enumerate(slots):
        if slot.dims is None and isinstance(slot.kind, ir.TensorType):
            axes = _rank_of(slot, copy)
            if axes is not None:
                found[place] = replace(slot, dims=(None,) * axes)
    return tuple(found)


def _rank_of(slot: Slot, copy: ir.Model) -> int | None:
    """Return the first rank that no operator speaks against and some speak for.

    Operators that demand a rank count first, those that demand a size of any axis then.
    """
    blank = Reading(copy, {slot.name: None})
    unknown = {
        value
        for node in blank.nodes
        for value in node.inputs
        if value is not None and blank.dims(value) is None
    }
    sized: int | None = None
    for axes in _RANKS:
        trial = _all_named(replace(slot, dims=(None,) * axes))
        reading = Reading(copy, {slot.name: trial})
        found = [one for node in reading.nodes for one in demands_of(node, reading)]
        fits = list(_agreeing(found, reading, unknown))
        if fits and all(fits):
            return axes
        if sized is None and all(fits) and _hits(found, reading, set(trial or ())):
            sized = axes
    return sized


def _agreeing(
    found: Iterable[Demand | Rank | Most], reading: Reading, unknown: Set[ir.Value]
) -> Iterator[bool]:
    """For each rank demanded of a value that has one by this trial, whether it fits."""
    for one in found:
        if isinstance(one, Rank) and one.value in unknown:
            dims = reading.dims(one.value)
            if dims is not None:
                yield len(dims) == one.axes


def _hits(found: Iterable[Demand | Rank | Most], reading: Reading, symbols: set[Dim]) -> bool:
    """Whether an axis with one of these symbols is demanded to have a size."""
    return any(
        isinstance(one, Demand)
        and isinstance(one.size, int)
        and (reading.dims(one.value) or ())[one.axis] in symbols
        for one in found
    )
