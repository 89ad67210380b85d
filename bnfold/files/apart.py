"""No output is a file that is read, and no two outputs are one file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bnfold.errors import UsageError
from bnfold.files.identity import Identity, identity_of, spelled_alike
from bnfold.files.scratch import scratch_folder
from bnfold.files.targets import told_of


@dataclass(frozen=True, slots=True)
class Read:
    """A file that is read.

    Attributes:
        path: The file.
        what: What it is, for people: ``the input itself, MODEL``.
    """

    path: Path
    what: str


@dataclass(frozen=True, slots=True)
class Write:
    """A file that is to be written.

    Attributes:
        path: The file.
        what: What names it: ``--report``.
    """

    path: Path
    what: str

    @property
    def is_device(self) -> bool:
        """Whether it is a terminal or ``/dev/null``: several may write there."""
        return self.path.is_char_device()


def check_apart(writes: Sequence[Write], reads: Iterable[Read]) -> None:
    """Refuse outputs that would replace what is read, or each other; by identity of files.

    Args:
        writes: What is to be written. What is not there yet is nothing that is read.
        reads: What is read; not looked at while no file that is to be written is there.

    Raises:
        UsageError: Naming both.
    """
    known: dict[Identity, Write] = {}
    for write in writes:
        with told_of(write.path):
            identity = identity_of(write.path)
        _check_other(write, identity, known)
        known[identity] = write
    there = {identity: write for identity, write in known.items() if write.path.is_file()}
    if there:
        _check_reads(there, reads)


def _check_other(write: Write, identity: Identity, known: dict[Identity, Write]) -> None:
    for other_identity, other in known.items():
        same = identity == other_identity and not (write.is_device)
        if same or _meet_by_spelling(write, identity, other_identity):
            raise UsageError(
                "two outputs would be written to one file",
                where=f"{write.what} {write.path}",
                why=f"it is the same file as {other.what} {other.path}",
                remedy="name another file for one of them",
            )


def _check_reads(there: dict[Identity, Write], reads: Iterable[Read]) -> None:
    for read in reads:
        with suppress(OSError):  # whoever reads it says so better
            write = there.get(identity_of(read.path))
            if write is not None:
                raise UsageError(
                    "the output would overwrite the input",
                    where=f"{write.what} {write.path}",
                    why=f"it is the same file as {read.path}, {read.what}",
                    remedy="write to another path",
                )


def _meet_by_spelling(write: Write, one: Identity, other: Identity) -> bool:
    """Whether two files that are not there yet will be one, as their folder reads names."""
    if not one.name or (one.device, one.inode) != (other.device, other.inode):
        return False
    if one.name == other.name or not spelled_alike(one.name, other.name):
        return False
    with suppress(OSError), scratch_folder(within=write.path.absolute().parent) as folder:
        (folder / Path(one.name).name).touch()
        return (folder / Path(other.name).name).exists()
    return False
