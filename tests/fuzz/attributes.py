"""Attributes of nodes: what their schemas allow, in the range where something happens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from benchmarks.campaign.sketch import Shape
from tests.fuzz.contents import FLOATS, drawn_array
from tests.fuzz.draws import Draws

_Maker = Callable[[Draws, Shape], Any]
_WORDS: Final[Mapping[str, Sequence[str]]] = {
    "approximate": ("none", "tanh"),
    "auto_pad": ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"),
    "case_change_action": ("NONE", "LOWER", "UPPER"),
    "coordinate_transformation_mode": (
        *("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"),
        *("half_pixel_symmetric", "tf_crop_and_resize", "output_half_pixel"),
    ),
    "direction": ("forward", "reverse", "bidirectional", "LEFT", "RIGHT"),
    "keep_aspect_ratio_policy": ("stretch", "not_larger", "not_smaller"),
    "mode": (
        *("constant", "edge", "reflect", "wrap", "nearest", "linear", "cubic", "DCR", "CRD"),
        *("bilinear", "avg", "max", "TF", "circular"),
    ),
    "nearest_mode": ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
    "padding_mode": ("zeros", "border", "reflection"),
    "reduction": ("none", "mean", "sum", "add", "mul", "max", "min"),
    "round_mode": ("up", "down", "nearest"),
    "to": ("FLOAT",),
}
_MODES: Final[Mapping[str, Sequence[str]]] = {
    "Pad": ("constant", "edge", "reflect", "wrap"),
    "Resize": ("nearest", "linear", "cubic"),
    "Upsample": ("nearest", "linear"),
    "DepthToSpace": ("DCR", "CRD"),
    "GridSample": ("bilinear", "nearest", "linear", "bicubic"),
    "RoiAlign": ("avg", "max"),
    "TfIdfVectorizer": ("TF", "IDF", "TFIDF"),
    "TensorScatter": ("linear", "circular"),
}
_FLAGS: Final = (
    *("fmod", "exclusive", "reverse", "largest", "sorted", "upper", "select_last_index"),
    *("ceil_mode", "count_include_pad", "storage_order", "align_corners", "antialias"),
    *("exclude_outside", "linear_before_reset", "input_forget", "is_test", "allowzero"),
)
"""Yes or no, though an integer: some read 2 as yes, others as no, and no model means it."""
_NUMBERS: Final = (1.0, 0.5, 0.0, 2.0, 0.1, -0.5, 1e-5, -1.0, 3.0)
_ACTIVATIONS: Final = ("Tanh", "Sigmoid", "Relu", "HardSigmoid", "Softsign")


def _axis(draws: Draws, shape: Shape) -> int:
    rank = max(len(shape), 1)
    return draws.pick([*range(rank), *range(-rank, 0), rank if draws.chance(5) else 0])


def _axes(draws: Draws, shape: Shape) -> list[int]:
    rank = len(shape)
    chosen = draws.some(range(rank)) or [0]
    return [axis - rank if draws.chance(30) and rank else axis for axis in chosen]


def _spatial(shape: Shape) -> int:
    return max(len(shape) - 2, 1)


def _kernel(draws: Draws, shape: Shape) -> list[int]:
    return [draws.pick((1, 2, 3, 1, 3)) for _ in range(_spatial(shape))]


def _strides(draws: Draws, shape: Shape) -> list[int]:
    return [draws.pick((1, 1, 2, 3)) for _ in range(_spatial(shape))]


def _window_pads(draws: Draws, shape: Shape) -> list[int]:
    if draws.chance(50):
        return [draws.pick((0, 1))] * (2 * _spatial(shape))
    return [draws.pick((0, 0, 1, 2)) for _ in range(2 * _spatial(shape))]


def divisor(draws: Draws, number: int) -> int:
    """Return a divisor of a number of channels."""
    return draws.pick([k for k in range(1, max(number, 1) + 1) if number % k == 0] or [1])


def parts(draws: Draws, whole: int) -> list[int]:
    """Return sizes that add up to a whole one."""
    found: list[int] = []
    while whole > 0 and len(found) < 4:
        found.append(draws.integer(1, whole) if len(found) < 3 else whole)
        whole -= found[-1]
    return found or [whole]


def _channels(shape: Shape) -> int:
    return shape[1] if len(shape) > 1 else 1


def pads_of_axes(draws: Draws, shape: Shape) -> list[int]:
    """Return pads for every axis, a few of them negative."""
    return [draws.pick((0, 0, 0, 1, 2, -1)) for _ in range(2 * len(shape))]


_BY_NAME: Final[Mapping[str, _Maker]] = {
    "axis": _axis,
    "axes": _axes,
    "perm": lambda draws, shape: draws.order(range(len(shape))),
    "kernel_shape": _kernel,
    "pads": _window_pads,
    "paddings": pads_of_axes,
    "strides": _strides,
    "dilations": lambda draws, shape: [draws.pick((1, 1, 2)) for _ in range(_spatial(shape))],
    "output_padding": lambda draws, shape: [draws.pick((0, 0, 1))] * _spatial(shape),
    "group": lambda draws, shape: divisor(draws, _channels(shape)),
    "num_groups": lambda draws, shape: divisor(draws, _channels(shape)),
    "blocksize": lambda draws, shape: 2,  # noqa: ARG005  the contract of all of them
    "split": lambda draws, shape: parts(draws, draws.pick(shape or (1,))),
    "starts": lambda draws, shape: [draws.pick((0, 1, -1)) for _ in shape],
    "ends": lambda draws, shape: [draws.pick((9999, 2, -1, size)) for size in shape],
    "repeats": lambda draws, shape: [draws.pick((1, 2)) for _ in shape],
    "scales": lambda draws, shape: [draws.pick((1.0, 2.0)) for _ in shape],
    "shape": lambda draws, shape: new_shape(draws, shape),
    "keepdims": lambda draws, shape: draws.pick((1, 0)),  # noqa: ARG005  as below
    "noop_with_empty_axes": lambda draws, shape: draws.pick((0, 1)),  # noqa: ARG005  as below
    "hidden_size": lambda draws, shape: 3,  # noqa: ARG005  recurrent weights are made for it
    "output_shape": lambda draws, shape: [draws.pick((4, 5, 7))] * _spatial(shape),
    "epsilon": lambda draws, shape: draws.pick((1e-5, 0.1, 1e-3)),  # noqa: ARG005  as above
    "equation": lambda draws, shape: equation(draws, len(shape)),
    "activations": lambda draws, shape: [draws.pick(_ACTIVATIONS)] * 2,  # noqa: ARG005  as above
    "num_outputs": lambda draws, shape: draws.pick((2, 3, 1)),  # noqa: ARG005  as above
    "k": lambda draws, shape: draws.pick((1, 2)),  # noqa: ARG005  as above
    "time_axis": lambda draws, shape: draws.pick((0, 1)),  # noqa: ARG005  as above
    "batch_axis": lambda draws, shape: draws.pick((1, 0)),  # noqa: ARG005  as above
    **dict.fromkeys(
        _FLAGS,
        lambda draws, shape: draws.pick((1, 0)),  # noqa: ARG005  as above
    ),
}


def new_shape(draws: Draws, shape: Shape) -> list[int]:
    """Return a shape of as many elements, some of it written as 0 or −1."""
    how = draws.integer(0, 4)
    count = int(np.prod(shape, dtype=np.int64))
    target = list(shape)
    if how == 0:
        target = [count]
    elif how == 1 and len(target) > 1:
        place = draws.integer(0, len(target) - 2)
        target[place : place + 2] = [target[place] * target[place + 1]]
    elif how == 2 and target:
        place = draws.integer(0, len(target) - 1)
        part = divisor(draws, target[place])
        target[place : place + 1] = [part, target[place] // part]
    elif how == 3:
        target.insert(draws.integer(0, len(target)), 1)
    if target and draws.chance(40):
        target[draws.integer(0, len(target) - 1)] = -1
    if target and shape and draws.chance(20):
        target[0] = 0
    return target


def equation(draws: Draws, rank: int) -> str:
    """Return an equation of two operands, the first of this rank, or of one."""
    letters = "abcde"[: max(rank, 1)]
    last = letters[-1]
    return draws.pick(
        (
            f"{letters},{last}z->{letters[:-1]}z",
            f"{letters},{last}->{letters}",
            f"{letters}->{letters[::-1]}",
            f"{letters},{letters}->{letters[:-1]}",
            f"{letters},z{last}->{letters[:-1]}z",
        )
    )


def attributes_of(
    draws: Draws, schema: onnx.defs.OpSchema, shape: Shape, kind: int
) -> list[AttributeProto]:
    """Draw attributes for a node whose first input has this shape."""
    found = []
    for name, wanted in sorted(schema.attributes.items()):
        if wanted.required or draws.chance(_share(name)):
            value = _value(draws, schema, name, wanted.type.name, shape, kind)
            if value is not None:
                kind_of_attribute = int(wanted.type.value)
                found.append(helper.make_attribute(name, value, attr_type=kind_of_attribute))
    return found


def _share(name: str) -> int:
    likely = ("axis", "axes", "perm", "group", "kernel_shape", "pads", "strides", "alpha")
    return 60 if name in likely else 10 if name in ("auto_pad", "training_mode") else 30


def _value(
    draws: Draws, schema: onnx.defs.OpSchema, name: str, type_: str, shape: Shape, kind: int
) -> Any:
    if name in _TYPES:
        return draws.pick((kind, *FLOATS, 7, 6, 9, 2, 3)) if type_ == "INT" else "FLOAT"
    if name == "pads" and schema.name == "Pad":
        return pads_of_axes(draws, shape)
    if name in _BY_NAME:
        return _BY_NAME[name](draws, shape)
    if type_ == "TENSOR":
        one = (1,) if schema.name == "ConstantOfShape" else ()
        return numpy_helper.from_array(drawn_array(draws, _stored(draws, kind), one))
    if type_ == "STRING":
        words = _MODES.get(schema.name) if name == "mode" else None
        return draws.pick(words or _WORDS.get(name, ("", "a")))
    return _BY_TYPE[type_](draws) if type_ in _BY_TYPE else None


_TYPES: Final = ("to", "dtype", "output_dtype", "output_datatype", "stash_type")
_BY_TYPE: Final[Mapping[str, Callable[[Draws], Any]]] = {
    "INT": lambda draws: draws.pick((1, 0, 1, 2, -1)),
    "FLOAT": lambda draws: draws.pick(_NUMBERS),
    "INTS": lambda draws: [draws.pick((1, 0, 2)) for _ in range(draws.integer(1, 3))],
    "FLOATS": lambda draws: [draws.pick(_NUMBERS) for _ in range(draws.integer(1, 3))],
    "STRINGS": lambda draws: [draws.pick(("a", "b"))],
}


def _stored(draws: Draws, kind: int) -> int:
    return draws.pick((kind, kind, TensorProto.INT64))
