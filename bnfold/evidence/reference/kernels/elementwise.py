"""Arithmetic and comparison of tensors, element by element."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any, Final

import numpy as np

from bnfold.evidence.reference.arrays import Array
from bnfold.evidence.reference.call import Call, Kernel


def _operands(call: Call) -> tuple[Array, Array]:
    """Both operands; before version 7 the second one is laid along ``axis`` of the first."""
    a, b = call.x
    if call.opset < 7 and call.integer("broadcast", 0) and call.has("axis"):
        b = b.reshape(*b.shape, *[1] * (a.ndim - call.integer("axis", 0) - b.ndim))
    return a, b


def _unary(function: Callable[[Array], Any]) -> Kernel:
    return lambda call: function(call.x[0])


def _binary(function: Callable[[Array, Array], Any]) -> Kernel:
    return lambda call: function(*_operands(call))


def _variadic(function: Callable[[Array, Array], Any]) -> Kernel:
    return lambda call: reduce(function, call.x)


def _divide(a: Array, b: Array) -> Array:
    """A / b; integers are cut towards zero."""
    if a.dtype.kind in "iu":
        cut = np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))
        return np.asarray(cut, a.dtype)
    return np.asarray(a / b)


def _power(a: Array, b: Array) -> Array:
    """The result has the type of the base."""
    if a.dtype.kind == "i" and b.dtype.kind == "i":
        return np.power(a.astype(np.float64), b).astype(a.dtype)
    return np.asarray(np.power(a, b), a.dtype)


def _modulo(call: Call) -> Array:
    return np.asarray((np.fmod if call.integer("fmod", 0) else np.mod)(*call.x))


def _shift(call: Call) -> Array:
    left = call.text("direction", "") == "LEFT"
    return np.asarray((np.left_shift if left else np.right_shift)(*call.x))


def _is_inf(call: Call) -> Array:
    x = call.x[0]
    up = np.isposinf(x) if call.integer("detect_positive", 1) else False
    down = np.isneginf(x) if call.integer("detect_negative", 1) else False
    return np.asarray(np.logical_or(up, down) & np.isinf(x))


def _mean(call: Call) -> Array:
    return np.asarray(reduce(np.add, call.x) / len(call.x))


KERNELS: Final[dict[str, Kernel]] = {
    "Add": _binary(np.add),
    "Sub": _binary(np.subtract),
    "Mul": _binary(np.multiply),
    "Div": _binary(_divide),
    "Pow": _binary(_power),
    "Mod": _modulo,
    "And": _binary(np.logical_and),
    "Or": _binary(np.logical_or),
    "Xor": _binary(np.logical_xor),
    "Equal": _binary(np.equal),
    "Greater": _binary(np.greater),
    "GreaterOrEqual": _binary(np.greater_equal),
    "Less": _binary(np.less),
    "LessOrEqual": _binary(np.less_equal),
    "BitShift": _shift,
    "BitwiseAnd": _binary(np.bitwise_and),
    "BitwiseOr": _binary(np.bitwise_or),
    "BitwiseXor": _binary(np.bitwise_xor),
    "BitwiseNot": _unary(np.invert),
    "Sum": _variadic(np.add),
    "Mean": _mean,
    "Max": _variadic(np.maximum),
    "Min": _variadic(np.minimum),
    "Not": _unary(np.logical_not),
    "Neg": _unary(np.negative),
    "Abs": _unary(np.abs),
    "Sign": _unary(np.sign),
    "Sqrt": _unary(np.sqrt),
    "Reciprocal": _unary(lambda x: 1 / x),
    "Exp": _unary(np.exp),
    "Log": _unary(np.log),
    "Floor": _unary(np.floor),
    "Ceil": _unary(np.ceil),
    "Round": _unary(np.rint),
    "Sin": _unary(np.sin),
    "Cos": _unary(np.cos),
    "Tan": _unary(np.tan),
    "Asin": _unary(np.arcsin),
    "Acos": _unary(np.arccos),
    "Atan": _unary(np.arctan),
    "Sinh": _unary(np.sinh),
    "Cosh": _unary(np.cosh),
    "Tanh": _unary(np.tanh),
    "Asinh": _unary(np.arcsinh),
    "Acosh": _unary(np.arccosh),
    "Atanh": _unary(np.arctanh),
    "IsNaN": _unary(np.isnan),
    "IsInf": _is_inf,
    "Where": lambda c: np.where(*c.x),
}
