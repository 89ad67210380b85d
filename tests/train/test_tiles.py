"""The table of launches: what is read, what is chosen, and what follows from it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnfold.train.kernels import tiles
from bnfold.train.kernels.layout import Planes, Rows, layout_from

sizes = st.integers(1, 5000)
layouts = st.one_of(
    st.builds(Rows, sizes, sizes), st.builds(Planes, st.integers(1, 300), sizes, sizes)
)


def test_the_packaged_table_has_every_kernel_and_is_written_as_it_is_read():
    table = tiles.packaged()
    assert table.text() == tiles.FILE.read_text(encoding="utf-8")
    assert tiles.Table.from_json(json.loads(table.text())).entries == table.entries


def test_a_table_without_a_kernel_is_refused():
    document = tiles.packaged().to_json()
    part = document["sm_90"]
    part["launches"] = [e for e in part["launches"] if e["kernel"] != "sums"]
    with pytest.raises(ValueError, match=r"sm_90 has no launch for .*'sums', 'planes'"):
        tiles.Table.from_json(document)


@pytest.mark.parametrize(
    ("capability", "taken"), [(75, 80), (80, 80), (86, 80), (90, 90), (120, 90)]
)
def test_a_device_takes_the_newest_older_entries(capability, taken):
    launches = {sm: tiles.Launch(1024, 128, 4, sm, 4) for sm in (80, 90)}
    tables = [tiles.uniform(dict.fromkeys(tiles.KERNELS, launches[sm]), sm) for sm in (80, 90)]
    both = tiles.Table({**tables[0].entries, **tables[1].entries}, {80: "a", 90: "b"})
    assert both.launch_of("sums", capability, Rows(99, 64), 2).programs == taken


def test_the_launch_of_the_most_similar_tensor_is_taken():
    def entry(line, size_bytes, programs):
        launch = tiles.Launch(1024, 128, 4, programs, 4)
        return tiles.Entry("sums", "rows", 2, line, size_bytes, launch)

    entries = (entry(64, 2**20, 1), entry(64, 2**28, 2), entry(2048, 2**28, 3))
    table = tiles.Table({90: entries}, {90: "drawn"})

    def taken(rows, channels):
        return table.launch_of("sums", 90, Rows(rows, channels), 2).programs

    assert taken(2**13, 64) == 1
    assert taken(2**21, 64) == 2
    assert taken(2**16, 1024) == 3


@given(
    layout=layouts,
    kernel=st.sampled_from(tiles.KERNELS),
    itemsize=st.sampled_from((2, 4)),
    wanted=st.integers(1, 5000),
)
def test_tiles_cover_a_tensor_and_no_split_is_empty(layout, kernel, itemsize, wanted):
    launch = tiles.packaged().launch_of(kernel, 90, layout, itemsize)
    lines = tiles.lines_of(layout, kernel)
    tile = tiles.tile_of(launch, layout, itemsize, lines)
    assert tile.lines * tile.length <= max(launch.elements, tiles.MIN_LENGTH)
    assert tile.lines < 2 * lines
    split = tiles.split_of(tile, layout, wanted)
    needed = tiles.tiles_of(tile, layout)
    assert needed <= split.splits * split.steps < needed + split.splits
    assert 1 <= split.splits <= min(needed, tiles.MAX_SPLITS)
    across = split.channel_blocks * (tile.length if isinstance(layout, Rows) else 1)
    assert across >= layout.channels


@pytest.mark.parametrize("side", [Rows, Planes])
@pytest.mark.parametrize("kernel", ["statistics", "sums"])
@pytest.mark.parametrize(("channels", "width"), [(64, 112), (256, 56), (512, 28), (2048, 7)])
def test_a_large_tensor_leaves_little_of_a_device_idle(side, kernel, channels, width):
    """Of an H100, in every wave, by what the slowest program has to do."""
    size = width * width
    layout = Rows(256 * size, channels) if side is Rows else Planes(256, channels, size)
    launch = tiles.packaged().launch_of(kernel, 90, layout, 2)
    tile = tiles.tile_of(launch, layout, 2, tiles.lines_of(layout, kernel))
    held = 132 * launch.programs
    split = tiles.split_of(tile, layout, held)
    waves = -(-split.splits * split.channel_blocks // held)
    work = tiles.tiles_of(tile, layout) * split.channel_blocks
    assert work > 0.85 * held * waves * split.steps


@given(shape=st.lists(st.integers(1, 4), min_size=2, max_size=5), data=st.data())
def test_layouts_are_what_torch_says(shape, data):
    torch = pytest.importorskip("torch")
    order = data.draw(st.permutations(range(len(shape))))
    x = torch.empty([shape[axis] for axis in order]).permute(
        [order.index(axis) for axis in range(len(shape))]
    )
    by_rows = x.movedim(1, -1).is_contiguous()
    expected = Rows if by_rows else Planes if x.is_contiguous() else type(None)
    layout = layout_from(x.shape, x.stride())
    assert type(layout) is expected
    if layout is not None:
        assert tiles.values_of(layout) == x.numel()
