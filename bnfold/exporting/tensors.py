"""Between torch's tensors and numpy's arrays, bfloat16 and its kin included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_FOREIGN: Final = {
    torch.bfloat16: (torch.int16, ml_dtypes.bfloat16),
    torch.float8_e4m3fn: (torch.uint8, ml_dtypes.float8_e4m3fn),
    torch.float8_e5m2: (torch.uint8, ml_dtypes.float8_e5m2),
}
"""Types that numpy has from ml_dtypes alone, and integers of the same width."""


def to_array(tensor: Tensor) -> NDArray[Any]:
    """Return the numbers of a tensor as an array of their own."""
    found = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    if found.dtype in _FOREIGN:
        bits, kind = _FOREIGN[found.dtype]
        return np.array(found.view(bits).numpy()).view(kind)
    return np.array(found.numpy())


def to_tensor(array: NDArray[Any], like: Tensor) -> Tensor:
    """Return an array as a tensor of the type, and on the device, of another."""
    if like.dtype in _FOREIGN:
        bits, kind = _FOREIGN[like.dtype]
        same = np.ascontiguousarray(array.astype(kind))
        width = np.int16 if bits is torch.int16 else np.uint8
        return torch.from_numpy(same.view(width).copy()).view(like.dtype).to(like.device)
    return torch.from_numpy(np.array(array)).to(device=like.device, dtype=like.dtype)


def wide(tensor: Tensor) -> Tensor:
    """Return floats as float64 and complex numbers as complex128; others as they are."""
    if tensor.is_floating_point():
        return tensor.detach().to(torch.float64)
    if tensor.is_complex():
        return tensor.detach().to(torch.complex128)
    return tensor.detach()


def sizes(tensors: Sequence[Tensor]) -> tuple[tuple[int, ...], ...]:
    """Return the shape of every tensor."""
    return tuple(tuple(tensor.shape) for tensor in tensors)
