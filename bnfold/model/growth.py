"""How large the results of an operator are, and how long they take: before they are made.

Everything here is an upper bound from the shapes of the inputs, the few integers that are
sizes, and the attributes. What is not understood counts as infinitely large.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.model.attributes import int_attr, ints_attr, string_attr

_INFINITE: Final = math.inf
_NS: Final = 50.0
"""What one element takes in numpy, in nanoseconds."""
_NS_PER_PRODUCT: Final = 0.2
_NS_PER_TERM: Final = 2.0
_NS_PER_SUM: Final = 5000.0
_NS_PER_TAP: Final = 30_000.0
"""Kernels that go over their taps in Python take so much for each, however small they are."""
# fmt: off
_SLOW_NS: Final = {
    "Erf": 1500.0, "Gelu": 500.0, "GatherElements": 1000.0, "GatherND": 5000.0,
    "ScatterElements": 2500.0, "ScatterND": 5000.0, "TopK": 500.0,
    "Resize": 3000.0, "Upsample": 3000.0, "Col2Im": 5000.0, "RoiAlign": 20000.0,
    "NonMaxSuppression": 5000.0, "StringSplit": 5000.0, "RegexFullMatch": 5000.0,
    "GridSample": 3000.0, "Unique": 500.0, "TfIdfVectorizer": 5000.0, "LRN": 500.0,
    "AveragePool": 6000.0, "MaxPool": 6000.0, "LpPool": 6000.0, "Conv": 4000.0,
}
# fmt: on
"""What one element takes in onnx's reference, where that is far more."""


@dataclass(frozen=True, slots=True)
class Growth:
    """A bound on what an operator takes.

    Attributes:
        elements: Elements of all its results, and of what is held on the way to them.
        ns: Nanoseconds, roughly.
    """

    elements: float
    ns: float


@dataclass(frozen=True, slots=True)
class Given:
    """What is known of the inputs of a node.

    Attributes:
        node: The node.
        shapes: Shapes of its inputs; None where absent or no tensor.
        element: Gives the elements of an input, asked for small ones only.
        opset: Version of the default operator set.
    """

    node: ir.Node
    shapes: Sequence[tuple[int, ...] | None]
    element: Callable[[int], NDArray[Any]]
    opset: int

    def shape(self, place: int) -> tuple[int, ...]:
        """Return the shape of an input; that of one number if it is absent."""
        found = self.shapes[place] if place < len(self.shapes) else None
        return () if found is None else found

    def has(self, place: int) -> bool:
        """Return whether an input is there."""
        return place < len(self.shapes) and self.shapes[place] is not None

    def size(self, place: int) -> float:
        """Return the elements of an input; axes of size 0 may vanish, and count 1."""
        return float(math.prod(max(size, 1) for size in self.shape(place)))

    def numbers(self, place: int) -> list[float]:
        """Return the elements of an input that says sizes.

        Raises:
            ValueError: If it has more than any list of sizes.
        """
        if not self.has(place) or self.size(place) > _MOST_SIZES:
            message = "no list of sizes"
            raise ValueError(message)
        return [float(one) for one in np.asarray(self.element(place)).reshape(-1)]


_MOST_SIZES: Final = 1 << 12


def growth_of(given: Given) -> Growth:
    """Bound what a node of the default domain, or of ONNX Runtime's, takes."""
    op_type = given.node.op_type
    measure = _MEASURES.get(op_type, _any)
    try:
        elements, ns = measure(given)
    except (ValueError, TypeError, IndexError, KeyError, OverflowError, ZeroDivisionError):
        return Growth(_INFINITE, _INFINITE)
    if not (elements >= 0 and ns >= 0):  # NaN, from sizes that are infinite
        return Growth(_INFINITE, _INFINITE)
    return Growth(elements, max(ns, elements * _NS))


def in_reference(growth: Growth, op_type: str) -> Growth:
    """Return what a node takes in onnx's reference implementation, which is slow at times."""
    return replace(growth, ns=max(growth.ns, growth.elements * _SLOW_NS.get(op_type, _NS)))


def is_small(op_type: str, sizes: Iterable[int]) -> bool:
    """Return whether a node need not be looked at: it keeps small things small."""
    return op_type in _TAME and max(sizes, default=0) <= _MOST_SIZES


_Bound = tuple[float, float]


def _flat(elements: float) -> _Bound:
    return elements, 0.0


def _sizes(sizes: Sequence[float]) -> float:
    return float(math.prod(max(one, 0.0) for one in sizes))


def _sum(given: Given) -> _Bound:
    """Results that are parts of the inputs, or have their elements; a flag at the least."""
    return _flat(1.0 + sum(given.size(place) for place in range(len(given.shapes))))


def _any(given: Given) -> _Bound:
    """Whatever is in no list: as large as if everything were broadcast, if that is larger."""
    return max(_sum(given), _broadcast(given))


def _broadcast(given: Given) -> _Bound:
    shapes = [shape for shape in given.shapes if shape is not None]
    rank = max((len(shape) for shape in shapes), default=0)
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    return _flat(float(math.prod(max(*axis, 1) for axis in zip(*padded, strict=True))))


def _expand(given: Given) -> _Bound:
    shape, sizes = given.shape(0), given.numbers(1)
    rank = max(len(shape), len(sizes))
    own = (1.0,) * (rank - len(shape)) + tuple(map(float, shape))
    asked = [1.0] * (rank - len(sizes)) + [abs(size) for size in sizes]
    return _flat(_sizes([max(pair) for pair in zip(own, asked, strict=True)]))


def _tile(given: Given) -> _Bound:
    repeats = [max(one, 0.0) for one in given.numbers(1)]
    if given.opset < 6:
        repeats = [max(*repeats, 1.0)]
    return _flat(given.size(0) * _sizes(repeats))


def _filled(given: Given) -> _Bound:
    return _flat(_sizes([abs(one) for one in given.numbers(0)]))


def _pad(given: Given) -> _Bound:
    listed = ints_attr(given.node, "pads") or ints_attr(given.node, "paddings")
    widths = [float(one) for one in listed] or given.numbers(1)
    shape, rank = given.shape(0), len(given.shape(0))
    most = max((max(one, 0.0) for one in widths), default=0.0)
    if len(widths) != 2 * rank:  # of some axes, by an input that names them
        return _flat(_sizes([size + 2 * most for size in shape]))
    pairs = zip(widths[:rank], widths[rank:], strict=True)
    padded = zip(shape, pairs, strict=True)
    return _flat(_sizes([s + max(front, 0.0) + max(back, 0.0) for s, (front, back) in padded]))


def _range(given: Given) -> _Bound:
    (start,), (limit,), (delta,) = (given.numbers(place) for place in range(3))
    count = max((limit - start) / delta + 1, 0.0)
    # runtimes add floats up one by one, and so does whoever asks what they get
    is_float = np.asarray(given.element(0)).dtype.kind in "fV"
    return count, count * _NS_PER_SUM if is_float else 0.0


def _one_hot(given: Given) -> _Bound:
    depth = max((abs(one) for one in given.numbers(1)), default=0.0)
    return _flat(given.size(0) * depth)


def _gather(given: Given) -> _Bound:
    axis, shape = int_attr(given.node, "axis", 0), given.shape(0)
    rest = math.prod(size for place, size in enumerate(shape) if place != axis % len(shape))
    return _flat(max(float(rest) * given.size(1), given.size(1)))


def _gather_nd(given: Given) -> _Bound:
    shape, indices = given.shape(0), given.shape(1)
    batch = int_attr(given.node, "batch_dims", 0)
    rest = shape[max(batch, 0) + indices[-1] :]
    return _flat(float(math.prod(indices[:-1])) * max(float(math.prod(rest)), 1.0))


def _gather_elements(given: Given) -> _Bound:
    return _flat(given.size(0) + given.size(1))


def _matmul(given: Given) -> _Bound:
    first, second = given.shape(0), given.shape(1)
    rows = first[-2] if len(first) > 1 else 1
    columns = second[-1] if len(second) > 1 else 1
    batches = _batches(first[:-2], second[:-2])
    elements = batches * rows * columns
    return elements, elements * (first[-1] if first else 1) * _NS_PER_PRODUCT


def _batches(first: tuple[int, ...], second: tuple[int, ...]) -> float:
    rank = max(len(first), len(second))
    pairs = zip(
        (1,) * (rank - len(first)) + first, (1,) * (rank - len(second)) + second, strict=True
    )
    return float(math.prod(max(pair) for pair in pairs))


def _gemm(given: Given) -> _Bound:
    first, second = given.shape(0), given.shape(1)
    turned = int_attr(given.node, "transA", 0), int_attr(given.node, "transB", 0)
    rows, summed = first[1 if turned[0] else 0], first[0 if turned[0] else 1]
    columns = second[0 if turned[1] else 1]
    elements = float(rows) * columns
    return elements + given.size(0) + given.size(1), elements * summed * _NS_PER_PRODUCT


def _einsum(given: Given) -> _Bound:
    """All letters together bound the work, those of the result what is held."""
    equation = string_attr(given.node, "equation", "").replace(" ", "")
    terms, arrow, result = equation.partition("->")
    sizes: dict[str, int] = {}
    dots = 1.0
    for place, term in enumerate(terms.split(",")):
        letters = term.replace("...", "")
        shape = given.shape(place)
        if "..." in term:
            front = term.index("...")
            behind = len(term) - front - 3
            dots = max(dots, float(math.prod(shape[front : len(shape) - behind])))
            shape = (*shape[:front], *shape[len(shape) - behind :])
        for letter, size in zip(letters, shape, strict=True):
            sizes[letter] = max(sizes.get(letter, 1), size)
    work = math.prod(sizes.values()) * dots
    kept = result if arrow else sizes
    elements = math.prod(sizes.get(one, 1) for one in kept if one != ".") * dots
    return elements, work * _NS_PER_TERM


def _resize(given: Given) -> _Bound:
    shape = given.shape(0)
    axes = [axis % len(shape) for axis in ints_attr(given.node, "axes")]
    axes = axes or list(range(len(shape)))
    by_scale = 1 if given.node.op_type == "Upsample" or given.opset < 11 else 2
    out = [float(size) for size in shape]
    if given.has(3) and given.size(3):
        for axis, size in zip(axes, given.numbers(3), strict=True):
            out[axis] = size
    elif given.has(by_scale) and given.size(by_scale):
        for axis, scale in zip(axes, given.numbers(by_scale), strict=True):
            out[axis] = math.ceil(out[axis] * scale)
    elif attribute := given.node.attributes.get("scales"):
        for axis, scale in enumerate(attribute.as_floats()):
            out[axis] = math.ceil(out[axis] * scale)
    # axis by axis: what lies between is no larger than both together
    return _flat(_sizes(out) + _sizes([max(pair) for pair in zip(out, shape, strict=True)]))


def _window(given: Given) -> list[float]:
    """Return the output positions along each spatial axis of a convolution or a pool."""
    shape, node = given.shape(0), given.node
    rank = len(shape) - 2
    kernel = ints_attr(node, "kernel_shape") or given.shape(1)[2:]
    pads = ints_attr(node, "pads") or (0,) * (2 * rank)
    strides = ints_attr(node, "strides") or (1,) * rank
    if len(kernel) != rank or len(pads) != 2 * rank or len(strides) != rank:
        message = "its window has another rank than its input"
        raise ValueError(message)
    positions = []
    for axis in range(rank):
        size = shape[axis + 2] + max(pads[axis], 0) + max(pads[axis + rank], 0)
        positions.append(float(max(size, kernel[axis]) // max(strides[axis], 1) + 1))
    return positions


def _convolution(given: Given) -> _Bound:
    shape, weight = given.shape(0), given.shape(1)
    positions = _sizes(_window(given))
    pads = ints_attr(given.node, "pads")
    padded = _sizes([size + sum(max(p, 0) for p in pads) for size in shape[2:]])
    elements = shape[0] * (weight[0] * positions + shape[1] * max(padded, positions))
    taps = math.prod(weight[1:])
    return elements, shape[0] * weight[0] * positions * taps * 4 * _NS_PER_PRODUCT


def _transposed_convolution(given: Given) -> _Bound:
    shape, weight, node = given.shape(0), given.shape(1), given.node
    rank, group = len(shape) - 2, max(int_attr(node, "group", 1), 1)
    strides = ints_attr(node, "strides") or (1,) * rank
    dilations = ints_attr(node, "dilations") or (1,) * rank
    more = ints_attr(node, "output_padding") or (0,) * rank
    asked = ints_attr(node, "output_shape")
    sizes = [
        abs(strides[a]) * float(shape[a + 2])
        + abs(dilations[a]) * weight[a + 2]
        + abs(more[a])
        for a in range(rank)
    ]
    if asked:
        pairs = zip(sizes, (*asked, *[0] * rank), strict=False)
        sizes = [max(size, abs(one)) for size, one in pairs]
    elements = shape[0] * weight[1] * group * _sizes(sizes)
    taps = math.prod(weight[2:])
    work = shape[0] * weight[1] * shape[1] * _sizes(shape[2:]) * taps
    return elements, work * 4 * _NS_PER_PRODUCT + taps * _NS_PER_TAP


def _neighbours(given: Given) -> _Bound:
    """Squares of so many neighbouring channels are held beside each other."""
    return _flat(given.size(0) * (abs(int_attr(given.node, "size", 1)) + 1.0))


def _pool(given: Given) -> _Bound:
    shape, kernel = given.shape(0), ints_attr(given.node, "kernel_shape")
    positions = _sizes(_window(given))
    pads = ints_attr(given.node, "pads")
    padded = _sizes([size + sum(max(p, 0) for p in pads) for size in shape[2:]])
    seen = positions * math.prod(kernel)
    elements = shape[0] * shape[1] * (seen + padded)
    return elements, 0.0


def _of_attribute(given: Given) -> _Bound:
    """Random numbers of a shape that an attribute says."""
    return _flat(_sizes([float(one) for one in ints_attr(given.node, "shape")]))


def _samples(given: Given) -> _Bound:
    return _flat(given.size(0) + int_attr(given.node, "sample_size", 1) * given.size(0))


def _signal_window(given: Given) -> _Bound:
    return _flat(max(given.numbers(0), default=0.0))


def _mel(given: Given) -> _Bound:
    (bins,), (length,) = given.numbers(0), given.numbers(1)
    return _flat(abs(bins) * (abs(length) / 2 + 1))


def _spectrum(given: Given) -> _Bound:
    length = max(given.numbers(1), default=1.0) if given.has(1) and given.size(1) else 1.0
    longest = max(given.shape(0), default=1)
    return _flat(2 * given.size(0) * max(length, 1.0) / max(min(longest, length), 1.0))


def _short_spectrum(given: Given) -> _Bound:
    step = max(min(given.numbers(1), default=1.0), 1.0)
    length = given.size(2) if given.has(2) else max(given.numbers(3), default=1.0)
    frames = given.size(0) / step + 1
    return _flat(2 * frames * (max(length, 1.0) + 1))


def _affine_grid(given: Given) -> _Bound:
    sizes = given.numbers(1)
    return _flat(4 * sizes[0] * _sizes(sizes[2:]))


def _grid_sample(given: Given) -> _Bound:
    places = math.prod(given.shape(1)[:-1])
    return _flat(float(given.shape(0)[1]) * places * 4 + given.size(0))


def _regions(given: Given) -> _Bound:
    height = int_attr(given.node, "output_height", 1)
    width = int_attr(given.node, "output_width", 1)
    sizes = (*ints_attr(given.node, "pooled_shape"), height, width)
    count = given.shape(1)[0] if given.shape(1) else 1
    return _flat(float(count) * given.shape(0)[1] * _sizes([float(one) for one in sizes]))


def _unpooled(given: Given) -> _Bound:
    if given.has(2):
        return _flat(_sizes(given.numbers(2)))
    kernel = ints_attr(given.node, "kernel_shape")
    strides = ints_attr(given.node, "strides") or (1,) * len(kernel)
    grown = [(size - 1.0) * s + k for size, s, k in zip(
        given.shape(0)[2:], strides, kernel, strict=True
    )]  # fmt: skip
    return _flat(float(math.prod(given.shape(0)[:2])) * _sizes(grown))


def _cropped_or_padded(given: Given) -> _Bound:
    sizes = [float(size) for size in given.shape(0)]
    axes = ints_attr(given.node, "axes") or tuple(range(len(sizes)))
    for axis, size in zip(axes, given.numbers(1), strict=True):
        sizes[axis % len(sizes)] = max(sizes[axis % len(sizes)], size)
    return _flat(_sizes(sizes))


def _pieces(given: Given) -> _Bound:
    """Every character of the longest text may be a piece of its own."""
    texts = [str(one) for one in np.asarray(given.element(0)).reshape(-1)]
    longest = max((len(one) for one in texts), default=0)
    return _flat(2.0 * max(len(texts), 1) * (longest + 2))


def _counts(given: Given) -> _Bound:
    indices = ints_attr(given.node, "ngram_indexes")
    rows = given.shape(0)[0] if len(given.shape(0)) > 1 else 1
    return _flat(float(rows) * (max(indices, default=0) + 1) + given.size(0))


def _unknowable(_: Given) -> _Bound:
    """A picture says its size in bytes that are compressed."""
    return _INFINITE, _INFINITE


def _linear_attention(given: Given) -> _Bound:
    """A state of keys by values for every shared head, read by every head at every token."""
    own, shared = (max(int_attr(given.node, name, 1), 1) for name in _HEADS)
    query, value = given.shape(0), given.shape(2)
    keys, values = query[-1] / own, value[-1] / shared
    state = query[0] * keys * values
    results = query[0] * query[1] * own * values
    return given.size(0) + results + state * (shared + own), state * own * query[1] * _NS


def _causal_convolution(given: Given) -> _Bound:
    image, kernel = given.size(0), float(given.shape(1)[-1])
    state = image / max(given.shape(0)[-1], 1) * kernel
    return 2 * (image + state), image * kernel * _NS_PER_TERM


def _columns(given: Given) -> _Bound:
    image = _sizes(given.numbers(1))
    return _flat(given.size(0) + image * max(math.prod(given.shape(0)[:2]), 1))


def _non_zero(given: Given) -> _Bound:
    return _flat(given.size(0) * max(len(given.shape(0)), 1))


def _recurrent(given: Given) -> _Bound:
    steps, batch = (*given.shape(0), 1, 1)[:2]
    directions, gates = (*given.shape(1), 1, 1)[:2]
    hidden = given.shape(2)[-1]
    elements = 3.0 * steps * batch * directions * max(gates, hidden)
    work = steps * batch * (given.size(1) + given.size(2)) * _NS_PER_PRODUCT
    return elements, work + steps * directions * 20_000.0


def _attention(given: Given) -> _Bound:
    """Scores of every pair of places, for every head."""
    queries, keys = given.shape(0), given.shape(1) or given.shape(0)
    heads = max(
        int_attr(given.node, "num_heads", 0),
        int_attr(given.node, "q_num_heads", 0),
        queries[1] if len(queries) == 4 else 1,
    )
    pairs = float(queries[0]) * heads * queries[-2] * max(keys[-2], queries[-2])
    whole = _sum(given)[0] + 2 * pairs
    return whole, pairs * queries[-1] * 2 * _NS_PER_PRODUCT


def _by_offsets(given: Given) -> _Bound:
    """A convolution that samples its input at computed places."""
    offsets = given.shape(2)
    places = math.prod(offsets[2:]) * offsets[0]
    taps = math.prod(given.shape(1)[2:])
    elements = float(given.shape(0)[1]) * places * taps + given.shape(1)[0] * places
    return elements, elements * 500.0


_BROADCASTS: Final = (
    "Add", "Sub", "Mul", "Div", "Mod", "Pow", "Min", "Max", "Sum", "Mean", "Where", "Equal",
    "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor", "PRelu",
    "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Clip", "StringConcat",
)  # fmt: skip
_KEEPING: Final = (
    "Identity", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Concat",
    "Split", "Cast", "CastLike", "DepthToSpace", "SpaceToDepth", "Dropout", "Trilu", "CumSum",
    "ReduceProd", "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2",
    "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp", "Shape", "Size", "TopK", "ArgMax",
    "ArgMin", "ScatterElements", "ScatterND", "Scatter", "SequenceConstruct", "SequenceInsert",
    "SequenceAt", "SequenceErase", "SequenceEmpty", "SequenceLength", "SplitToSequence",
    "ConcatFromSequence", "Optional", "OptionalGetElement", "OptionalHasElement", "Compress",
    "ReverseSequence", "Constant", "Relu", "LeakyRelu", "ThresholdedRelu", "Elu", "Selu",
    "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Softplus", "Softsign", "Exp", "Log",
    "Sqrt", "Abs", "Neg", "Reciprocal", "Sign", "Floor", "Ceil", "Round", "Not", "IsNaN",
)  # fmt: skip

_HEADS: Final = ("q_num_heads", "kv_num_heads")
_TAME: Final = frozenset(_BROADCASTS) | frozenset(_KEEPING)

_MEASURES: Final[dict[str, Callable[[Given], _Bound]]] = {
    **dict.fromkeys(_BROADCASTS, _broadcast),
    **dict.fromkeys(_KEEPING, _sum),
    "Expand": _expand,
    "Tile": _tile,
    "ConstantOfShape": _filled,
    "Pad": _pad,
    "Range": _range,
    "OneHot": _one_hot,
    "Gather": _gather,
    "GatherND": _gather_nd,
    "GatherElements": _gather_elements,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearMatMul": _any,
    "Gemm": _gemm,
    "Einsum": _einsum,
    "Resize": _resize,
    "Upsample": _resize,
    "Conv": _convolution,
    "ConvInteger": _convolution,
    "ConvTranspose": _transposed_convolution,
    "DeformConv": _by_offsets,
    "LRN": _neighbours,
    **dict.fromkeys(("AveragePool", "MaxPool", "LpPool"), _pool),
    "RandomNormal": _of_attribute,
    "RandomUniform": _of_attribute,
    "Multinomial": _samples,
    **dict.fromkeys(("HannWindow", "HammingWindow", "BlackmanWindow"), _signal_window),
    "MelWeightMatrix": _mel,
    "DFT": _spectrum,
    "STFT": _short_spectrum,
    "AffineGrid": _affine_grid,
    "GridSample": _grid_sample,
    "RoiAlign": _regions,
    "MaxRoiPool": _regions,
    "MaxUnpool": _unpooled,
    "Col2Im": _columns,
    "CenterCropPad": _cropped_or_padded,
    "StringSplit": _pieces,
    "TfIdfVectorizer": _counts,
    "ImageDecoder": _unknowable,
    "LinearAttention": _linear_attention,
    "CausalConvWithState": _causal_convolution,
    "NonZero": _non_zero,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    "Attention": _attention,
    "MultiHeadAttention": _attention,
}
