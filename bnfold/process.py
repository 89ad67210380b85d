"""What this process may allocate, where the system can bound it (Linux: RLIMIT_DATA).

That counts memory of our own, not files that are mapped: a model of many gigabytes does not
matter. An allocation beyond it fails, which Python tells as a MemoryError.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bnfold.limits import Limits

_STATM: Final = Path("/proc/self/statm")
_DATA_FIELD: Final = 5
_ADDRESS_SLACK_BYTES: Final = 16 << 30
"""Beside what is written to, an address space holds libraries, mapped files and reserves."""


@dataclass(slots=True)
class Own:
    """A process that is ours alone, for as long as a command runs.

    Attributes:
        files: The files of the models that it works on, with their sizes.
    """

    files: dict[str, int] = field(default_factory=dict)

    @property
    def file_bytes(self) -> int:
        """What these files hold together."""
        return sum(self.files.values())


_OWN: Final[ContextVar[Own | None]] = ContextVar("bnfold.process", default=None)


def own() -> Own | None:
    """Return what is known of this process if it is ours alone; None if others run in it."""
    return _OWN.get()


@contextmanager
def bounded(files: Mapping[str, int], limits: Limits) -> Iterator[None]:
    """Bound what this process allocates for a block: only where it is ours alone.

    Args:
        files: The files that it works on, with their sizes in bytes.
        limits: Say what it may have for these.
    """
    token = _OWN.set(found := Own(dict(files)))
    try:
        with _lowered(limits.process_bytes(found.file_bytes)):
            yield
    finally:
        _OWN.reset(token)


@contextmanager
def spared(most_bytes: int) -> Iterator[None]:
    """Bound what a library allocates for a block, in a process that is ours alone.

    In any other process nothing is done: other threads allocate there too.
    """
    if _OWN.get() is None:
        yield
        return
    with _lowered(most_bytes):
        yield


def met(files: Mapping[str, int], limits: Limits) -> None:
    """Take note of files that a model turned out to have: it may take more memory."""
    resource, found = _resource(), _OWN.get()
    if found is None:
        return
    before = limits.process_bytes(found.file_bytes)
    found.files.update(files)
    more = limits.process_bytes(found.file_bytes) - before
    if resource is not None and more > 0:
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if soft != resource.RLIM_INFINITY:
            _set(resource, soft + more, hard)


def bound_for_good(most_bytes: int, mapped_bytes: int) -> None:
    """Bound this process, which was started for one job, until it ends.

    Args:
        most_bytes: What it may allocate beside what it has now.
        mapped_bytes: Size of the files that it will map.
    """
    resource = _resource()
    held = _held_bytes()
    if resource is None or held is None:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    _set(resource, held + most_bytes, hard)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    space = held + most_bytes + mapped_bytes + _ADDRESS_SLACK_BYTES
    if hard == resource.RLIM_INFINITY or space < hard:
        resource.setrlimit(resource.RLIMIT_AS, (space, hard))


@contextmanager
def _lowered(most_bytes: int) -> Iterator[None]:
    resource, held = _resource(), _held_bytes()
    if resource is None or held is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = held + most_bytes
    if soft != resource.RLIM_INFINITY:
        wanted = min(wanted, soft)
    _set(resource, wanted, hard)
    try:
        yield
    finally:
        # what was granted meanwhile stays granted
        now, _ = resource.getrlimit(resource.RLIMIT_DATA)
        _set(resource, soft if soft == resource.RLIM_INFINITY else soft + now - wanted, hard)


def _set(resource: Any, soft: int, hard: int) -> None:
    if resource.RLIM_INFINITY not in (soft, hard):
        soft = min(soft, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _resource() -> Any:
    """Return the module of resource limits; None where the system has none."""
    try:
        import resource
    except ImportError:
        return None
    return resource if hasattr(resource, "RLIMIT_DATA") else None


def _held_bytes() -> int | None:
    """Return what this process has now of what the limit counts; None where nobody says."""
    try:
        pages = int(_STATM.read_text(encoding="ascii").split()[_DATA_FIELD])
    except (OSError, IndexError, ValueError):
        return None
    resource = _resource()
    return None if resource is None else pages * int(resource.getpagesize())
