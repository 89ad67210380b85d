"""Named arrays in a file: how inputs and outputs cross the border to the child process.

An ``.npz`` knows nothing of bfloat16 and its kin, so those are stored as unsigned integers of
the same width beside the name of their true type.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Arrays: TypeAlias = dict[str, NDArray[Any]]


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write named tensors, in order; tensors of strings become fixed-width unicode."""
    stored = {f"array{index}": _storable(array) for index, array in enumerate(arrays.values())}
    names = np.array(list(arrays), dtype=np.str_)
    types = np.array([array.dtype.name for array in arrays.values()], dtype=np.str_)
    with path.open("wb") as file:
        np.savez(file, names=names, types=types, allow_pickle=False, **stored)


def read_arrays(path: Path) -> Arrays:
    """Read back what ``write_arrays`` wrote, in the same order."""
    with np.load(path, allow_pickle=False) as file:
        named = zip(file["names"].tolist(), file["types"].tolist(), strict=True)
        return {
            name: _restored(file[f"array{index}"], kind)
            for index, (name, kind) in enumerate(named)
        }


def is_foreign(array: NDArray[Any]) -> bool:
    """Whether numpy itself does not know the element type (bfloat16, float8 …)."""
    return hasattr(ml_dtypes, array.dtype.name)


def bits_of(array: NDArray[Any]) -> NDArray[Any]:
    """The same memory as unsigned integers of the same width."""
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


def _storable(array: NDArray[Any]) -> NDArray[Any]:
    if is_foreign(array):
        return bits_of(array).reshape(array.shape)
    return array.astype(np.str_) if array.dtype == np.object_ else array


def _restored(stored: NDArray[Any], kind: str) -> NDArray[Any]:
    return stored.view(getattr(ml_dtypes, kind)) if hasattr(ml_dtypes, kind) else stored
