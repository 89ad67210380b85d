"""Quantised layers with maps, as quantisation-aware training exports them."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.campaign.layers import affine, norm
from benchmarks.campaign.sketch import Place, Sketch


def quantised(sketch: Sketch) -> Place:
    """One or two quantised layers, a map and an activation behind each, and QuantizeLinear."""
    sketch.kind = "fp16" if sketch.kind == "fp16" else "fp32"
    since = 19 if sketch.kind == "fp16" else 13
    sketch.opset = max(sketch.opset, since)
    place = _input(sketch)
    for _ in range(sketch.pick(1, 1, 2)):
        place = _layer(sketch, _round_trip(sketch, place, unsigned=False))
        place = norm(sketch, place) if sketch.chance(0.7) else affine(sketch, place, 1)
        unsigned = sketch.chance(0.6)
        if unsigned:
            place = Place(sketch.op("Relu", [place.name]), place.shape)
    if sketch.chance(0.7):
        place = _round_trip(sketch, place, unsigned=unsigned)
    return place


def _input(sketch: Sketch) -> Place:
    batch: Any = sketch.pick(1, "N")
    rows = 1 if batch == 1 else 2
    if sketch.chance(0.6):
        channels = sketch.pick(3, 4)
        sketch.given("x", [batch, channels, 8, 8])
        return Place("x", (rows, channels, 8, 8))
    width = sketch.pick(8, 24)
    sketch.given("x", [batch, width])
    return Place("x", (rows, width))


def _number(sketch: Sketch, value: Any) -> str:
    kind = np.float16 if sketch.kind == "fp16" else np.float32
    return sketch.store(np.asarray(value).astype(kind), "scale")


def _round_trip(sketch: Sketch, place: Place, *, unsigned: bool) -> Place:
    scale = _number(sketch, sketch.rng.uniform(0.02, 0.08))
    zero = np.uint8(0) if unsigned else sketch.pick(np.int8(0), np.uint8(128), np.int8(3))
    parts = [scale, sketch.store(zero, "zero")]
    stored = sketch.op("QuantizeLinear", [place.name, *parts])
    return Place(sketch.op("DequantizeLinear", [stored, *parts]), place.shape)


def _layer(sketch: Sketch, place: Place) -> Place:
    if place.rank == 4:
        return _conv(sketch, place)
    count = sketch.pick(4, 8, 12)
    weight = _weight(sketch, (place.shape[1], count), 1)
    if sketch.chance(0.5):
        return Place(sketch.op("MatMul", [place.name, weight]), (place.shape[0], count))
    inputs = [place.name, weight]
    if sketch.chance(0.5):
        inputs.append(_number(sketch, sketch.normal(count)))
    return Place(sketch.op("Gemm", inputs), (place.shape[0], count))


def _conv(sketch: Sketch, place: Place) -> Place:
    channels, kernel = place.shape[1], sketch.pick(1, 3)
    groups = channels if sketch.chance(0.2) else 1
    outputs = channels * sketch.pick(1, 2) if groups > 1 else sketch.pick(4, 8)
    if min(place.shape[2:]) < kernel:
        kernel = 1
    weight = _weight(sketch, (outputs, channels // groups, kernel, kernel), 0)
    inputs = [place.name, weight]
    if sketch.chance(0.5):
        inputs.append(_number(sketch, sketch.normal(outputs)))
    sizes = tuple(size - kernel + 1 for size in place.shape[2:])
    name = sketch.op("Conv", inputs, group=groups)
    return Place(name, (place.shape[0], outputs, *sizes))


def _weight(sketch: Sketch, shape: tuple[int, ...], axis: int) -> str:
    """Store integers with one scale, or one for each output channel."""
    limit = sketch.pick(127, 127, 7)
    stored = sketch.store(sketch.rng.integers(-limit, limit + 1, shape).astype(np.int8), "wq")
    step = 1.5 / limit / np.sqrt(np.prod(shape) / shape[axis])
    if sketch.chance(0.5):
        zero = [sketch.store(np.int8(0), "zero")] if sketch.chance(0.5) else []
        return sketch.op("DequantizeLinear", [stored, _number(sketch, step), *zero])
    scales = step * sketch.rng.uniform(0.5, 1.5, shape[axis])
    zeros = (
        [sketch.store(np.zeros(shape[axis], np.int8), "zero")] if sketch.chance(0.5) else []
    )
    inputs = [stored, _number(sketch, scales), *zeros]
    return sketch.op("DequantizeLinear", inputs, axis=axis)
