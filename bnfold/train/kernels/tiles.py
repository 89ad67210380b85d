"""The table of launch configurations, and the tiles and splits that follow from it.

Nothing is tuned while a model trains: a shape on a device always gets the same tiles, so
results are the same bit for bit from run to run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from bnfold.train.kernels.layout import Layout, Rows

Kernel = Literal["statistics", "normalise", "sums", "gradient"]

MAX_SPLITS: Final = 512  # the kernels that finish hold all splits of a channel at once
MIN_LENGTH: Final = 16


@dataclass(frozen=True, slots=True)
class Launch:
    """How one kernel runs on one family of devices."""

    elements: int  # of a tile; a power of two
    row_bytes: int  # of the contiguous side of a tile where rows are read
    warps: int
    programs: int  # per multiprocessor, where the work is split
    steps: int = 4  # at most so many tiles per program, where there are enough programs anyway
    alone: int = 16  # up to so many tiles one program does all there is to do, in one launch

    def length_of_rows(self, itemsize: int) -> int:
        """How many channels a tile spans."""
        return self.row_bytes // itemsize


# Not measured yet: chosen from register counts and from bytes in flight. A device that is not
# listed takes the newest older one.
TABLE: Final[dict[int, dict[Kernel, Launch]]] = {
    80: {
        "statistics": Launch(elements=4096, row_bytes=128, warps=4, programs=8),
        "normalise": Launch(elements=2048, row_bytes=128, warps=4, programs=8),
        "sums": Launch(elements=2048, row_bytes=128, warps=4, programs=8),
        "gradient": Launch(elements=2048, row_bytes=128, warps=4, programs=8),
    },
    90: {
        "statistics": Launch(elements=4096, row_bytes=128, warps=4, programs=8),
        "normalise": Launch(elements=2048, row_bytes=128, warps=4, programs=8),
        "sums": Launch(elements=2048, row_bytes=128, warps=4, programs=8),
        "gradient": Launch(elements=2048, row_bytes=128, warps=4, programs=8),
    },
}


def launch_of(kernel: Kernel, capability: int) -> Launch:
    """Return how a kernel runs on devices of this compute capability (90 is sm_90)."""
    older = [known for known in TABLE if known <= capability]
    return TABLE[max(older, default=min(TABLE))][kernel]


def power_of_two(least: int) -> int:
    """Return the smallest power of two that is not below `least`."""
    return 1 << max(0, least - 1).bit_length()


@dataclass(frozen=True, slots=True)
class Tile:
    """[lines, length] values: rows × channels, or images (planes) × values of a plane."""

    lines: int
    length: int
    warps: int


def tile_of(launch: Launch, layout: Layout, itemsize: int) -> Tile:
    """Return the tile of a kernel on a tensor, no larger than the tensor makes use of."""
    if isinstance(layout, Rows):
        longest, line = launch.length_of_rows(itemsize), layout.channels
    else:
        longest, line = launch.elements, layout.size
    length = max(MIN_LENGTH, min(longest, power_of_two(line)))
    lines = max(1, launch.elements // length)
    return Tile(min(lines, max(1, power_of_two(lines_of(layout)))), length, launch.warps)


def steps_of(launch: Launch, tiles: int, processors: int) -> int:
    """Return how many tiles a program takes; it loads the vectors of its channels once."""
    return max(1, min(launch.steps, tiles // (processors * launch.programs)))


def lines_of(layout: Layout) -> int:
    """How many lines a tensor has for a kernel that reduces: rows, or images."""
    return layout.rows if isinstance(layout, Rows) else layout.images


@dataclass(frozen=True, slots=True)
class Split:
    """How the tiles of a block of channels are shared out: `splits` programs, `steps` each."""

    channel_blocks: int
    splits: int
    steps: int


def split_of(tile: Tile, layout: Layout, wanted_programs: int) -> Split:
    """Share the tiles out over about as many programs as wanted."""
    if isinstance(layout, Rows):
        blocks = -(-layout.channels // tile.length)
        tiles = -(-layout.rows // tile.lines)
    else:
        blocks = layout.channels
        tiles = -(-layout.images // tile.lines) * -(-layout.size // tile.length)
    splits = max(1, min(MAX_SPLITS, tiles, -(-wanted_programs // blocks)))
    steps = -(-tiles // splits)
    return Split(blocks, -(-tiles // steps), steps)
