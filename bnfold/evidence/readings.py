"""What runs on the same inputs showed, reduced to the figures that the judge needs."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.evidence.compare import (
    Deviation,
    Scale,
    counted,
    deviation,
    is_float,
    scale_of,
)
from bnfold.evidence.noise import Draw
from bnfold.runtime import Run, Setting

T = TypeVar("T")

Distances = tuple[dict[int, Deviation | None], ...]
"""Per set of inputs: from the position of an output to its distance; None if shapes differ."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One output of the reference run on one set of inputs.

    Attributes:
        scale: Its size.
        shape: Its shape.
        checksum: Of its bytes; both zeros are one.
        finite: The share of its elements that are finite.
    """

    scale: Scale
    shape: tuple[int, ...]
    checksum: int
    finite: float = 1.0


Measures = tuple[dict[int, Measure], ...]
Errors = tuple[dict[int, Deviation | None], ...]
"""Per set of inputs: from the position of an output to the original's error in float64."""


@dataclass(frozen=True, slots=True)
class Readings:
    """All that was measured; what is by set of inputs is in their order.

    Attributes:
        names: Names of the outputs, those in front of something behind the model's own.
        own_outputs: How many outputs the model has by itself.
        fronts: From the position of an output to the one in front of it.
        behind: Positions of outputs behind a quantiser.
        exact: Positions of outputs that no rounding can change: nothing in front is a float.
        reference: Sizes of the original's outputs.
        noise: Distances of nudged originals, by draw.
        own: Distance of the original from itself where the folded model runs in another way.
        accused: The folded model's distance; empty for a set that it was not run on in time.
        selves: By a level of the runtime: distances of both models from themselves.
        coarsest: Largest unit roundoff among the numbers that the original stores or reads.
        errors: The original's own error; for the first sets only, or none.
    """

    names: tuple[str, ...]
    own_outputs: int
    fronts: Mapping[int, int]
    behind: frozenset[int]
    exact: frozenset[int]
    reference: Measures
    noise: Mapping[Draw, Distances]
    own: Distances
    accused: Distances
    selves: Mapping[Setting, tuple[Distances, Distances]]
    coarsest: float
    errors: Errors = ()

    def draws_for(self, place: int) -> list[Draw]:
        """Behind a quantiser the nudges that meet ties, in front of it half an ulp."""
        return [draw for draw in self.noise if bool(draw.unit) == (place in self.behind)]

    def kept(self, sets: Sequence[int]) -> Readings:
        """The same of some sets."""
        return replace(
            self,
            reference=_some(self.reference, sets),
            noise={draw: _some(one, sets) for draw, one in self.noise.items()},
            own=_some(self.own, sets),
            accused=_some(self.accused, sets),
            selves={
                at: (_some(a, sets), _some(b, sets)) for at, (a, b) in self.selves.items()
            },
        )

    def joined(self, other: Readings) -> Readings:
        """These sets and others."""
        return replace(
            self,
            reference=self.reference + other.reference,
            noise={d: self.noise[d] + other.noise[d] for d in self.noise if d in other.noise},
            own=self.own + other.own,
            accused=self.accused + other.accused,
            selves={
                at: (one[0] + other.selves[at][0], one[1] + other.selves[at][1])
                for at, one in self.selves.items()
                if at in other.selves
            },
        )


def _some(found: tuple[T, ...], sets: Sequence[int]) -> tuple[T, ...]:
    return tuple(found[index] for index in sets) if found else ()


Outputs = dict[int, NDArray[Any]]
"""From the position of an output to what it holds."""


def measures(outputs: Sequence[Outputs], steps: frozenset[int] = frozenset()) -> Measures:
    """The size of every output of the reference.

    Args:
        outputs: One entry for each set of inputs; what is no tensor is left out.
        steps: Positions of outputs whose integers count the steps of a quantiser.
    """
    return tuple(
        {p: _measure(array, _scale(array, steps, p)) for p, array in one.items()}
        for one in outputs
    )


def distances(
    reference: Sequence[Outputs],
    others: Sequence[Outputs | None],
    steps: frozenset[int] = frozenset(),
) -> Distances:
    """How far another model's outputs are from the reference's, matched by position.

    Args:
        reference: One entry for each set of inputs.
        others: The same of another run; None where it did not run: there is nothing then.
        steps: Positions of outputs whose integers count the steps of a quantiser.
    """
    return tuple(
        {} if got is None else _distance(expected, got, steps)
        for expected, got in zip(reference, others, strict=True)
    )


def _distance(
    expected: Outputs, got: Outputs, steps: frozenset[int]
) -> dict[int, Deviation | None]:
    return {
        place: (_between_steps if place in steps else _between)(array, got.get(place))
        for place, array in expected.items()
    }


def _between(array: NDArray[Any], other: NDArray[Any] | None) -> Deviation | None:
    return None if other is None else deviation(array, other)


def _between_steps(array: NDArray[Any], other: NDArray[Any] | None) -> Deviation | None:
    if other is None or array.dtype != other.dtype:
        return None
    found = deviation(counted(array), counted(other))
    if found is None or is_float(array):
        return found
    return replace(found, flipped=int(np.count_nonzero(array != other)))


def by_place(model: ir.Model, run: Run) -> Outputs:
    """The outputs of one run, by their position in the model."""
    places = {value.name: place for place, value in enumerate(model.graph.outputs)}
    return {places[name]: array for name, array in run.outputs().items()}


def _measure(array: NDArray[Any], scale: Scale) -> Measure:
    unsigned = array + array.dtype.type(0) if is_float(array) else array
    checksum = zlib.crc32(np.ascontiguousarray(unsigned).tobytes())
    finite = np.isfinite(array.astype(np.float64)) if is_float(array) else np.ones(1)
    share = float(finite.mean()) if finite.size else 0.0
    return Measure(scale, array.shape, checksum, share)


def _scale(array: NDArray[Any], steps: frozenset[int], place: int) -> Scale:
    return scale_of(counted(array), 0.0) if place in steps else scale_of(array)
