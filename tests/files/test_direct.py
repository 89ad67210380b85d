"""Writing past the page cache: the same bytes, whatever the system can or cannot do."""

from __future__ import annotations

import errno
import os
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnfold.files import data_writer, direct
from bnfold.files.data_writer import DataWriter
from bnfold.files.direct import DirectWriter, direct_writer

fcntl = pytest.importorskip("fcntl")
SOURCE = np.random.default_rng(0).bytes(1 << 17)
LARGE = 1 << 30


@pytest.fixture
def source(tmp_path):
    (tmp_path / "in").write_bytes(SOURCE)
    descriptor = os.open(tmp_path / "in", os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 30_000), st.integers(0, 40_000))),
    st.sampled_from(["direct", "refused at first", "refused later", "short"]),
)
def test_all_ways_give_what_was_written(tmp_path_factory, steps, system):
    folder = tmp_path_factory.mktemp("direct")
    (folder / "in").write_bytes(SOURCE)
    own, calls = os.pwrite, [0]

    def pwrite(descriptor, data, offset):
        calls[0] += 1
        is_direct = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT
        late = calls[0] > (0 if system == "refused at first" else 2)
        if system.startswith("refused") and is_direct and late:
            raise OSError(errno.EINVAL, "Invalid argument")
        if system == "short" and len(data) > 1000:
            data = data[:1000] if calls[0] % 2 else data[: len(data) // 512 * 256]
        return own(descriptor, data, offset)

    whole = b""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        patch.setattr(direct, "_BLOCK_BYTES", 1 << 14)
        patch.setattr(data_writer, "sync", lambda *_: None)  # a busy disk takes its time
        with (
            (folder / "in").open("rb") as source,
            DataWriter(folder / "out", expected=LARGE) as file,
        ):
            assert (file._direct is not None) == hasattr(os, "O_DIRECT")
            for is_copy, start, length in steps:
                part = SOURCE[start : start + length]
                if is_copy:
                    file.copy(source.fileno(), start, len(part))
                else:
                    file.write(part)
                whole += part
                assert file.size == len(whole)
    assert (folder / "out").read_bytes() == whole


def test_what_can_be_read_after_settling_and_goes_on(tmp_path):
    with DataWriter(tmp_path / "out", expected=LARGE) as file:
        file.write(SOURCE)
        file.write(b"abc")
        file.settle()
        assert (tmp_path / "out").read_bytes() == SOURCE + b"abc"
        file.write(SOURCE)
    assert (tmp_path / "out").read_bytes() == SOURCE + b"abc" + SOURCE


def test_blocks_are_shared_where_the_system_can(tmp_path, source, monkeypatch):
    """FICLONERANGE takes whole blocks alone; the rest is read and written."""
    asked = []

    def ioctl(target, request, argument):
        assert request == direct._CLONE_RANGE
        origin, offset, length, place = struct.unpack("qQQQ", argument)
        assert origin == source
        assert not any(one % 4096 for one in (offset, length, place))
        asked.append(length)
        with open(target, "rb+", closefd=False) as file:
            file.seek(place)
            file.write(SOURCE[offset : offset + length])
        return 0

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    with DataWriter(tmp_path / "out", expected=LARGE) as file:
        file.write(SOURCE[:8192])
        file.copy(source, 4096, 100_000)
        file.write(b"abc")
        file.copy(source, 0, 100_000)
    whole = SOURCE[:8192] + SOURCE[4096:104_096] + b"abc" + SOURCE[:100_000]
    assert (tmp_path / "out").read_bytes() == whole
    assert asked == [100_000 // 4096 * 4096]


def test_a_full_disk_is_an_error_and_nothing_hangs(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    monkeypatch.setattr(direct, "_BLOCK_BYTES", 1 << 14)
    with (
        pytest.raises(OSError, match="No space"),
        DataWriter(tmp_path / "out", expected=LARGE) as file,
    ):
        file.write(10 * SOURCE)


def test_a_system_without_direct_writes_has_no_such_writer(tmp_path, monkeypatch):
    with (tmp_path / "out").open("wb") as file:
        found = direct_writer(file.fileno())
        assert isinstance(found, DirectWriter)
        found.close()
        monkeypatch.delattr(os, "O_DIRECT")
        assert direct_writer(file.fileno()) is None
