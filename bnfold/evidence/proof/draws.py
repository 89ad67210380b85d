"""Numbers for the inputs of a segment: drawn, not taken from data.

A segment is judged for all inputs, not for those that a network happens to meet, so its inputs
are drawn: channels that no picture wakes are woken here.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from enum import Enum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Dims = tuple[int | str | None, ...]

FREE: Final = 7
"""Length of an axis whose size is free: odd, and no usual channel count."""

BATCH: Final = 3
"""Samples where their number is free: one for each kind of number, and one more."""


class Style(Enum):
    """What numbers are drawn."""

    NORMAL = "standard normal"
    SPREAD = "normal, of another size in every channel"
    MIXED = "the first along axis 0 standard normal, the others of another size in channels"
    POSITIVE = "the magnitudes of standard normal numbers"
    NEAR = "a hundredth of standard normal numbers"
    TINY = "a hundred-millionth of standard normal numbers"
    FAR = "normal, up to a hundred thousand times as large in some channels"


def styles_for(shapes: Iterable[tuple[int, ...]]) -> tuple[Style, ...]:
    """Return what to draw of arrays of these shapes: all of it at once, if there is room."""
    room = all(len(shape) > 1 and shape[0] > 1 for shape in shapes)
    return (Style.MIXED,) if room else (Style.NORMAL, Style.SPREAD)


def draw(name: str, shape: tuple[int, ...], style: Style, seed: int) -> Array:
    """Return an array of the shape; the same name and seed give the same numbers."""
    rng = np.random.default_rng((zlib.crc32(name.encode()), seed))
    normal = rng.standard_normal(shape)
    if style is Style.POSITIVE:
        return np.asarray(np.abs(normal))
    if style is Style.NEAR:
        return np.asarray(0.01 * normal)
    if style is Style.TINY:
        return np.asarray(1e-8 * normal)
    if style is Style.NORMAL or not shape:
        return np.asarray(normal)
    along = [size if axis in (1, len(shape) - 1) else 1 for axis, size in enumerate(shape)]
    low, high = (0.0, 5.0) if style is Style.FAR else (-1.0, 1.5)
    spread = np.asarray(normal * 10.0 ** rng.uniform(low, high, along))
    if style is Style.MIXED:
        spread[0] = normal[0]
    return spread
