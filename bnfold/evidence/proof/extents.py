"""How short the axes of a segment may be cut without losing what it does.

A segment of windows does the same at every place, apart from its borders. So it can be
compared on short axes, if they are long enough for every window, slice and pad on the way, and
if they end at the same phase of every stride as the real ones: SAME padding, ceil_mode and the
last window depend on the length modulo the strides. Cutting ``t`` places off the result cuts
``t · stride`` off each input, so a whole ``t`` keeps both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from bnfold.evidence.proof.draws import BATCH, FREE, Dims
from bnfold.evidence.proof.sides import CannotEvaluateError, Segment, Side
from bnfold.model.attributes import int_attr, ints_attr, string_attr

Lengths = tuple[int, ...]
_Strides = tuple[Fraction, ...]

_AXES: Final = 3
"""Spatial axes that are followed, counted from the last: 3-D convolutions have three."""

_CUT_FROM_RANK: Final = 4
"""Values of lower rank (sequences, features) are compared at their real size: it is small."""

_CUT_BATCH: Final = 2
_ENDLESS: Final = 1 << 30
"""Slice ends of this size mean "to the end" (Slice-13)."""

_WINDOWS: Final = frozenset({"Conv", "MaxPool", "AveragePool", "LpPool", "ConvInteger"})


class Sizes(Enum):
    """How long axes are; the value is how many places the result has at the least."""

    SHORT = 3
    """Two borders and an inside."""

    LONGER = 8
    REAL = 0


@dataclass(frozen=True, slots=True)
class Reach:
    """What one value must hold for the result to have some places.

    Attributes:
        need: Least length of each spatial axis, from the last axis backwards.
        stride: By how much the axis grows for one more place of the result.
    """

    need: Lengths
    stride: _Strides

    def joined(self, other: Reach) -> Reach | None:
        """Return what satisfies two readers; None where they go in different strides."""
        if self.stride != other.stride:
            return None
        return Reach(tuple(map(max, self.need, other.need)), self.stride)


@dataclass(frozen=True, slots=True)
class Extents:
    """What the inputs of two segments must hold, by name.

    Attributes:
        reaches: For each input; None where nothing may be cut.
        grain: For each axis, the places of the result that may be cut at once.
    """

    reaches: Mapping[str, Reach | None]
    grain: Lengths

    def shapes(
        self, dims: Mapping[str, Dims], sizes: Sizes, longer: int = 0
    ) -> dict[str, tuple[int, ...]]:
        """Return a shape for every input of known rank.

        Args:
            dims: Dimensions of the inputs, as the model has them.
            sizes: How long axes should be.
            longer: Places more on every spatial axis that is followed: windows at a stride
                then end elsewhere.
        """
        spared = (0,) * _AXES if sizes is Sizes.REAL else self._spared(dims)
        return {
            name: tuple(
                self._size(name, entry, axis, spared, sizes)
                + (longer if self._is_spatial(name, entry, axis) else 0)
                for axis in range(len(entry))
            )
            for name, entry in dims.items()
        }

    def _is_spatial(self, name: str, dims: Dims, axis: int) -> bool:
        return self.reaches.get(name) is not None and axis > 1 and len(dims) - axis <= _AXES

    def _spared(self, dims: Mapping[str, Dims]) -> Lengths:
        """Return how many places of the result are cut off, axis by axis."""
        return tuple(self._spared_along(axis, dims) for axis in range(_AXES))

    def _spared_along(self, axis: int, dims: Mapping[str, Dims]) -> int:
        most: float = math.inf
        for name, entry in dims.items():
            reach = self.reaches.get(name)
            if len(entry) < _CUT_FROM_RANK or axis >= len(entry) - 2:
                continue
            size = entry[len(entry) - 1 - axis]
            if reach is None:
                return 0
            if isinstance(size, int) and size > 1:
                most = min(most, (size - reach.need[axis]) // reach.stride[axis])
        if not math.isfinite(most) or most <= 0:
            return 0
        return int(most) // self.grain[axis] * self.grain[axis]

    def _size(self, name: str, dims: Dims, axis: int, spared: Lengths, sizes: Sizes) -> int:
        """Return the length of one axis; a free one gets a length of its own."""
        reach, dim, back = self.reaches.get(name), dims[axis], len(dims) - 1 - axis
        spatial = self._is_spatial(name, dims, axis)
        if not isinstance(dim, int):
            need = reach.need[back] if reach is not None and spatial else 0
            return BATCH if axis == 0 else max(FREE, need)
        if len(dims) < _CUT_FROM_RANK or sizes is Sizes.REAL:
            return dim
        if axis == 0:
            return min(dim, _CUT_BATCH)
        if reach is None or not spatial or dim <= 1:
            return dim
        return dim - int(spared[back] * reach.stride[back])


def extents_of(pairs: Iterable[tuple[Segment, Side]], sizes: Sizes) -> Extents:
    """Return what the inputs of segments must hold for a result of so many places.

    Args:
        pairs: The segments that compute one value, each with the model it is of.
        sizes: How many places that are.
    """
    found: dict[str, Reach | None] = {}
    grain = [1] * _AXES
    places = max(sizes.value, Sizes.SHORT.value)
    for segment, side in pairs:
        for value, reach in _followed(segment, side, places).items():
            for axis, stride in enumerate(() if reach is None else reach.stride):
                grain[axis] = math.lcm(grain[axis], stride.denominator)
            name = value.name or ""
            if name in segment.inputs:
                found[name] = _joined(found, name, reach)
    return Extents(found, tuple(grain))


def _followed(segment: Segment, side: Side, places: int) -> dict[ir.Value, Reach | None]:
    """Walk from the result to the inputs."""
    start = Reach((places,) * _AXES, (Fraction(1),) * _AXES)
    reaches: dict[ir.Value, Reach | None] = {segment.result: start}
    for node in reversed(segment.nodes):
        known = [reaches[value] for value in node.outputs if value in reaches]
        if not known:
            continue
        reach = known[0]
        for other in known[1:]:
            reach = None if reach is None or other is None else reach.joined(other)
        before = None if reach is None else _before(node, reach, side)
        for value in side.reads(node):
            if not side.is_constant(value):
                reaches[value] = _joined(reaches, value, before)
    return reaches


def _joined(found: Mapping[Any, Reach | None], key: Any, reach: Reach | None) -> Reach | None:
    if key not in found:
        return reach
    known = found[key]
    return None if known is None or reach is None else known.joined(reach)


def _before(node: ir.Node, reach: Reach, side: Side) -> Reach | None:
    """Return what the input of a node must hold for what its output must hold."""
    kind = node.op_type
    if kind in _WINDOWS:
        return _before_window(node, reach, side)
    if kind == "ConvTranspose":
        return _before_transposed(node, reach, side)
    if kind in ("Resize", "Upsample"):
        return _before_resize(node, reach, side)
    if kind in ("DepthToSpace", "SpaceToDepth"):
        block = int_attr(node, "blocksize", 1)
        factor = Fraction(1, block) if kind == "DepthToSpace" else Fraction(block)
        return _scaled(reach, [factor] * _AXES)
    if kind in ("Slice", "Pad", "Gather"):
        return _before_places(node, reach, side)
    return reach


def _before_window(node: ir.Node, reach: Reach, side: Side) -> Reach | None:
    """A window of extent e at stride s reads (n − 1)·s + e places (Conv-11, pools-11)."""
    extents = _extents(node, side)
    if extents is None:
        return None
    strides = _from_last(ints_attr(node, "strides", ()), 1)
    need = tuple(
        (places - 1) * stride + extent
        for places, stride, extent in zip(reach.need, strides, extents, strict=True)
    )
    return Reach(need, tuple(map(lambda a, b: a * b, reach.stride, strides)))


def _before_transposed(node: ir.Node, reach: Reach, side: Side) -> Reach | None:
    extents = _extents(node, side)
    if extents is None:
        return None
    strides = _from_last(ints_attr(node, "strides", ()), 1)
    need = tuple(
        -(-(places + extent) // stride) + 1
        for places, stride, extent in zip(reach.need, strides, extents, strict=True)
    )
    return Reach(need, tuple(map(lambda a, b: a / b, reach.stride, strides)))


def _extents(node: ir.Node, side: Side) -> Lengths | None:
    """Return how many places one window spans: dilation · (taps − 1) + 1."""
    taps: Sequence[int] = ints_attr(node, "kernel_shape", ())
    if not taps:
        weight = node.inputs[1] if len(node.inputs) > 1 else None
        if weight is None or not side.is_constant(weight):
            return None
        try:
            stored = weight.const_value
            whole = side.constant(weight).shape if stored is None else stored.shape.numpy()
            taps = tuple(map(int, whole[2:]))
        except CannotEvaluateError:
            return None
    dilations = _from_last(ints_attr(node, "dilations", ()), 1)
    spans = zip(_from_last(taps, 1), dilations, strict=True)
    return tuple(dilation * (tap - 1) + 1 for tap, dilation in spans)


def _before_resize(node: ir.Node, reach: Reach, side: Side) -> Reach | None:
    """Return what an interpolation reads; None where the result has a size of its own."""
    scales = _constants(node, (1,) if node.op_type == "Upsample" else (2,), side)
    if len(scales) != 1 or scales[0].size < 2 or string_attr(node, "mode", "") == "cubic":
        return None
    sizes = [Fraction(float(one)).limit_denominator(64) for one in scales[0].reshape(-1)]
    if any(one <= 0 for one in sizes):
        return None
    factors = [1 / one for one in reversed(sizes)][:_AXES]
    factors += [Fraction(1)] * (_AXES - len(factors))
    return _scaled(reach, factors)


def _scaled(reach: Reach, factors: Sequence[Fraction]) -> Reach:
    """Return what must be there for a result that is this many times as long or short.

    Two places more: interpolation reads neighbours.
    """
    pairs = list(zip(reach.need, reach.stride, factors, strict=True))
    need = tuple(math.ceil(places * factor) + 2 for places, _, factor in pairs)
    return Reach(need, tuple(stride * factor for _, stride, factor in pairs))


def _before_places(node: ir.Node, reach: Reach, side: Side) -> Reach | None:
    """Pads and gathers name places: the axis must hold the furthest of them."""
    if node.op_type == "Slice":
        return _before_slice(node, reach, side)
    numbers = [one.reshape(-1) for one in _constants(node, (1,), side)]
    numbers.append(np.array(ints_attr(node, "pads", ()), np.int64))
    furthest = _furthest(np.concatenate([np.zeros(1), *numbers]))
    return Reach(tuple(length + furthest for length in reach.need), reach.stride)


def _before_slice(node: ir.Node, reach: Reach, side: Side) -> Reach | None:
    """Slice-13: each axis has its own start, end and step; before Slice-10 as attributes."""
    given = [_constants(node, (slot,), side) for slot in (1, 2, 3, 4)]
    named = ("starts", "ends", "axes", "steps")
    starts, ends, axes, steps = (
        found[0].reshape(-1) if found else np.array(ints_attr(node, name, ()), np.int64)
        for found, name in zip(given, named, strict=True)
    )
    data = node.inputs[0]
    if data is None or data.shape is None or not starts.size or starts.size != ends.size:
        return None
    rank = len(data.shape)
    axes = axes if axes.size else np.arange(starts.size)
    steps = steps if steps.size else np.ones(starts.size, np.int64)
    need, stride = list(reach.need), list(reach.stride)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        back = rank - 1 - int(axis) % rank
        if back < _AXES:
            size = abs(int(step))
            need[back] = need[back] * size + _furthest(np.array([start, end]))
            stride[back] = stride[back] * size
    return Reach(tuple(need), tuple(stride))


def _furthest(numbers: np.ndarray) -> int:
    """Return the furthest place that is named; "to the end" names none."""
    wide = np.abs(numbers.astype(np.float64))
    return int(wide[wide < _ENDLESS].max(initial=0))


def _constants(node: ir.Node, slots: Sequence[int], side: Side) -> list[np.ndarray]:
    """Return the constants that a node reads at some slots, where they can be computed."""
    found = []
    for slot in slots:
        value = node.inputs[slot] if slot < len(node.inputs) else None
        if value is None or not side.is_constant(value):
            continue
        try:
            found.append(np.asarray(side.constant(value)))
        except CannotEvaluateError:
            continue
    return found


def _from_last(sizes: Sequence[int], default: int) -> Lengths:
    """Return sizes of spatial axes from the last backwards, as many as are followed."""
    back = tuple(reversed(sizes))[:_AXES]
    return (*back, *(default,) * (_AXES - len(back)))
