"""Which file a path means, whatever it is called."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Identity:
    """A file by where the system keeps it; one that is not there yet, by its folder and name.

    Two paths mean one file exactly if their identities are equal: through links of both
    kinds, ``..``, and on file systems that take two spellings of a name for one.

    Attributes:
        device: What `stat` says of the file, or else of the folder it would lie in.
        inode: The same.
        name: Empty for a file that is there.
    """

    device: int
    inode: int
    name: str = ""


def identity_of(path: str | Path) -> Identity:
    """Return which file a path means.

    Raises:
        OSError: If a name on the way is no folder, cannot be read, or links run in a circle.
    """
    path = Path(path)
    try:
        found = path.stat()
    except FileNotFoundError:
        return _absent(real_path(path))
    return Identity(found.st_dev, found.st_ino)


def real_path(path: str | Path) -> Path:
    """Return the path without links; the last ones need not be there.

    Raises:
        OSError: If links run in a circle.
    """
    try:
        return Path(path).resolve()
    except RuntimeError as error:  # what pathlib raises for a circle before Python 3.13
        raise OSError(str(error)) from error


def spelled_alike(one: str, other: str) -> bool:
    """Whether some file systems take two names for one: by case or by accents."""
    return _folded(one) == _folded(other)


def _absent(path: Path) -> Identity:
    """Name a file by the nearest folder that is there: that has no second identity."""
    for folder in path.parents:
        if folder.exists():
            found = folder.stat()
            return Identity(found.st_dev, found.st_ino, str(path.relative_to(folder)))
    return Identity(0, 0, str(path))


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()
