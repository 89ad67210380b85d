"""What the further inputs of an operator are like, given the first: shapes, and integers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx

from benchmarks.campaign.sketch import Array, Shape
from tests.fuzz.attributes import new_shape, pads_of_axes, parts
from tests.fuzz.contents import drawn_shape
from tests.fuzz.draws import Draws

Attributes = Mapping[str, Any]


def attributes_by_name(node: onnx.NodeProto) -> Attributes:
    """Return the values of attributes that are no graphs."""
    return {
        one.name: onnx.helper.get_attribute_value(one)
        for one in node.attribute
        if not one.HasField("g")
    }


# ------------------------------------------------------------------- integers that decide


def _axes(draws: Draws, shape: Shape) -> list[int]:
    rank = len(shape)
    chosen = draws.some(range(rank)) or ([0] if draws.chance(80) else [])
    return [axis - rank if draws.chance(30) else axis for axis in chosen]


_DECIDING: Final[Mapping[str, Callable[[Draws, Shape], Any]]] = {
    "axes": _axes,
    "axis": lambda draws, shape: draws.integer(-1, max(len(shape) - 1, 0)),
    "shape": lambda draws, shape: new_shape(draws, shape),
    "pads": pads_of_axes,
    "repeats": lambda draws, shape: [draws.pick((1, 2, 1, 3)) for _ in shape],
    "tiles": lambda draws, shape: draws.pick((1, 2)),  # noqa: ARG005  the contract of all
    "starts": lambda draws, shape: [draws.pick((0, 1, -1)) for _ in shape],
    "ends": lambda draws, shape: [draws.pick((9999, 2, -1, size)) for size in shape],
    "steps": lambda draws, shape: [draws.pick((1, 1, 2, -1)) for _ in shape],
    "split": lambda draws, shape: parts(draws, draws.pick(shape or (1,))),
    "K": lambda draws, shape: [draws.pick((1, 2))],  # noqa: ARG005  as above
    "k": lambda draws, shape: draws.pick((0, 1, -1)),  # noqa: ARG005  as above
    "depth": lambda draws, shape: draws.pick((3, 4)),  # noqa: ARG005  as above
    "start": lambda draws, shape: 0,  # noqa: ARG005  as above
    "limit": lambda draws, shape: draws.pick((3, 5)),  # noqa: ARG005  as above
    "delta": lambda draws, shape: draws.pick((1, 2)),  # noqa: ARG005  as above
    "size": lambda draws, shape: draws.pick((3, 4)),  # noqa: ARG005  as above
    "position": lambda draws, shape: 0,  # noqa: ARG005  as above
    "training_mode": lambda draws, shape: draws.chance(10),  # noqa: ARG005  as above
}
_FACTORS: Final = (1.0, 2.0, 1.0, 0.5, 1.5)


def deciding(
    draws: Draws, operator: str, name: str, shape: Shape, dtype: np.dtype
) -> Array | None:
    """Return the contents of an input that says sizes or axes; None for any other one."""
    if operator in ("Resize", "Upsample") and name in _RESIZING:
        return _RESIZING[name](draws, shape)
    if operator == "ConstantOfShape":
        return np.array(drawn_shape(draws, draws.integer(0, 3)), np.int64)
    if operator == "Expand":
        return np.array(_expanded(draws, shape), np.int64)
    if name == "indices" and dtype.kind == "i":
        return _indices(draws, operator, shape, dtype)
    if operator == "Pad" and name == "axes":
        return np.array(_axes(draws, shape), np.int64)  # onnx's inference wants no int32 here
    maker = _DECIDING.get(name)
    if maker is None or operator in ("Concat", "Where"):
        return None
    return np.asarray(maker(draws, shape)).astype(dtype)


def _scales(draws: Draws, shape: Shape) -> Array:
    factors = [1.0, 1.0, *(draws.pick(_FACTORS) for _ in shape[2:])]
    return np.array(factors[: len(shape)], np.float32)


def _sizes(draws: Draws, shape: Shape) -> Array:
    return np.array([*shape[:2], *(s * draws.pick((1, 2)) for s in shape[2:])], np.int64)


_RESIZING: Final[Mapping[str, Callable[[Draws, Shape], Array]]] = {
    "roi": lambda draws, shape: np.zeros(0, np.float32),  # noqa: ARG005  the contract of all
    "scales": _scales,
    "sizes": _sizes,
}


def _expanded(draws: Draws, shape: Shape) -> list[int]:
    target = [draws.pick((1, 3)) if size == 1 else draws.pick((size, 1)) for size in shape]
    return [*([2] if draws.chance(30) else []), *target]


def _indices(draws: Draws, operator: str, shape: Shape, dtype: np.dtype) -> Array:
    rng = draws.rng()
    least = min((size for size in shape if size), default=1)
    if operator in ("GatherElements", "Scatter", "ScatterElements"):
        return np.asarray(rng.integers(0, least, shape)).astype(dtype)
    if operator in ("GatherND", "ScatterND"):
        return np.asarray(rng.integers(0, least, (2, 1))).astype(dtype)
    wanted = draws.pick(((), (3,), (1,), (2, 2), (least,)))
    low = -least if draws.chance(30) else 0
    return np.asarray(rng.integers(low, least, wanted)).astype(dtype)


# -------------------------------------------------------------------------------- shapes


def _conv(draws: Draws, shape: Shape, given: Attributes) -> list[Shape]:
    spatial = max(len(shape) - 2, 1)
    channels = shape[1] if len(shape) > 1 else 1
    group = max(int(given.get("group", 1)), 1)
    kernel = given.get("kernel_shape") or [draws.pick((1, 2, 3))] * spatial
    outputs = group * draws.pick((1, 2, 3))
    return [(outputs, channels // group, *kernel), (outputs,)]


def _deconv(draws: Draws, shape: Shape, given: Attributes) -> list[Shape]:
    spatial = max(len(shape) - 2, 1)
    channels = shape[1] if len(shape) > 1 else 1
    group = max(int(given.get("group", 1)), 1)
    kernel = given.get("kernel_shape") or [draws.pick((1, 2, 3))] * spatial
    columns = draws.pick((1, 2, 3))
    return [(channels, columns, *kernel), (columns * group,)]


def _gemm(draws: Draws, shape: Shape, given: Attributes) -> list[Shape]:
    pair = (*shape, 1, 1)[:2]
    rows, inner = pair[::-1] if given.get("transA") else pair
    columns = draws.pick((3, 1, 4, 2))
    weight = (columns, inner) if given.get("transB") else (inner, columns)
    added = draws.pick(((columns,), (1, columns), (), (1,), (rows, columns), (rows, 1)))
    return [weight, added]


def _matmul(draws: Draws, shape: Shape, _given: Attributes) -> list[Shape]:
    inner = shape[-1] if shape else 1
    columns = draws.pick((3, 1, 4))
    front = shape[:-2] if draws.chance(15) else ()
    return [(inner,) if draws.chance(10) else (*front, inner, columns)]


def _per_channel(_draws: Draws, shape: Shape, _given: Attributes) -> list[Shape]:
    return [(shape[1] if len(shape) > 1 else 1,)] * 4


def _per_group(draws: Draws, shape: Shape, given: Attributes) -> list[Shape]:
    channels = shape[1] if len(shape) > 1 else 1
    groups = int(given.get("num_groups", 1))
    return [(draws.pick((channels, channels, groups)),)] * 2


def _behind_axis(draws: Draws, shape: Shape, given: Attributes) -> list[Shape]:
    axis = int(given.get("axis", -1))
    return [draws.pick((shape[axis:], shape[axis:], shape[-1:]))] * 2


def _slope(draws: Draws, shape: Shape, _given: Attributes) -> list[Shape]:
    return [broadcastable(draws, shape)]


def _recurrent(gates: int) -> Callable[[Draws, Shape, Attributes], list[Shape]]:
    def shapes(draws: Draws, shape: Shape, given: Attributes) -> list[Shape]:
        ways = 2 if given.get("direction") == b"bidirectional" else 1
        size = int(given.get("hidden_size", 3))
        steps, batch, width = (*shape, 1, 1, 1)[:3]
        state = (ways, batch, size)
        if given.get("layout"):
            batch, state = steps, (steps, ways, size)
        weights = [(ways, gates * size, width), (ways, gates * size, size)]
        rest = [(ways, 2 * gates * size), (batch,), state, state, (ways, 3 * size)]
        return [*weights, *rest] if draws.chance(90) else weights

    return shapes


def _quantised(draws: Draws, shape: Shape, given: Attributes) -> list[Shape]:
    if draws.chance(50) or not shape:
        return [()] * 2
    axis = int(given.get("axis", 1))
    return [(shape[axis % len(shape)],)] * 2


def _cond(draws: Draws, shape: Shape, _given: Attributes) -> list[Shape]:
    return [broadcastable(draws, shape)] * 2


_SHAPES: Final[Mapping[str, Callable[[Draws, Shape, Attributes], list[Shape]]]] = {
    "Conv": _conv,
    "ConvInteger": _conv,
    "ConvTranspose": _deconv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "Einsum": _matmul,
    "BatchNormalization": _per_channel,
    "InstanceNormalization": _per_channel,
    "GroupNormalization": _per_group,
    "LayerNormalization": _behind_axis,
    "RMSNormalization": _behind_axis,
    "PRelu": _slope,
    "RNN": _recurrent(1),
    "GRU": _recurrent(3),
    "LSTM": _recurrent(4),
    "QuantizeLinear": _quantised,
    "DequantizeLinear": _quantised,
    "Where": _cond,
}
SCALAR: Final = frozenset(
    {"min", "max", "constant_value", "ratio", "start", "limit", "delta", "cond", "axis", "k"}
)
RANKS: Final[Mapping[str, Sequence[int]]] = {
    "Conv": (3, 4, 5),
    "ConvTranspose": (3, 4),
    "Gemm": (2,),
    "MatMul": (2, 3, 4, 1),
    "BatchNormalization": (2, 3, 4, 5),
    "InstanceNormalization": (3, 4),
    "RNN": (3,),
    "GRU": (3,),
    "LSTM": (3,),
    "Resize": (3, 4),
    "Upsample": (4,),
    "DepthToSpace": (4,),
    "SpaceToDepth": (4,),
    "MaxPool": (3, 4, 5),
    "AveragePool": (3, 4, 5),
    "LpPool": (3, 4),
    "GlobalAveragePool": (3, 4),
    "GlobalMaxPool": (3, 4),
}
"""Ranks that an operator wants of its first input; others take any."""


def shapes_behind(
    draws: Draws, operator: str, shape: Shape, given: Attributes, count: int
) -> list[Shape]:
    """Return the shapes of the inputs behind the first."""
    made = _SHAPES.get(operator)
    found = made(draws, shape, given) if made else []
    rest = [broadcastable(draws, shape) for _ in range(count - len(found))]
    return [*found, *rest][:count]


def broadcastable(draws: Draws, shape: Shape) -> Shape:
    """Return a shape that broadcasts against another: mostly one number per channel."""
    rank = len(shape)
    how = draws.integer(0, 9)
    if how < 2 or not rank:
        return () if how != 1 else (1,)
    if how < 6:
        axis = draws.integer(0, rank - 1)
        front = (1,) * (axis if draws.chance(30) else 0)
        return (*front, shape[axis], *(1,) * (rank - axis - 1))
    if how < 7:
        return shape
    if how < 8:
        return tuple(size if draws.chance(50) else 1 for size in shape)
    if how < 9:
        return (1,) * draws.integer(1, rank + 1)
    return shape[draws.integer(0, rank - 1) :]
