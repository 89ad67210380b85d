"""Places behind the first 2^31 values, without a device and without so much memory.

Memory that nobody touches takes no room, so the interpreter can have a tensor of 4 GiB if it
reads only the ends. A grid that says it is as large as such a tensor needs, but lets its first
program alone run, makes that program take the last tile: kernels that write go from back to
front, and where splits take turns, the first one takes the last tile, too, if there is one
split less than there are tiles.
"""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from bnfold.train import functional  # noqa: E402  # after the skip
from bnfold.train.kernels import backward, forward  # noqa: E402  # after the skip

if not functional.INTERPRETED:
    pytest.skip("only the interpreter runs one program of many", allow_module_level=True)

VALUES = 2**31 + 2**14
TILE = 1024
CHANNELS = 16
ROWS, LINES = VALUES // CHANNELS, TILE // CHANNELS
ONE, ZERO = torch.ones(CHANNELS), torch.zeros(CHANNELS)
AFFINE = (ZERO, ONE, None, None)  # mean, 1 / deviation, weight, bias
LAST = (torch.arange(TILE) % 251 - 125).half()


class Programs:
    """As many programs as it says, of which only the first runs."""

    def __init__(self, count):
        self.count = count

    def __index__(self):
        return 1

    def __int__(self):
        return self.count

    def __gt__(self, other):
        return self.count > other


def far():
    """A tensor of which nothing exists but the ends: zeros, and a tile of numbers."""
    x = torch.empty(VALUES, dtype=torch.float16)
    x[:TILE] = 0
    x[-TILE:] = LAST
    return x


def run(kernel, grid, *arguments):
    kernel[grid](*arguments)


PLANES = [
    pytest.param(2, VALUES // 2, id="two planes"),
    pytest.param(1, VALUES, id="a plane of more than 2^31 values"),
]


def test_the_last_rows_are_normalised():
    x, y = far(), torch.empty(VALUES, dtype=torch.float16)
    bits = torch.empty(VALUES // 8, dtype=torch.uint8)
    grid = (Programs(ROWS // LINES // 2),)
    sizes = (ROWS, CHANNELS, 1, 2)
    ends = (0.0, "relu", LINES, CHANNELS)
    run(forward.rows_normalise, grid, x, None, y, bits, *AFFINE, *sizes, *ends)
    assert torch.equal(y[-TILE:], LAST.relu())
    packed = bits[-TILE // 8 :, None] >> torch.arange(8, dtype=torch.uint8)
    assert torch.equal((packed & 1).flatten().bool(), LAST > 0)


@pytest.mark.parametrize(("planes", "size"), PLANES)
def test_the_last_plane_is_normalised(planes, size):
    x, y = far(), torch.empty(VALUES, dtype=torch.float16)
    bits = torch.empty(VALUES // 8, dtype=torch.uint8)
    grid = (Programs(VALUES // TILE),)
    sizes = (planes, planes, size, size // TILE)
    ends = (0.0, "relu", 1, TILE)
    run(forward.planes_normalise, grid, x, None, y, bits, *AFFINE, *sizes, *ends)
    assert torch.equal(y[-TILE:], LAST.relu())
    packed = bits[-TILE // 8 :, None] >> torch.arange(8, dtype=torch.uint8)
    assert torch.equal((packed & 1).flatten().bool(), LAST > 0)


def test_the_last_rows_are_differentiated():
    x, dx = far(), torch.empty(VALUES, dtype=torch.float16)
    grid = (Programs(ROWS // LINES // 2),)
    sizes = (ROWS, CHANNELS, 1, 2, 0.0)
    ends = (0.0, "relu", LINES, CHANNELS)
    run(backward.rows_gradient, grid, x, x, dx, ZERO, ZERO, *AFFINE, *sizes, *ends)
    assert torch.equal(dx[-TILE:], LAST.relu())


@pytest.mark.parametrize(("planes", "size"), PLANES)
def test_the_last_plane_is_differentiated(planes, size):
    x, dx = far(), torch.empty(VALUES, dtype=torch.float16)
    grid = (Programs(VALUES // TILE),)
    sizes = (planes, planes, size, size // TILE, 0.0)
    ends = (0.0, "relu", 1, TILE)
    run(backward.planes_gradient, grid, x, x, dx, ZERO, ZERO, *AFFINE, *sizes, *ends)
    assert torch.equal(dx[-TILE:], LAST.relu())


def test_the_last_rows_are_added_up():
    x, inner = far(), torch.empty(VALUES, dtype=torch.float16)
    splits = ROWS // LINES - 1
    wide = LAST.float().view(LINES, CHANNELS)
    parts = torch.empty(3, splits, CHANNELS)
    grid = (1, Programs(splits))
    run(forward.rows_statistics, grid, x, parts, ROWS, CHANNELS, LINES, CHANNELS)
    assert torch.equal(parts[0, 0], ONE * 2 * LINES)
    torch.testing.assert_close(parts[1, 0], wide.sum(0) / (2 * LINES))
    sizes, ends = (ROWS, CHANNELS, 2), (0.0, None, LINES, CHANNELS)
    buffers = (x, x, None, None, inner, None, parts)
    run(backward.rows_sums, grid, *buffers, *AFFINE, *sizes, *ends)
    torch.testing.assert_close(parts.flatten()[:CHANNELS], wide.sum(0))
    assert torch.equal(inner[-TILE:], LAST)


@pytest.mark.parametrize("is_one", [False, True], ids=["images", "one image of huge planes"])
def test_the_last_tile_of_planes_is_added_up(is_one):
    """Of the first channel: the last image's, or that of the only image."""
    images, size = (1, VALUES) if is_one else (VALUES // 128, 64)
    lines, length = (1, TILE) if is_one else (TILE // 64, 64)
    x, inner = far(), torch.empty(VALUES, dtype=torch.float16)
    channels, blocks = (1, size // TILE) if is_one else (2, 1)
    tiles = VALUES // channels // TILE
    wide = LAST.float()
    if not is_one:  # a tile has every second plane
        wide = LAST.view(-1, 2, 64)[:, 0].float()
    parts = torch.empty(3, tiles - 1, channels)
    grid, sizes = (1, Programs(tiles - 1)), (images, channels, size, 2, blocks)
    run(forward.planes_statistics, grid, x, parts, *sizes, lines, length)
    torch.testing.assert_close(parts[1, 0, 0] * parts[0, 0, 0], wide.sum())
    buffers = (x, x, None, None, inner, None, parts)
    run(backward.planes_sums, grid, *buffers, *AFFINE, *sizes, 0.0, None, lines, length)
    torch.testing.assert_close(parts.flatten()[0], wide.sum())
