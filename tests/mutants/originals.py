"""Originals for the campaign: small networks of many kinds, drawn from a seed.

Weights and statistics are such as training leaves behind: means off zero, variances over an
order of magnitude, some negative scales.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto

from tests.strategies import Sketch

PRECISIONS: Final = {
    "fp32": TensorProto.FLOAT,
    "fp16": TensorProto.FLOAT16,
    "bf16": TensorProto.BFLOAT16,
}
Shape = tuple[int, ...]
Place = tuple[str, Shape]
"""The name of a value, and its shape."""
Block = Callable[[Sketch, Place], Place]


def original_of(seed: int, precision: str = "fp32") -> onnx.ModelProto:
    """Return the original that belongs to a seed."""
    rng = np.random.default_rng((seed, 17))
    sketch = Sketch(rng, PRECISIONS[precision])
    family = FAMILIES[sorted(FAMILIES)[seed % len(FAMILIES)]]
    return family(sketch)


def family_of(seed: int) -> str:
    """Return the kind of network that belongs to a seed."""
    return sorted(FAMILIES)[seed % len(FAMILIES)]


def _chance(sketch: Sketch, share: float) -> bool:
    return bool(sketch.rng.random() < share)


def _pick(sketch: Sketch, *options: int) -> int:
    return int(sketch.rng.choice(options))


def _norm(sketch: Sketch, place: Place) -> Place:
    value, shape = place
    size, rng = shape[1], sketch.rng
    signs = np.where(rng.random(size) < 0.2, -1.0, 1.0)
    inputs = [
        sketch.constant(signs * rng.uniform(0.5, 1.5, size)),
        sketch.constant(rng.normal(0, 0.3, size)),
        sketch.constant(rng.normal(0, 0.5, size)),
        sketch.constant(np.exp(rng.normal(-0.5, 1.0, size))),
    ]
    epsilon = 1e-3 if _chance(sketch, 0.3) else 1e-5
    name = sketch.add("BatchNormalization", [value, *inputs], shape, epsilon=epsilon)
    return name, shape


def _act(sketch: Sketch, place: Place) -> Place:
    value, shape = place
    kind = str(sketch.rng.choice(["Relu", "Relu", "LeakyRelu", "Sigmoid", "HardSwish"]))
    attributes = {"alpha": 0.1} if kind == "LeakyRelu" else {}
    return sketch.add(kind, [value], shape, **attributes), shape


def _conv(
    sketch: Sketch,
    place: Place,
    outputs: int,
    kernel: int = 3,
    *,
    stride: int = 1,
    group: int = 1,
    pad: int | None = None,
    bias: bool | None = None,
) -> Place:
    value, shape = place
    width = shape[1] // group
    fan = width * kernel * kernel
    weight = sketch.rng.normal(0, np.sqrt(2 / fan), (outputs, width, kernel, kernel))
    inputs = [value, sketch.constant(weight)]
    if _chance(sketch, 0.5) if bias is None else bias:
        inputs.append(sketch.constant(sketch.rng.normal(0, 0.3, outputs)))
    around = kernel // 2 if pad is None else pad
    sizes = tuple((size + 2 * around - kernel) // stride + 1 for size in shape[2:])
    result = (shape[0], outputs, *sizes)
    attributes = {"pads": [around] * 4, "strides": [stride] * 2, "group": group}
    return sketch.add("Conv", inputs, result, **attributes), result


def _deconv(sketch: Sketch, place: Place, columns: int, *, group: int = 1) -> Place:
    value, shape = place
    kernel = _pick(sketch, 2, 3)
    weight = sketch.rng.normal(0, 0.4, (shape[1], columns, kernel, kernel))
    inputs = [value, sketch.constant(weight)]
    if _chance(sketch, 0.5):
        inputs.append(sketch.constant(sketch.rng.normal(0, 0.3, columns * group)))
    sizes = tuple(2 * (size - 1) + kernel for size in shape[2:])
    result = (shape[0], columns * group, *sizes)
    return sketch.add("ConvTranspose", inputs, result, strides=[2, 2], group=group), result


def _gemm(sketch: Sketch, place: Place, outputs: int, *, bias: bool | None = None) -> Place:
    value, shape = place
    weight = sketch.rng.normal(0, np.sqrt(2 / shape[1]), (shape[1], outputs))
    turned = _chance(sketch, 0.5)
    inputs = [value, sketch.constant(weight.T if turned else weight)]
    if _chance(sketch, 0.7) if bias is None else bias:
        inputs.append(sketch.constant(sketch.rng.normal(0, 0.3, outputs)))
    attributes = {"transB": int(turned)}
    if _chance(sketch, 0.4):
        attributes |= {"alpha": 0.5, "beta": 2.0}
    result = (shape[0], outputs)
    return sketch.add("Gemm", inputs, result, **attributes), result


def _matmul(sketch: Sketch, place: Place, outputs: int, *, bias: bool = True) -> Place:
    value, shape = place
    weight = sketch.rng.normal(0, np.sqrt(1 / shape[-1]), (shape[-1], outputs))
    result = (*shape[:-1], outputs)
    name = sketch.add("MatMul", [value, sketch.constant(weight)], result)
    if bias:
        addend = sketch.constant(sketch.rng.normal(0, 0.3, outputs))
        name = sketch.add("Add", [name, addend], result)
    return name, result


def _map(sketch: Sketch, place: Place, axis: int, *, kinds: str = "Mul Add Sub Div") -> Place:
    value, shape = place
    kind = str(sketch.rng.choice(kinds.split()))
    along = [shape[axis], *[1] * (len(shape) - axis - 1)]
    if kind in ("Mul", "Div"):
        signs = np.where(sketch.rng.random(along) < 0.2, -1.0, 1.0)
        array = signs * sketch.rng.uniform(0.4, 2.0, along)
    else:
        array = sketch.rng.normal(0, 0.5, along)
    inputs = [value, sketch.constant(array)]
    if kind != "Div" and _chance(sketch, 0.3):
        inputs.reverse()
    return sketch.add(kind, inputs, shape), shape


def _maps(sketch: Sketch, place: Place, axis: int) -> Place:
    for _ in range(_pick(sketch, 2, 3, 4)):
        place = _map(sketch, place, axis)
    return place


def _sum(sketch: Sketch, one: Place, two: Place) -> Place:
    return sketch.add("Add", [one[0], two[0]], one[1]), one[1]


def _conv_norm(sketch: Sketch, place: Place) -> Place:
    channels = place[1][1]
    outputs = channels if _chance(sketch, 0.5) else _pick(sketch, 4, 6, 8)
    place = _conv(sketch, place, outputs, _pick(sketch, 1, 3))
    return _act(sketch, _norm(sketch, place))


def _pre_activation(sketch: Sketch, place: Place) -> Place:
    """BatchNormalization before: of a convolution without padding, or with an activation."""
    kernel = _pick(sketch, 1, 3)
    if _chance(sketch, 0.3):
        place = _act(sketch, _norm(sketch, place))
        return _conv(sketch, place, place[1][1], kernel)
    return _conv(sketch, _norm(sketch, place), place[1][1], kernel, pad=0)


def _depthwise(sketch: Sketch, place: Place) -> Place:
    channels = place[1][1]
    group = channels if _chance(sketch, 0.6) else 2
    place = _conv(sketch, place, channels * _pick(sketch, 1, 2), group=group, bias=None)
    place = _act(sketch, _norm(sketch, place))
    return _norm(sketch, _conv(sketch, place, channels, 1))


def _transposed(sketch: Sketch, place: Place) -> Place:
    group = _pick(sketch, 1, 2) if place[1][1] % 2 == 0 else 1
    place = _deconv(sketch, place, _pick(sketch, 2, 3), group=group)
    return _act(sketch, _norm(sketch, place))


def _residual(sketch: Sketch, place: Place) -> Place:
    channels = place[1][1]
    body = _act(sketch, _norm(sketch, _conv(sketch, place, channels)))
    body = _norm(sketch, _conv(sketch, body, channels))
    short = place
    if _chance(sketch, 0.5):
        short = _norm(sketch, _conv(sketch, place, channels, 1))
    return _act(sketch, _sum(sketch, body, short))


def _concat(sketch: Sketch, place: Place) -> Place:
    parts = [_conv(sketch, place, _pick(sketch, 2, 4), kernel) for kernel in (1, 3)]
    if _chance(sketch, 0.5):
        parts = [_norm(sketch, parts[0]), parts[1]]
    shape = parts[0][1]
    result = (shape[0], sum(part[1][1] for part in parts), *shape[2:])
    name = sketch.add("Concat", [part[0] for part in parts], result, axis=1)
    return _act(sketch, _norm(sketch, (name, result)))


def _rep_vgg(sketch: Sketch, place: Place) -> Place:
    channels = place[1][1]
    parts = [
        _norm(sketch, _conv(sketch, place, channels, kernel, bias=False)) for kernel in (3, 1)
    ]
    if _chance(sketch, 0.5):
        parts.append(_norm(sketch, place))
    whole = parts[0]
    for part in parts[1:]:
        whole = _sum(sketch, whole, part)
    return _act(sketch, whole)


def _spelled_out(sketch: Sketch, place: Place) -> Place:
    place = _conv(sketch, place, _pick(sketch, 4, 6), _pick(sketch, 1, 3))
    return _act(sketch, _maps(sketch, place, 1))


def _head(sketch: Sketch, place: Place) -> Place:
    value, shape = place
    result = (*shape[:2], 1, 1)
    value = sketch.add("GlobalAveragePool", [value], result)
    flat = sketch.add("Flatten", [value], shape[:2], axis=1)
    value, shape = _gemm(sketch, (flat, shape[:2]), _pick(sketch, 3, 5))
    kind = str(sketch.rng.choice(["Softmax", "Sigmoid", "none"]))
    if kind == "none":
        return value, shape
    attributes = {"axis": 1} if kind == "Softmax" else {}
    return sketch.add(kind, [value], shape, **attributes), shape


def _dense(sketch: Sketch, place: Place) -> Place:
    place = _gemm(sketch, place, _pick(sketch, 6, 8, 12))
    place = _norm(sketch, place) if _chance(sketch, 0.6) else _maps(sketch, place, 1)
    return _act(sketch, place)


def _multiplied(sketch: Sketch, place: Place) -> Place:
    outputs = place[1][-1] if _chance(sketch, 0.5) else _pick(sketch, 6, 8)
    place = _matmul(sketch, place, outputs, bias=_chance(sketch, 0.7))
    return _act(sketch, _maps(sketch, place, len(place[1]) - 1))


def _attention(sketch: Sketch, place: Place) -> Place:
    """softmax(q kᵀ · scale) v, with maps on q, k and v."""
    width = place[1][-1]
    batch, tokens = place[1][:2]
    query, key, value = (
        _map(sketch, _matmul(sketch, place, width), 2, kinds="Mul Add") for _ in range(3)
    )
    turned = sketch.add("Transpose", [key[0]], (batch, width, tokens), perm=[0, 2, 1])
    square = (batch, tokens, tokens)
    scores = sketch.add("MatMul", [query[0], turned], square)
    scores = sketch.add("Mul", [scores, sketch.constant(width**-0.5)], square)
    weights = sketch.add("Softmax", [scores], square, axis=2)
    mixed = sketch.add("MatMul", [weights, value[0]], place[1])
    return _sum(sketch, place, _matmul(sketch, (mixed, place[1]), width))


def _stack(shape: Shape, count: tuple[int, int], *blocks: Block, head: bool = False):
    """Return a family: some of the blocks, one behind the other."""

    def family(sketch: Sketch) -> onnx.ModelProto:
        place: Place = ("x", shape)
        for _ in range(int(sketch.rng.integers(count[0], count[1] + 1))):
            block = blocks[int(sketch.rng.integers(len(blocks)))]
            place = block(sketch, place)
        if head:
            place = _head(sketch, place)
        return sketch.model(shape, [place])

    return family


_IMAGE: Final = (2, 4, 6, 6)
_TOKENS: Final = (2, 5, 8)

FAMILIES: Final[dict[str, Callable[[Sketch], onnx.ModelProto]]] = {
    "conv": _stack(_IMAGE, (1, 4), _conv_norm),
    "conv with a head": _stack(_IMAGE, (1, 4), _conv_norm, head=True),
    "pre-activation": _stack((2, 4, 9, 9), (1, 3), _pre_activation),
    "depthwise": _stack(_IMAGE, (1, 3), _depthwise),
    "transposed": _stack((2, 4, 3, 3), (1, 2), _transposed),
    "residual": _stack(_IMAGE, (1, 4), _residual),
    "concat": _stack(_IMAGE, (1, 3), _concat),
    "parallel branches": _stack(_IMAGE, (1, 2), _rep_vgg),
    "spelled out": _stack(_IMAGE, (1, 3), _spelled_out),
    "mlp": _stack((2, 8), (1, 5), _dense),
    "matmul": _stack(_TOKENS, (1, 3), _multiplied),
    "attention": _stack(_TOKENS, (1, 2), _attention, _multiplied),
    "mixed": _stack(
        _IMAGE, (2, 6), _conv_norm, _depthwise, _residual, _concat, _rep_vgg, head=True
    ),
}
