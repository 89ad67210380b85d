"""What an output path stands for: a file to be replaced, or something to write into."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bnfold.errors import OutputError
from bnfold.files.identity import real_path

_DESCRIPTORS: Final = re.compile(r"/dev/fd|/proc/(?P<process>self|\d+)(/task/\d+)?/fd")
_MOST_LINKS: Final = 40
"""So many links the kernel follows; more are a circle."""

_NO_FILES: Final = {
    stat.S_IFDIR: "it is a folder",
    stat.S_IFSOCK: "it is a socket",
    stat.S_IFBLK: "it is a block device: writing would destroy what is on it",
}
_REMEDY: Final = "name a file in a folder that exists and is writable"


@dataclass(frozen=True, slots=True)
class Target:
    """Where an output goes.

    Attributes:
        given: The path as the user wrote it.
        path: The file itself, without links: what is replaced, so that links stay.
        found: What is there already; None for nothing.
        is_stream: Whether it is written into: a pipe, a terminal, a device.
        descriptor: The one of ours that a path such as ``/dev/stdout`` means.
    """

    given: Path
    path: Path
    found: os.stat_result | None = None
    is_stream: bool = False
    descriptor: int | None = None


def target_of(path: str | Path) -> Target:
    """Find out what an output path stands for.

    Raises:
        OutputError: If it is a folder, a socket or a block device, or cannot be looked at.
    """
    path = Path(path)
    with told_of(path):
        try:
            found = path.stat()
        except FileNotFoundError:
            return Target(path, real_path(path))
        number = _descriptor(path)
        why = _NO_FILES.get(stat.S_IFMT(found.st_mode), "")
        if why:
            raise OutputError(
                "cannot write the file", where=str(path), why=why, remedy=_REMEDY
            )
        is_stream = number is not None or not stat.S_ISREG(found.st_mode)
        return Target(path, path if is_stream else real_path(path), found, is_stream, number)


def check_writable(path: str | Path) -> None:
    """Find out before the work whether a file could be written.

    Raises:
        OutputError: If there is a folder, a socket, a block device or a read-only file at
            ``path``, or its folder is missing or read-only, or the file belongs to somebody
            else and could not be theirs any more when it is replaced.
    """
    target = target_of(path)
    folder = target.path.parent
    why = ""
    if target.is_stream:
        if target.descriptor is None and not os.access(path, os.W_OK):
            why = "it is not writable"
    elif not folder.is_dir():
        why = f"there is no folder {str(folder)!r}"
    elif not os.access(folder, os.W_OK | os.X_OK):
        why = f"the folder {str(folder)!r} is not writable"
    elif target.found is not None:
        why = _kept_from(target.path, target.found)
    if why:
        raise OutputError("cannot write the file", where=str(path), why=why, remedy=_REMEDY)


@contextlib.contextmanager
def told_of(path: str | Path, what: str = "cannot write the file") -> Iterator[None]:
    """Turn what the system says of a file into an error for the user.

    Raises:
        OutputError: For every OSError.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            what,
            where=str(path),
            why=error.strerror or str(error),
            remedy="check that the folder exists, is writable and has space left",
        ) from error


def _kept_from(path: Path, found: os.stat_result) -> str:
    """Say why a file that is there must not be replaced; nothing if it may be."""
    if not os.access(path, os.W_OK):
        return "the file is read-only"
    if os.name == "posix" and os.geteuid() not in (0, found.st_uid):
        return "the file belongs to another user, and replacing it would make it yours"
    return ""


def _descriptor(path: Path) -> int | None:
    """Return the number of our own open file that a path means, such as ``/dev/stdout``.

    The links in ``/proc/self/fd`` lead to a file's name, but stand for what is open: that is
    written into at its place, as the shell's ``>>`` expects, and never replaced.
    """
    current = path.absolute()
    for _ in range(_MOST_LINKS):
        folder = _DESCRIPTORS.fullmatch(str(real_path(current.parent)))
        if folder and current.name.isdecimal():
            is_ours = folder["process"] in (None, "self", str(os.getpid()))
            return int(current.name) if is_ours else None
        if not current.is_symlink():
            return None
        current = current.parent / current.readlink()
    return None
