"""Operators that choose, place and order elements by index."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from bnfold.evidence.reference.arrays import Array
from bnfold.evidence.reference.call import Call, Kernel


def _gather(call: Call) -> Array:
    return np.asarray(np.take(call.x[0], call.x[1], call.integer("axis", 0)))


def _gather_elements(call: Call) -> Array:
    x, indices = call.x
    axis = call.integer("axis", 0) % x.ndim
    return np.asarray(x[_coordinates(indices, axis)])


def _coordinates(indices: Array, axis: int) -> tuple[Array, ...]:
    """Where every index points, if it counts along one axis."""
    places: list[Array] = list(np.indices(indices.shape, sparse=True))
    places[axis] = indices
    return tuple(places)


def _gather_nd(call: Call) -> Array:
    x, indices = call.x
    batch = call.integer("batch_dims", 0)
    lead, depth = x.shape[:batch], indices.shape[-1]
    flat = x.reshape(math.prod(lead), *x.shape[batch:])
    at = indices.reshape(math.prod(lead), -1, depth)
    sample = np.arange(len(flat))[:, None]
    found = flat[(sample, *(at[..., k] for k in range(depth)))]
    return np.asarray(found.reshape(*indices.shape[:-1], *x.shape[batch + depth :]))


_COMBINE: Final[dict[str, Callable[..., Any]]] = {
    "add": np.add.at,
    "mul": np.multiply.at,
    "max": np.maximum.at,
    "min": np.minimum.at,
}


def _placed(call: Call, where: tuple[Array, ...]) -> Array:
    """A copy of the data in which the updates are set or combined."""
    y = call.x[0].copy()
    reduction = call.text("reduction", "none")
    if reduction == "none":
        y[where] = call.x[2]
    else:
        _COMBINE[reduction](y, where, call.x[2])
    return np.asarray(y)


def _scatter_elements(call: Call) -> Array:
    return _placed(call, _coordinates(call.x[1], call.integer("axis", 0) % call.x[0].ndim))


def _scatter_nd(call: Call) -> Array:
    indices = call.x[1]
    return _placed(call, tuple(indices[..., k] for k in range(indices.shape[-1])))


def _top_k(call: Call) -> tuple[Array, Array]:
    """Of equal elements the one with the smaller index comes first."""
    x, axis = call.x[0], call.integer("axis", -1)
    k = call.integer("k", 0) if call.opset < 10 else int(np.reshape(call.x[1], ()))
    if call.integer("largest", 1):
        flipped = np.flip(x, axis)
        order = x.shape[axis] - 1 - np.flip(np.argsort(flipped, axis, kind="stable"), axis)
    else:
        order = np.argsort(x, axis, kind="stable")
    first = np.take(order, range(k), axis)
    return np.take_along_axis(x, first, axis), first.astype(np.int64)


def _one_hot(call: Call) -> Array:
    indices, depth, (off, on) = call.x[0], int(np.reshape(call.x[1], ())), call.x[2]
    axis = call.integer("axis", -1)
    indices = indices.astype(np.int64)
    inside = (indices >= -depth) & (indices < depth)
    hot = (np.arange(depth) == (indices % depth)[..., None]) & inside[..., None]
    return np.moveaxis(np.where(hot, on, off), -1, axis)


def _trilu(call: Call) -> Array:
    k = 0 if call.maybe(1) is None else int(np.reshape(call.x[1], ()))
    return (np.triu if call.integer("upper", 1) else np.tril)(call.x[0], k)


def _range(call: Call) -> Array:
    start, limit, delta = (np.reshape(v, ())[()] for v in call.x)
    count = max(math.ceil((limit - start) / delta), 0)
    return np.asarray(start + np.arange(count).astype(call.x[0].dtype) * delta)


def _compress(call: Call) -> Array:
    axis = call.integer("axis", 0) if call.has("axis") else None
    x = call.x[0].reshape(-1) if axis is None else call.x[0]
    return np.asarray(np.take(x, np.flatnonzero(call.x[1]), axis or 0))


KERNELS: Final[dict[str, Kernel]] = {
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Scatter": _scatter_elements,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "TopK": _top_k,
    "NonZero": lambda c: np.array(np.nonzero(c.x[0]), np.int64),
    "OneHot": _one_hot,
    "Trilu": _trilu,
    "Range": _range,
    "Compress": _compress,
}
