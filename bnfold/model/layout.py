"""Where the tensors of a model that is written go: into the file, or files beside it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

import onnx_ir as ir

from bnfold.errors import UsageError
from bnfold.model.external import INSIDE, PLACES, PROTOBUF_LIMIT_BYTES
from bnfold.model.graphs import graphs_of
from bnfold.model.held_outside import HeldOutside
from bnfold.model.neighbours import Region

_OUTSIDE_FROM_BYTES: Final = 1024
_LARGE_BYTES: Final = 1 << 20
"""From here on an aligned offset costs nothing, and lets runtimes map a tensor."""

_ALIGNMENTS: Final = {True: 4096, False: 64}
"""Of large tensors and small ones, where nothing says another: a page, a cache line."""

_MOST_ALIGNMENT: Final = 1 << 16
_TOO_LARGE: Final = (
    "its weights are in a file beside it: they are more than the 2 GB a model file can hold"
)


class ExternalData(StrEnum):
    """Where weights go: as they lay, into one file, a file for each, or into the model."""

    KEEP = "keep"
    ONE = "one"
    PER_TENSOR = "per-tensor"
    INLINE = "inline"


@dataclass(frozen=True, slots=True)
class Layout:
    """How weights are to be laid out.

    Attributes:
        data: In which files.
        size_threshold: Tensors of fewer bytes go into the model; None for as they lay, and
            1024 for what is new.
    """

    data: ExternalData = ExternalData.KEEP
    size_threshold: int | None = None

    @staticmethod
    def of(data: str, size_threshold: int | None) -> Layout:
        """Read a layout from words.

        Raises:
            UsageError: If there is no such layout, or the size is negative.
        """
        if data not in {one.value for one in ExternalData}:
            raise UsageError(
                f"there is no layout of external data {data!r}",
                remedy=f"choose of {', '.join(ExternalData)}",
            )
        if size_threshold is not None and size_threshold < 0:
            raise UsageError(
                "the size from which on tensors lie outside is negative",
                why=f"it is {size_threshold} bytes",
            )
        return Layout(ExternalData(data), size_threshold)


class Placed(NamedTuple):
    """A tensor, where it goes, and for whom.

    Attributes:
        tensor: What is written.
        offset: Where in the file, in bytes.
        values: The initializers that read it: several, where they shared a part of a file.
    """

    tensor: ir.TensorProtocol
    offset: int
    values: tuple[ir.Value, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """All files of one model that is to be written.

    Attributes:
        files: The tensors of each data file, in order; none where all go into the model.
        said: Why the layout is not the one that was asked for; empty if it is.
    """

    files: tuple[tuple[Placed, ...], ...] = ()
    said: str = ""


def plan_of(model: ir.Model, layout: Layout) -> Plan:
    """Decide where every initializer goes; nothing is read."""
    values = [
        value
        for graph in graphs_of(model.graph)
        for value in graph.initializers.values()
        if value.const_value is not None and value.const_value.dtype is not ir.DataType.STRING
    ]
    places = _places(model, values)
    before = _Before(places, model.graph.meta.get(INSIDE, frozenset()))
    outside = [value for value in values if before.is_outside(value, layout)]
    said = ""
    chosen = set(outside)
    if _bytes_of(value for value in values if value not in chosen) > PROTOBUF_LIMIT_BYTES:
        outside = [
            value
            for value in values
            if value in chosen or _bytes_of([value]) >= _OUTSIDE_FROM_BYTES
        ]
        said = _TOO_LARGE
    tensors = _once_each(outside)
    groups = _groups(tensors, layout, places)
    return Plan(tuple(tuple(_laid_out(group, places)) for group in groups), said)


_Held = tuple[ir.TensorProtocol, tuple[ir.Value, ...]]


def _places(model: ir.Model, values: Iterable[ir.Value]) -> dict[ir.Value, Region]:
    """Return where tensors lie, or where those lay that they took the place of."""
    noted: dict[str, Region] = model.graph.meta.get(PLACES, {})
    found: dict[ir.Value, Region] = {}
    for value in values:
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            found[value] = Region(str(tensor.location), tensor.offset or 0, tensor.nbytes)
        elif (value.name or "") in noted:
            found[value] = noted[value.name or ""]
    return found


class _Before:
    """How the tensors lay that a model was read with."""

    def __init__(self, places: dict[ir.Value, Region], inside: frozenset[str]) -> None:
        self._places = places
        self._inside = inside
        sizes = (place.length or 0 for place in places.values())
        self._least = min((_OUTSIDE_FROM_BYTES, *sizes))

    def is_outside(self, value: ir.Value, layout: Layout) -> bool:
        """Return whether a tensor goes into a data file; one without elements never does."""
        size_bytes, wanted = _bytes_of([value]), layout.size_threshold
        if not size_bytes or (wanted is not None and size_bytes < wanted):
            return False
        match layout.data:
            case ExternalData.INLINE:
                return False
            case ExternalData.KEEP:
                is_new = bool(self._places) and (value.name or "") not in self._inside
                large = size_bytes >= (self._least if wanted is None else wanted)
                return value in self._places or (is_new and large)
            case _:
                return wanted is not None or size_bytes >= _OUTSIDE_FROM_BYTES


def _bytes_of(values: Iterable[ir.Value]) -> int:
    tensors = (value.const_value for value in values)
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def _once_each(values: Iterable[ir.Value]) -> list[_Held]:
    """Put values together that read one part of a file: that is written once."""
    found: dict[object, list[ir.Value]] = defaultdict(list)
    for value in values:
        tensor = value.const_value
        found[tensor.key if isinstance(tensor, HeldOutside) else value].append(value)
    return [(one[0].const_value, tuple(one)) for one in found.values() if one[0].const_value]


def _groups(
    tensors: Sequence[_Held], layout: Layout, places: dict[ir.Value, Region]
) -> list[list[_Held]]:
    """Return the tensors of each file, in the order in which they lay before."""
    if not tensors:
        return []
    by_file: dict[str, list[_Held]] = defaultdict(list)
    new: list[_Held] = []
    for held in tensors:
        place = places.get(held[1][0])
        (new if place is None else by_file[place.location]).append(held)
    groups = list(by_file.values())
    for group in groups:
        group.sort(key=lambda held: places[held[1][0]].offset)
    is_apart = len(groups) > 1 and all(len(group) == 1 for group in groups)
    if layout.data is ExternalData.PER_TENSOR or (
        layout.data is ExternalData.KEEP and is_apart
    ):
        return [[held] for group in (*groups, new) for held in group]
    if layout.data is ExternalData.KEEP and groups:
        groups[-1].extend(new)
        return groups
    return [[held for group in (*groups, new) for held in group]]


def _laid_out(group: Sequence[_Held], places: dict[ir.Value, Region]) -> Iterable[Placed]:
    """Give every tensor its offset, as well aligned as those of its size were before."""
    alignments = {
        is_large: _alignment(group, places, is_large=is_large) for is_large in (True, False)
    }
    end = 0
    for tensor, values in group:
        step = alignments[tensor.nbytes >= _LARGE_BYTES]
        offset = -(-end // step) * step
        yield Placed(tensor, offset, values)
        end = offset + tensor.nbytes


def _alignment(
    group: Sequence[_Held], places: dict[ir.Value, Region], *, is_large: bool
) -> int:
    """Return the largest power of two that divides the offsets there were; 0 says nothing."""
    offsets = {
        places[values[0]].offset
        for tensor, values in group
        if values[0] in places and (tensor.nbytes >= _LARGE_BYTES) is is_large
    }
    together = 0
    for offset in offsets:
        together |= offset
    return min(together & -together, _MOST_ALIGNMENT) or _ALIGNMENTS[is_large]
