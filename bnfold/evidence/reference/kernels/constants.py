"""Constants and casts: where element types are named."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx_ir as ir

from bnfold.evidence.reference.arrays import Array, read_tensor, widen
from bnfold.evidence.reference.call import Call, Kernel

_KEPT: Final = frozenset(
    {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16}
)
"""Types that stand for a real number; 8 bits and fewer are a quantisation and do round."""


def converted(x: Array, to: ir.DataType, *, saturate: bool = True) -> Array:
    """Return x as another type; floats stay float64, unrounded, integers are cut."""
    if to in _KEPT:
        return np.asarray(x, np.float64)
    if to is ir.DataType.STRING:
        return x.astype(np.str_).astype(np.object_)
    if not to.is_floating_point():
        return x.astype(to.numpy())
    wide = x.astype(np.float64)
    return widen((_saturated(wide, to) if saturate else wide).astype(to.numpy()))


def _saturated(x: Array, to: ir.DataType) -> Array:
    return np.clip(x, float(to.min), float(to.max))


def _cast(call: Call) -> Array:
    to = ir.DataType(call.integer("to", 0))
    return converted(call.x[0], to, saturate=bool(call.integer("saturate", 1)))


def _cast_like(call: Call) -> Array:
    declared = call.node.inputs[1].dtype if call.node.inputs[1] is not None else None
    to = declared or ir.DataType.from_numpy(call.x[1].dtype)
    return converted(call.x[0], to, saturate=bool(call.integer("saturate", 1)))


def _constant(call: Call) -> Array:
    for name, attribute in call.node.attributes.items():
        if name == "value":
            return read_tensor(attribute.as_tensor())
        if name in _LITERALS:
            kind: Any = _LITERALS[name]
            return np.asarray(attribute.value, kind)
    raise call.no_kernel("its value is in no attribute that is known")


_LITERALS: Final[dict[str, Any]] = {
    "value_float": np.float64,
    "value_floats": np.float64,
    "value_int": np.int64,
    "value_ints": np.int64,
    "value_string": np.object_,
    "value_strings": np.object_,
}


def _constant_of_shape(call: Call) -> Array:
    given = call.node.attributes.get("value")
    value = np.zeros(1) if given is None else read_tensor(given.as_tensor())
    return np.full(tuple(map(int, call.x[0])), value.reshape(-1)[0], value.dtype)


def _eye_like(call: Call) -> Array:
    x = call.x[0]
    eye = np.eye(x.shape[0], x.shape[1], k=call.integer("k", 0))
    return (
        converted(eye, ir.DataType(call.integer("dtype", 0)))
        if call.has("dtype")
        else (eye.astype(x.dtype))
    )


KERNELS: Final[dict[str, Kernel]] = {
    "Cast": _cast,
    "CastLike": _cast_like,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "EyeLike": _eye_like,
}
