"""Arrays in which every float is float64."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

_FOREIGN_FLOATS: Final = frozenset(
    kind.numpy()
    for kind in ir.DataType
    if kind is not ir.DataType.UNDEFINED
    and kind.is_floating_point()
    and hasattr(ml_dtypes, kind.numpy().name)
)


class NoKernelError(Exception):
    """The operator has no float64 kernel; the text says which operator and why."""


def widen(array: Any) -> Array:
    """Return a float tensor as float64 and anything else as it is.

    Every float of fewer bits (bfloat16, float8 …) is a float64, so nothing is rounded.
    """
    found = np.asarray(array)
    if found.dtype == np.float64:
        return found
    if found.dtype.kind == "f" or found.dtype in _FOREIGN_FLOATS:
        return found.astype(np.float64)
    return found


def widen_result(value: Any) -> Any:
    """Widen a tensor, or every tensor of a sequence; an absent one stays None."""
    if value is None or (type(value) is np.ndarray and value.dtype == np.float64):
        return value
    if isinstance(value, list):
        return [widen(item) for item in value]
    return widen(value)


def read_tensor(tensor: ir.TensorProtocol) -> Array:
    """Read a stored tensor, floats widened; text as ``str``."""
    if isinstance(tensor, ir.StringTensor):
        texts = [text.decode() for text in tensor.string_data()]
        return np.array(texts, dtype=np.object_).reshape(tuple(tensor.shape.numpy()))
    return widen(tensor.numpy())
