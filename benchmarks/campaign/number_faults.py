"""Faults in the numbers of the tensors that a fold wrote."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from onnx import numpy_helper

from benchmarks.campaign.sketch import Array
from benchmarks.campaign.subject import Mutant, Subject
from benchmarks.campaign.truth import HALF_ULP

Maker = Callable[[Subject], Mutant | None]


def _numbers(subject: Subject) -> tuple[str, Array] | None:
    name = subject.any_of(subject.written)
    if name is None:
        return None
    array = numpy_helper.to_array(subject.tensor(name)).astype(np.float64)
    return (name, array) if array.size else None


def _by(kind: str, change: Callable[[Array, np.random.Generator], Array | None]) -> Maker:
    """Return a maker that changes the numbers of a tensor that the fold wrote."""

    def make(subject: Subject) -> Mutant | None:
        found = _numbers(subject)
        if found is None:
            return None
        array = change(found[1].copy(), subject.rng)
        return None if array is None else subject.with_array(kind, found[0], array)

    return make


def _along(array: Array, rng: np.random.Generator) -> tuple[int, int] | None:
    """Return an axis with several places, the channels of outputs or inputs, and a place."""
    axes = [axis for axis in range(min(array.ndim, 2)) if array.shape[axis] > 1]
    if not axes:
        axes = [axis for axis in range(array.ndim) if array.shape[axis] > 1]
    if not axes:
        return None
    axis = axes[int(rng.integers(len(axes)))]
    return axis, int(rng.integers(array.shape[axis]))


def channel_by(factor: float) -> Callable[[Array, np.random.Generator], Array]:
    """Return a change of one place along an axis of channels by a factor."""

    def change(array: Array, rng: np.random.Generator) -> Array:
        found = _along(array, rng)
        if found is None:
            return array * factor
        np.moveaxis(array, found[0], 0)[found[1]] *= factor
        return array

    return change


def _second_largest(array: Array, _: np.random.Generator) -> Array | None:
    if not array.ndim or array.shape[0] < 2:
        return None
    sizes = np.abs(array).reshape(array.shape[0], -1).max(1)
    array[np.argsort(sizes)[-2]] *= 1.01
    return array


def _tap(array: Array, rng: np.random.Generator) -> Array:
    flat = array.reshape(-1)
    place = int(rng.integers(flat.size))
    flat[place] = flat[place] * 1.5 + float(np.std(flat)) + 1e-3
    return array


def _offset(array: Array, rng: np.random.Generator) -> Array:
    flat = array.reshape(-1)
    flat[int(rng.integers(flat.size))] += 0.5
    return array


def _ulps(subject: Subject) -> Mutant | None:
    found = _numbers(subject)
    if found is None:
        return None
    kept = numpy_helper.to_array(subject.tensor(found[0])).copy()
    flat = kept.reshape(-1)
    place = int(subject.rng.integers(flat.size))
    unit = HALF_ULP[subject.tensor(found[0]).data_type]
    ulps = int(subject.rng.integers(3, 7))
    wide = float(flat[place])
    flat[place] = wide + ulps * 2 * unit * 2.0 ** np.floor(np.log2(max(abs(wide), 1e-30)))
    return subject.with_array("one tap by a few ulps", found[0], kept)


def _swapped(array: Array, rng: np.random.Generator) -> Array | None:
    found = _along(array, rng)
    if found is None:
        return None
    axis, place = found
    order = np.arange(array.shape[axis])
    other = (place + 1) % order.size
    order[[place, other]] = order[[other, place]]
    return np.take(array, order, axis)


def _rolled(array: Array, rng: np.random.Generator) -> Array | None:
    found = _along(array, rng)
    if found is None:
        return None
    size = array.shape[found[0]]
    return np.roll(array, max(size // 2, 1), found[0])


def _turned(array: Array, _: np.random.Generator) -> Array | None:
    if array.ndim < 2 or array.shape[0] != array.shape[1] or array.shape[0] < 2:
        return None
    return np.swapaxes(array, 0, 1)


def _mirrored(array: Array, _: np.random.Generator) -> Array | None:
    return array[..., ::-1] if array.ndim > 2 and array.shape[-1] > 1 else None


def _permuted(array: Array, rng: np.random.Generator) -> Array | None:
    found = _along(array, rng)
    return (
        None
        if found is None
        else np.take(array, rng.permutation(array.shape[found[0]]), found[0])
    )


def _untouched(subject: Subject) -> Mutant | None:
    names = {
        one.name
        for one in subject.folded.graph.initializer
        if one.data_type in HALF_ULP and subject.readers(one.name)
    }
    name = subject.any_of(sorted(names - set(subject.written)))
    if name is None:
        return None
    array = numpy_helper.to_array(subject.tensor(name)).astype(np.float64)
    if not array.size:
        return None
    return subject.with_array("constant that was not folded", name, _tap(array, subject.rng))


def _zeroed(array: Array, rng: np.random.Generator) -> Array:
    return channel_by(0.0)(array, rng)


NUMBERS: Final[dict[str, Maker]] = {
    "times -3": _by("weights times -3", lambda a, _: -3 * a),
    "channel 1 %": _by("channel by 1 %", channel_by(1.01)),
    "channel 1.5": _by("channel times 1.5", channel_by(1.5)),
    "channel sign": _by("sign of one channel", channel_by(-1.0)),
    "channel zero": _by("channel zeroed", _zeroed),
    "second largest": _by("second largest channel by 1 %", _second_largest),
    "tap": _by("one tap", _tap),
    "offset": _by("one entry plus 0.5", _offset),
    "ulps": _ulps,
    "swapped": _by("channels swapped", _swapped),
    "rolled": _by("groups in another order", _rolled),
    "turned": _by("square weight transposed", _turned),
    "mirrored": _by("taps mirrored", _mirrored),
    "permuted": _by("channels permuted", _permuted),
    "untouched": _untouched,
}
