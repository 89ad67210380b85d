"""Steps whose weights and scales the graph computes, also by what is not continuous."""

from __future__ import annotations

from typing import Final

import numpy as np
from onnx import TensorProto

from benchmarks.campaign.layers import affine
from benchmarks.campaign.moves import Step
from benchmarks.campaign.sketch import Place, Sketch


def gridded(sketch: Sketch, place: Place) -> Place:
    """A weight rounded to a grid by the graph: Div, Floor, Ceil, Round or Cast, Mul."""
    if place.rank != 4 or 1 in place.open or sketch.opset < 11:
        return place
    channels, outputs = place.shape[1], sketch.pick(2, 4, 6)
    grid = sketch.rng.integers(-7, 8, (outputs, channels, 1, 1))
    steps = sketch.rng.uniform(0.01, 0.05, (outputs, 1, 1, 1))
    kind = np.dtype(np.float32)
    step = sketch.store(steps.astype(kind))
    weight = sketch.store((grid.astype(kind) * steps.astype(kind)).astype(kind))
    ratio = sketch.op("Div", [weight, step])
    how = sketch.pick("Floor", "Ceil", "Round", "Cast")
    if how == "Cast":
        rounded = sketch.op("Cast", [sketch.op("Cast", [ratio], to=6)], to=1)
    else:
        rounded = sketch.op(how, [ratio])
    made = sketch.op("Mul", [rounded, step])
    if sketch.element != TensorProto.FLOAT:
        made = sketch.op("Cast", [made], to=sketch.element)
    shape = (place.shape[0], outputs, *place.shape[2:])
    return affine(sketch, Place(sketch.op("Conv", [place.name, made]), shape, place.open))


def cast_scale(sketch: Sketch, place: Place) -> Place:
    """A scale that is a root of a size, through Cast: what attention exports hold."""
    if place.rank < 2 or place.rank - 1 in place.open or sketch.opset < 9:
        return place
    width, count = place.shape[-1], sketch.pick(3, 4, 6)
    weight = sketch.normal(width, count, scale=(1 / width) ** 0.5)
    layer = sketch.op("MatMul", [place.name, sketch.const(weight, "w")])
    size = sketch.store(np.array(int(sketch.rng.integers(2, 200)), np.int64))
    root = sketch.op("Sqrt", [sketch.op("Cast", [size], to=TensorProto.FLOAT)])
    if sketch.chance(0.5):
        root = sketch.op("Sqrt", [sketch.op("Div", [sketch.store(np.float32(1)), root])])
    scale = sketch.op("Cast", [root], to=sketch.element)
    kind = sketch.pick("Mul", "Div")
    return Place(sketch.op(kind, [layer, scale]), (*place.shape[:-1], count), place.open)


def weight_norm(sketch: Sketch, place: Place) -> Place:
    """A weight over its norm times a gain, or a sum of a weight and a product of thin ones."""
    if place.rank != 4 or 1 in place.open or sketch.opset < 18:
        return place
    channels, outputs = place.shape[1], sketch.pick(2, 4)
    weight = sketch.const(sketch.normal(outputs, channels, 1, 1), "w")
    if sketch.chance(0.5):
        axes = sketch.whole(1, 2, 3)
        length = sketch.op("ReduceL2", [weight, axes], keepdims=1)
        unit = sketch.op("Div", [weight, length])
        made = sketch.op("Mul", [unit, sketch.const(sketch.gains(outputs, 1, 1, 1))])
    else:
        thin = [
            sketch.const(sketch.normal(outputs, 2)),
            sketch.const(sketch.normal(2, channels)),
        ]
        target = sketch.whole(outputs, channels, 1, 1)
        addend = sketch.op("Reshape", [sketch.op("MatMul", thin), target])
        made = sketch.op("Add", [weight, addend])
    shape = (place.shape[0], outputs, *place.shape[2:])
    return affine(sketch, Place(sketch.op("Conv", [place.name, made]), shape, place.open))


def index(sketch: Sketch, place: Place) -> Place:
    """Rows of a table of weights, chosen by numbers that arithmetic and Floor give."""
    if place.rank != 2 or 1 in place.open or sketch.opset < 9:
        return place
    width, count = place.shape[1], 4
    table = sketch.const(sketch.normal(16, width), "table")
    numbers = sketch.store(sketch.rng.choice([1, 5, 10, 20, 3, 7], count).astype(np.float32))
    factor = sketch.store(np.float32(sketch.pick(0.7, 0.3, 0.1, 0.6)))
    product = sketch.op("Mul", [numbers, factor])
    rows = sketch.op("Cast", [sketch.op("Floor", [product])], to=TensorProto.INT64)
    chosen = sketch.op("Transpose", [sketch.op("Gather", [table, rows], axis=0)], perm=[1, 0])
    name = sketch.op("MatMul", [place.name, chosen])
    return affine(sketch, Place(name, (place.shape[0], count), place.open), 1)


def computed_map(sketch: Sketch, place: Place) -> Place:
    """A map whose constant the graph computes: Reciprocal, Sqrt, Unsqueeze, Neg."""
    if place.rank < 2 or 1 in place.open:
        return place
    size = place.shape[1]
    along = [size, *[1] * (place.rank - 2)]
    numbers = sketch.const(sketch.rng.uniform(0.3, 2.0, along))
    made = sketch.op(sketch.pick("Reciprocal", "Sqrt", "Neg", "Exp"), [numbers])
    name = sketch.op(sketch.pick("Mul", "Div", "Add"), [place.name, made])
    return Place(name, place.shape, place.open)


COMPUTED: Final[tuple[Step, ...]] = (gridded, cast_scale, weight_norm, index, computed_map)
