"""A module as a command line names it: ``module:callable``, and weights from a file."""

from __future__ import annotations

import importlib
import pickle
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from bnfold.errors import DataError, ModelError, UsageError
from bnfold.model.regular import UnreadableError, size_of

_CODE: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_NESTED: Final = ("state_dict", "model_state_dict", "model")
"""Where checkpoints keep the weights beside other things."""
_WRAPPED: Final = "module."
"""What DataParallel and its kin put in front of every name."""
_MOST_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Source:
    """What a callable made: a module, and how to call it if it said so."""

    model: nn.Module
    args: tuple[Any, ...] | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)


def source_named(word: str) -> Source:
    """Import ``module:callable`` and call it; modules beside the current folder count.

    A module class, or a module that is there already, does as well.

    Raises:
        UsageError: If it is no such word.
        ModelError: If it cannot be imported, fails, or makes something else.
    """
    if not _CODE.fullmatch(word):
        raise UsageError(
            "this names no callable",
            where=word,
            remedy="write module:callable, such as nets:resnet; modules beside the current"
            " folder are found",
        )
    with current_folder_first():
        try:
            found = _imported(word)
            made = found if isinstance(found, nn.Module) else found()
        except (Exception, SystemExit) as error:  # a script may end the program
            raise ModelError(
                "cannot make the module",
                where=f"{word}{_place_of(error)}",
                why=f"{type(error).__name__}: {error}".splitlines()[0],
                remedy="check module and name; the callable is called without arguments",
            ) from error
    return _understood(made, word)


def _place_of(error: BaseException) -> str:
    """Say in which line of what is beside the current folder it happened, if it was there."""
    here = Path.cwd()
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(here) and "site-packages" not in path.parts:
            return f", {path.relative_to(here)} line {frame.lineno}"
    return ""


def _imported(word: str) -> Any:
    module, _, name = word.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


@contextmanager
def current_folder_first() -> Iterator[None]:
    """Find modules beside the current folder for a while, as a shell's user expects."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


def _understood(made: object, word: str) -> Source:
    if isinstance(made, nn.Module):
        return Source(made)
    if isinstance(made, tuple) and len(made) in (2, 3) and isinstance(made[0], nn.Module):
        args = made[1] if isinstance(made[1], tuple) else (made[1],)
        if isinstance(made[1], Mapping) and len(made) == 2:
            return Source(made[0], (), made[1])
        return Source(made[0], args, made[2] if len(made) == 3 else {})
    raise ModelError(
        "the callable makes no torch.nn.Module",
        where=word,
        why=f"it returned an object of type {type(made).__name__}",
        remedy="return the module, (module, args) or (module, args, kwargs)",
    )


def load_weights(model: nn.Module, path: Path) -> None:
    """Put the weights of a file into a module; every name must be in both.

    The file is read as data only: code in it is not run.

    Raises:
        DataError: If it cannot be read, or names and shapes do not fit.
    """
    state = _state_dict(path)
    own = model.state_dict()
    if state and all(name.startswith(_WRAPPED) for name in state):
        stripped = {name.removeprefix(_WRAPPED): one for name, one in state.items()}
        state = state if set(state) == set(own) else stripped
    _check_fits(own, state, path)
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise DataError(
            "the weights do not fit the module",
            where=str(path),
            why=" ".join(str(error).split())[:300],
        ) from error


def _state_dict(path: Path) -> dict[str, Tensor]:
    try:
        size_of(path)  # a pipe would be waited for, a device never ends
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler meets what is no pickle with errors of any kind
        raise DataError(
            "cannot read the weights",
            where=str(path),
            why=unreadable(error),
            remedy="give a file of torch.save(model.state_dict(), …); whole pickled modules"
            " are not read, for that would run code of the file",
        ) from error
    for key in _NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    if not isinstance(found, Mapping) or not any(
        isinstance(v, Tensor) for v in found.values()
    ):
        raise DataError(
            "there are no weights in this file",
            where=str(path),
            why=f"it holds a {type(found).__name__} without tensors",
            remedy="give a file of torch.save(model.state_dict(), …)",
        )
    return dict(found)


def unreadable(error: Exception) -> str:
    """Say why torch.load fails, without its own advice: to run the code of the file."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, UnreadableError):
        return str(error)
    if isinstance(error, EOFError):
        return "it is empty, or cut off"
    if isinstance(error, pickle.UnpicklingError):
        return "it is no file of torch.save, or holds more than tensors and plain values"
    return "it is no file of torch.save, or it is damaged"


def _check_fits(own: Mapping[str, Any], state: Mapping[str, Any], path: Path) -> None:
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    shapes = [
        f"{name} is {list(state[name].shape)} in the file and {list(own[name].shape)} in the"
        " module"
        for name in own
        if isinstance(own[name], Tensor)
        and isinstance(state.get(name), Tensor)
        and own[name].shape != state[name].shape
    ]
    kinds = (("missing: ", missing), ("unexpected: ", unexpected), ("", shapes))
    wrong = [f"{said}{_listed(names)}" for said, names in kinds if names]
    if wrong:
        raise DataError(
            "the weights do not fit the module",
            where=str(path),
            why="; ".join(wrong),
            remedy="give the weights of this very module, or make the module that they are of",
        )


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
