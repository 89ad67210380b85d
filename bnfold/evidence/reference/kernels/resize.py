"""Resize and Upsample: along each axis, a weighted sum of a few elements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from bnfold.evidence.reference.arrays import Array
from bnfold.evidence.reference.call import Call, Kernel


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis to resize: sizes, scale, and the region of interest (0 … 1)."""

    size: int
    out: int
    scale: float
    start: float = 0.0
    end: float = 1.0


# ------------------------------------------------------------- where an element comes from


def _half_pixel(axis: _Axis, x: Array) -> Array:
    return (x + 0.5) / axis.scale - 0.5


def _half_pixel_symmetric(axis: _Axis, x: Array) -> Array:
    out, size, scale = (x.dtype.type(v) for v in (axis.out, axis.size, axis.scale))
    share = out / (scale * size)
    return np.asarray(size / 2 * (1 - share) + (x + 0.5) / scale - 0.5)


def _pytorch_half_pixel(axis: _Axis, x: Array) -> Array:
    return _half_pixel(axis, x) if axis.out > 1 else np.zeros_like(x)


def _align_corners(axis: _Axis, x: Array) -> Array:
    return x * (axis.size - 1) / (axis.out - 1) if axis.out > 1 else np.zeros_like(x)


def _tf_half_pixel_for_nn(axis: _Axis, x: Array) -> Array:
    return (x + 0.5) / axis.scale


def _tf_crop_and_resize(axis: _Axis, x: Array) -> Array:
    last = axis.size - 1
    if axis.out > 1:
        return axis.start * last + x * (axis.end - axis.start) * last / (axis.out - 1)
    return np.full_like(x, 0.5 * (axis.start + axis.end) * last)


_COORDINATES: Final[dict[str, Callable[[_Axis, Array], Array]]] = {
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "pytorch_half_pixel": _pytorch_half_pixel,
    "align_corners": _align_corners,
    "asymmetric": lambda axis, x: x / axis.scale,
    "tf_half_pixel_for_nn": _tf_half_pixel_for_nn,
    "tf_crop_and_resize": _tf_crop_and_resize,
}

_NEAREST: Final[dict[str, Callable[[Array], Array]]] = {
    "round_prefer_floor": lambda at: np.ceil(at - 0.5),
    "round_prefer_ceil": lambda at: np.floor(at + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _coordinates(call: Call, axis: _Axis, default: str) -> Array:
    """Places in the tensor; those that decide what is nearest in float32, as runtimes do."""
    mode = call.text("coordinate_transformation_mode", default)
    nearest = call.text("mode", "nearest") == "nearest"
    place = np.arange(axis.out, dtype=np.float32 if nearest else np.float64)
    return _COORDINATES[mode](axis, place)


# ---------------------------------------------------------------------- weights of elements


def _linear(distance: Array) -> Array:
    return np.asarray(np.maximum(0.0, 1 - np.abs(distance)))


def _cubic(distance: Array, a: float) -> Array:
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((d - 5) * d + 8) * d * a - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _nearest(call: Call, axis: _Axis, at: Array) -> tuple[Array, Array]:
    """The element, with weight 1."""
    at = at.astype(np.float64)  # half of it more or less is not to be rounded
    if call.opset < 11:
        place = np.ceil(at) if axis.scale < 1 and call.opset >= 10 else np.floor(at)
    else:
        place = _NEAREST[call.text("nearest_mode", "round_prefer_floor")](at)
    return place[None], np.ones((1, axis.out))


def _weighted(call: Call, axis: _Axis, at: Array, mode: str) -> tuple[Array, Array]:
    """The elements around every place, and their weights: both [taps, out]."""
    if mode == "nearest":
        return _nearest(call, axis, at)
    shrink = min(axis.scale, 1.0) if call.integer("antialias", 0) else 1.0
    reach = (2 if mode == "cubic" else 1) / shrink
    first = np.floor(at - reach) + 1
    taps = int(np.ceil(2 * reach)) + (shrink < 1)
    places = first[None] + np.arange(taps)[:, None]
    distance = (places - at) * shrink
    a = call.number("cubic_coeff_a", -0.75)
    weights = _cubic(distance, a) if mode == "cubic" else _linear(distance)
    if call.integer("exclude_outside", 0):
        weights = np.where((places >= 0) & (places < axis.size), weights, 0.0)
    return places, weights / weights.sum(0)


def _resized(call: Call, x: Array, number: int, axis: _Axis, mode: str) -> Array:
    """Resize one axis."""
    default = "half_pixel" if call.opset >= 11 else "asymmetric"
    at = _coordinates(call, axis, default)
    places, weights = _weighted(call, axis, at, mode)
    inside = np.clip(places, 0, axis.size - 1).astype(np.intp)
    shape = [1] * x.ndim
    shape[number] = axis.out
    y = np.take(x, inside[0], number)
    if mode != "nearest":
        y = y * weights[0].reshape(shape)
        for place, weight in zip(inside[1:], weights[1:], strict=True):
            y += np.take(x, place, number) * weight.reshape(shape)
    if call.text("coordinate_transformation_mode", default) == "tf_crop_and_resize":
        outside = ((at < 0) | (at > axis.size - 1)).reshape(shape)
        y = np.where(outside, call.number("extrapolation_value", 0.0), y)
    return np.asarray(y)


# --------------------------------------------------------------------------- the operators


def _scaled(size: Sequence[int], scales: Sequence[float]) -> list[_Axis]:
    """⌊size · scale⌋ in float32, as shape inference and runtimes compute it."""
    return [
        _Axis(n, int(np.floor(np.float32(n) * np.float32(scale))), float(scale))
        for n, scale in zip(size, scales, strict=True)
    ]


def _sized(call: Call, size: Sequence[int], wanted: Sequence[int]) -> list[_Axis]:
    """Sizes that are given, or a common scale that keeps the aspect ratio."""
    policy = call.text("keep_aspect_ratio_policy", "stretch")
    ratios = [out / n for n, out in zip(size, wanted, strict=True)]
    if policy == "stretch":
        entries = zip(size, wanted, ratios, strict=True)
        return [_Axis(n, out, ratio) for n, out, ratio in entries]
    ratio = min(ratios) if policy == "not_larger" else max(ratios)
    return [_Axis(n, int(np.floor(ratio * n + 0.5)), ratio) for n in size]


def _axes_of(call: Call) -> list[_Axis]:
    size = call.x[0].shape
    chosen = [axis % len(size) for axis in call.integers("axes", range(len(size)))]
    picked = [size[axis] for axis in chosen]
    scales = call.maybe(2 if call.opset >= 11 else 1)
    if scales is not None and scales.size:
        found = _scaled(picked, scales)
    elif call.opset < 9:
        found = _scaled(picked, call.node.attributes["scales"].as_floats())
    else:
        found = _sized(call, picked, [int(n) for n in call.x[3]])
    whole = [_Axis(n, n, 1.0) for n in size]
    region = call.maybe(1) if call.opset >= 11 else None
    for index, axis in enumerate(chosen):
        new = found[index]
        if region is not None and region.size:
            ends = (float(region[index]), float(region[index + len(chosen)]))
            new = _Axis(new.size, new.out, new.scale, *ends)
        whole[axis] = new
    return whole


def _resize(call: Call) -> Array:
    """Interpolate along one axis after the other."""
    y, mode = call.x[0], call.text("mode", "nearest")
    if y.dtype.kind != "f" and mode != "nearest":
        raise call.no_kernel("integers are interpolated in another way by every runtime")
    for number, axis in enumerate(_axes_of(call)):
        if axis != _Axis(axis.size, axis.size, 1.0):
            y = _resized(call, y, number, axis, mode)
    return np.asarray(y)


KERNELS: Final[dict[str, Kernel]] = {"Resize": _resize, "Upsample": _resize}
