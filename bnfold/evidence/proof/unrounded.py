"""The unrounded tensors of a folded model: derived anew, compared with what is stored."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.blocks import in_order
from bnfold.evidence import clock
from bnfold.evidence.proof.by_rows import Rows, rows_of_tensor
from bnfold.evidence.proof.recipes import Constants, Recipe, derive, rows_of
from bnfold.evidence.proof.rounding import Wide, furthest

_ROOM: Final = 1 << 20
"""Elements of unrounded tensors that are kept for the walk through the graphs.

Few: to derive a large one again costs less than fresh memory for all of them at once.
"""
_BLOCK: Final = 1 << 17
"""Elements derived at once where rows do not hang together: they stay in the cache."""


@dataclass(frozen=True, slots=True)
class Worst:
    """The element of a stored tensor that is furthest from what is derived.

    Attributes:
        place: Its index, one number for each axis.
        got: What is stored.
        want: What is derived.
        half_ulps: How far that is.
    """

    place: tuple[int, ...]
    got: float
    want: float
    half_ulps: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of deriving a tensor anew.

    Attributes:
        shape: Of what is derived.
        worst: Where what is stored is more than half an ulp from it; None if nowhere.
        wide: What is derived, if it was held as a whole and has the stored shape.
    """

    shape: tuple[int, ...]
    worst: Worst | None = None
    wide: Wide | None = None


def stored_rows(tensor: ir.TensorProtocol) -> Rows:
    """Return a tensor as it is stored: a large one is not held as a whole, where it can."""
    large = rows_of_tensor(tensor, is_computed=True) if tensor.size > _ROOM else None
    if large is not None and large.shape:
        return large
    return _held(np.asarray(tensor.numpy()))


def _held(whole: NDArray[np.generic]) -> Rows:
    return Rows(whole.shape, lambda part: whole[part] if whole.ndim else whole)


def compared(
    recipe: Recipe, constants: Constants, stored: Rows | NDArray[np.generic]
) -> Comparison:
    """Derive a tensor by a recipe, and compare the stored one with it.

    Raises:
        RecipeError: If the recipe cannot be followed.
        OutOfTimeError: If the time is up.
    """
    stored = stored if isinstance(stored, Rows) else _held(stored)
    size = math.prod(stored.shape)
    rows = rows_of(recipe, constants, stored.shape) if size > _ROOM else None
    if rows is None:
        wide = np.asarray(derive(recipe, constants, size), np.float64)
        if wide.shape != stored.shape:
            return Comparison(wide.shape)
        whole = stored.read(slice(0, stored.shape[0] if stored.shape else 1))
        return Comparison(wide.shape, _worst_of(whole, wide, 0), wide)
    worst: Worst | None = None
    for found in _by_parts(stored, rows):
        if found and (worst is None or found.half_ulps > worst.half_ulps):
            worst = found
    return Comparison(stored.shape, worst)


def _by_parts(
    stored: Rows, rows: Callable[[slice], NDArray[np.generic]]
) -> Iterator[Worst | None]:
    """Yield what is furthest off, some rows at a time; threads derive the next ones."""
    height = max(1, _BLOCK // math.prod(stored.shape[1:]))
    starts = range(0, stored.shape[0], height)
    parts = (slice(start, min(start + height, stored.shape[0])) for start in starts)

    def worst_in(part: slice) -> Worst | None:
        derived = np.asarray(rows(part), np.float64)
        return _worst_of(stored.read(part), derived, part.start)

    clock.check()
    for _, found in in_order(worst_in, parts):
        clock.check()
        yield found


def _worst_of(stored: NDArray[np.generic], wide: Wide, first_row: int) -> Worst | None:
    found = furthest(stored, wide)
    if found is None:
        return None
    place = np.unravel_index(found[0], stored.shape)
    first, *others = (int(index) for index in place) if place else (0,)
    absolute = (first + first_row, *others) if place else ()
    return Worst(absolute, float(stored[place]), float(wide[place]), found[1])


class Unrounded(Mapping[str, Wide]):
    """Unrounded tensors by name: kept while there is room, or derived again."""

    def __init__(self, constants: Constants) -> None:
        """Start with none."""
        self.recipes: dict[str, Recipe] = {}
        self.constants = constants
        self._kept: dict[str, Wide] = {}
        self._sizes: dict[str, int] = {}
        self._room = _ROOM

    def remember(self, name: str, recipe: Recipe, found: Comparison) -> None:
        """Note how a tensor is derived, and keep it if there is room."""
        self.recipes[name] = recipe
        self._sizes[name] = size = math.prod(found.shape)
        if found.wide is not None and size <= self._room:
            self._room -= size
            self._kept[name] = found.wide

    def __getitem__(self, name: str) -> Wide:
        """Return a tensor."""
        if name in self._kept:
            return self._kept[name]
        size = self._sizes[name]
        return np.asarray(derive(self.recipes[name], self.constants, size), np.float64)

    def rows(self, name: str, shape: tuple[int, ...]) -> Rows | None:
        """Return a large tensor by rows; None where rows of it hang together."""
        if name in self._kept:
            return None
        read = rows_of(self.recipes[name], self.constants, shape)
        return None if read is None else Rows(shape, read)

    def __contains__(self, name: object) -> bool:
        """Return whether there is a tensor of that name; Mapping's own would derive it."""
        return name in self.recipes

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self.recipes)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.recipes)
