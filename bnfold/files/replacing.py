"""Replace a file: it is the old one or the new one, and keeps its owner, mode and links."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bnfold.errors import OutputError
from bnfold.files.scratch import scratch_folder
from bnfold.files.streams import write_into
from bnfold.files.targets import target_of, told_of

_NEW: Final = "new"
_CANNOT_SYNC: Final = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EBADF)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file that appears whole or not at all, in UTF-8.

    Raises:
        OutputError: If the file cannot be written; nothing is left behind then.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file that appears whole or not at all; into a pipe or a device as it comes.

    Raises:
        OutputError: If the file cannot be written; nothing is left behind then.
    """
    target = target_of(path)
    with told_of(path):
        if target.is_stream:
            write_into(target, [data])
            return
        with scratch_folder(within=target.path.parent) as folder:
            new = folder / _NEW
            write_through(new, data)
            if target.found is not None:
                keep_access(new, target.path, target.found)
            new.replace(target.path)
            flush(target.path.parent)


def write_through(path: Path, data: bytes) -> None:
    """Write a new file and have the system put it on disk; its mode follows the umask."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        sync(file.fileno())


def keep_access(new: Path, old: Path, found: os.stat_result) -> None:
    """Give a new file the access lists, the owner and the mode of the one it stands for.

    Raises:
        OutputError: If the owner cannot be kept.
    """
    _keep_attributes(new, old)
    own = new.stat()
    if (own.st_uid, own.st_gid) != (found.st_uid, found.st_gid):
        try:
            os.chown(new, found.st_uid, found.st_gid)
        except OSError as error:
            raise OutputError(
                "cannot replace the file",
                where=str(old),
                why=f"it is of user {found.st_uid} and group {found.st_gid}, and the new one"
                " would not be",
                remedy="remove it first, or name another file",
            ) from error
    new.chmod(stat.S_IMODE(found.st_mode))  # last: a new owner takes bits away


def _keep_attributes(new: Path, old: Path) -> None:
    """Copy what else the system notes of a file, as far as it lets us."""
    if not hasattr(os, "listxattr"):
        return
    with contextlib.suppress(OSError):
        for name in os.listxattr(old):
            with contextlib.suppress(OSError):
                os.setxattr(new, name, os.getxattr(old, name))


def flush(path: Path) -> None:
    """Ask the system to put a file, or a folder's entries, on disk.

    File systems that cannot, say so; that is no reason not to write to them.
    """
    if os.name == "nt" and path.is_dir():
        return  # folders cannot be opened there
    descriptor = os.open(path, os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def sync(descriptor: int, how: Callable[[int], None] | None = None) -> None:
    """Ask the system to put an open file on disk; one that cannot is let be.

    Args:
        descriptor: The file.
        how: What asks; None for `os.fsync`.
    """
    try:
        (how or os.fsync)(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
