"""Put a model and its data file in their places: old or new at every moment, never mixed.

The data comes first, under a name that nothing has; then the ``.onnx``, which names it, is
renamed over the old one: that is the moment. Then the old data goes. The two files are on
disk before that moment, so that the same holds when the power fails.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bnfold.errors import OutputError
from bnfold.files.identity import Identity, identity_of
from bnfold.files.journal import NEW_MODEL, Journal, settle
from bnfold.files.locks import alone_in
from bnfold.files.mentions import locations_in
from bnfold.files.replacing import flush, keep_access, write_through
from bnfold.files.targets import Target

_DIGITS: Final = 16
_CHUNK_BYTES: Final = 1 << 22


@dataclass(frozen=True, slots=True)
class Saved:
    """A model as it was written.

    Attributes:
        model: The ``.onnx`` file, as it was asked for.
        data: The file beside it that its weights are in; None where they are inside.
        left: Data files that the model before it was read with, and this one is not, and
            that were left: they have names of their own, or something else names them.
    """

    model: Path
    data: Path | None = None
    left: tuple[Path, ...] = ()


def is_data_of(model: Path, name: str) -> bool:
    """Whether a file of this name, beside a model, is named as its data is or could be."""
    digits = rf"(\.[0-9a-f]{{{_DIGITS},64}})?"
    return re.fullmatch(rf"{re.escape(model.name)}{digits}\.data", name) is not None


def data_path(model: Path) -> Path:
    """Return where the data of a model goes if nothing is there: ``<model>.data``."""
    return model.with_name(f"{model.name}.data")


def put_model(
    scratch: Path,
    target: Target,
    written: Path | None,
    model_with: Callable[[str], bytes],
    kept: frozenset[Identity] = frozenset(),
) -> Saved:
    """Move a model that was written to a scratch folder to its place beside that folder.

    Args:
        scratch: The folder, in the folder of the target.
        target: Where the ``.onnx`` goes.
        written: Its data, in the scratch folder and on disk; None for none.
        model_with: Given the name of its data file, the bytes of the ``.onnx``.
        kept: Files that are not to be removed, whatever they are called.

    Raises:
        OSError: If it cannot; what was there before is there still.
        OutputError: If the owner of what is replaced cannot be kept, or no name is free.
    """
    folder = target.path.parent
    with alone_in(folder):
        before = locations_in(target.path)
        owned = dict(_owned(target.path, before, kept))
        name = "" if written is None else _name(written, target.path, before, owned)
        placed = written is not None and not os.path.lexists(folder / name)
        new = scratch / NEW_MODEL
        write_through(new, model_with(name))
        if placed and written is not None:
            _keep_access(written, new, target, owned)
        if target.found is not None:
            keep_access(new, target.path, target.found)
        replaced = {one: found.st_ino for one, found in owned.items() if one != name}
        inode = {name: written.stat().st_ino} if placed and written is not None else {}
        Journal(inode, replaced).write(scratch)
        try:
            if placed and written is not None:
                _place(written, folder / name)
            new.replace(target.path)
            flush(folder)
        finally:
            settle(scratch)
    given = target.given.parent
    left = tuple(given / one for one in sorted(before - {name}) if _is_there(folder / one))
    return Saved(target.given, given / name if name else None, left)


def _owned(
    model: Path, before: frozenset[str], kept: frozenset[Identity]
) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the data files of a model that are named after it, and so belong to it."""
    for name in sorted(before):
        if not is_data_of(model, name):
            continue
        path = model.with_name(name)
        if path.is_file() and not path.is_symlink() and identity_of(path) not in kept:
            yield name, path.stat()


def _name(written: Path, model: Path, before: frozenset[str], owned: Iterable[str]) -> str:
    """Return the name under which the data is there already, or else one that is free.

    ``<model>.data`` first; where that has other contents, one made of the contents. A name
    that the old model says is not free, though nothing is there: the old model would read
    the new weights.
    """
    for name in owned:
        if _same(written, model.with_name(name)):
            return name
    digest = ""
    for digits in (0, _DIGITS, 64):
        if digits and not digest:
            digest = _digest(written)
        path = data_path(model)
        if digits:
            path = model.with_name(f"{model.name}.{digest[:digits]}.data")
        if _same(written, path):
            return path.name
        if not os.path.lexists(path) and (digits or path.name not in before):
            return path.name
    raise OutputError(
        "cannot write the data of the model",
        where=str(data_path(model)),
        why="files of all names that it could have are there, and have other contents",
        remedy="remove them, or name another file",
    )


def _place(written: Path, path: Path) -> None:
    """Give the data its name, and never take that from another file.

    Only a link refuses a name that is taken. The first name goes at once: readers take two
    names of one data file for an attack.
    """
    try:
        path.hardlink_to(written)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        written.rename(path)
    else:
        written.unlink()
    flush(path.parent)


def _keep_access(
    written: Path, new: Path, target: Target, owned: dict[str, os.stat_result]
) -> None:
    """Let those read the new weights who could read the old ones, wherever they were."""
    for name, found in owned.items():
        keep_access(written, target.path.with_name(name), found)
        return
    if target.found is not None:
        keep_access(written, target.path, target.found)
    else:
        written.chmod(stat.S_IMODE(new.stat().st_mode))


def _same(one: Path, other: Path) -> bool:
    """Whether a regular file with the same contents is there."""
    if other.is_symlink() or not other.is_file() or other.stat().st_size != one.stat().st_size:
        return False
    with one.open("rb") as left, other.open("rb") as right:
        while chunk := left.read(_CHUNK_BYTES):
            if chunk != right.read(_CHUNK_BYTES):
                return False
    return True


def _is_there(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return path.is_file()
    return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
