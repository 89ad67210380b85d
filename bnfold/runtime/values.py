"""Between arrays and values of ONNX Runtime."""

from __future__ import annotations

import ctypes
from typing import Any, Final

import ml_dtypes
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from bnfold.runtime.arrays import bits_of, is_foreign

_FOREIGN: Final = {
    "bfloat16": 16,
    "float8_e4m3fn": 17,
    "float8_e4m3fnuz": 18,
    "float8_e5m2": 19,
    "float8_e5m2fnuz": 20,
}
"""Names of ml_dtypes to element types of ``onnx.TensorProto``."""


def to_runtime(array: NDArray[Any]) -> ort.OrtValue:
    """The array as a value of the runtime, on the CPU; element types that numpy lacks too."""
    if not is_foreign(array):
        return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
    kind = _FOREIGN[array.dtype.name]
    bits = bits_of(array).reshape(array.shape)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, kind)


def is_dense(value: ort.OrtValue) -> bool:
    """Whether it is a tensor, and there at all."""
    return bool(value.has_value() and value.is_tensor())


def to_numpy(value: ort.OrtValue) -> NDArray[Any]:
    """A value on the CPU as an array."""
    names = {number: name for name, number in _FOREIGN.items()}
    kind = names.get(value.element_type())
    if kind is None:
        return np.asarray(value.numpy())
    raw = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(raw, dtype=getattr(ml_dtypes, kind)).reshape(value.shape())
