"""Drawn graphs: chains of layers, moves and bodies, and families with one thing in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from onnx import TensorProto

from benchmarks.campaign.bodies import BODIES
from benchmarks.campaign.constants import COMPUTED
from benchmarks.campaign.layers import (
    act,
    affine,
    bend,
    conv,
    gemm,
    linear,
    matmul,
    norm,
    normalise,
    pool,
    some_map,
)
from benchmarks.campaign.moves import move
from benchmarks.campaign.placing import placed
from benchmarks.campaign.quantised import quantised
from benchmarks.campaign.sketch import NEWEST, Case, Place, Sketch

KINDS: Final = ("fp32", "fp32", "fp32", "fp16", "bf16", "fp64")
Family = Callable[[Sketch], Place]


def case_of(family: str, seed: int) -> Case:
    """Return the case of a family that belongs to a seed."""
    rng = np.random.default_rng((seed, sorted(FAMILIES).index(family), 5))
    kind = str(rng.choice(KINDS))
    sketch = Sketch(rng, kind, _opset(rng, kind))
    place = FAMILIES[family](sketch)
    label = f"qdq {sketch.kind}" if family == "quantised" else kind
    outputs = [place]
    extra = _second_output(sketch, place) if sketch.chance(0.12) else None
    if extra is not None:
        outputs.append(extra)
    sizes = _sizes(sketch)
    return Case(
        sketch.model(outputs), family, label, sizes, dict(sketch.options), dict(sketch.feeds)
    )


def _opset(rng: np.random.Generator, kind: str) -> int:
    if kind == "bf16":
        return int(rng.integers(22, NEWEST + 1))
    return (
        int(rng.integers(7, NEWEST + 1))
        if rng.random() < 0.5
        else int(rng.choice([13, 17, 18, 21]))
    )


def _second_output(sketch: Sketch, place: Place) -> Place | None:
    """Return a value in between as a second output; its rank is not known, so its end is."""
    last = act(sketch, place)
    return last if last.name != place.name else None


def _sizes(sketch: Sketch) -> tuple[dict[str, int], ...]:
    symbols = {
        d.dim_param: sketch.feeds.get(d.dim_param, _BASE[d.dim_param])
        for one in sketch.inputs
        for d in one.type.tensor_type.shape.dim
        if d.dim_param
    }
    small = dict(symbols)
    large = {name: size + _MORE[name] for name, size in symbols.items()}
    return (small, large) if symbols else ({},)


_BASE: Final = {"N": 2, "H": 9, "W": 8, "L": 7, "C": 0, "F": 0}
_MORE: Final = {"N": 1, "H": 3, "W": 4, "L": 2, "C": 0, "F": 0}


def start(sketch: Sketch, shapes: tuple[tuple[int, ...], ...]) -> Place:
    """Declare the input: batch of one, fixed or open; sizes fixed or open."""
    shape = list(sketch.pick(*shapes))
    shape[0] = sketch.pick(1, 2, 2)
    opened: set[int] = set()
    dims: list[int | str] = list(shape)
    if sketch.chance(0.4):
        dims[0], shape[0] = "N", _BASE["N"]
    symbols = {3: {1: "L"}, 4: {2: "H", 3: "W"}}.get(len(shape), {})
    if sketch.chance(0.2) and symbols:
        for axis, symbol in symbols.items():
            dims[axis], shape[axis] = symbol, _BASE[symbol]
            opened.add(axis)
    sketch.given("x", dims)
    return Place("x", tuple(shape), frozenset(opened))


SHAPES: Final = (
    *((2, 6), (2, 5, 8), (2, 4, 9), (2, 4, 8, 8), (2, 6, 9, 7), (2, 3, 12, 12)),
    *((2, 5, 7, 11), (2, 8, 4, 4), (2, 3, 4, 5, 4), (2, 16)),
)


def chain(sketch: Sketch, shapes: tuple[tuple[int, ...], ...] = SHAPES) -> Place:
    """Between two and nine steps of every kind, at least one map behind a layer."""
    place = start(sketch, shapes)
    steps = int(sketch.rng.integers(2, 8))
    for _ in range(steps):
        place = _step(sketch, place)
    if sketch.chance(0.5):
        place = some_map(sketch, linear(sketch, place))
    else:
        place = linear(sketch, some_map(sketch, place))
    return act(sketch, place) if sketch.chance(0.3) else place


def _step(sketch: Sketch, place: Place) -> Place:
    draw = sketch.rng.random()
    if draw < 0.32:
        return some_map(sketch, place)
    if draw < 0.5:
        return linear(sketch, place)
    if draw < 0.72:
        return move(sketch, place)
    if draw < 0.8:
        return sketch.pick(bend, act)(sketch, place)
    if draw < 0.86:
        return pool(sketch, place)
    if draw < 0.89:
        return normalise(sketch, place)
    return sketch.pick(*BODIES, *COMPUTED)(sketch, place)


def body(sketch: Sketch) -> Place:
    """One or two bodies, with maps and layers before and behind."""
    place = start(sketch, SHAPES)
    for _ in range(sketch.pick(1, 2)):
        place = sketch.pick(*BODIES)(sketch, sketch.pick(act, linear, some_map)(sketch, place))
    return some_map(sketch, linear(sketch, place))


def computed(sketch: Sketch) -> Place:
    """Weights and scales that the graph computes."""
    place = start(sketch, ((2, 6), (2, 16), (2, 4, 8, 8), (2, 3, 6, 6), (2, 5, 8)))
    for _ in range(sketch.pick(1, 2)):
        place = sketch.pick(*COMPUTED)(sketch, place)
    return some_map(sketch, linear(sketch, place))


def window(sketch: Sketch) -> Place:
    """Large windows without padding, patch embeddings, crops: what short axes cannot show."""
    kernel = sketch.pick(5, 7, 11, 14, 16, 32)
    channels = sketch.pick(1, 2, 3)
    size = kernel * sketch.pick(1, 2) + sketch.pick(0, 0, 1, 3)
    batch = sketch.pick(1, "N")
    sketch.given("x", [batch, channels, size, size])
    place = Place("x", (1 if batch == 1 else _BASE["N"], channels, size, size))
    before = sketch.chance(0.5)
    if before:
        place = some_map(sketch, place)
    stride = kernel if kernel > 11 else sketch.pick(1, 2, 4)
    fixed = {"pads": [0] * 4, "stride": stride, "dilation": 1, "group": 1}
    outputs = sketch.pick(3, 5, 8)
    place = conv(sketch, place, kernel=[kernel] * 2, outputs=outputs, **fixed)
    if not before:
        place = some_map(sketch, place)
    if sketch.chance(0.4):
        return _tokens(sketch, place)
    return sketch.pick(act, pool, bend)(sketch, place)


def _tokens(sketch: Sketch, place: Place) -> Place:
    channels = place.shape[1]
    name = sketch.op("Reshape", [place.name, sketch.whole(0, channels, -1)])
    turned = sketch.op("Transpose", [name], perm=[0, 2, 1])
    shape = (place.shape[0], place.shape[2] * place.shape[3], channels)
    return affine(sketch, Place(turned, shape), 2)


def wide(sketch: Sketch) -> Place:
    """Layers of up to 2048 channels at batch one, feature vectors behind an activation."""
    width = sketch.pick(256, 384, 513, 768, 1024, 2048)
    batch = sketch.pick(1, 1, "N")
    rows = 1 if batch == 1 else _BASE["N"]
    inner = sketch.pick(8, 16, 33)
    if sketch.chance(0.5):
        sketch.given("x", [batch, inner])
        place = Place("x", (rows, inner))
        place = sketch.pick(gemm, matmul)(sketch, place, width)
    else:
        size = sketch.pick(1, 2, 3)
        sketch.given("x", [batch, inner, size, size])
        place = Place("x", (rows, inner, size, size))
        fixed = {"pads": [0] * 4, "stride": 1, "dilation": 1, "group": 1, "kernel": [1, 1]}
        place = conv(sketch, place, outputs=width, **fixed)
    place = act(sketch, some_map(sketch, place))
    return some_map(sketch, place) if sketch.chance(0.2) else place


def masked(sketch: Sketch) -> Place:
    """Attention with a mask of zeros and ones that becomes zero and the lowest number."""
    width, tokens = sketch.pick(8, 16), 5
    sketch.opset = max(sketch.opset, 13)
    open_ones = sketch.chance(0.5)
    batch, length = ("N", "L") if open_ones else (2, tokens)
    sketch.given("x", [batch, length, width])
    sketch.given("mask", [batch, length], TensorProto.INT64)
    sketch.feeds["mask"] = "mask"
    shape = (_BASE["N"], _BASE["L"] if open_ones else tokens, width)
    place = Place("x", shape, frozenset({1} if open_ones else ()))
    bias = _mask_bias(sketch)
    query, key, value = (
        affine(sketch, matmul(sketch, place, width), 2)
        if sketch.chance(0.6)
        else matmul(sketch, place, width)
        for _ in range(3)
    )
    turned = sketch.op("Transpose", [key.name], perm=[0, 2, 1])
    scores = sketch.op("MatMul", [query.name, turned])
    scores = sketch.op("Div", [scores, sketch.const(width**0.5)])
    weights = sketch.op("Softmax", [sketch.op("Add", [scores, bias])], axis=-1)
    mixed = Place(sketch.op("MatMul", [weights, value.name]), shape, place.open)
    end = affine(sketch, matmul(sketch, mixed, width), 2)
    if sketch.chance(0.5):
        end = Place(sketch.op("Add", [end.name, place.name]), shape, place.open)
    return affine(sketch, end, 2)


def _mask_bias(sketch: Sketch) -> str:
    lowest = {"fp16": -65504.0, "bf16": -3.3895e38, "fp64": -1e30}.get(
        sketch.kind, -3.4028235e38
    )
    low = sketch.pick(lowest, lowest, -1e4)
    wide_mask = sketch.op("Cast", ["mask"], to=sketch.element)
    shut = sketch.op("Sub", [sketch.const(1.0), wide_mask])
    bias = sketch.op("Mul", [shut, sketch.const(low)])
    return sketch.op("Unsqueeze", [bias, sketch.whole(1)])


def open_features(sketch: Sketch) -> Place:
    """Channel counts that only constants determine: scalers, layers behind open inputs."""
    if sketch.chance(0.5):
        width = sketch.pick(3, 5, 8)
        sketch.given("x", ["N", "F"])
        sketch.feeds["F"] = width
        place = Place("x", (_BASE["N"], width))
        place = affine(sketch, affine(sketch, place, 1), 1)
        return some_map(sketch, gemm(sketch, place, 6))
    channels = sketch.pick(3, 4)
    sketch.given("x", ["N", "C", 8, 8])
    sketch.feeds["C"] = channels
    place = act(sketch, Place("x", (_BASE["N"], channels, 8, 8)))
    fixed = {"pads": [0] * 4, "stride": 1, "dilation": 1, "group": 1, "kernel": [1, 1]}
    return act(
        sketch, some_map(sketch, conv(sketch, affine(sketch, place, 1), outputs=4, **fixed))
    )


def pre_activation(sketch: Sketch) -> Place:
    """Maps before layers, and pools of all sizes between."""
    place = start(sketch, ((2, 4, 32, 32), (2, 3, 16, 16), (2, 5, 17, 15)))
    place = norm(sketch, place) if sketch.chance(0.6) else some_map(sketch, place)
    place = pool(sketch, place) if sketch.chance(0.6) else move(sketch, place)
    if place.rank == 4 and 1 not in place.open and sketch.chance(0.8):
        return conv(sketch, place, pads=[0] * 4, kernel=[sketch.pick(1, 1, 3)] * 2)
    return linear(sketch, place)


def without_weights(sketch: Sketch) -> Place:
    """Operators that hold nothing a map could go into: it has to pass them, or to stay."""
    shapes = ((2, 6), (2, 5, 8), (2, 4, 4), (2, 4, 6, 5), (2, 3, 4, 5, 4))
    place = start(sketch, shapes)
    place = some_map(sketch, linear(sketch, place))
    for _ in range(sketch.pick(1, 1, 2)):
        place = placed(sketch, place)
    end = affine if sketch.chance(0.5) else some_map
    place = end(sketch, place)
    return linear(sketch, place) if sketch.chance(0.6) else place


FAMILIES: Final[dict[str, Family]] = {
    "chain": chain,
    "bodies": body,
    "computed constants": computed,
    "windows": window,
    "wide": wide,
    "masked attention": masked,
    "open features": open_features,
    "pre-activation": pre_activation,
    "quantised": quantised,
    "without weights": without_weights,
}
