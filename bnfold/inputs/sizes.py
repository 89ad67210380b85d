"""Sizes that a user asks for: ``x=1x3x224x224``, with ranges ``x=1..8x3x224x224``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Final, TypeAlias

from bnfold.errors import UsageError
from bnfold.inputs.fitting import spelled
from bnfold.inputs.signature import Dim, Slot, with_sizes

Shapes: TypeAlias = Sequence[str] | Mapping[str, Sequence[int]]
"""``["x=1x3x224x224", …]`` or ``{"x": (1, 3, 224, 224)}``."""

_SIZE: Final = re.compile(r"(\d+)(?:\.\.(\d+))?")
_REMEDY: Final = "write NAME=1x3x224x224; a range is 1..8"


def sized(slots: Sequence[Slot], shapes: Shapes) -> tuple[tuple[Slot, ...], ...]:
    """The inputs with these sizes: one entry for each combination to try.

    A range is tried at both ends and in the middle, ranges together; several shapes for one
    input are tried in turn. A symbol that gets a size has it in the other inputs too.

    Raises:
        UsageError: If a shape cannot be read or does not fit its input.
    """
    wanted: dict[str, list[tuple[int, ...]]] = {}
    for name, tried in _spelled_out(shapes, slots):
        slot = next((one for one in slots if one.name == name), None)
        if slot is None:
            names = ", ".join(repr(one.name) for one in slots)
            raise _wrong(name, f"the model's inputs are {names}")
        for shape in tried:
            _check(slot, shape)
        wanted.setdefault(name, []).extend(tried)
    turns = zip_longest(*wanted.values()) if wanted else [()]
    last = {name: tried[-1] for name, tried in wanted.items()}
    found = []
    for turn in turns:
        chosen = {n: s or last[n] for n, s in zip(wanted, turn, strict=True)}
        found.append(tuple(_bound(slots, chosen)))
    return tuple(dict.fromkeys(found))


def _spelled_out(
    shapes: Shapes, slots: Sequence[Slot]
) -> Iterator[tuple[str, list[tuple[int, ...]]]]:
    if isinstance(shapes, Mapping):
        yield from ((name, [tuple(shape)]) for name, shape in shapes.items())
        return
    for text in shapes:
        name, equals, sizes = text.rpartition("=")
        if not equals and len(slots) == 1:
            name = slots[0].name
        yield name, _tried(text, sizes)


def _tried(text: str, sizes: str) -> list[tuple[int, ...]]:
    """Both ends and the middle of every range, or the one shape that it is."""
    found = [_SIZE.fullmatch(part) for part in re.split("[x×,]", sizes)]
    ends = [(int(one[1]), int(one[2] or one[1])) for one in found if one is not None]
    if len(ends) < len(found) or any(low > high for low, high in ends):
        raise _wrong(text, "it is not a list of sizes")
    shapes = [tuple(end[0] for end in ends), tuple(sum(end) // 2 for end in ends)]
    return list(dict.fromkeys([*shapes, tuple(end[1] for end in ends)]))


def _check(slot: Slot, shape: tuple[int, ...]) -> None:
    dims = slot.dims
    if dims is None:
        return
    pairs = zip(shape, dims, strict=False)
    fits = all(not isinstance(dim, int) or dim < 1 or size == dim for size, dim in pairs)
    if len(shape) != len(dims) or not fits:
        raise _wrong(slot.name, f"the model reads {spelled(dims)}, not {spelled(shape)}")


def _bound(slots: Sequence[Slot], chosen: Mapping[str, tuple[int, ...]]) -> Iterator[Slot]:
    symbols: dict[str, int] = {}
    for slot in slots:
        pairs = zip(slot.dims or (), chosen.get(slot.name, ()), strict=False)
        symbols |= {dim: size for dim, size in pairs if isinstance(dim, str)}
    for slot in slots:
        dims: tuple[Dim, ...] | None = chosen.get(slot.name)
        if dims is None and slot.dims is not None:
            dims = tuple(with_sizes(dim, symbols) for dim in slot.dims)
        known = dims is not None and slot.dims is not None and len(dims) == len(slot.dims)
        yield replace(
            slot,
            dims=dims,
            use=slot.use.sized(symbols),
            steps=slot.steps if known else (),
            mosts=slot.mosts if known else (),
        )


def _wrong(where: str, why: str) -> UsageError:
    return UsageError("this shape cannot be used", where=where, why=why, remedy=_REMEDY)
