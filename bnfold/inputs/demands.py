"""What every kind of operator demands of the sizes of its operands.

A demand says that one axis of a value has a size, or the size of another value's axis, or a
multiple of a number. `DEMANDS` is the table: an operator that is not in it demands nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import onnx_ir as ir

from bnfold.inputs.extents import counted_up, extent
from bnfold.inputs.reading import Reading, kind_of
from bnfold.inputs.signature import Dim
from bnfold.inputs.sites import Found, Most, Site
from bnfold.model.attributes import int_attr, ints_attr, string_attr


def demands_of(node: ir.Node, reading: Reading) -> Found:
    """Yield what a node demands of the sizes of its operands."""
    ask = DEMANDS.get(kind_of(node))
    if ask is not None:
        yield from ask(Site(node, reading))


_CONVOLVED: Final = {"QLinearConv": (0, 3), "NhwcFusedConv": (-1, -1)}


def _conv(at: Site) -> Found:
    data, weight = _CONVOLVED.get(kind_of(at.node), (0, 1))
    dims = at.dims(weight)
    if data < 0 or dims is None or len(dims) < 3:
        return
    yield from at.rank(data, len(dims))
    channels = dims[1]
    if isinstance(channels, int):
        yield from at.axis(data, 1, channels * int_attr(at.node, "group", 1))


def _conv_transpose(at: Site) -> Found:
    dims = at.dims(1)
    if dims is not None and len(dims) > 2:
        yield from at.rank(0, len(dims))
        yield from at.axis(0, 1, dims[0])


def _channels(at: Site) -> Found:
    """One number for each channel: axis 1."""
    dims = at.dims(0)
    flat = dims is not None and len(dims) < 2
    for index in range(1, len(at.node.inputs)):
        size = at.size(index, 0)
        if size is not None and not flat:
            yield from at.axis(0, 1, size)


def _group_norm(at: Site) -> Found:
    """Scales for each channel, or (until version 18) for each group."""
    groups, size = int_attr(at.node, "num_groups", 1), at.size(1, 0)
    yield from at.multiple(0, 1, groups)
    if size is not None and size != groups:
        yield from at.axis(0, 1, size)


def _trailing(at: Site) -> Found:
    """A scale over the last axes, as layer normalisation has it."""
    for index in range(1, len(at.node.inputs)):
        dims = at.dims(index) if at.reading.is_constant(at.value(index)) else None
        for back, dim in enumerate(reversed(dims or ()), start=1):
            if dim != 1:
                yield from at.axis(0, -back, dim)


def _skip_norm(at: Site) -> Found:
    """Two summands alike, then scale and bias over the last axis."""
    for index in range(2):
        for scale in range(2, len(at.node.inputs)):
            dims = at.dims(scale)
            if dims is not None and len(dims) == 1:
                yield from at.axis(index, -1, dims[0])


def _elementwise(at: Site) -> Found:
    yield from _broadcast(at, range(len(at.node.inputs)))


def _broadcast(at: Site, operands: Sequence[int], first: int = 1) -> Found:
    """Sizes that are neither 1 nor open are those of every operand that is not 1 there.

    Args:
        at: The node.
        operands: Those that are broadcast.
        first: The first axis that is, counted from the end.
    """
    every = [at.dims(index) for index in operands]
    longest = max((len(dims) for dims in every if dims is not None), default=0)
    for back in range(first, longest + 1):
        there = [dims[-back] for dims in every if dims is not None and back <= len(dims)]
        known: list[Dim] = [dim for dim in there if isinstance(dim, int) and dim > 1]
        known = known or [dim for dim in there if isinstance(dim, str)]
        for index in operands:
            if known and at.size(index, -back) is None:
                yield from at.axis(index, -back, known[0], weak=True)


_FACTORS: Final = {"QLinearMatMul": (0, 3)}


def _matmul(at: Site) -> Found:
    left, right = _FACTORS.get(at.node.op_type, (0, 1))
    one, other = at.dims(left), at.dims(right)
    if one is None or other is None:
        width = None if other is None else (other[-2] if len(other) > 1 else other[0])
        yield from at.axis(left, -1, width)
        return
    yield from at.alike((left, -1), (right, -2 if len(other) > 1 else 0))
    yield from _broadcast(at, (left, right), first=3)


def _gemm(at: Site) -> Found:
    yield from at.rank(0, 2)
    yield from at.rank(1, 2)
    inner_left = 0 if int_attr(at.node, "transA", 0) else 1
    inner_right = 1 if int_attr(at.node, "transB", 0) else 0
    yield from at.alike((0, inner_left), (1, inner_right))
    for axis, source, inner in ((0, 0, inner_left), (1, 1, inner_right)):
        if at.size(2, axis - 2) != 1:
            yield from at.alike((2, axis - 2), (source, 1 - inner))


def _matmul_n_bits(at: Site) -> Found:
    """The packed weight does not tell how many rows it has; an attribute does."""
    yield from at.axis(0, -1, int_attr(at.node, "K", 0))


def _rnn(at: Site) -> Found:
    """Steps, batch and features; layout 1 has the batch in front."""
    yield from at.rank(0, 3)
    yield from at.axis(0, 2, at.size(1, 2))
    first = bool(int_attr(at.node, "layout", 0))
    batch, lead = (0, 1) if first else (1, 0)
    yield from at.alike((4, 0), (0, batch))
    for index in (5, 6):
        yield from at.rank(index, 3)
        yield from at.alike((index, batch), (0, batch))
        yield from at.axis(index, lead, at.size(1, 0))
        yield from at.axis(index, 2, at.size(2, 2))


def _concat(at: Site) -> Found:
    """All axes but one are alike."""
    every = [at.dims(index) for index in range(len(at.node.inputs))]
    known = [dims for dims in every if dims is not None]
    if not known:
        return
    constants = (at.reading.is_constant(value) for value in at.node.inputs)
    sure = [dims for dims, is_sure in zip(every, constants, strict=True) if is_sure and dims]
    rank = len((sure or known)[0])
    skipped = int_attr(at.node, "axis", 1) % max(rank, 1)
    for index in range(len(at.node.inputs)):
        yield from at.rank(index, rank)
        for axis in range(rank):
            fixed = [d[axis] for d in known if len(d) == rank and d[axis] is not None]
            fixed.sort(key=lambda dim: isinstance(dim, str))
            if axis != skipped and fixed and at.size(index, axis) is None:
                yield from at.axis(index, axis, fixed[0])


def _split(at: Site) -> Found:
    """The parts make up the whole; equal parts divide it."""
    axis, parts = int_attr(at.node, "axis", 0), at.reading.ints(at.node, 1, "split")
    dims = at.dims(0)
    if dims is None or not -len(dims) <= axis < len(dims):
        return
    if parts:
        yield from at.axis(0, axis, sum(parts))
    elif len(at.node.inputs) < 2 and not int_attr(at.node, "num_outputs", 0):
        yield from at.multiple(0, axis % len(dims), len(at.node.outputs))


def _einsum(at: Site) -> Found:
    """One letter, one size."""
    terms = string_attr(at.node, "equation", "").replace(" ", "").split("->")[0].split(",")
    if "..." in "".join(terms) or len(terms) != len(at.node.inputs):
        return
    letters: dict[str, Dim] = {}
    for index, term in enumerate(terms):
        yield from at.rank(index, len(term))
        for letter, dim in zip(term, at.dims(index) or (), strict=False):
            if isinstance(dim, int) or letter not in letters:
                letters[letter] = dim
    for index, term in enumerate(terms):
        for axis, letter in enumerate(term):
            if at.size(index, axis) is None:
                yield from at.axis(index, axis, letters.get(letter))


def _space_to_depth(at: Site) -> Found:
    yield from at.rank(0, 4)
    step = int_attr(at.node, "blocksize", 1)
    yield from at.multiple(0, 2, step)
    yield from at.multiple(0, 3, step)


def _depth_to_space(at: Site) -> Found:
    yield from at.rank(0, 4)
    yield from at.multiple(0, 1, int_attr(at.node, "blocksize", 1) ** 2)


def _transpose(at: Site) -> Found:
    perm = ints_attr(at.node, "perm")
    if perm:
        yield from at.rank(0, len(perm))


def _pool(at: Site) -> Found:
    kernel = ints_attr(at.node, "kernel_shape")
    if kernel:
        yield from at.rank(0, len(kernel) + 2)


def _resize(at: Site) -> Found:
    """As many scales or sizes as axes, unless the axes are named."""
    scales = 1 if at.node.op_type == "Upsample" else 2
    for index in (scales, 3):
        size = at.size(index, 0)
        if size and not ints_attr(at.node, "axes"):
            yield from at.rank(0, size)


def _pad(at: Site) -> Found:
    pads = at.reading.ints(at.node, 1, "pads")
    if pads and len(at.node.inputs) < 4:
        yield from at.rank(0, len(pads) // 2)


def _slice(at: Site) -> Found:
    """A constant that is cut as long as an input has at least that length."""
    if not at.reading.is_constant(at.value(0)):
        return
    axes = at.reading.ints(at.node, 3, "axes", (0,))
    if axes is not None and len(axes) == 1:
        yield from _most(at, at.value(2), at.size(0, axes[0]), sized=extent)


def _gather(at: Site) -> Found:
    """A constant that 0, 1, 2 … are looked up in has as many rows."""
    if at.reading.is_constant(at.value(0)):
        rows = at.size(0, int_attr(at.node, "axis", 0))
        yield from _most(at, at.value(1), rows, sized=counted_up)


def _most(
    at: Site,
    value: ir.Value | None,
    size: int | None,
    sized: Callable[[ir.Value | None, Reading], tuple[Dim, ...] | None],
) -> Found:
    for dim in sized(value, at.reading) or ():
        if isinstance(dim, str) and size:
            yield Most(dim, size)


def product_of(dims: Sequence[Dim]) -> tuple[int, list[str | None]]:
    """Return the product of the sizes of a shape, and what is open."""
    opened = [dim for dim in dims if not isinstance(dim, int)]
    return math.prod(dim for dim in dims if isinstance(dim, int)), opened


def elements_alike(
    before: Sequence[Dim], after: Sequence[Dim]
) -> tuple[int, list[str | None], int, list[str | None]]:
    """Return both products of a Reshape, what they share cancelled."""
    held, opened = product_of(before)
    asked, left = product_of(after)
    for dim in list(opened):
        if dim is not None and dim in left:
            opened.remove(dim)
            left.remove(dim)
    shared = math.gcd(held, asked) or 1
    return held // shared, opened, asked // shared, left


def _reshape(at: Site) -> Found:
    """As many elements behind as in front; where one size is -1, a multiple."""
    dims, after = at.dims(0), at.reading.dims(at.node.outputs[0])
    target = at.reading.ints(at.node, 1, "shape")
    if dims is None or after is None:
        return
    held, opened, asked, left = elements_alike(dims, after)
    if left and len(opened) == 2 and opened[0] == dims[0]:
        # The batch is taken to be of any size: what divides is the other one.
        del opened[0]
    if len(opened) != 1 or opened[0] is None or held != 1 or asked < 1:
        return
    axis = list(dims).index(opened[0])
    if not left:
        yield from at.axis(0, axis, asked)
    elif len(left) == 1 and target and -1 in target:
        yield from at.multiple(0, axis, asked)


_BROADCAST: Final = (
    "Add", "Sub", "Mul", "Div", "Pow", "Mod", "PRelu", "Max", "Min", "Sum", "Mean", "Where",
    "And", "Or", "Xor", "Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual",
    "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BiasAdd", "BiasGelu", "QLinearAdd",
    "QLinearMul",
)  # fmt: skip
_POOLS: Final = ("MaxPool", "AveragePool", "LpPool", "QLinearAveragePool", "MaxUnpool")

DEMANDS: Final[dict[str, Callable[[Site], Found]]] = {
    **dict.fromkeys(("Conv", "ConvInteger", "QLinearConv", "DeformConv", "FusedConv"), _conv),
    "ConvTranspose": _conv_transpose,
    **dict.fromkeys(("BatchNormalization", "InstanceNormalization"), _channels),
    "GroupNormalization": _group_norm,
    **dict.fromkeys(
        ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"), _trailing
    ),
    **dict.fromkeys(
        ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"), _skip_norm
    ),
    **dict.fromkeys(_BROADCAST, _elementwise),
    **dict.fromkeys(("MatMul", "MatMulInteger", "QLinearMatMul", "FusedMatMul"), _matmul),
    **dict.fromkeys(("Gemm", "FusedGemm"), _gemm),
    "MatMulNBits": _matmul_n_bits,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _rnn),
    "Concat": _concat,
    "Split": _split,
    "Einsum": _einsum,
    "SpaceToDepth": _space_to_depth,
    "DepthToSpace": _depth_to_space,
    "Transpose": _transpose,
    **dict.fromkeys(_POOLS, _pool),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    "Pad": _pad,
    "Slice": _slice,
    "Gather": _gather,
    **dict.fromkeys(("Reshape", "Flatten"), _reshape),
}
"""What each kind of operator demands."""
