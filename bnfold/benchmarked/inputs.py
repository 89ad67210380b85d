"""What a benchmark runs on: drawn or given inputs at every batch size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir

from bnfold import limits, process
from bnfold.errors import ModelError, UsageError
from bnfold.inputs.drawing import Binding, Case, Style, draw_inputs, shape_of
from bnfold.inputs.fitting import spelled
from bnfold.inputs.hints import with_hints
from bnfold.inputs.samples import read_samples
from bnfold.inputs.signature import Slot, inputs_of
from bnfold.inputs.sizes import sized
from bnfold.measurement.arms import Subject
from bnfold.measurement.lab import CasePlan
from bnfold.measurement.machine import memory_bytes
from bnfold.model.io import opened
from bnfold.runtime import Arrays, Level, Setting, write_arrays

if TYPE_CHECKING:
    from bnfold.inputs.samples import Inputs
    from bnfold.inputs.sizes import Shapes

_LEAST_S: Final = 10.0
"""What finding out how the original runs may take, however little time is asked for."""

_COPIES: Final = 3
"""Of the inputs, at the same time: drawn, cast to their type, and in the child process."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user wants to be run."""

    batch: int | Sequence[int] | None
    shapes: Shapes | str | None
    inputs: Inputs | None
    seed: int
    seconds: float

    @property
    def batches(self) -> tuple[int | None, ...]:
        """The batch sizes in order; None where the user asked for none."""
        if self.batch is None:
            return (None,)
        found = (self.batch,) if isinstance(self.batch, int) else tuple(map(int, self.batch))
        if not found or min(found) < 1:
            raise UsageError("a batch size is at least 1", where=f"batch {self.batch}")
        return tuple(dict.fromkeys(found))


def draw_cases(
    original: Subject, as_given: Subject, asked: Asked, folder: Path
) -> tuple[CasePlan, ...]:
    """What to run; the user's own inputs fit the model as it was given."""
    graph = opened(original.path, "benchmark")
    slots = with_hints(inputs_of(graph), graph)
    if asked.inputs is None:
        sets = _drawn(graph, slots, asked, folder)
    else:
        given = read_samples((asked.inputs,), inputs_of(opened(as_given.path)))[0]
        sets = _given(given, slots, asked)
    found = []
    for index, (batch, arrays) in enumerate(sets):
        path = folder / f"inputs{index}.npz"
        write_arrays(path, arrays)
        shapes = {name: array.shape for name, array in arrays.items()}
        found.append(CasePlan(batch, path, shapes))
    return tuple(found)


def _given(
    given: Arrays, slots: Sequence[Slot], asked: Asked
) -> Iterator[tuple[int | None, Arrays]]:
    """The user's inputs at every batch size, in the element types that the model reads."""
    for batch in asked.batches:
        _check_batch(slots, batch)
        arrays = {}
        for slot in slots:
            array = given[slot.name]
            array = _repeated(array, batch) if _is_open(slot) else array
            halved = slot.dtype is ir.DataType.FLOAT16
            arrays[slot.name] = array.astype(np.float16) if halved else array
        yield batch or _batch_of(arrays), arrays


def _drawn(
    graph: ir.Model, slots: Sequence[Slot], asked: Asked, folder: Path
) -> Iterator[tuple[int | None, Arrays]]:
    """Drawn inputs for every case, with its batch size."""
    shapes = (asked.shapes,) if isinstance(asked.shapes, str) else asked.shapes or ()
    open_ones = {slot.name for slot in slots if _is_open(slot)}
    for these in sized(slots, shapes):
        if asked.batch is not None:
            these = tuple(
                _reopened(slot) if slot.name in open_ones else slot for slot in these
            )
        binding = _binding(graph, these, folder, asked)
        for batch in asked.batches:
            _check_batch(these, batch)
            bound = binding if batch is None else replace(binding, batch=batch)
            _check_memory(these, bound)
            arrays = draw_inputs(these, Case(bound, Style.NORMAL), asked.seed)
            yield batch or _batch_of(arrays), arrays


def _reopened(slot: Slot) -> Slot:
    """With a first axis of any size: ``--batch`` says it, and a shape the other axes."""
    return replace(slot, dims=(None, *slot.dims[1:])) if slot.dims else slot


def _check_batch(slots: Sequence[Slot], batch: int | None) -> None:
    """A fixed first axis is a fixed batch; one open first axis can become another."""
    if batch is None or any(map(_is_open, slots)):
        return
    fixed = [slot for slot in slots if slot.dims]
    if any(slot.dims[0] == batch for slot in fixed if slot.dims):
        return
    if not fixed:
        raise UsageError(
            "the model has no batch axis",
            why=f"batch {batch} was asked for, and no input has an axis",
            remedy="leave --batch out",
        )
    dims = fixed[0].dims or ()
    raise UsageError(
        f"the batch size is fixed at {dims[0]}",
        where=f"input {fixed[0].name!r}, shape {spelled(dims)}",
        why=f"batch {batch} was asked for",
        remedy="export the model with a dynamic first axis, or leave --batch out",
    )


def _is_open(slot: Slot) -> bool:
    """Whether its first axis can be of any size."""
    dims = slot.dims
    return dims is None or (bool(dims) and not (isinstance(dims[0], int) and dims[0] > 0))


def _check_memory(slots: Sequence[Slot], binding: Binding) -> None:
    """Inputs that are larger than the machine would end more than this process."""
    elements = sum(math.prod(shape_of(slot, binding, slots)) for slot in slots)
    needed, there = elements * _COPIES * np.dtype(np.float64).itemsize, _there_bytes()
    if needed > there:
        shapes = ", ".join(
            f"{slot.name}={spelled(shape_of(slot, binding, slots))}" for slot in slots
        )
        raise UsageError(
            "these inputs are larger than the machine's memory, or what may be used of it",
            where=shapes,
            why=f"drawing them takes {needed / 1e9:.3g} GB, and there are {there / 1e9:.3g}",
            remedy="choose a smaller --batch or --shape, or allow more with --max-memory",
        )


def _there_bytes() -> float:
    """Return what the machine has, and this process may take of it."""
    own, machine = process.own(), memory_bytes()
    bound = math.inf
    if own is not None or limits.current().memory_bytes is not None:
        bound = limits.current().process_bytes(0 if own is None else own.file_bytes)
    return min(math.inf if machine is None else machine, bound)


def _repeated(array: np.ndarray[Any, Any], batch: int | None) -> np.ndarray[Any, Any]:
    """The first samples, from the start again where there are too few."""
    if batch is None or array.ndim == 0 or len(array) == 0:
        return array
    return np.ascontiguousarray(array[np.arange(batch) % len(array)])


def _batch_of(arrays: Arrays) -> int | None:
    first = next(iter(arrays.values()), None)
    return None if first is None or first.ndim == 0 else int(first.shape[0])


def _binding(graph: ir.Model, slots: Sequence[Slot], folder: Path, asked: Asked) -> Binding:
    """Sizes that the model takes: as it declares them, or the first that run.

    Raises:
        ModelError: If none of those that are tried run.
    """
    from bnfold.evidence.bench import Bench
    from bnfold.evidence.budget import Budget
    from bnfold.evidence.ground import find_fits

    _check_memory(slots, Binding())
    try:
        draw_inputs(slots, Case(Binding(), Style.UNIFORM), asked.seed)
    except TypeError as error:
        raise ModelError(
            "no inputs can be drawn", why=str(error), remedy="give your own with --inputs"
        ) from error
    if all(map(_is_told, slots)):
        return Binding()
    bench = Bench(folder, Setting(Level.ALL))
    budget = Budget(max(asked.seconds, _LEAST_S))
    fits, why = find_fits(bench, graph, slots, asked.seed, budget)
    if not fits:
        tried = ", ".join(f"{one.name}={shape_of(one, Binding(), slots)}" for one in slots)
        raise ModelError(
            "the original does not run on drawn inputs",
            where=tried,
            why=why,
            remedy="say the sizes with --shape, or give your own with --inputs",
        )
    return fits[0].binding


def _is_told(slot: Slot) -> bool:
    """Whether everything but the batch size is declared, and any numbers will do."""
    floats = slot.dtype is not None and slot.dtype.is_floating_point()
    dims = slot.dims
    return (
        floats
        and dims is not None
        and all(isinstance(dim, int) and dim > 0 for dim in dims[1:])
    )
