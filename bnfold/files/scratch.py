"""Folders for files on the way: they go with the process that made them, however it ends."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bnfold.files.journal import is_begun, settle
from bnfold.files.locks import HeldError, alone_in, can_lock, lock

_LOCK: Final = ".lock"
_OURS: Final = re.compile(r"\.bnfold-[0-9a-f]{12}|bnfold-[a-z]+-[0-9a-f]{12}")
_USUAL: Final = ("/tmp", "/var/tmp") if os.name == "posix" else ()
_TRIES: Final = 100


@dataclass(slots=True)
class _Held:
    """A folder that is in use: by which process, and the file that holds its lock."""

    process: int
    descriptor: int | None = None


_held: dict[Path, _Held] = {}
"""Every folder of this process from before it is made until it is gone.

A signal may raise between any two steps, also inside of a `with` that is just being entered:
what is listed here is removed at the end of the process whatever was left out.
"""


@contextlib.contextmanager
def scratch_folder(purpose: str = "work", *, within: Path | None = None) -> Iterator[Path]:
    """Make a folder, and remove it with all that is in it.

    What dead processes left beside it is removed first.

    Args:
        purpose: A word for its name.
        within: Where; None for where the system keeps temporary files. A folder beside an
            output is hidden, and on the output's file system.

    Raises:
        OSError: If it cannot be made.
    """
    base = temporary_folder() if within is None else within
    sweep(base)
    path = _made(base, f"bnfold-{purpose}-" if within is None else ".bnfold-")
    try:
        yield path
    finally:
        _release(path)


def temporary_folder() -> Path:
    """Return where the system keeps temporary files, as `tempfile` does.

    That writes a file to every folder that it tries: one killed in that moment leaves it.
    """
    named = (tempfile.tempdir, *map(os.environ.get, ("TMPDIR", "TEMP", "TMP")), *_USUAL)
    for word in named:
        if word and os.access(word, os.W_OK | os.X_OK) and Path(word).is_dir():
            return Path(word).absolute()
    return Path(tempfile.gettempdir())


def sweep(base: Path) -> None:
    """Remove what processes that are dead left in a folder, and end what they had begun.

    Only what is named as ours, belongs to this user, and whose lock nobody holds.
    """
    if not can_lock():
        return
    with contextlib.suppress(OSError), os.scandir(base) as entries:
        for entry in entries:
            if _OURS.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_uid == os.geteuid():
                        _remove_if_dead(Path(entry.path))


def _made(base: Path, prefix: str) -> Path:
    for _ in range(_TRIES):
        path = base / f"{prefix}{os.urandom(6).hex()}"
        if path.is_symlink() or path.exists():
            continue
        _held[path] = _Held(os.getpid())
        try:
            if _is_ours(path):
                return path
        except BaseException:
            _release(path)
            raise
        _release(path)
    message = "no name for a temporary folder is free"
    raise FileExistsError(message)


def _is_ours(path: Path) -> bool:
    """Make a folder and take its lock; false if somebody took it for a dead one's before."""
    path.mkdir(mode=0o700)
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        _held[path].descriptor = descriptor = os.open(path / _LOCK, flags, 0o600)
        lock(descriptor)
    except (FileNotFoundError, HeldError):
        return False
    return (path / _LOCK).exists()


def _remove_if_dead(path: Path) -> None:
    try:
        descriptor = os.open(path / _LOCK, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        path.rmdir()  # its maker died, or did not yet come to its lock: then it tries again
        return
    try:
        if lock(descriptor):
            _settle(path)
            _remove(path)
    except HeldError:
        return
    finally:
        os.close(descriptor)


def _release(path: Path) -> None:
    """Remove a folder of this process; a fork of it must not."""
    held = _held.get(path)
    if held is None or held.process != os.getpid():
        return
    _settle(path)
    _remove(path)
    descriptor, held.descriptor = held.descriptor, None
    if descriptor is not None:
        os.close(descriptor)
        _remove(path)  # again, for systems that remove no open file
    _held.pop(path, None)


def _settle(path: Path) -> None:
    """End what a killed writer began, or one that was interrupted while it ended it."""
    if is_begun(path):
        with alone_in(path.parent):
            settle(path)


def _remove(path: Path) -> None:
    """Remove a folder, its lock last: as long as there is anything, it can be told whose."""
    with contextlib.suppress(OSError):
        for entry in list(path.iterdir()):
            with contextlib.suppress(OSError):
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                elif entry.name != _LOCK:
                    entry.unlink()
        if all(entry.name == _LOCK for entry in path.iterdir()):
            (path / _LOCK).unlink(missing_ok=True)
            path.rmdir()


@atexit.register
def remove_all() -> None:
    """Remove every folder of this process: at its end, whatever was interrupted before."""
    for path in list(_held):
        _release(path)
