"""AffineGrid and GridSample: elements between places that a grid names.

As torch and runtimes compute them: onnx.reference rounds the grid to float32, and its cubic
border is another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Final

import numpy as np

from bnfold.evidence.reference.arrays import Array
from bnfold.evidence.reference.call import Call, Kernel
from bnfold.evidence.reference.kernels.resize import cubic_weight

_ALIASES: Final = {"bilinear": "linear", "bicubic": "cubic"}


def _reflected(at: Array, low: float, high: float) -> Array:
    """Fold places back between two mirrors."""
    reach = high - low
    if reach <= 0:
        return np.zeros_like(at)
    turned = np.mod(at - low, 2 * reach)
    return np.asarray(np.where(turned > reach, 2 * reach - turned, turned) + low)


class _Axis:
    """One axis: places in elements, and what lies outside of the tensor."""

    def __init__(self, call: Call, size: int, grid: Array) -> None:
        self.size = size
        self.padding = call.text("padding_mode", "zeros")
        corners = call.integer("align_corners", 0)
        self.mirrors = (0.0, size - 1.0) if corners else (-0.5, size - 0.5)
        self.at = (grid + 1) / 2 * (self.mirrors[1] - self.mirrors[0]) + self.mirrors[0]

    def inside(self, place: Array) -> Array:
        """Where a place outside is read instead, if it is read."""
        if self.padding == "reflection":
            place = _reflected(place, *self.mirrors)
        return place if self.padding == "zeros" else np.clip(place, 0, self.size - 1)

    def taps(self, mode: str) -> list[tuple[Array, Array]]:
        """Index and weight of every element that takes part; weight 0 is not in the tensor."""
        if mode == "cubic":
            first = np.floor(self.at)
            places = [
                (first + k, cubic_weight(self.at - first - k, -0.75)) for k in range(-1, 3)
            ]
            places = [(self.inside(place), weight) for place, weight in places]
        elif mode == "nearest":
            places = [(np.rint(self.inside(self.at)), np.ones_like(self.at))]
        else:
            at = self.inside(self.at)
            first = np.floor(at)
            places = [(first, 1 - (at - first)), (first + 1, at - first)]
        return [self._kept(np.rint(place), weight) for place, weight in places]

    def _kept(self, place: Array, weight: Array) -> tuple[Array, Array]:
        there = (place >= 0) & (place < self.size)
        index = np.where(there, place, 0).astype(np.intp)
        return index, np.where(there, weight, 0.0)


def _grid_sample(call: Call) -> Array:
    """Sum of the elements around every place of the grid, [n, *out, rank], by weight."""
    x, grid = call.x
    mode = call.text("mode", "linear")
    mode = _ALIASES.get(mode, mode)
    if mode == "cubic" and x.ndim != 4:
        raise call.no_kernel("cubic is for two axes")
    rank = x.ndim - 2
    axes = [_Axis(call, x.shape[2 + k], grid[..., rank - 1 - k]) for k in range(rank)]
    y = np.zeros((x.shape[0], *grid.shape[1:-1], x.shape[1]))
    for taps in product(*(axis.taps(mode) for axis in axes)):
        y += _gathered(x, [index for index, _ in taps]) * _joint([w for _, w in taps])
    return np.moveaxis(y, -1, 1)


def _gathered(x: Array, indices: Sequence[Array]) -> Array:
    sample = np.arange(len(x)).reshape(-1, *[1] * (indices[0].ndim - 1))
    return np.asarray(np.moveaxis(x, 1, -1)[(sample, *indices)])


def _joint(weights: Sequence[Array]) -> Array:
    return np.asarray(np.prod(np.stack(weights), 0)[..., None])


def _affine_grid(call: Call) -> Array:
    """Places from −1 to 1 along every axis, the last axis first, mapped (AffineGrid-20)."""
    theta, sizes = call.x[0], [int(one) for one in call.x[1]][2:]
    corners = call.integer("align_corners", 0)
    along = []
    for size in sizes:
        places = np.arange(size, dtype=np.float64)
        if corners and size == 1:
            raise call.no_kernel("runtimes differ in where the only place between corners is")
        if corners:
            along.append(-1.0 + 2.0 * places / max(size - 1, 1))
        else:
            along.append((2.0 * places + 1.0) / size - 1.0)
    grid = np.meshgrid(*along, indexing="ij")[::-1]
    homogeneous = np.stack([*grid, np.ones(sizes)], axis=-1)
    return np.asarray(np.einsum("nij,...j->n...i", theta, homogeneous))


KERNELS: Final[dict[str, Kernel]] = {"AffineGrid": _affine_grid, "GridSample": _grid_sample}
