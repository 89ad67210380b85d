"""Options that bound what a command takes, whatever the model asks for."""

from __future__ import annotations

import functools
import re
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final, ParamSpec, TypeVar

import click

from bnfold import limits, process
from bnfold.errors import BnfoldError
from bnfold.model.regular import UnreadableError, size_of

_P = ParamSpec("_P")
_R = TypeVar("_R")

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_PREFIXES: Final = ("", "k", "m", "g", "t")
_LEAST_BYTES: Final = 64 << 20
_SECONDS_PER_MB: Final = 60.0
_LONGEST_S: Final = 1e8
"""Years: as good as no limit."""
_AGAIN_S: Final = 10.0
"""After so long the time is up again, should anything have gone on."""
_MORE_TIME: Final = ("max_time", "max_time_s", "search_s")
"""Options that ask for time of their own."""


class _TimeIsUp(BaseException):
    """Raised between two steps of the interpreter once the time is up."""


class _Size(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions
    """A number of bytes: 2GB, 512MiB."""

    name = "size"

    def __init__(self, least_bytes: int) -> None:
        """Allow no less."""
        self._least_bytes = least_bytes

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        found = _SIZE.fullmatch(str(value).strip())
        if found is None:
            self.fail(f"{value!r} is not a size such as 2GB or 512MB", param, ctx)
        base = 1024 if found[3] else 1000
        size_bytes = int(float(found[1]) * base ** _PREFIXES.index(found[2].lower()))
        if size_bytes < self._least_bytes:
            self.fail(f"{value!r} is too little: 64MiB at the least", param, ctx)
        return size_bytes


_OPTIONS: Final = (
    click.option(
        "--max-memory",
        type=_Size(_LEAST_BYTES),
        metavar="SIZE",
        help="What this process, and each that it starts, may allocate: 4GB."
        "  [default: 1 GiB, 16 MiB a core, 8 bytes a byte of the files]",
    ),
    click.option(
        "--max-elements",
        type=click.IntRange(min=1),
        metavar="N",
        help="Elements of a computed constant at most.  [default: 134217728, and never more"
        " than the model stores]",
    ),
    click.option(
        "--max-growth",
        type=_Size(0),
        metavar="SIZE",
        help="What a weight that nodes compute may take beyond what it is computed from: 4MB."
        "  [default: 4 KiB, or 256 KiB where it is stored in no narrower type]",
    ),
    click.option(
        "--max-nodes",
        type=click.IntRange(min=1),
        metavar="N",
        help="Nodes at most that calls of functions may stand for.  [default: 1000000]",
    ),
    click.option(
        "--time-limit",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="End after so long, with exit code 3.  [default: 600, and 60 for each MB]",
    ),
)


def bound_options(command: Callable[..., _R]) -> Callable[..., _R]:
    """Add options that bound memory, sizes and time, and keep the command within them."""

    @functools.wraps(command)
    def inside(
        max_memory: int | None,
        max_elements: int | None,
        max_growth: int | None,
        max_nodes: int | None,
        time_limit: float | None,
        **options: Any,
    ) -> _R:
        from bnfold.model.validity import models_blamed

        files = dict(_files(options.values()))
        asked_s = sum(float(str(options.get(name) or 0)) for name in _MORE_TIME)
        seconds = _seconds(files, asked_s) if time_limit is None else time_limit
        with (
            limits.limited(
                elements=max_elements,
                nodes=max_nodes,
                memory_bytes=max_memory,
                growth_bytes=max_growth,
            ) as chosen,
            _in_time(seconds),
            process.bounded(files, chosen),
            _memory_said(chosen, files),
            _kept_running(),
            models_blamed(*_models(options)),
        ):
            return command(**options)

    found: Callable[..., _R] = inside
    for option in reversed(_OPTIONS):
        found = option(found)
    return found


def _models(options: Mapping[str, object]) -> Iterator[Path]:
    """Yield the models that are named on the command line."""
    for name in ("model", "original", "folded"):
        found = options.get(name)
        if isinstance(found, Path):
            yield found


def _files(values: Iterable[object]) -> Iterator[tuple[str, int]]:
    """Yield the files that are named on the command line, with their sizes."""
    for value in values:
        if isinstance(value, tuple):
            yield from _files(value)
        elif isinstance(value, Path):
            try:
                yield str(value), size_of(value)
            except UnreadableError:
                continue  # whoever reads it says so


def _seconds(files: Mapping[str, int], asked_s: float) -> float:
    return 600.0 + asked_s * 1.5 + _SECONDS_PER_MB * sum(files.values()) / 1e6


def kept_running(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let no code of a user's end the program as if all were done."""

    @functools.wraps(command)
    def inside(*arguments: _P.args, **options: _P.kwargs) -> _R:
        with _kept_running():
            return command(*arguments, **options)

    return inside


@contextmanager
def _kept_running() -> Iterator[None]:
    """Code of a user may end the program: that is an error, whatever its exit code."""
    try:
        yield
    except (Exception, KeyboardInterrupt, _TimeIsUp):
        raise
    except BaseException as error:
        said = f"{type(error).__name__}: {getattr(error, 'code', error)}"
        raise BnfoldError(
            "code that the command ran ended the program; nothing was written",
            why=said.splitlines()[0],
            remedy="see that it returns: bnfold goes on behind it",
        ) from error


@contextmanager
def _memory_said(chosen: limits.Limits, files: Mapping[str, int]) -> Iterator[None]:
    """Say what to do about an allocation that failed."""
    try:
        yield
    except MemoryError as error:
        most = chosen.process_bytes(sum(files.values()))
        raise BnfoldError(
            "the work needs more memory than it may have",
            where=", ".join(files),
            why=f"{most / 1e9:.2g} GB are allowed: {str(error) or 'they are used up'}",
            remedy="allow more with --max-memory, or name sizes that are smaller with --shape",
        ) from error


@contextmanager
def _in_time(seconds: float) -> Iterator[None]:
    """End the block after so long; nothing is done where there are no such alarms."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or not hasattr(signal, "setitimer") or not seconds < _LONGEST_S:
        yield
        return
    before = signal.signal(signal.SIGALRM, _ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_S)
    try:
        yield
    except _TimeIsUp as error:
        raise BnfoldError(
            "the time is up; nothing was written",
            why=f"the command may take {seconds:g} s",
            remedy="allow more with --time-limit, or fold with --no-verify",
        ) from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _ring(_: int, __: FrameType | None) -> None:
    raise _TimeIsUp
