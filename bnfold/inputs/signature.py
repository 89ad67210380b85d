"""What a model asks for and promises: its real inputs, its outputs, and where two differ."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from enum import StrEnum

import onnx_ir as ir

Dim = int | str | None


class Role(StrEnum):
    """What the elements of an input mean to those that read them."""

    NUMBERS = "numbers"
    INDEX = "index"
    POSITION = "position"
    MASK = "mask"
    LENGTH = "length"
    COUNT = "count"
    FLAG = "flag"
    SIZES = "sizes"
    ONES = "ones"
    STEP = "step"


@dataclass(frozen=True, slots=True)
class Use:
    """What an input is for, as its readers tell, and what numbers make sense for that.

    Attributes:
        role: What its elements mean.
        low: Smallest number that makes sense.
        high: Largest one.
        within: Dimensions, by symbol, that bound it too, each with how far below its size the
            largest number is: 1 for an index, 0 for a length.
        opened: For a mask, the number (0 or 1) that lets an element through.
        is_free: For integers, whether they are nothing but reckoned with: no index, size or
            count, so of any size between ``low`` and ``high``.
    """

    role: Role = Role.NUMBERS
    low: float = -math.inf
    high: float = math.inf
    within: tuple[tuple[str, int], ...] = ()
    opened: int = 1
    is_free: bool = False

    def bounded_by(self, symbols: Set[str]) -> Use:
        """Return the same, bounded by dimensions that are these symbols or sums of them."""
        known = (one for one in self.within if set(words_of(one[0])) <= symbols)
        return replace(self, within=tuple(known))

    def sized(self, sizes: Mapping[str, int]) -> Use:
        """Return the same where some of the dimensions that bound it have a size."""
        known = [sizes[word] - below for word, below in self.within if word in sizes]
        left = tuple(one for one in self.within if one[0] not in sizes)
        return replace(self, high=min([self.high, *known]), within=left)


def words_of(dim: Dim) -> list[str]:
    """Return the symbols of a dimension: several where it is a sum of them."""
    return [word.strip() for word in dim.split("+")] if isinstance(dim, str) else []


def with_sizes(dim: Dim, sizes: Mapping[str, int]) -> Dim:
    """Return a dimension in which some symbols have a size."""
    if not isinstance(dim, str) or dim in sizes:
        return sizes.get(dim, dim) if isinstance(dim, str) else dim
    words = [str(sizes.get(word, word)) for word in words_of(dim)]
    known = sum(int(word) for word in words if word.isdigit())
    left = [word for word in words if not word.isdigit()]
    if len(words) == 1 or not known:
        return dim
    return " + ".join([*left, str(known)]) if left else known


@dataclass(frozen=True, slots=True)
class Slot:
    """One input or output: its name, type, and dimensions (None: rank not declared).

    Attributes:
        name: Its name.
        kind: Its type.
        dims: Its dimensions: sizes, symbols, and sums of symbols as ``past + new``.
        use: What it is for, where `with_hints` found out.
        steps: For each dimension, a number that its size must be a multiple of; empty if
            there is none.
        mosts: For each dimension, the largest size that makes sense, 0 if any does; empty if
            there is none.
    """

    name: str
    kind: ir.TypeProtocol | None
    dims: tuple[Dim, ...] | None
    use: Use = Use()
    steps: tuple[int, ...] = ()
    mosts: tuple[int, ...] = ()

    @property
    def bounds(self) -> tuple[tuple[int, int], ...]:
        """For each dimension, what its size is a multiple of, and the largest (0: none)."""
        axes = len(self.dims or ())
        return tuple(zip(self.steps or (1,) * axes, self.mosts or (0,) * axes, strict=True))

    @property
    def dtype(self) -> ir.DataType | None:
        """Element type of a tensor; None for sequences, optionals and undeclared types."""
        return self.kind.dtype if isinstance(self.kind, ir.TensorType) else None


def inputs_of(model: ir.Model) -> tuple[Slot, ...]:
    """The inputs that a caller must give: those that no initializer answers."""
    stored = model.graph.initializers
    return tuple(_slot(value) for value in model.graph.inputs if value.name not in stored)


def outputs_of(model: ir.Model) -> tuple[Slot, ...]:
    """The outputs, in order."""
    return tuple(_slot(value) for value in model.graph.outputs)


def differences(original: ir.Model, folded: ir.Model) -> tuple[str, ...]:
    """Where the interfaces differ, in words; empty when a caller cannot tell them apart."""
    found = list(_unlike("input", inputs_of(original), inputs_of(folded)))
    found.extend(_unlike("output", outputs_of(original), outputs_of(folded)))
    return tuple(found)


def conflicts(original: ir.Model, folded: ir.Model) -> tuple[str, ...]:
    """Where the interfaces contradict each other; one may declare less than the other."""
    known = {slot.name: slot for slot in (*inputs_of(original), *outputs_of(original))}
    found = list(_unlike("input", inputs_of(original), _as_known(inputs_of(folded), known)))
    outputs = _as_known(outputs_of(folded), known)
    found.extend(_unlike("output", outputs_of(original), outputs))
    return tuple(found)


def _as_known(slots: Sequence[Slot], known: Mapping[str, Slot]) -> Sequence[Slot]:
    """The same with what the other model declares, where that is no contradiction."""
    return [_as(slot, known.get(slot.name, slot)) for slot in slots]


def _as(slot: Slot, other: Slot) -> Slot:
    kind = other.kind if None in (slot.kind, other.kind) else slot.kind
    return Slot(slot.name, kind, other.dims if _agree(slot.dims, other.dims) else slot.dims)


def _agree(one: tuple[Dim, ...] | None, other: tuple[Dim, ...] | None) -> bool:
    """Whether both can hold at once: sizes that are names or unknown fit any."""
    if one is None or other is None:
        return True
    pairs = zip(one, other, strict=False)
    fixed = [pair for pair in pairs if all(isinstance(dim, int) for dim in pair)]
    return len(one) == len(other) and all(left == right for left, right in fixed)


def _slot(value: ir.Value) -> Slot:
    dims = None if value.shape is None else _dims(value.shape)
    return Slot(value.name or "", value.type, dims)


def _dims(shape: ir.ShapeProtocol) -> tuple[Dim, ...]:
    return tuple(dim if isinstance(dim, int) else dim.value for dim in shape)


def _unlike(role: str, before: Sequence[Slot], after: Sequence[Slot]) -> Iterator[str]:
    names, renamed = [slot.name for slot in before], [slot.name for slot in after]
    if names != renamed:
        yield f"{role}s were {names}, are {renamed}"
        return
    for old, new in zip(before, after, strict=True):
        if old.kind != new.kind:
            yield f"{role} {old.name!r} was {old.kind}, is {new.kind}"
        if old.dims != new.dims:
            yield f"{role} {old.name!r} had shape {old.dims}, has {new.dims}"
