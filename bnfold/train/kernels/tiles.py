"""The table of launch configurations, and the tiles and splits that follow from it.

Nothing is tuned while a model trains: a shape on a device always gets the same tiles, so
results are the same bit for bit from run to run. The table is `launches.json` beside this
file; `python -m benchmarks.gpu.tune_launches` fills it on a GPU.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

from bnfold.train.kernels.layout import Layout, Planes, Rows

Kernel = Literal[
    "statistics", "normalise", "sums", "gradient", "forward_alone", "backward_alone"
]
Side = Literal["rows", "planes"]

KERNELS: Final[tuple[Kernel, ...]] = get_args(Kernel)
FILE: Final = Path(__file__).with_name("launches.json")
MAX_SPLITS: Final = 512  # the kernels that finish hold all splits of a channel at once
MIN_LENGTH: Final = 16


@dataclass(frozen=True, slots=True)
class Launch:
    """How one kernel runs.

    Attributes:
        elements: Of a tile; a power of two.
        row_bytes: Of the contiguous side of a tile where rows are read; a power of two.
        warps: Of one program.
        programs: Per multiprocessor, where the work is split.
        steps: At most so many tiles per program. A kernel that works alone, in one launch, is
            taken where so many tiles are all there is; 0 means never.
    """

    elements: int
    row_bytes: int
    warps: int
    programs: int
    steps: int

    def length_of_rows(self, itemsize: int) -> int:
        """How many channels a tile spans."""
        return self.row_bytes // itemsize


@dataclass(frozen=True, slots=True)
class Entry:
    """A launch, and the tensor that it was chosen on."""

    kernel: Kernel
    side: Side
    itemsize: int
    line: int  # channels of a row, or values of a plane
    size_bytes: int
    launch: Launch

    def distance(self, itemsize: int, line: int, size_bytes: int) -> float:
        """How unlike a tensor is: in doublings, of any of the three."""
        return (
            2 * abs(math.log2(itemsize / self.itemsize))
            + abs(math.log2(line / self.line))
            + abs(math.log2(size_bytes / self.size_bytes))
        )


@dataclass(frozen=True)
class Table:
    """Launches by compute capability (90 is sm_90), and how they were found."""

    entries: Mapping[int, tuple[Entry, ...]]
    sources: Mapping[int, str]
    plans: dict[Any, Any] = field(default_factory=dict)  # what was derived from this table

    def launch_of(
        self, kernel: Kernel, capability: int, layout: Layout, itemsize: int
    ) -> Launch:
        """Return the launch that was chosen on the tensor most like this one.

        A device that is not listed takes the newest older one, or else the oldest.
        """
        older = [known for known in self.entries if known <= capability]
        listed = self.entries[max(older, default=min(self.entries))]
        side: Side = "rows" if isinstance(layout, Rows) else "planes"
        size_bytes = values_of(layout) * itemsize
        here = [e for e in listed if e.kernel == kernel and e.side == side]
        return min(
            here, key=lambda e: e.distance(itemsize, line_of(layout), size_bytes)
        ).launch

    def to_json(self) -> dict[str, Any]:
        """Return the table as it is written."""
        return {
            f"sm_{capability}": {
                "source": self.sources[capability],
                "launches": [asdict(entry) for entry in entries],
            }
            for capability, entries in sorted(self.entries.items())
        }

    def text(self) -> str:
        """Return the table as the file has it: one launch per line."""
        parts = []
        for name, part in self.to_json().items():
            lines = ",\n".join(f"   {json.dumps(launch)}" for launch in part["launches"])
            source = json.dumps(part["source"])
            parts.append(
                f' "{name}": {{\n  "source": {source},\n  "launches": [\n{lines}\n  ]\n }}'
            )
        return "{\n" + ",\n".join(parts) + "\n}\n"

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Table:
        """Read what `to_json` wrote; raise ValueError where an entry is missing or wrong."""
        entries = {}
        for name, part in document.items():
            read = [
                Entry(**{**entry, "launch": Launch(**entry["launch"])})
                for entry in part["launches"]
            ]
            kinds = {(entry.kernel, entry.side) for entry in read}
            missing = {(k, s) for k in KERNELS for s in get_args(Side)} - kinds
            if missing:
                raise ValueError(f"{name} has no launch for {sorted(missing)}")
            entries[int(name.removeprefix("sm_"))] = tuple(read)
        return cls(
            entries, {int(n.removeprefix("sm_")): p["source"] for n, p in document.items()}
        )


@functools.cache
def packaged() -> Table:
    """Return the table that comes with the package."""
    return Table.from_json(json.loads(FILE.read_text(encoding="utf-8")))


_in_use: list[Table] = []


def table() -> Table:
    """Return the table in use."""
    return _in_use[-1] if _in_use else packaged()


@contextmanager
def using(other: Table) -> Iterator[None]:
    """Take launches from another table: for tuning and for tests."""
    _in_use.append(other)
    try:
        yield
    finally:
        _in_use.pop()


def uniform(launches: Mapping[Kernel, Launch], capability: int = 80) -> Table:
    """Return a table that takes the same launches for every tensor."""
    entries = tuple(
        Entry(kernel, side, 2, 256, 2**24, launch)
        for kernel, launch in launches.items()
        for side in get_args(Side)
    )
    return Table({capability: entries}, {capability: "uniform"})


def power_of_two(least: int) -> int:
    """Return the smallest power of two that is not below `least`."""
    return 1 << max(0, least - 1).bit_length()


def line_of(layout: Layout) -> int:
    """Return the length of what lies together: channels of a row, or values of a plane."""
    return layout.channels if isinstance(layout, Rows) else layout.size


def values_of(layout: Layout) -> int:
    """Return the number of values of a tensor."""
    return layout.per_channel * layout.channels


@dataclass(frozen=True, slots=True)
class Tile:
    """[lines, length] values: rows × channels, or images (planes) × values of a plane."""

    lines: int
    length: int
    warps: int


def tile_of(launch: Launch, layout: Layout, itemsize: int, lines: int) -> Tile:
    """Return a tile no larger than what there is of it: `lines` rows, images or planes."""
    longest = launch.length_of_rows(itemsize) if isinstance(layout, Rows) else launch.elements
    length = max(MIN_LENGTH, min(longest, power_of_two(line_of(layout))))
    wanted = max(1, launch.elements // length)
    return Tile(min(wanted, power_of_two(lines)), length, launch.warps)


def lines_of(layout: Layout, kernel: Kernel) -> int:
    """Return how many lines a kernel can have in one tile."""
    match layout:
        case Rows():
            return layout.rows
        case Planes() if kernel in ("normalise", "gradient"):
            return layout.images * layout.channels
        case Planes():
            return layout.images


def steps_of(launch: Launch, tiles: int, processors: int) -> int:
    """Return how many tiles a program takes; it loads the vectors of its channels once."""
    return max(1, min(launch.steps, tiles // (processors * launch.programs)))


@dataclass(frozen=True, slots=True)
class Split:
    """How the tiles of a block of channels are shared out: `splits` programs, `steps` each."""

    channel_blocks: int
    splits: int
    steps: int


def tiles_of(tile: Tile, layout: Layout) -> int:
    """Return how many tiles a block of channels has, or a channel where planes are read."""
    if isinstance(layout, Rows):
        return -(-layout.rows // tile.lines)
    return -(-layout.images // tile.lines) * blocks_of(tile, layout)


def blocks_of(tile: Tile, layout: Planes) -> int:
    """Return how many tiles lie side by side on a plane."""
    return -(-layout.size // tile.length)


def split_of(tile: Tile, layout: Layout, wanted_programs: int) -> Split:
    """Share the tiles out over as many programs as wanted, or fewer.

    A few programs more than a device takes at once would keep all others waiting.
    """
    tiles = tiles_of(tile, layout)
    by_rows = isinstance(layout, Rows)
    blocks = -(-layout.channels // tile.length) if by_rows else layout.channels
    splits = max(1, min(MAX_SPLITS, tiles, wanted_programs // blocks))
    steps = -(-tiles // splits)
    return Split(blocks, -(-tiles // steps), steps)
