"""Inputs that a user gives: ``.npz``, ``.npy``, ONNX ``.pb``, folders of them, or code."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bnfold.errors import DataError
from bnfold.inputs.archives import (
    Header,
    header_of_npy,
    headers_of_npz,
    read_npy,
    read_npz,
    read_pb,
)
from bnfold.inputs.code import called, imported
from bnfold.inputs.fitting import check_shapes, fitted
from bnfold.inputs.signature import Slot
from bnfold.runtime import Arrays

Inputs: TypeAlias = (
    str | Path | Mapping[str, NDArray[Any]] | NDArray[Any] | Callable[[], object]
)
"""One source of inputs: a path, ``module:callable``, arrays by name, an array, a callable."""

_CODE: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_KINDS: Final = "a .npz, .npy or .pb file, a folder of them, or module:callable"


def read_samples(sources: Sequence[Inputs], slots: Sequence[Slot]) -> tuple[Arrays, ...]:
    """Read every source and make sure that it fits the model.

    Args:
        sources: What the user gave.
        slots: The inputs of the model.

    Raises:
        DataError: If a source cannot be read or does not fit; it names file and input.
    """
    found: list[Arrays] = []
    for source in sources:
        before = len(found)
        for where, arrays in _read(source, slots):
            found.extend(fitted(arrays, slots, where))
        if len(found) == before:
            raise DataError(
                "there are no inputs", where=_word(source), remedy=f"give {_KINDS}"
            )
    return tuple(found)


def is_code(source: str | Path) -> bool:
    """Whether a source is ``module:callable``: a file that is called so comes first."""
    return _CODE.fullmatch(str(source)) is not None and not Path(source).exists()


def _word(source: Inputs) -> str:
    return str(source) if isinstance(source, str | Path) else type(source).__name__


def _read(source: Inputs, slots: Sequence[Slot]) -> Iterator[tuple[str, Arrays]]:
    if isinstance(source, str | Path):
        if is_code(source):
            yield from _called(imported(str(source)), str(source), slots)
        else:
            yield from _from_path(Path(source), slots)
    elif callable(source):
        yield from _called(source, getattr(source, "__name__", "callable"), slots)
    else:
        yield from _sets(source, "inputs", slots)


def _called(
    function: Callable[[], object], where: str, slots: Sequence[Slot]
) -> Iterator[tuple[str, Arrays]]:
    for index, one in enumerate(called(function, where)):
        yield from _sets(one, f"{where}, result {index}", slots)


def _sets(found: object, where: str, slots: Sequence[Slot]) -> Iterator[tuple[str, Arrays]]:
    if isinstance(found, Mapping):
        yield where, {str(name): np.asarray(array) for name, array in found.items()}
        return
    try:
        array = np.asarray(found)
    except ValueError as error:
        raise DataError("this is no array", where=where, why=str(error)) from error
    if array.dtype == np.object_ and not any(isinstance(x, str) for x in array.flat):
        why = f"it is a {type(found).__name__}"
        raise DataError("this is no array", where=where, why=why, remedy="give numpy arrays")
    yield where, _single(array, slots, where)


def _single(array: NDArray[Any], slots: Sequence[Slot], where: str) -> Arrays:
    if len(slots) != 1:
        names = ", ".join(repr(slot.name) for slot in slots)
        raise DataError(
            "it is not said which input this is for",
            where=where,
            why=f"the model has {len(slots)} inputs: {names}",
            remedy="give arrays by name: a .npz, files named after inputs, or a dict",
        )
    return {slots[0].name: array}


def _from_path(path: Path, slots: Sequence[Slot]) -> Iterator[tuple[str, Arrays]]:
    if path.is_dir():
        yield from _from_folder(path, slots)
        return
    if not path.exists():
        raise DataError(
            "there is no such file", where=str(path), remedy=f"give {_KINDS}; check the path"
        )
    match path.suffix.lower():
        case ".npz":
            headers = headers_of_npz(path)
            _check_fit(headers, slots, path)
            yield str(path), _renamed(read_npz(path, headers), slots)
        case ".npy":
            yield str(path), _single(_npy(path, slots), slots, str(path))
        case ".pb":
            yield str(path), _single(read_pb(path), slots, str(path))
        case _:
            raise DataError("these are no inputs", where=str(path), remedy=f"give {_KINDS}")


def _from_folder(path: Path, slots: Sequence[Slot]) -> Iterator[tuple[str, Arrays]]:
    """One set in files named after inputs or ``input_0.pb``, or one set in each file."""
    files = sorted(entry for entry in path.iterdir() if entry.is_file())
    names = {slot.name for slot in slots}
    arrays = [entry for entry in files if entry.suffix == ".npy"]
    if arrays and names & {entry.stem for entry in arrays}:
        headers = {entry.stem: header_of_npy(entry) for entry in arrays}
        check_shapes({name: one.shape for name, one in headers.items()}, slots, str(path))
        yield str(path), {entry.stem: read_npy(entry) for entry in arrays}
        arrays = []
    protos = {_number(entry): entry for entry in files if _number(entry) >= 0}
    if protos:
        yield str(path), _numbered(protos, slots, path)
    for entry in (*arrays, *(file for file in files if file.suffix == ".npz")):
        yield from _from_path(entry, slots)
    for entry in sorted(entry for entry in path.iterdir() if entry.is_dir()):
        yield from _from_folder(entry, slots)


def _number(path: Path) -> int:
    found = re.fullmatch(r"input_(\d+)\.pb", path.name)
    return int(found.group(1)) if found else -1


def _numbered(files: Mapping[int, Path], slots: Sequence[Slot], folder: Path) -> Arrays:
    if max(files) >= len(slots):
        raise DataError(
            "there are more inputs than the model has",
            where=str(files[max(files)]),
            why=f"the model has {len(slots)} inputs, numbered from 0",
            remedy=f"check that {folder} belongs to this model",
        )
    return {slots[number].name: read_pb(path) for number, path in sorted(files.items())}


def _npy(path: Path, slots: Sequence[Slot]) -> NDArray[Any]:
    _check_fit({path.stem: header_of_npy(path)}, slots, path)
    return read_npy(path)


def _check_fit(headers: Mapping[str, Header], slots: Sequence[Slot], path: Path) -> None:
    """See from the headers that arrays are what the model reads, before they are unpacked."""
    shapes = {name: one.shape for name, one in headers.items()}
    if len(slots) == len(shapes) == 1:
        shapes = {slots[0].name: next(iter(shapes.values()))}
    elif path.suffix.lower() == ".npy":
        return  # that it is not said which input it is for is said elsewhere
    check_shapes(shapes, slots, str(path))


def _renamed(arrays: Arrays, slots: Sequence[Slot]) -> Arrays:
    """The only array of a file is for the only input, whatever it is called."""
    if len(arrays) == len(slots) == 1:
        return {slots[0].name: next(iter(arrays.values()))}
    return arrays
