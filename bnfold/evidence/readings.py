"""What runs on the same inputs showed, reduced to the figures that the judge needs."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.evidence.compare import Deviation, Scale, deviation, is_float, scale_of
from bnfold.runtime import Run

Distances = tuple[dict[int, Deviation | None], ...]
"""Per set of inputs: from the position of an output to its distance; None if shapes differ."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One output of the reference run on one set of inputs: its size, shape and a checksum.

    The checksum takes both zeros for one.
    """

    scale: Scale
    shape: tuple[int, ...]
    checksum: int


Measures = tuple[dict[int, Measure], ...]


def measures(model: ir.Model, runs: Sequence[Run]) -> Measures:
    """The size of every output of the reference; outputs that are no tensors are left out."""
    return tuple(
        {place: _measure(array) for place, array in by_place(model, run).items()}
        for run in runs
    )


def distances(
    reference: tuple[ir.Model, Sequence[Run]], other: tuple[ir.Model, Sequence[Run]]
) -> Distances:
    """How far another model's runs are from the reference's, outputs matched by position."""
    found: list[dict[int, Deviation | None]] = []
    for before, after in zip(reference[1], other[1], strict=True):
        expected, got = by_place(reference[0], before), by_place(other[0], after)
        found.append(
            {
                place: deviation(array, got[place]) if place in got else None
                for place, array in expected.items()
            }
        )
    return tuple(found)


def by_place(model: ir.Model, run: Run) -> dict[int, NDArray[Any]]:
    """The outputs of one run, by their position in the model."""
    places = {value.name: place for place, value in enumerate(model.graph.outputs)}
    return {places[name]: array for name, array in run.outputs().items()}


def _measure(array: NDArray[Any]) -> Measure:
    unsigned = array + array.dtype.type(0) if is_float(array) else array
    checksum = zlib.crc32(np.ascontiguousarray(unsigned).tobytes())
    return Measure(scale_of(array), array.shape, checksum)
