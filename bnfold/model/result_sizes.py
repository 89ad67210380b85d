"""The sizes of what an operator gives, from those of what it reads, where they may be open."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final

from bnfold.model.attributes import int_attr, ints_attr
from bnfold.model.questions import At, Following, Sizes, axes_of
from bnfold.model.regroup_sizes import REGROUPED
from bnfold.model.sizes import Maybe, Size, add, plus
from bnfold.model.window_sizes import WINDOWED

_ONE: Final = Size.of(1)


def _same(at: At) -> Following:
    return (yield from at.extents(0))


def _broadcast(at: At) -> Following:
    """Numpy broadcasting of all inputs; before opset 7 the first one is the largest."""
    if "broadcast" in at.node.attributes or "axis" in at.node.attributes:
        return (yield from at.extents(0))
    result: Sizes = ()
    for index in range(len(at.node.inputs)):
        sizes = yield from at.extents(index)
        if sizes is None:
            return None
        result = broadcast(result, sizes)
    return result


def broadcast(left: Sizes, right: Sizes) -> Sizes:
    """Return the sizes that two values have together, None where that hangs on a symbol."""
    pairs = itertools.zip_longest(reversed(left), reversed(right), fillvalue=_ONE)
    return tuple(_together(*pair) for pair in pairs)[::-1]


def _together(left: Maybe, right: Maybe) -> Maybe:
    if left == right or right == _ONE:
        return left
    if left == _ONE:
        return right
    known = [size for size in (left, right) if size is not None and size.number is not None]
    return known[0] if len(known) == 1 else None


def _expand(at: At) -> Following:
    sizes, target = (yield from at.extents(0)), (yield from at.contents(1))
    if sizes is None or target is None:
        return None
    unknown = [size is None or (size.number or 0) < 0 for size in target]
    pairs = zip(target, unknown, strict=True)
    return broadcast(sizes, tuple(None if gone else size for size, gone in pairs))


def _matmul(at: At) -> Following:
    left, right = (yield from at.extents(0)), (yield from at.extents(1))
    if left is None or right is None or not left or not right:
        return None
    rows = left[-2:-1]
    columns = right[-1:] if len(right) > 1 else ()
    return (*broadcast(left[:-2], right[:-2]), *rows, *columns)


def _gemm(at: At) -> Following:
    left, right = (yield from at.extents(0)), (yield from at.extents(1))
    turned = [bool(int_attr(at.node, name, 0)) for name in ("transA", "transB")]  # any but 0
    rows = None if left is None or len(left) != 2 else left[turned[0]]
    if right is None or len(right) != 2:
        return (rows, None)
    return (rows, right[not turned[1]])


def _transpose(at: At) -> Following:
    sizes = yield from at.extents(0)
    if sizes is None:
        return None
    perm = ints_attr(at.node, "perm", range(len(sizes))[::-1])
    return (
        tuple(sizes[axis] for axis in perm) if sorted(perm) == [*range(len(sizes))] else None
    )


def _concat(at: At) -> Following:
    total: Sizes | None = None
    for index in range(len(at.node.inputs)):
        sizes = yield from at.extents(index)
        axes = None if sizes is None else axes_of((int_attr(at.node, "axis", 1),), len(sizes))
        if sizes is None or axes is None or (total is not None and len(total) != len(sizes)):
            return None
        total = sizes if total is None else _longer(total, sizes, axes[0])
    return total


def _longer(total: Sizes, sizes: Sizes, axis: int) -> Sizes:
    """Return the sizes of two values behind one another; beside that axis they are equal."""
    return tuple(
        add(*pair) if place == axis else (pair[0] if pair[0] == pair[1] else _known(*pair))
        for place, pair in enumerate(zip(total, sizes, strict=True))
    )


def _known(left: Maybe, right: Maybe) -> Maybe:
    return right if right is not None and right.number is not None else left


def _gather(at: At) -> Following:
    sizes, indices = (yield from at.extents(0)), (yield from at.extents(1))
    if sizes is None or indices is None:
        return None
    axes = axes_of((int_attr(at.node, "axis", 0),), len(sizes))
    return None if axes is None else (*sizes[: axes[0]], *indices, *sizes[axes[0] + 1 :])


def _split(at: At) -> Following:
    """All but one axis stays; how it is cut is told by onnx where it is known."""
    sizes = yield from at.extents(0)
    axes = None if sizes is None else axes_of((int_attr(at.node, "axis", 0),), len(sizes))
    parts = yield from at.listed("split", 1)
    if sizes is None or axes is None:
        return None
    place = at.value.index() or 0
    part = Size.of(parts[place]) if parts and place < len(parts) else None
    return (*sizes[: axes[0]], part, *sizes[axes[0] + 1 :])


def _slice(at: At) -> Following:
    """Axes that are not cut stay; a cut one is followed from 0 to the end, or known."""
    sizes, axes = (yield from at.extents(0)), (yield from at.listed("axes", 3))
    starts, ends = (yield from at.listed("starts", 1)), (yield from at.listed("ends", 2))
    if sizes is None or axes is None:
        return None
    if not axes and starts is not None:
        axes = tuple(range(len(starts)))
    cut = axes_of(axes, len(sizes)) if axes else None
    if cut is None:
        return None
    steps = yield from at.integers(4)
    result = list(sizes)
    for place, axis in enumerate(cut):
        step = 1 if not at.has(4) else steps[place] if steps and place < len(steps) else 0
        bounds = (starts[place], ends[place]) if starts and ends else None
        result[axis] = _cut(at, sizes[axis], bounds, step)
    return tuple(result)


def _cut(at: At, size: Maybe, bounds: tuple[int, int] | None, step: int) -> Maybe:
    """Return the size of a slice; one of an open axis is known from 0 to the very end."""
    if bounds is None or step < 1 or size is None:
        return None
    if size.number is not None:
        return Size.of(len(range(*slice(*bounds, step).indices(size.number))))
    if bounds[0] == 0 and bounds[1] >= _TO_THE_END:
        return at.symbols.floor_divided(plus(size, step - 1), step)
    return None


_TO_THE_END: Final = (1 << 31) - 1


def _reduce(at: At) -> Following:
    sizes, axes = (yield from at.extents(0)), (yield from at.listed("axes", 1))
    if sizes is None or axes is None:
        return None
    if not axes and int_attr(at.node, "noop_with_empty_axes", 0):
        return sizes
    gone = axes_of(axes or tuple(range(len(sizes))), len(sizes))
    if gone is None:
        return None
    kept = _ONE if int_attr(at.node, "keepdims", 1) else None
    marked = (kept if axis in gone else size for axis, size in enumerate(sizes))
    if kept is not None:
        return tuple(marked)
    return tuple(size for axis, size in enumerate(sizes) if axis not in gone)


_UNARY: Final = (
    "Relu LeakyRelu PRelu Sigmoid Tanh Clip Identity Dropout Cast CastLike Elu Selu Celu Mish"
    " ThresholdedRelu Shrink HardSigmoid HardSwish Swish Softplus Softsign Neg Abs Exp Log"
    " Sqrt Reciprocal Floor Ceil Round Sign Erf Sin Cos Tan Sinh Cosh Asin Acos Atan Asinh"
    " Acosh Atanh Not IsNaN IsInf Gelu Softmax LogSoftmax Hardmax BatchNormalization LRN"
    " CumSum LayerNormalization RMSNormalization GroupNormalization InstanceNormalization"
    " MeanVarianceNormalization LpNormalization QuantizeLinear DequantizeLinear Trilu"
)
_BINARY: Final = (
    "Add Sub Mul Div Pow Mod Max Min Sum Mean Where And Or Xor Equal Greater Less"
    " GreaterOrEqual LessOrEqual BitwiseAnd BitwiseOr BitwiseXor BitShift"
)
_REDUCTIONS: Final = (
    "ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum"
    " ReduceLogSumExp ReduceSumSquare"
)

RESULTS: Final[dict[str, Callable[[At], Following]]] = {
    **dict.fromkeys(_UNARY.split(), _same),
    **dict.fromkeys(_BINARY.split(), _broadcast),
    **dict.fromkeys(_REDUCTIONS.split(), _reduce),
    **WINDOWED,
    **REGROUPED,
    "Expand": _expand,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Transpose": _transpose,
    "Concat": _concat,
    "Gather": _gather,
    "Split": _split,
    "Slice": _slice,
}
"""By operator: the sizes of its result; None for an axis, or for all, where unknown."""
