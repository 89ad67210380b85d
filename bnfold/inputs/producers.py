"""What the operand of a node must be for its result to have a size: the inverses of sizes.

Asked only where onnx's shape inference has a new symbol for a result, so operators that hand a
dimension on as it is (Relu, Transpose, Squeeze …) need no entry.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

import onnx_ir as ir

from bnfold.inputs.demands import elements_alike
from bnfold.inputs.reading import Reading, kind_of
from bnfold.inputs.signature import Dim
from bnfold.inputs.sites import Demand, Found, Site
from bnfold.model.attributes import int_attr, ints_attr, string_attr
from bnfold.model.graphs import subgraphs_of


def asked_of_operands(
    value: ir.Value, axis: int, size: int, reading: Reading
) -> Iterator[Demand]:
    """Yield what the operands of a value's producer must be, where one axis has a size."""
    node = value.producer()
    if node is None:
        return
    if node.op_type == "If":
        place = value.index() or 0
        for graph in subgraphs_of(node):
            yield Demand(graph.outputs[place], axis, size, node)
    invert = _INVERSES.get(kind_of(node))
    if invert is not None:
        found = invert(Site(node, reading), axis, size)
        yield from (one for one in found if isinstance(one, Demand))


def _concat(at: Site, axis: int, size: int) -> Found:
    """What the known parts leave, shared out if all others are of one size."""
    parts = [at.dims(index) for index in range(len(at.node.inputs))]
    if any(dims is None or axis >= len(dims) for dims in parts):
        return
    along = [dims[axis] for dims in parts if dims is not None]
    opened = Counter(dim for dim in along if not isinstance(dim, int))
    left = size - sum(dim for dim in along if isinstance(dim, int))
    if len(opened) != 1 or left < 1 or left % opened.total():
        return
    index = next(i for i, dim in enumerate(along) if not isinstance(dim, int))
    yield from at.axis(index, axis, left // opened.total())


def _split(at: Site, axis: int, size: int) -> Found:
    """Equal parts, of which one is known."""
    rank = len(at.dims(0) or ())
    if len(at.node.inputs) < 2 and rank and int_attr(at.node, "axis", 0) % rank == axis:
        yield from at.axis(0, axis, size * len(at.node.outputs))


def _reshape(at: Site, axis: int, size: int) -> Found:
    """As many elements in front; several open sizes are taken to be equal, as of an image."""
    before, after = at.dims(0), at.reading.dims(at.node.outputs[0])
    if before is None or after is None:
        return
    asked_dims: list[Dim] = [*after[:axis], size, *after[axis + 1 :]]
    held, opened, asked, left = elements_alike(before, asked_dims)
    if left or not opened or held != 1 or None in opened:
        return
    each = round(asked ** (1 / len(opened)))
    if each ** len(opened) != asked:
        return
    for dim in opened:
        yield from at.axis(0, list(before).index(dim), each)


def _window(at: Site, axis: int, size: int) -> Found:
    """The smallest size with so many windows: (n − 1)·stride + extent − pads."""
    kernel = ints_attr(at.node, "kernel_shape") or _kernel(at)
    place = axis - 2
    if not 0 <= place < len(kernel):
        return
    ones = (1,) * len(kernel)
    stride = ints_attr(at.node, "strides", ones)[place]
    if string_attr(at.node, "auto_pad", "NOTSET").startswith("SAME"):
        yield from at.axis(0, axis, size * stride)
        return
    extent = (kernel[place] - 1) * ints_attr(at.node, "dilations", ones)[place] + 1
    pads = ints_attr(at.node, "pads", (0,) * 2 * len(kernel))
    yield from at.axis(0, axis, (size - 1) * stride + extent - sum(pads[place :: len(kernel)]))


def _kernel(at: Site) -> tuple[int, ...]:
    dims = at.dims(3 if at.node.op_type == "QLinearConv" else 1) or ()
    return tuple(dim for dim in dims[2:] if isinstance(dim, int))


def _pad(at: Site, axis: int, size: int) -> Found:
    pads, rank = at.reading.ints(at.node, 1, "pads"), len(at.dims(0) or ())
    if pads and len(pads) == 2 * rank:
        yield from at.axis(0, axis, size - pads[axis] - pads[axis + rank])


def _tile(at: Site, axis: int, size: int) -> Found:
    repeats = at.reading.ints(at.node, 1, "")
    if repeats and axis < len(repeats) and repeats[axis] > 0 and not size % repeats[axis]:
        yield from at.axis(0, axis, size // repeats[axis])


def _space_to_depth(at: Site, axis: int, size: int) -> Found:
    step = int_attr(at.node, "blocksize", 1)
    if axis == 1 and size % step**2 == 0:
        yield from at.axis(0, 1, size // step**2)
    elif axis > 1:
        yield from at.axis(0, axis, size * step)


def _depth_to_space(at: Site, axis: int, size: int) -> Found:
    step = int_attr(at.node, "blocksize", 1)
    if axis == 1:
        yield from at.axis(0, 1, size * step**2)
    elif axis > 1 and size % step == 0:
        yield from at.axis(0, axis, size // step)


def _resize(at: Site, axis: int, size: int) -> Found:
    """The smallest size that these scales take there."""
    scales = at.reading.elements(at.value(1 if at.node.op_type == "Upsample" else 2))
    axes = ints_attr(at.node, "axes") or range(len(at.dims(0) or ()))
    if scales is None or scales.size != len(axes) or axis not in axes:
        return
    scale = float(scales.reshape(-1)[list(axes).index(axis)])
    wanted = math.ceil(size / scale) if scale > 0 else 0
    if wanted > 0 and math.floor(wanted * scale) == size:
        yield from at.axis(0, axis, wanted)


def _slice(at: Site, axis: int, size: int) -> Found:
    """What is cut off at both ends is put on again."""
    starts, ends = (at.reading.ints(at.node, i, n) for i, n in ((1, "starts"), (2, "ends")))
    if starts is None or ends is None:
        return
    rank = len(at.dims(0) or ())
    axes = at.reading.ints(at.node, 3, "axes", range(len(starts)))
    steps = at.reading.ints(at.node, 4, "", (1,) * len(starts))
    for place, start, end, step in zip(axes or (), starts, ends, steps or (), strict=False):
        cut_before, cut_behind = max(start, 0), max(-end, 0)
        if rank and place % rank == axis and step > 0 and start >= 0:
            taken = (size - 1) * step + 1 if cut_behind else size * step
            yield from at.axis(0, axis, taken + cut_before + cut_behind)


def _broadcast(at: Site, axis: int, size: int) -> Found:
    """Every operand that is open there; 1 would do for some."""
    rank = len(at.reading.dims(at.node.outputs[0]) or ())
    for index in range(len(at.node.inputs)):
        if at.size(index, axis - rank) is None:
            yield from at.axis(index, axis - rank, size, weak=True)


_WINDOWS: Final = (
    "Conv",
    "FusedConv",
    "ConvInteger",
    "QLinearConv",
    "MaxPool",
    "AveragePool",
    "LpPool",
)
_BROADCAST: Final = ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", "Where")

_INVERSES: Final[dict[str, Callable[[Site, int, int], Found]]] = {
    "Concat": _concat,
    "Split": _split,
    **dict.fromkeys(("Reshape", "Flatten"), _reshape),
    **dict.fromkeys(_WINDOWS, _window),
    "Pad": _pad,
    "Tile": _tile,
    "SpaceToDepth": _space_to_depth,
    "DepthToSpace": _depth_to_space,
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    "Slice": _slice,
    **dict.fromkeys(_BROADCAST, _broadcast),
}
