"""Sizes that stay open: which axes, by which names, and what other sizes to try."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import torch
from torch import Tensor

from bnfold.errors import UsageError
from bnfold.exporting.examples import Example

Dynamic: TypeAlias = str | Sequence[str] | Mapping[str, Mapping[int, str]]
"""``"x.0=batch,x.2=height"``, several, or ``{"x": {0: "batch", 2: "height"}}``."""

_AXIS: Final = re.compile(r"(?P<input>.+)\.(?P<axis>\d+)=(?P<symbol>[A-Za-z_]\w*)")
_REMEDY: Final = "write INPUT.AXIS=NAME, such as x.0=batch"
BATCH: Final = "batch"


@dataclass(frozen=True, slots=True)
class Axes:
    """The open axes of every tensor of a call: from the axis to the name of its size."""

    by_tensor: tuple[Mapping[int, str], ...]

    @property
    def symbols(self) -> tuple[str, ...]:
        """Every name, once."""
        found = (symbol for axes in self.by_tensor for symbol in axes.values())
        return tuple(dict.fromkeys(found))

    def sizes(self, tensors: Sequence[Tensor]) -> dict[str, int]:
        """Return the size that every name has in a call."""
        pairs = zip(self.by_tensor, tensors, strict=True)
        return {symbol: t.shape[axis] for axes, t in pairs for axis, symbol in axes.items()}

    def others(self, tensors: Sequence[Tensor]) -> dict[str, int]:
        """Return another size for every name: one more of a first axis, double elsewhere."""
        now = self.sizes(tensors)
        first = {axes[0] for axes in self.by_tensor if 0 in axes}
        return {name: size + 1 if name in first else 2 * size for name, size in now.items()}

    def shapes(
        self, tensors: Sequence[Tensor], sizes: Mapping[str, int]
    ) -> tuple[tuple[int, ...], ...]:
        """Return the shapes of a call in which names have those sizes."""
        return tuple(
            tuple(
                sizes.get(axes.get(axis, ""), size) for axis, size in enumerate(tensor.shape)
            )
            for axes, tensor in zip(self.by_tensor, tensors, strict=True)
        )


def axes_of(example: Example, dynamic: Dynamic, *, batch: bool) -> Axes:
    """Return what is to stay open.

    Args:
        example: A call; inputs are named as there.
        dynamic: What the user wrote.
        batch: Whether the first axis of every input is the batch.

    Raises:
        UsageError: If it cannot be read, or there is no such input or axis.
    """
    found: list[dict[int, str]] = [
        {0: BATCH} if batch and tensor.dim() else {} for tensor in example.tensors
    ]
    for name, axis, symbol in _entries(dynamic):
        if name not in example.names:
            why = f"the inputs are {', '.join(example.names)}"
            raise UsageError("there is no such input", where=name, why=why, remedy=_REMEDY)
        place = example.names.index(name)
        shape = tuple(example.tensors[place].shape)
        if not 0 <= axis < len(shape):
            why = f"its shape is {shape}"
            raise UsageError(f"input {name!r} has no axis {axis}", why=why, remedy=_REMEDY)
        found[place][axis] = symbol
    axes = Axes(tuple(found))
    _check_agree(axes, example)
    return axes


def _entries(dynamic: Dynamic) -> Iterator[tuple[str, int, str]]:
    if isinstance(dynamic, Mapping):
        for name, axes in dynamic.items():
            yield from ((name, axis, symbol) for axis, symbol in axes.items())
        return
    for text in (dynamic,) if isinstance(dynamic, str) else dynamic:
        for part in filter(None, (one.strip() for one in text.split(","))):
            match = _AXIS.fullmatch(part)
            if match is None:
                raise UsageError("this axis cannot be read", where=part, remedy=_REMEDY)
            yield match["input"], int(match["axis"]), match["symbol"]


def _check_agree(axes: Axes, example: Example) -> None:
    """Refuse one name for two sizes."""
    seen = axes.sizes(example.tensors)
    for name, tensor, open_axes in zip(
        example.names, example.tensors, axes.by_tensor, strict=True
    ):
        for axis, symbol in open_axes.items():
            if tensor.shape[axis] != seen[symbol]:
                raise UsageError(
                    f"{symbol!r} names two sizes",
                    where=f"{name}.{axis}",
                    why=f"it is {tensor.shape[axis]} there and {seen[symbol]} elsewhere",
                    remedy="use another name, or example inputs that agree",
                )


def traceable(example: Example, axes: Axes) -> Example:
    """Return the call with open axes of size one made two: tracers take one for fixed."""
    tensors = []
    for tensor, open_axes in zip(example.tensors, axes.by_tensor, strict=True):
        grown = tensor
        for axis in open_axes:
            if tensor.shape[axis] == 1:
                grown = torch.cat([grown, grown], dim=axis)
        tensors.append(grown)
    return example.with_tensors(tensors)
