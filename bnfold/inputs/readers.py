"""What every kind of operator says of an input whose elements it reads, or hands them on to.

`_FOLLOW` is the table: where an operator is not in it, trails end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.inputs.extents import RESHAPES, counted_up
from bnfold.inputs.reading import Reading, kind_of
from bnfold.inputs.trails import (
    CLOSED,
    Above,
    Chooses,
    Counts,
    Lasts,
    Opens,
    Place,
    Sign,
    Step,
    Trail,
    Within,
)
from bnfold.model.attributes import int_attr
from bnfold.model.graphs import subgraphs_of

_MOST_STOPS: Final = 4000
"""A trail ends somewhere even where everything reads it."""


def signs_of(value: ir.Value, reading: Reading) -> Iterator[Sign]:
    """Yield what readers tell of the elements of an input, however far away they are."""
    waiting, seen = [Trail(value)], {Trail(value)}
    while waiting and len(seen) < _MOST_STOPS:
        trail = waiting.pop()
        for step in _next_steps(trail, reading):
            if not isinstance(step, Trail):
                yield step
            elif step not in seen:
                seen.add(step)
                waiting.append(step)


def _next_steps(trail: Trail, reading: Reading) -> Iterator[Step]:
    for node, index in trail.value.uses():
        follow = _FOLLOW.get(kind_of(node))
        if follow is not None:
            yield from follow(Place(node, index, trail, reading))
    owner = reading.owner(trail.value)
    if owner is not None:
        yield from _handed_out(trail, owner)


def _handed_out(trail: Trail, owner: ir.Node) -> Iterator[Step]:
    """A result of a subgraph is one of its node; a Loop has its condition in front."""
    skipped = 1 if owner.op_type == "Loop" else 0
    for graph in subgraphs_of(owner):
        for place, value in enumerate(graph.outputs):
            if value is trail.value and 0 <= place - skipped < len(owner.outputs):
                yield replace(trail, value=owner.outputs[place - skipped])


def _keep(at: Place) -> Iterator[Step]:
    if at.index == 0:
        yield from at.same()


def _keep_any(at: Place) -> Iterator[Step]:
    yield from at.same()


def _cast(at: Place) -> Iterator[Step]:
    if at.index:
        return
    if int_attr(at.node, "to", 0) == ir.DataType.BOOL:
        zero, one = float(at.trail.zero != 0), float(at.trail.one != 0)
        yield from at.onward(zero, one, straight=False)
    else:
        yield from at.same()


def _arithmetic(at: Place) -> Iterator[Step]:
    ends = at.ends(1 - at.index)
    if ends is None:
        yield from _joined(at)
        return
    compute = _COMPUTE[at.node.op_type]
    with np.errstate(all="ignore"):
        for end in ends:
            pairs = [(x, end) if at.index == 0 else (end, x) for x in _both(at.trail)]
            zero, one = (compute(np.float64(a), np.float64(b)) for a, b in pairs)
            straight = at.node.op_type != "Div" or at.index == 0
            yield from at.onward(float(zero), float(one), straight=straight)


def _both(trail: Trail) -> tuple[float, float]:
    return trail.zero, trail.one


def _joined(at: Place) -> Iterator[Step]:
    """Met by computed numbers: what is huge shuts them out, 0 and 1 let them through."""
    zero, one = _both(at.trail)
    is_choice = _is_choice(at)
    if is_choice:
        yield from at.same()
    if at.node.op_type == "Sub" and at.index == 1:
        yield from (step for step in at.onward(-zero, -one) if isinstance(step, Opens))
    elif at.node.op_type == "Mul":
        if {zero, one} == {0.0, 1.0}:
            yield Opens(int(one), certain=False)
        if not is_choice:
            yield replace(at.trail, value=at.node.outputs[0], straight=False)


def _is_choice(at: Place) -> bool:
    """Whether a number is kept here or is 0, or meets another that is 0 where this one is not.

    So is ``where(i < 0, i + size, i)`` spelled with truth values cast to numbers.
    """
    other = at.operand(1 - at.index)
    if at.node.op_type == "Mul":
        return _is_truth(other)
    maker = None if other is None else other.producer()
    is_kept = (
        maker is not None and kind_of(maker) == "Mul" and any(map(_is_truth, maker.inputs))
    )
    return at.node.op_type == "Add" and is_kept


def _is_truth(value: ir.Value | None) -> bool:
    """Whether this is a truth value, cast to a number."""
    node = None if value is None else value.producer()
    if node is None or kind_of(node) != "Cast" or node.inputs[0] is None:
        return False
    source = node.inputs[0]
    maker = source.producer()
    is_told = maker is not None and kind_of(maker) in _TRUTHS
    return is_told or source.dtype is ir.DataType.BOOL


def _negated(at: Place) -> Iterator[Step]:
    yield from at.onward(-at.trail.zero, -at.trail.one)


def _inverted(at: Place) -> Iterator[Step]:
    yield from at.onward(1 - at.trail.zero, 1 - at.trail.one, straight=False)


def _logic(at: Place) -> Iterator[Step]:
    """Together with another condition, it still does what it did."""
    yield replace(at.trail, value=at.node.outputs[0], straight=False)


def _comparison(at: Place) -> Iterator[Step]:
    other = at.operand(1 - at.index)
    steps = counted_up(other, at.reading)
    if steps is not None:
        # Equal to one of 0, 1, 2 … is an index spelled out, below some of them a length.
        yield Within(steps, at.trail) if at.node.op_type == "Equal" else Lasts(steps)
        return
    compare = _COMPARE[at.node.op_type]
    for end in at.ends(1 - at.index) or ():
        pairs = [(x, end) if at.index == 0 else (end, x) for x in _both(at.trail)]
        zero, one = (float(compare(a, b)) for a, b in pairs)
        yield from at.onward(zero, one, straight=False)


def _where(at: Place) -> Iterator[Step]:
    """Chosen between two: the branch that is huge is the one that shuts out."""
    if at.index:
        yield replace(at.trail, value=at.node.outputs[0])
        return
    zero, one = (bool(number) for number in _both(at.trail))
    if zero == one:
        return
    sides = [at.ends(1), at.ends(2)]
    low = [min(side, default=0.0) if side is not None else 0.0 for side in sides]
    at_one, at_zero = (low[0], low[1]) if one else (low[1], low[0])
    huge = min(low) <= CLOSED
    if huge or None in sides:
        yield Opens(int(at_one > at_zero) if huge else int(one), certain=huge)
    else:
        yield from at.onward(at_zero, at_one, straight=False)


def _gather(at: Place) -> Iterator[Step]:
    if at.index == 0:
        yield from at.same()
        return
    dims = at.dims(0)
    axis = int_attr(at.node, "axis", int_attr(at.node, "gather_axis", 0))
    if at.index == 1 and -len(dims) <= axis < len(dims):
        yield Within((dims[axis],), at.trail)


def _gather_nd(at: Place) -> Iterator[Step]:
    if at.index == 0:
        yield from at.same()
        return
    dims, indices = at.dims(0), at.dims(1)
    skipped = int_attr(at.node, "batch_dims", 0)
    count = indices[-1] if indices else None
    if at.index == 1 and isinstance(count, int):
        yield Within(tuple(dims[skipped : skipped + count]), at.trail)


def _one_hot(at: Place) -> Iterator[Step]:
    if at.index == 0:
        ends = at.ends(1)
        yield Within((None if ends is None else int(ends[0]),), at.trail)
    elif at.index == 1:
        yield Counts()


def _table(index: int, table: int, axis: int = 0) -> Callable[[Place], Iterator[Step]]:
    """Return what says of one operand that it is an index into another."""

    def follow(at: Place) -> Iterator[Step]:
        dims = at.dims(table)
        if at.index == index and axis < len(dims):
            yield Within((dims[axis],), at.trail)

    return follow


def _axis(at: Place) -> Iterator[Step]:
    if at.index == 1 and at.dims(0):
        yield Within((len(at.dims(0)),), at.trail)


def _place(at: Place) -> Iterator[Step]:
    """An index into all elements of the result, which is no smaller than the operand."""
    dims = [dim for dim in at.dims(0) if isinstance(dim, int)]
    if at.index == 1 and dims and len(dims) == len(at.dims(0)):
        yield Within((math.prod(dims),), at.trail)


_EMBEDDED: Final = {0: 2, 1: 4, 8: 3}
"""Operands of EmbedLayerNormalization that are indices, and their tables."""


def _embedded(at: Place) -> Iterator[Step]:
    dims = at.dims(_EMBEDDED.get(at.index, -1)) if at.index in _EMBEDDED else ()
    if dims:
        yield Within((dims[0],), at.trail)
    elif at.index == 7:
        yield Opens(1)


def _rnn(at: Place) -> Iterator[Step]:
    if at.index == 4 and at.dims(0):
        yield Lasts((at.dims(0)[1 if int_attr(at.node, "layout", 0) else 0],))


def _reversed(at: Place) -> Iterator[Step]:
    axis, dims = int_attr(at.node, "time_axis", 0), at.dims(0)
    if at.index == 1 and axis < len(dims):
        yield Lasts((dims[axis],))
    elif at.index == 0:
        yield from at.same()


def _slice(at: Place) -> Iterator[Step]:
    if at.index == 0:
        yield from at.same()
    elif at.index == 2:
        axes = at.reading.ints(at.node, 3, "axes", (0,)) or ()
        dims = at.dims(0)
        yield Lasts(tuple(dims[axis] for axis in axes if -len(dims) <= axis < len(dims)))


def _top_k(at: Place) -> Iterator[Step]:
    axis, dims = int_attr(at.node, "axis", -1), at.dims(0)
    if at.index == 1:
        yield Counts(dims[axis:][:1] if -len(dims) <= axis < len(dims) else ())


def _counted(at: Place) -> Iterator[Step]:
    if at.index >= 0:
        yield Counts()


def _shaped(at: Place) -> Iterator[Step]:
    yield from at.same() if at.index == 0 else (Counts(),)


def _branch(at: Place) -> Iterator[Step]:
    if at.index == 0:
        yield Chooses()


def _loop(at: Place) -> Iterator[Step]:
    """The first operand counts, the second goes on; the others are those of the body."""
    if at.index == 0:
        yield Counts()
    elif at.index == 1:
        yield Chooses()
    else:
        yield from _inside(at)


def _inside(at: Place) -> Iterator[Step]:
    for graph in subgraphs_of(at.node):
        if at.index < len(graph.inputs):
            yield replace(at.trail, value=graph.inputs[at.index])


def _root(at: Place) -> Iterator[Step]:
    if at.index == 0:
        yield Above(at.trail)


def _power(at: Place) -> Iterator[Step]:
    ends = at.ends(1)
    if at.index == 0 and ends is not None and any(end != int(end) for end in ends):
        yield Above(at.trail)


def _attention(*masks: int) -> Callable[[Place], Iterator[Step]]:
    def follow(at: Place) -> Iterator[Step]:
        if at.index in masks:
            yield Opens(1)

    return follow


def _standard_attention(at: Place) -> Iterator[Step]:
    """The mask is a bool or is added; the last operand says how many keys are real."""
    if at.node.domain == "com.microsoft":
        yield from _attention(3)(at)
    elif at.index == 3:
        yield Opens(1, certain=False)
    elif at.index == 6:
        dims = at.dims(1)
        yield Lasts(dims[-2:-1])


_KEEP: Final = (
    *RESHAPES, "CastLike", "Transpose", "Tile", "Pad", "Split", "Compress", "Floor",
    "Ceil", "Round", "Dropout", "Trilu", "ReduceMax", "ReduceMin", "Clip",
)  # fmt: skip
_COMPUTE: Final[dict[str, Callable[..., np.float64]]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
}
_COMPARE: Final[dict[str, Callable[[float, float], bool]]] = {
    "Equal": lambda a, b: a == b,
    "Greater": lambda a, b: a > b,
    "GreaterOrEqual": lambda a, b: a >= b,
    "Less": lambda a, b: a < b,
    "LessOrEqual": lambda a, b: a <= b,
}

_TRUTHS: Final = frozenset({*_COMPARE, "Not", "And", "Or", "Xor", "IsNaN", "IsInf"})
"""Operators whose results are truth values."""

_FOLLOW: Final[dict[str, Callable[[Place], Iterator[Step]]]] = {
    **dict.fromkeys(_KEEP, _keep),
    **dict.fromkeys(("Expand", "Tile", "Reshape"), _shaped),
    **dict.fromkeys(("Concat", "Max", "Min"), _keep_any),
    "Cast": _cast,
    **dict.fromkeys(_COMPUTE, _arithmetic),
    "Neg": _negated,
    "Not": _inverted,
    **dict.fromkeys(("And", "Or"), _logic),
    **dict.fromkeys(_COMPARE, _comparison),
    "Where": _where,
    **dict.fromkeys(("Gather", "GatherElements", "GatherBlockQuantized"), _gather),
    **dict.fromkeys(("ScatterElements", "Scatter"), _gather),
    **dict.fromkeys(("GatherND", "ScatterND"), _gather_nd),
    "OneHot": _one_hot,
    "RoiAlign": _table(2, 0),
    **dict.fromkeys(("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"), _table(1, 0, 1)),
    "CumSum": _axis,
    "MaxUnpool": _place,
    "EmbedLayerNormalization": _embedded,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _rnn),
    "ReverseSequence": _reversed,
    "Slice": _slice,
    "TopK": _top_k,
    **dict.fromkeys(("Range", "ConstantOfShape"), _counted),
    "If": _branch,
    "Loop": _loop,
    "Scan": _inside,
    **dict.fromkeys(("Log", "Sqrt"), _root),
    "Pow": _power,
    "Attention": _standard_attention,
    "MultiHeadAttention": _attention(4),
    "QAttention": _attention(5),
}
"""What each kind of operator does to a trail."""
