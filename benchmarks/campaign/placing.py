"""Steps of drawn graphs without weights: they place elements anew, add or bend them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from benchmarks.campaign.sketch import Place, Sketch

Step = Callable[[Sketch, Place], Place]


def absolute(sketch: Sketch, place: Place) -> Place:
    """Append Abs."""
    return Place(sketch.op("Abs", [place.name]), place.shape, place.open)


def thresholded(sketch: Sketch, place: Place) -> Place:
    """Append ThresholdedRelu; one of no threshold is a Relu."""
    alpha = float(sketch.pick(0.0, 0.0, 0.5, 1.0, -0.25))
    name = sketch.op("ThresholdedRelu", [place.name], alpha=alpha)
    return Place(name, place.shape, place.open)


def summed(sketch: Sketch, place: Place) -> Place:
    """Append CumSum along an axis that is not the batch."""
    axis = int(sketch.rng.integers(1, place.rank)) - sketch.pick(0, place.rank)
    flags = {"exclusive": sketch.pick(0, 1), "reverse": sketch.pick(0, 1)}
    name = sketch.op("CumSum", [place.name, sketch.store(np.array(axis, np.int64))], **flags)
    return Place(name, place.shape, place.open)


def triangle(sketch: Sketch, place: Place) -> Place:
    """Append Trilu; the diagonal is the main one, or given."""
    inputs = [place.name]
    if sketch.chance(0.5):
        inputs.append(sketch.store(np.array(sketch.pick(-1, 1), np.int64)))
    name = sketch.op("Trilu", inputs, upper=sketch.pick(0, 1))
    return Place(name, place.shape, place.open)


def largest(sketch: Sketch, place: Place) -> Place:
    """Append TopK."""
    axis = int(sketch.rng.integers(1, place.rank))
    if axis in place.open:
        return place
    count = int(sketch.rng.integers(1, place.shape[axis] + 1))
    flags = {"largest": sketch.pick(0, 1)} if sketch.opset >= 11 else {}
    inputs = [place.name, sketch.whole(count)]
    name = sketch.op("TopK", inputs, 2, axis=axis, **flags)
    shape = (*place.shape[:axis], count, *place.shape[axis + 1 :])
    return Place(name, shape, place.open)


def gathered(sketch: Sketch, place: Place) -> Place:
    """Append GatherElements: all of the other axes, or the first places of them."""
    if place.open:
        return place
    axis = int(sketch.rng.integers(0, place.rank))
    whole = sketch.chance(0.6)
    shape = tuple(n if whole else int(sketch.rng.integers(1, n + 1)) for n in place.shape)
    indices = sketch.rng.integers(0, place.shape[axis], shape)
    inputs = [place.name, sketch.store(indices.astype(np.int64))]
    return Place(sketch.op("GatherElements", inputs, axis=axis), shape)


def picked(sketch: Sketch, place: Place) -> Place:
    """Append GatherND: some samples, or of each sample some channels."""
    if place.open:
        return place
    count = sketch.pick(1, 2, 3)
    if sketch.opset < 12 or sketch.chance(0.5):
        indices = sketch.rng.integers(0, place.shape[0], (count, 1))
        inputs = [place.name, sketch.store(indices.astype(np.int64))]
        return Place(sketch.op("GatherND", inputs), (count, *place.shape[1:]))
    if _is_open(sketch):
        return place
    indices = sketch.rng.integers(0, place.shape[1], (place.shape[0], count, 1))
    inputs = [place.name, sketch.store(indices.astype(np.int64))]
    name = sketch.op("GatherND", inputs, batch_dims=1)
    return Place(name, (place.shape[0], count, *place.shape[2:]))


def reversed_(sketch: Sketch, place: Place) -> Place:
    """Append ReverseSequence along axis 1."""
    if _is_open(sketch) or 1 in place.open:
        return place
    lengths = sketch.rng.integers(1, place.shape[1] + 1, place.shape[0])
    inputs = [place.name, sketch.store(lengths.astype(np.int64))]
    name = sketch.op("ReverseSequence", inputs, batch_axis=0, time_axis=1)
    return Place(name, place.shape, place.open)


def _is_open(sketch: Sketch) -> bool:
    """Return whether the batch may be another one than the constants are made for."""
    return bool(sketch.inputs[0].type.tensor_type.shape.dim[0].dim_param)


_STEPS: Final[tuple[tuple[Step, int, int], ...]] = (
    (absolute, 6, 13),
    (thresholded, 10, 22),
    (summed, 11, 14),
    (triangle, 14, 14),
    (largest, 10, 24),
    (gathered, 11, 13),
    (picked, 11, 13),
    (reversed_, 10, 28),
)
"""With the operator set that brought each, and the one that brought it bfloat16."""


def placed(sketch: Sketch, place: Place) -> Place:
    """Append one that the operator set has for this type."""
    since = 2 if sketch.kind == "bf16" else 1
    open_ones = [entry[0] for entry in _STEPS if entry[since] <= sketch.opset]
    return sketch.pick(*open_ones)(sketch, place) if open_ones else place
