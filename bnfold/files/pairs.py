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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from bnfold.errors import OutputError
from bnfold.files.identity import Identity, identity_of
from bnfold.files.journal import NEW_MODEL, Journal, settle
from bnfold.files.locks import alone_in
from bnfold.files.mentions import locations_in
from bnfold.files.replacing import flush, keep_access, write_through
from bnfold.files.targets import Target

_DIGITS: Final = 16
_CHUNK_BYTES: Final = 1 << 22


class Contents(Protocol):
    """A file that is too large to be held as bytes."""

    def write(self, path: Path, /) -> None:
        """Write it where nothing is, and have the system put it on disk.

        Raises:
            OSError: If it cannot be written.
        """
        ...


@dataclass(frozen=True, slots=True)
class Written:
    """A data file in a scratch folder, on disk.

    Attributes:
        path: Where it is.
        digest: SHA-256 of its contents; empty if nobody computed it.
    """

    path: Path
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Saved:
    """A model as it was written.

    Attributes:
        model: The ``.onnx`` file, as it was asked for.
        data: The file beside it that its weights are in, the first if there are several;
            None where they are inside.
        left: Data files that the model before it was read with, and this one is not, and
            that were left: they have names of their own, or something else names them.
        files: All files that its weights are in.
        said: Why the weights are not where they were asked to be; empty if they are.
    """

    model: Path
    data: Path | None = None
    left: tuple[Path, ...] = ()
    files: tuple[Path, ...] = ()
    said: str = ""


def is_data_of(model: Path, name: str) -> bool:
    """Whether a file of this name, beside a model, is named as its data is or could be."""
    digits = rf"(\.[0-9a-f]{{{_DIGITS},64}})?"
    return re.fullmatch(rf"{re.escape(model.name)}{digits}\.data", name) is not None


def data_path(model: Path) -> Path:
    """Return where the data of a model goes if nothing is there: ``<model>.data``."""
    return model.with_name(f"{model.name}.data")


def wants_digest(target: Target, count: int) -> bool:
    """Whether data files are going to be named after their contents, as far as can be seen.

    Args:
        target: Where the ``.onnx`` goes.
        count: How many data files it has.
    """
    plain = data_path(target.path)
    return count > 1 or os.path.lexists(plain) or plain.name in locations_in(target.path)


def put_model(
    scratch: Path,
    target: Target,
    written: Sequence[Written],
    model_with: Callable[[Sequence[str]], bytes | Contents],
    kept: frozenset[Identity] = frozenset(),
) -> Saved:
    """Move a model that was written to a scratch folder to its place beside that folder.

    Args:
        scratch: The folder, in the folder of the target.
        target: Where the ``.onnx`` goes.
        written: Its data files, in the scratch folder and on disk.
        model_with: Given the names of its data files, the ``.onnx``: its bytes, or what
            writes it.
        kept: Files that are not to be removed, whatever they are called.

    Raises:
        OSError: If it cannot; what was there before is there still.
        OutputError: If the owner of what is replaced cannot be kept, or no name is free.
    """
    folder = target.path.parent
    with alone_in(folder):
        before = locations_in(target.path)
        owned = dict(_owned(target.path, before, kept))
        names = _names(written, target.path, before, owned)
        # of files with the same contents, one is placed
        placed = {
            name: one.path
            for name, one in zip(names, written, strict=True)
            if not os.path.lexists(folder / name)
        }
        new = scratch / NEW_MODEL
        _write(new, model_with(names))
        for path in placed.values():
            _keep_access(path, new, target, owned)
        if target.found is not None:
            keep_access(new, target.path, target.found)
        replaced = {one: found.st_ino for one, found in owned.items() if one not in names}
        inodes = {name: path.stat().st_ino for name, path in placed.items()}
        Journal(inodes, replaced).write(scratch)
        try:
            for name, path in placed.items():
                _place(path, folder / name)
            if placed:
                flush(folder)
            new.replace(target.path)
            flush(folder)
        finally:
            settle(scratch)
    given = target.given.parent
    left = (one for one in sorted(before.difference(names)) if _is_there(folder / one))
    files = tuple(given / name for name in dict.fromkeys(names))
    return Saved(
        target.given, next(iter(files), None), tuple(given / one for one in left), files
    )


def _write(path: Path, contents: bytes | Contents) -> None:
    if isinstance(contents, bytes):
        write_through(path, contents)
    else:
        contents.write(path)


def _names(
    written: Sequence[Written], model: Path, before: frozenset[str], owned: Iterable[str]
) -> tuple[str, ...]:
    """Return a name for each data file; where there are several, all have their contents'."""
    if len(written) == 1:
        return (_name(written[0], model, before, owned, (0, _DIGITS, 64)),)
    return tuple(_name(one, model, before, (), (_DIGITS, 64)) for one in written)


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


def _name(
    written: Written,
    model: Path,
    before: frozenset[str],
    owned: Iterable[str],
    lengths: Iterable[int],
) -> str:
    """Return the name under which the data is there already, or else one that is free.

    ``<model>.data`` first; where that has other contents, one made of the contents. A name
    that the old model says is not free, though nothing is there: the old model would read
    the new weights.

    Args:
        written: The data.
        model: The ``.onnx`` file.
        before: Names that the old model says.
        owned: Those of its data files that are its own.
        lengths: How many digits of the digest may be in the name, 0 for none, in turn.
    """
    for name in owned:
        if _same(written.path, model.with_name(name)):
            return name
    digest = written.digest
    for digits in lengths:
        if digits and not digest:
            digest = _digest(written.path)
        path = data_path(model)
        if digits:
            path = model.with_name(f"{model.name}.{digest[:digits]}.data")
        if _same(written.path, path):
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
