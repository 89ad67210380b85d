"""Run the code that makes inputs: whatever it does, it is not the end of the command."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from bnfold.errors import DataError

_MOST_RESULTS: Final = 100_000


def imported(word: str) -> Callable[[], object]:
    """Import ``module:callable``; modules beside the current folder count, as in a shell.

    Raises:
        DataError: If that fails, or it is no callable.
    """
    module, _, name = word.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise DataError(
            "cannot import the inputs",
            where=word,
            why=_said(error),
            remedy="check module and name; the current folder is searched too",
        ) from error
    finally:
        if here in sys.path:
            sys.path.remove(here)
    if not callable(found):
        raise DataError("this is not a callable", where=word, why=f"it is a {type(found)}")
    return found  # type: ignore[no-any-return]  # callable, as was just seen


def called(function: Callable[[], object], where: str) -> list[object]:
    """Call what makes inputs, and list them.

    Raises:
        DataError: If it fails in any way: also if it tries to end the program.
    """
    try:
        return _listed(function())
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise DataError(
            "the code that makes the inputs failed",
            where=where,
            why=_said(error),
            remedy="call it by itself to see more",
        ) from error


def _said(error: BaseException) -> str:
    kind = type(error).__name__
    if isinstance(error, SystemExit):
        return f"it ends the program ({kind}: {error.code})"
    return f"{kind}: {error}".splitlines()[0]


def _listed(found: object) -> list[object]:
    if isinstance(found, Iterable) and not isinstance(found, Mapping | np.ndarray | str):
        listed = []
        for one in found:
            listed.append(one)
            if len(listed) > _MOST_RESULTS:
                message = f"it makes more than {_MOST_RESULTS} sets of inputs"
                raise ValueError(message)
        return listed
    return [found]
