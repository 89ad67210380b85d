"""Accuracy before and after on labelled samples, and whether the change means anything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bnfold.errors import DataError
from bnfold.inputs.archives import header_of_npy, headers_of_npz, read_npy, read_npz
from bnfold.model.regular import read_regular
from bnfold.records import LabelReport

Labels: TypeAlias = str | Path | ArrayLike
Integers = NDArray[np.int64]

_MOST_TEXT_BYTES: Final = 256 << 20


def read_labels(source: Labels) -> Integers:
    """Read one integer for each sample: ``.npy``, ``.npz``, ``.csv``, ``.txt``, or an array.

    Raises:
        DataError: If they cannot be read, or are no integers.
    """
    where = str(source) if isinstance(source, str | Path) else "labels"
    try:
        array = _load(Path(source)) if isinstance(source, str | Path) else np.asarray(source)
    except (MemoryError, DataError):
        raise
    except Exception as error:  # readers raise many kinds
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _unusable(where, said) from error
    array = array.reshape(-1) if array.ndim == 2 and 1 in array.shape else array
    if array.ndim != 1 or not array.size:
        raise _unusable(where, f"they have the shape {array.shape}")
    if array.dtype.kind not in "iufb" or np.any(array != np.floor(array)):
        raise _unusable(where, f"they are {array.dtype.name}, not integers")
    return array.astype(np.int64)


def _load(path: Path) -> NDArray[Any]:
    match path.suffix.lower():
        case ".npy":
            header_of_npy(path)
            return read_npy(path)
        case ".npz":
            headers = headers_of_npz(path)
            if len(headers) != 1 and "labels" not in headers:
                message = f"it has {', '.join(headers)}: name one of them 'labels'"
                raise ValueError(message)
            name = "labels" if "labels" in headers else next(iter(headers))
            return read_npz(path, {name: headers[name]})[name]
        case _:
            words = read_regular(path, _MOST_TEXT_BYTES).decode().replace(",", " ").split()
            return np.array([float(word) for word in words])


def _unusable(where: str, why: str) -> DataError:
    return DataError(
        "the labels cannot be used",
        where=where,
        why=why,
        remedy="give one integer per sample: .npy, .npz, .csv or .txt",
    )


def compare_labels(
    labels: Integers,
    original: Sequence[NDArray[Any]],
    folded: Sequence[NDArray[Any]],
    output: str,
) -> LabelReport:
    """Compare what both models answer with what is right.

    Args:
        labels: One for each sample.
        original: The output, one array per set of inputs, samples along axis 0.
        folded: The same of the folded model.
        output: Its name.

    Raises:
        DataError: If there are not as many samples as labels.
    """
    before, after = _answers(original), _answers(folded)
    if not len(before) == len(after) == len(labels):
        raise DataError(
            "there are not as many samples as labels",
            where=f"output {output!r}",
            why=f"{len(labels)} labels were given, {len(before)} samples were classified",
            remedy="give one label for each sample of --inputs, in the same order",
        )
    right, still = before == labels, after == labels
    lost, won = int(np.sum(right & ~still)), int(np.sum(still & ~right))
    return LabelReport(
        output=output,
        samples=len(labels),
        accuracy_original=float(right.mean()),
        accuracy_folded=float(still.mean()),
        agreement=float(np.mean(before == after)),
        only_original=lost,
        only_folded=won,
        p_value=mcnemar(lost, won),
    )


def mcnemar(lost: int, won: int) -> float:
    """Exact two-sided p of McNemar's test: are changes for better and worse alike?"""
    changed = lost + won
    if changed == 0:
        return 1.0
    tail = sum(math.comb(changed, count) for count in range(min(lost, won) + 1))
    return min(1.0, float(2 * tail / 2**changed))


def _answers(arrays: Sequence[NDArray[Any]]) -> Integers:
    return np.concatenate([_answer(array) for array in arrays])


def _answer(array: NDArray[Any]) -> Integers:
    """The class of each sample: given as an integer, or the largest score."""
    if array.dtype.kind in "iu":
        return array.reshape(-1).astype(np.int64)
    scores = array.astype(np.float64)
    rows = scores.reshape(1, -1) if scores.ndim < 2 else scores.reshape(len(scores), -1)
    return np.asarray(np.argmax(rows, axis=1), dtype=np.int64)
