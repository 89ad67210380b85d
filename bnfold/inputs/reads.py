"""Which files the user's inputs are read from, code that makes them included."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from importlib.machinery import PathFinder
from pathlib import Path

from bnfold.files.apart import Read
from bnfold.inputs.samples import is_code


def reads_of_inputs(sources: Iterable[str], what: str) -> Iterator[Read]:
    """Yield the files of ``.npz`` and their kin, of folders, and of ``module:callable``."""
    for source in sources:
        path = Path(source)
        if is_code(source):
            yield from reads_of_code(source, what)
        elif path.is_dir():
            yield from (Read(one, f"a file of {what}") for one in path.rglob("*"))
        else:
            yield Read(path, what)


def reads_of_code(word: str, what: str) -> Iterator[Read]:
    """Yield the files of the module in ``module:callable``, of a package all of its own.

    Nothing is imported.
    """
    top = word.partition(":")[0].partition(".")[0]
    spec = None
    with contextlib.suppress(ImportError, ValueError):
        spec = PathFinder.find_spec(top, [str(Path.cwd()), *sys.path])
    if spec is None:
        return
    if spec.origin is not None:
        yield Read(Path(spec.origin), f"the code of {what}")
    for folder in spec.submodule_search_locations or ():
        yield from (Read(one, f"the code of {what}") for one in Path(folder).rglob("*.py"))
