"""Per-channel affine maps ``y = scale · x + shift`` as float64 values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Vector = NDArray[np.float64]
_ONE: Final = np.ones(1)
_ZERO: Final = np.zeros(1)

_ROUNDING: Final = 2.0**-51
"""What four operations in float64, reciprocals, products and sums, are off by, at most."""


def _vector(values: ArrayLike) -> Vector:
    vector = np.array(values, dtype=np.float64).reshape(-1)
    vector.flags.writeable = False
    return vector


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """A map ``y = scale · x + shift`` along one axis of a value, in float64.

    Build one with `per_channel` or `uniform`; both keep the canonical form: a map that is
    the same for every channel has one entry and no axis.

    Attributes:
        scale: Shape [C], or [1] for a uniform map.
        shift: Same shape as ``scale``.
        axis: The axis the entries run along, counted from the front; None for a uniform map.
    """

    scale: Vector
    shift: Vector
    axis: int | None

    @classmethod
    def uniform(cls, scale: float = 1.0, shift: float = 0.0) -> Self:
        """Return the map that treats every element alike."""
        return cls(_vector(scale), _vector(shift), None)

    @classmethod
    def per_channel(
        cls, axis: int | None, scale: ArrayLike = 1.0, shift: ArrayLike = 0.0
    ) -> Self:
        """Return the map with ``scale`` [C] and ``shift`` [C] (or scalars) along ``axis``.

        Raises:
            ValueError: If the vectors differ in length, or the axis is missing or negative.
        """
        scale, shift = _vector(scale), _vector(shift)
        if scale.size != shift.size:
            scale, shift = map(_vector, np.broadcast_arrays(scale, shift))
        if not scale.size:
            return cls.uniform()  # of no elements: every map is the same
        if _is_constant(scale) and _is_constant(shift):
            return cls(_vector(scale[0]), _vector(shift[0]), None)
        if axis is None or axis < 0:
            message = f"a map with {scale.size} entries needs a non-negative axis, got {axis}"
            raise ValueError(message)
        return cls(scale, shift, axis)

    @property
    def channels(self) -> int | None:
        """Number of entries along the axis; None for a uniform map, which fits any number."""
        return None if self.axis is None else self.scale.size

    @property
    def has_scale(self) -> bool:
        """Whether any scale differs from one."""
        return bool((self.scale != 1.0).any())

    @property
    def has_shift(self) -> bool:
        """Whether any shift differs from zero."""
        return bool((self.shift != 0.0).any())

    @property
    def is_identity(self) -> bool:
        """Whether the map changes nothing."""
        return not self.has_scale and not self.has_shift

    @property
    def is_finite(self) -> bool:
        """Whether every entry is a finite number."""
        return bool(np.isfinite(self.scale).all() and np.isfinite(self.shift).all())

    @property
    def is_invertible(self) -> bool:
        """Whether no channel is collapsed to a constant."""
        return bool((self.scale != 0.0).all())

    def equals(self, other: Affine) -> bool:
        """Return whether both maps are the same, entry for entry."""
        return (
            self.axis == other.axis
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.shift, other.shift)
        )

    def composes_with(self, other: Affine) -> bool:
        """Return whether both maps run along one axis, so that their product does too."""
        if self.axis is None or other.axis is None:
            return True
        return self.axis == other.axis and self.scale.size == other.scale.size

    def then(self, after: Affine) -> Affine:
        """Return ``after(self(x))`` as one map.

        Raises:
            ValueError: If the maps run along different axes.
        """
        if not self.composes_with(after):
            message = f"maps on axes {self.axis} and {after.axis} have no product on one axis"
            raise ValueError(message)
        axis = self.axis if after.axis is None else after.axis
        scale, moved = after.scale * self.scale, after.scale * self.shift
        shift = moved + after.shift
        # s · (1 / s) and c − c are one and none, but for the rounding of float64: left as they
        # come, 1 + 2e-16 would be a factor that is stored, as 1, and found by the next fold.
        with np.errstate(invalid="ignore"):  # of infinite ones, which stay what they are
            is_one = (self.scale != 1.0) & (after.scale != 1.0)
            is_one &= np.abs(scale - 1.0) <= _ROUNDING
            most = np.maximum(np.abs(moved), np.abs(after.shift))
            is_none = np.abs(shift) <= _ROUNDING * most
        return Affine.per_channel(
            axis, np.where(is_one, 1.0, scale), np.where(is_none, 0.0, shift)
        )

    def inverse(self) -> Affine:
        """Return the map that undoes this one: ``(y − shift) / scale``.

        Raises:
            ZeroDivisionError: If a channel's scale is zero.
        """
        if not self.is_invertible:
            message = "a map with a zero scale has no inverse"
            raise ZeroDivisionError(message)
        return Affine.per_channel(self.axis, 1.0 / self.scale, -self.shift / self.scale)

    def scale_only(self) -> Affine:
        """Return the inner part, ``x · scale``."""
        return Affine.per_channel(self.axis, self.scale, 0.0)

    def shift_only(self) -> Affine:
        """Return the outer part, ``x + shift``: behind `scale_only` it makes the whole."""
        return Affine.per_channel(self.axis, 1.0, self.shift)

    def shift_before_scale(self) -> Affine:
        """Return ``x + shift / scale``, so that ``self = that.then(scale_only())``.

        Raises:
            ZeroDivisionError: If a channel's scale is zero.
        """
        if not self.is_invertible:
            message = "a shift cannot pass in front of a zero scale"
            raise ZeroDivisionError(message)
        return Affine.per_channel(self.axis, 1.0, self.shift / self.scale)

    def on_axis(self, axis: int) -> Affine:
        """Return the same entries along another axis; a uniform map stays as it is."""
        return self if self.axis is None else Affine(self.scale, self.shift, axis)

    def permute(self, perm: Sequence[int]) -> Affine:
        """Return the map on ``Transpose(x, perm)``: output axis j is input axis perm[j]."""
        return self if self.axis is None else self.on_axis(tuple(perm).index(self.axis))

    def take(self, indices: ArrayLike) -> Affine:
        """Return the map of the channels ``indices``, in that order."""
        if self.axis is None:
            return self
        chosen = np.asarray(indices, dtype=np.intp).reshape(-1)
        return Affine.per_channel(self.axis, self.scale[chosen], self.shift[chosen])

    def repeat(self, inner: int = 1, outer: int = 1) -> Affine:
        """Return each entry repeated ``inner`` times, and all of that ``outer`` times."""
        if self.axis is None:
            return self
        scale, shift = (
            np.tile(np.repeat(part, inner), outer) for part in (self.scale, self.shift)
        )
        return Affine.per_channel(self.axis, scale, shift)

    def entries(self, channels: int) -> tuple[Vector, Vector]:
        """Return scale and shift with ``channels`` entries each.

        Raises:
            ValueError: If the map has another number of entries.
        """
        if self.axis is not None and self.scale.size != channels:
            message = f"a map of {self.scale.size} channels does not fit {channels}"
            raise ValueError(message)
        return np.broadcast_to(self.scale, channels), np.broadcast_to(self.shift, channels)

    @staticmethod
    def concat(axis: int, parts: Sequence[tuple[Affine, int]]) -> Affine:
        """Return the map of values joined along ``axis``; parts come with their channels."""
        entries = [part.entries(channels) for part, channels in parts]
        scale = np.concatenate([pair[0] for pair in entries])
        shift = np.concatenate([pair[1] for pair in entries])
        return Affine.per_channel(axis, scale, shift)

    def __call__(self, x: ArrayLike) -> NDArray[np.float64]:
        """Apply the map to an array, in float64."""
        wide = np.asarray(x, dtype=np.float64)
        shape = [1] * wide.ndim
        if self.axis is not None:
            shape[self.axis] = self.scale.size
        elif wide.ndim == 0:
            return np.asarray(wide * self.scale[0] + self.shift[0])
        return np.asarray(wide * self.scale.reshape(shape) + self.shift.reshape(shape))


def _is_constant(vector: Vector) -> bool:
    return vector.size == 1 or bool((vector == vector[0]).all())
