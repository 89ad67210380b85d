"""Numbers for tensors of every type: usual ones, and those at the edges."""

from __future__ import annotations

from typing import Final

import numpy as np
from onnx import TensorProto, helper

from benchmarks.campaign.sketch import Array, Shape
from tests.fuzz.draws import Draws

FLOATS: Final = (
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.DOUBLE,
    TensorProto.BFLOAT16,
)
SIZES: Final = (2, 3, 4, 1, 5, 8, 2, 3, 1, 4, 7, 0, 6, 64, 65)
MOST: Final = 3000
"""Elements of a tensor that is drawn: graphs are many, not large."""
_EDGES: Final = (0.0, 1.0, -1.0, 1e-6, 1e4, -0.0, 6e-8, 1e30, np.inf, np.nan)


def drawn_shape(draws: Draws, rank: int) -> Shape:
    """Return a shape of so many axes: small, with axes of none and of one."""
    shape: list[int] = []
    for _ in range(rank):
        size = draws.pick(SIZES)
        shape.append(size if np.prod(shape, dtype=np.int64) * size <= MOST else 2)
    return tuple(shape)


def dtype_of(element: int) -> np.dtype:
    """Return the type of the arrays that hold an element type."""
    return np.dtype(helper.tensor_dtype_to_np_dtype(element))


def drawn_array(draws: Draws, element: int, shape: Shape) -> Array:
    """Return numbers of a type: floats of a likely size, small integers, words."""
    if element == TensorProto.STRING:
        words = np.array(["", "a", "bc", "1.5", "x y"], dtype=object)
        return np.asarray(draws.rng().choice(words, shape), dtype=object).reshape(shape)
    if element == TensorProto.BOOL:
        return np.asarray(draws.rng().random(shape) < 0.5)
    if element in FLOATS:
        with np.errstate(over="ignore", invalid="ignore"):  # some numbers are infinite here
            return _floats(draws, shape).astype(dtype_of(element))
    if "COMPLEX" in TensorProto.DataType.Name(element):
        return _floats(draws, shape).astype(dtype_of(element))
    if "FLOAT" in TensorProto.DataType.Name(element):
        return np.clip(_floats(draws, shape), -4, 4).astype(dtype_of(element))
    return _integers(draws, element, shape)


def _floats(draws: Draws, shape: Shape) -> Array:
    how = draws.integer(0, 19)
    rng = draws.rng()
    if how < 9:
        return np.asarray(rng.normal(0, 1, shape))
    if how < 13:
        signs = np.where(rng.random(shape) < 0.3, -1.0, 1.0)
        return np.asarray(signs * rng.uniform(0.4, 2.0, shape))
    if how < 16:
        return np.asarray(rng.uniform(0.1, 2.0, shape))
    if how < 18:
        return np.asarray(rng.integers(-3, 4, shape).astype(np.float64))
    if how < 19:
        return np.full(shape, draws.pick((1.0, 0.5, 2.0, -1.0, 0.0, 3.0)))
    array = np.asarray(rng.normal(0, 1, shape))
    if array.size:
        array.reshape(-1)[int(rng.integers(array.size))] = draws.pick(_EDGES)
    return array


def _integers(draws: Draws, element: int, shape: Shape) -> Array:
    name = TensorProto.DataType.Name(element)
    low = 0 if name.startswith("U") else draws.pick((0, 0, -2))
    high = 1 if name.endswith("2") and name[-3:] == "NT2" else 3
    if name.endswith("INT8") and draws.chance(40):
        low, high = (0, 255) if low == 0 and name.startswith("U") else (-127, 127)
    numbers = draws.rng().integers(low, high + 1, shape)
    return np.asarray(numbers).astype(dtype_of(element))
