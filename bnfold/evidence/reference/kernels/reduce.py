"""Reductions over axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np

from bnfold.evidence.reference.arrays import Array
from bnfold.evidence.reference.call import Call, Kernel

_Axes: TypeAlias = tuple[int, ...] | None


def _mean(x: Array, axes: _Axes, keep: bool) -> Array:  # noqa: FBT001  as numpy has it
    return np.asarray(x.mean(axes, keepdims=keep)).astype(x.dtype)


def _log_sum_exp(x: Array, axes: _Axes, keep: bool) -> Array:  # noqa: FBT001  as numpy has it
    top = x.max(axes, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0)
    total = np.log(np.exp(x - top).sum(axes, keepdims=True)) + top
    return np.asarray(total if keep else total.squeeze(axes))


def _reduction(operator: str, function: Callable[[Array, _Axes, bool], Any]) -> Kernel:
    """A kernel; its axes are an input from version 18 on (13 for ReduceSum)."""
    since = 13 if operator == "ReduceSum" else 18

    def kernel(call: Call) -> Any:
        x, given = call.x[0], call.maybe(1)
        axes = call.integers("axes") if call.opset < since else tuple(map(int, _flat(given)))
        if not axes and call.integer("noop_with_empty_axes", 0):
            return x
        every = tuple(range(x.ndim))
        y = function(x, axes or every, bool(call.integer("keepdims", 1)))
        return np.asarray(y).astype(x.dtype) if x.dtype.kind in "iu" else y

    return kernel


def _limits(x: Array) -> tuple[Any, Any]:
    """What the type's largest and smallest elements are: the extremes of an empty set."""
    if x.dtype.kind in "iu":
        limits = np.iinfo(x.dtype)
        return limits.min, limits.max
    return (False, True) if x.dtype == np.bool_ else (-np.inf, np.inf)


def _flat(axes: Array | None) -> list[int]:
    return [] if axes is None else list(np.atleast_1d(axes))


_FUNCTIONS: Final[dict[str, Callable[[Array, _Axes, bool], Any]]] = {
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keepdims=keep),
    "ReduceMean": _mean,
    "ReduceMax": lambda x, axes, keep: x.max(axes, keepdims=keep, initial=_limits(x)[0]),
    "ReduceMin": lambda x, axes, keep: x.min(axes, keepdims=keep, initial=_limits(x)[1]),
    "ReduceProd": lambda x, axes, keep: x.prod(axes, keepdims=keep),
    "ReduceL1": lambda x, axes, keep: np.abs(x).sum(axes, keepdims=keep),
    "ReduceL2": lambda x, axes, keep: np.sqrt(np.square(x).sum(axes, keepdims=keep)),
    "ReduceSumSquare": lambda x, axes, keep: np.square(x).sum(axes, keepdims=keep),
    "ReduceLogSum": lambda x, axes, keep: np.log(x.sum(axes, keepdims=keep)),
    "ReduceLogSumExp": _log_sum_exp,
}


def _place(call: Call, *, largest: bool) -> Array:
    """The place of the largest or smallest element; of equal ones the first or the last."""
    x, axis = call.x[0], call.integer("axis", 0)
    last = call.integer("select_last_index", 0)
    x = np.flip(x, axis) if last else x
    place = (np.argmax if largest else np.argmin)(x, axis, keepdims=True)
    place = x.shape[axis] - 1 - place if last else place
    kept = place if call.integer("keepdims", 1) else place.squeeze(axis)
    return np.asarray(kept, dtype=np.int64)


def _cum_sum(call: Call) -> Array:
    x, axis = call.x[0], int(call.x[1])
    backwards = call.integer("reverse", 0)
    x = np.flip(x, axis) if backwards else x
    y = np.cumsum(x, axis, dtype=x.dtype)
    y = y - x if call.integer("exclusive", 0) else y
    return np.flip(y, axis) if backwards else y


KERNELS: Final[dict[str, Kernel]] = {
    **{name: _reduction(name, function) for name, function in _FUNCTIONS.items()},
    "ArgMax": lambda c: _place(c, largest=True),
    "ArgMin": lambda c: _place(c, largest=False),
    "CumSum": _cum_sum,
}
