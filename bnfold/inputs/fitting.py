"""Whether given arrays fit the inputs of a model; what does not is said in full."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from bnfold.errors import DataError
from bnfold.inputs.signature import Dim, Slot
from bnfold.runtime import Arrays


def fitted(
    arrays: Mapping[str, NDArray[Any]], slots: Sequence[Slot], where: str
) -> Iterator[Arrays]:
    """Yield the arrays as sets of inputs; what is longer than a fixed batch is cut.

    Raises:
        DataError: If a name, a type or a shape does not fit.
    """
    _check_names(arrays, slots, where)
    typed = {slot.name: _typed(arrays[slot.name], slot, where) for slot in slots}
    for part in _parts(typed, slots):
        sizes: dict[str, tuple[str, int]] = {}
        for slot in slots:
            _check_shape(part[slot.name].shape, slot, where, sizes)
        yield part


def check_shapes(
    shapes: Mapping[str, tuple[int, ...]], slots: Sequence[Slot], where: str
) -> None:
    """See that arrays of these shapes would fit, as `fitted` does; there need be none yet.

    Raises:
        DataError: If a name or a shape does not fit.
    """
    nothing = np.zeros((), np.bool_)
    stubs = {name: _stub(nothing, shape, name, where) for name, shape in shapes.items()}
    _check_names(stubs, slots, where)
    part = next(_parts({slot.name: stubs[slot.name] for slot in slots}, slots))
    sizes: dict[str, tuple[str, int]] = {}
    for slot in slots:
        _check_shape(part[slot.name].shape, slot, where, sizes)


def _stub(
    nothing: NDArray[Any], shape: tuple[int, ...], name: str, where: str
) -> NDArray[Any]:
    """Return an array of a shape that takes no memory."""
    try:
        return np.broadcast_to(nothing, shape)
    except ValueError as error:  # larger than any array
        raise DataError(
            f"the array {name!r} is too large", where=where, why=f"its shape is {shape}"
        ) from error


def _check_names(
    arrays: Mapping[str, NDArray[Any]], slots: Sequence[Slot], where: str
) -> None:
    wanted = [slot.name for slot in slots]
    missing = [name for name in wanted if name not in arrays]
    unknown = [name for name in arrays if name not in wanted]
    if missing or unknown:
        why = f"it has {', '.join(map(repr, arrays)) or 'nothing'}"
        raise DataError(
            f"input {missing[0]!r} is missing" if missing else f"no input is {unknown[0]!r}",
            where=where,
            why=why,
            remedy=f"the model reads {', '.join(map(repr, wanted))}: name the arrays so",
        )


def _typed(array: NDArray[Any], slot: Slot, where: str) -> NDArray[Any]:
    """The array in the input's type; only what numpy files cannot hold is converted."""
    if slot.dtype is None:
        raise DataError(f"input {slot.name!r} is not a tensor of a known type", where=where)
    kind = np.dtype(object if slot.dtype.name == "STRING" else slot.dtype.numpy())
    if array.dtype == kind:
        return array
    if slot.dtype.name == "STRING" and array.dtype.kind in "US":
        return array.astype(np.str_)
    if hasattr(ml_dtypes, kind.name):
        if array.dtype.kind == "V" and array.dtype.itemsize == kind.itemsize:
            return array.view(kind)
        if array.dtype.kind == "f":
            return array.astype(kind)
    raise DataError(
        f"input {slot.name!r} has another element type",
        where=where,
        why=f"the model reads {kind.name}, given is {array.dtype.name}",
        remedy=f"convert it: array.astype({kind.name!r})",
    )


def _parts(arrays: Arrays, slots: Sequence[Slot]) -> Iterator[Arrays]:
    """Cut along the first axis where every input has the same fixed batch there."""
    counts = {_samples(arrays[slot.name], slot) for slot in slots}
    count = counts.pop() if len(counts) == 1 else 1
    if count <= 1:
        yield arrays
        return
    for index in range(count):
        yield {
            name: array[index * len(array) // count : (index + 1) * len(array) // count]
            for name, array in arrays.items()
        }


def _samples(array: NDArray[Any], slot: Slot) -> int:
    """How many times the fixed batch of this input the array holds."""
    first = slot.dims[0] if slot.dims else None
    if not isinstance(first, int) or first < 1 or array.ndim != len(slot.dims or ()):
        return 1
    return len(array) // first if len(array) % first == 0 else 1


def _check_shape(
    shape: tuple[int, ...], slot: Slot, where: str, sizes: dict[str, tuple[str, int]]
) -> None:
    if slot.dims is None:
        return
    fits = len(shape) == len(slot.dims) and all(map(_fits, shape, slot.dims))
    if not fits:
        raise DataError(
            f"input {slot.name!r} has another shape",
            where=where,
            why=f"the model reads {spelled(slot.dims)}, given is {spelled(shape)}",
            remedy="reshape, transpose or crop the array; check which model it was made for",
        )
    for given, dim in zip(shape, slot.dims, strict=True):
        if not isinstance(dim, str):
            continue
        other, size = sizes.setdefault(dim, (slot.name, given))
        if size != given:
            raise DataError(
                f"inputs {other!r} and {slot.name!r} do not go together",
                where=where,
                why=f"dimension {dim!r} is {size} in one and {given} in the other",
                remedy="give both the same number of samples",
            )


def _fits(given: int, dim: Dim) -> bool:
    return not isinstance(dim, int) or dim < 1 or given == dim


def spelled(dims: Sequence[Dim]) -> str:
    """A shape as a person writes it: ``N×3×224×224``."""
    return "×".join("?" if dim is None else str(dim) for dim in dims) or "a single number"
