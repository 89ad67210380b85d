"""How a tensor of 2 to 5 dimensions lies in memory, as far as the kernels care."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Rows:
    """A matrix [rows, channels]: channels_last of any rank, and every [N, C]."""

    rows: int
    channels: int

    @property
    def per_channel(self) -> int:
        """How many values one channel has."""
        return self.rows

    @property
    def mask_bytes(self) -> int:
        """Bytes of a mask with one bit per value; each row starts a new byte."""
        return self.rows * ((self.channels + 7) // 8)


@dataclass(frozen=True, slots=True)
class Planes:
    """Contiguous [images, channels, size]: a plane of `size` values per image and channel."""

    images: int
    channels: int
    size: int

    @property
    def per_channel(self) -> int:
        """How many values one channel has."""
        return self.images * self.size

    @property
    def mask_bytes(self) -> int:
        """Bytes of a mask with one bit per value; each plane starts a new byte."""
        return self.images * self.channels * ((self.size + 7) // 8)


Layout = Rows | Planes


def layout_from(shape: Sequence[int], strides: Sequence[int]) -> Layout | None:
    """Return how values of this shape lie, or None where it is neither rows nor planes."""
    images, channels, *inner = shape
    size = prod(inner)
    if is_packed([(shape[a], strides[a]) for a in (1, *range(len(shape) - 1, 1, -1), 0)]):
        return Rows(images * size, channels)
    if is_packed([(shape[a], strides[a]) for a in range(len(shape) - 1, -1, -1)]):
        return Planes(images, channels, size)
    return None


def is_packed(axes: Iterable[tuple[int, int]]) -> bool:
    """The axes, innermost first, follow each other without a gap."""
    reached = 1
    for size, stride in axes:
        if size != 1:
            if stride != reached:
                return False
            reached *= size
    return True


def layout_of(x: Tensor) -> Layout | None:
    """Return how x lies in memory, or None where it is neither rows nor planes."""
    return layout_from(x.shape, x.stride())


def laid_out(x: Tensor) -> Tensor:
    """Return x itself where a kernel can read it, or a contiguous copy."""
    return x if layout_of(x) is not None else x.contiguous()


def laid_out_like(tensor: Tensor, x: Tensor) -> Tensor:
    """Return `tensor`, which has the shape of x, with the strides of x."""
    if tensor.stride() == x.stride():
        return tensor
    return tensor.new_empty_strided(x.shape, x.stride()).copy_(tensor)
