"""Who names a file: before one is removed, everything beside it is asked."""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_MOST_BYTES: Final = 4 << 30
"""Of a folder, what is read to find out; where there is more, a file counts as named."""

_LOCATION: Final = re.compile(rb"\x0a\x08location\x12([\x01-\x7f]|[\x80-\xff][\x01-\x7f])")
"""How an ONNX file says where a tensor's data is: StringStringEntryProto, key and value.

The value's length is a varint of one or two bytes: names of files are no longer.
"""


def is_named_in(folder: Path, name: str) -> bool:
    """Whether any file or link of a folder has this name in it, wherever and in whatever form.

    Models name their data; so may scripts, settings and lists of checksums. Small files are
    read first; larger ones that those say are data are not read: numbers name nothing. True
    also where it cannot be found out: what is in doubt stays.
    """
    try:
        links, files = _others(folder, name)
        return any(link.readlink().name == name for link in links) or _is_named(files, name)
    except OSError:
        return True


def locations_in(model: Path) -> frozenset[str]:
    """Return the names of data files that an ONNX file says its tensors lie in.

    Found by their bytes, so that a file that is damaged, or as large as protobuf allows, is
    no matter; empty where there is no such file.
    """
    try:
        with model.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):  # there is no such file, or nothing in it
        return frozenset()
    with data:
        return frozenset(_locations(data))


def _locations(data: mmap.mmap) -> Iterator[str]:
    for match in _LOCATION.finditer(data):
        first, *more = match[1]
        length = (first & 0x7F) + (more[0] << 7 if more else 0)
        yield os.fsdecode(data[match.end() : match.end() + length])


def _others(folder: Path, name: str) -> tuple[list[Path], list[tuple[int, Path]]]:
    """Return the links of a folder, and its other files with their sizes, small ones first."""
    with os.scandir(folder) as entries:
        found = [entry for entry in entries if entry.name != name]
    links = [Path(entry.path) for entry in found if entry.is_symlink()]
    files = [entry for entry in found if entry.is_file(follow_symlinks=False)]
    return links, sorted((one.stat(follow_symlinks=False).st_size, Path(one)) for one in files)


def _is_named(files: list[tuple[int, Path]], name: str) -> bool:
    known, left = set[str](), _MOST_BYTES
    for size_bytes, path in files:
        if not size_bytes or path.name in known:
            continue
        left -= size_bytes
        if left < 0:
            return True
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with data:
            if data.find(os.fsencode(name)) >= 0:
                return True
            known.update(_locations(data))
    return False
