"""Operators that move elements and compute none."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from bnfold.evidence.reference.arrays import Array
from bnfold.evidence.reference.call import Call, Kernel


def _reshape(call: Call) -> Array:
    x = call.x[0]
    shape = call.integers("shape") if call.opset < 5 else [int(d) for d in call.x[1]]
    if not call.integer("allowzero", 0):
        shape = [x.shape[i] if d == 0 else d for i, d in enumerate(shape)]
    return np.asarray(x.reshape(shape))


def _flatten(call: Call) -> Array:
    x, axis = call.x[0], call.integer("axis", 1)
    axis += x.ndim if axis < 0 else 0
    return np.asarray(x.reshape(math.prod(x.shape[:axis]), -1))


def _axes(call: Call) -> tuple[int, ...]:
    """Axes are an attribute before version 13, an input from there on."""
    if call.opset < 13:
        return call.integers("axes")
    given = call.maybe(1)
    return () if given is None else tuple(int(a) for a in np.atleast_1d(given))


def _squeeze(call: Call) -> Array:
    return np.asarray(np.squeeze(call.x[0], _axes(call) or None))


def _unsqueeze(call: Call) -> Array:
    return np.expand_dims(call.x[0], _axes(call))


def _transpose(call: Call) -> Array:
    return np.asarray(np.transpose(call.x[0], call.integers("perm") or None))


def _concat(call: Call) -> Array:
    return np.concatenate(call.x, call.integer("axis", 1))


def _split(call: Call) -> tuple[Array, ...]:
    """Sizes are an attribute before version 13; without them parts are equal."""
    x, axis, parts = call.x[0], call.integer("axis", 0), len(call.node.outputs)
    given = call.integers("split") if call.opset < 13 else call.maybe(1)
    if given is None or not len(given):
        each = -(-x.shape[axis] // parts)
        given = [each] * parts
    places = np.cumsum([int(size) for size in given])[:-1]
    return tuple(np.split(x, places, axis))


def _shape(call: Call) -> Array:
    shape = np.array(call.x[0].shape, np.int64)
    return shape[call.integer("start", 0) : call.integer("end", len(shape))]


def _expand(call: Call) -> Array:
    x = call.x[0]
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(map(int, call.x[1]))))


def _tile(call: Call) -> Array:
    if call.opset < 6:
        raise call.no_kernel("before version 6 it tiles one axis")
    return np.tile(call.x[0], tuple(map(int, call.x[1])))


def _slice(call: Call) -> Array:
    """Bounds are attributes before version 10, inputs from there on."""
    x = call.x[0]
    starts: Any
    ends: Any
    steps: tuple[int, ...]
    if call.opset < 10:
        starts, ends, axes = (call.integers(name) for name in ("starts", "ends", "axes"))
        steps = ()
    else:
        starts, ends = call.x[1], call.x[2]
        axes, steps = _given(call, 3), _given(call, 4)
    cut: list[slice] = [slice(None)] * x.ndim
    for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = axes[index] if axes else index
        step = steps[index] if steps else 1
        cut[axis] = _bounds(int(start), int(end), step, x.shape[axis])
    return np.asarray(x[tuple(cut)])


def _given(call: Call, index: int) -> tuple[int, ...]:
    found = call.maybe(index)
    return () if found is None else tuple(map(int, found))


def _bounds(start: int, end: int, step: int, size: int) -> slice:
    """The specification's bounds, clamped, as Python's."""
    start += size if start < 0 else 0
    end += size if end < 0 else 0
    if step > 0:
        return slice(min(max(start, 0), size), min(max(end, 0), size), step)
    start, end = min(max(start, 0), size - 1), min(max(end, -1), size - 1)
    return slice(start, None if end == -1 else end, step)


def _depth_to_space(call: Call) -> Array:
    x, b = call.x[0], call.integer("blocksize", 1)
    n, c, h, w = x.shape
    if call.text("mode", "DCR") == "DCR":
        parts = x.reshape(n, b, b, c // (b * b), h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        parts = x.reshape(n, c // (b * b), b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
    return np.asarray(parts.reshape(n, c // (b * b), h * b, w * b))


def _space_to_depth(call: Call) -> Array:
    x, b = call.x[0], call.integer("blocksize", 1)
    n, c, h, w = x.shape
    order = (0, 3, 5, 1, 2, 4) if call.text("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    parts = x.reshape(n, c, h // b, b, w // b, b).transpose(order)
    return np.asarray(parts.reshape(n, c * b * b, h // b, w // b))


def _pad(call: Call) -> Array:
    """Negative pads cut away; pads are an attribute before version 11."""
    x, mode = call.x[0], call.text("mode", "constant")
    if call.opset < 11:
        pads: Any = call.integers("pads") or call.integers("paddings")
        value: Any = call.number("value", 0.0)
    else:
        pads, value = tuple(map(int, call.x[1])), call.maybe(2)
    axes = _given(call, 3) or tuple(range(x.ndim))
    widths = [(0, 0)] * x.ndim
    for index, axis in enumerate(axes):
        widths[axis] = (pads[index], pads[index + len(axes)])
    x = x[
        tuple(
            slice(max(-a, 0), n - max(-b, 0))
            for (a, b), n in zip(widths, x.shape, strict=True)
        )
    ]
    widths = [(max(a, 0), max(b, 0)) for a, b in widths]
    if mode != "constant":
        modes: dict[str, Any] = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}
        return np.asarray(np.pad(x, widths, mode=modes[mode]))
    fill = np.zeros((), x.dtype) if value is None else np.reshape(value, ())
    return np.pad(x, widths, constant_values=fill)


def _dropout(call: Call) -> Any:
    """Keep everything; in training the result is random, unless nothing is dropped."""
    ratio, training = call.maybe(1), call.maybe(2)
    if training is not None and training and (ratio is None or ratio):
        raise call.no_kernel("its results are random")
    return call.outputs(call.x[0], np.ones(call.x[0].shape, bool))


KERNELS: Final[dict[str, Kernel]] = {
    "Identity": lambda c: c.x[0],
    "Dropout": _dropout,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Shape": _shape,
    "Size": lambda c: np.array(c.x[0].size, np.int64),
    "Expand": _expand,
    "Tile": _tile,
    "Slice": _slice,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Pad": _pad,
}
