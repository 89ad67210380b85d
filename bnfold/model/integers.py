"""Operators on integers that are sizes: what a list or a single number of them holds.

A list [k] and a number [] are told apart only where an operator does: both are their entries
in order. ``Gather``, ``Slice`` and ``Concat`` on axis 0 are all that lists allow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from bnfold.model.attributes import int_attr
from bnfold.model.questions import MOST_ENTRIES, At, Following
from bnfold.model.sizes import Maybe, Size, Symbols, add, multiply, product, quotient, times

_Left = TypeVar("_Left")
_Right = TypeVar("_Right")
_Of = Callable[[Symbols, Maybe, Maybe], Maybe]
_INTEGERS: Final = (7, 6)
"""Numbers of INT64 and INT32."""


def _shape(at: At) -> Following:
    sizes = yield from at.extents(0)
    if sizes is None:
        return None
    return sizes[int_attr(at.node, "start", 0) : int_attr(at.node, "end", len(sizes))]


def _size(at: At) -> Following:
    sizes = yield from at.extents(0)
    return None if sizes is None else (product(sizes),)


def _same(at: At) -> Following:
    return (yield from at.contents(0))


def _cast(at: At) -> Following:
    if int_attr(at.node, "to", 0) not in _INTEGERS:
        return None
    return (yield from at.contents(0))


def _reshape(at: At) -> Following:
    found = yield from at.contents(0)
    rank = yield from at.extents(1)
    count = None if not rank or rank[0] is None else rank[0].number
    return found if count is not None and count <= 1 else None


def _unsqueeze(at: At) -> Following:
    """Make a list of a number; a list would become a matrix."""
    found, sizes = (yield from at.contents(0)), (yield from at.extents(0))
    axes = yield from at.listed("axes", 1)
    return found if sizes == () and axes is not None and len(axes) == 1 else None


def _gather(at: At) -> Following:
    found, places = (yield from at.contents(0)), (yield from at.integers(1))
    sizes = yield from at.extents(0)
    if found is None or places is None or sizes is None or len(sizes) != 1:
        return None
    if any(not -len(found) <= place < len(found) for place in places):
        return None
    return tuple(found[place] for place in places)


def _slice(at: At) -> Following:
    found = yield from at.contents(0)
    starts, ends = (yield from at.listed("starts", 1)), (yield from at.listed("ends", 2))
    axes, steps = (yield from at.listed("axes", 3)), (yield from at.integers(4))
    if found is None or not starts or not ends or axes is None:
        return None
    if axes not in ((), (0,), (-1,)) or len(starts) != 1 or len(ends) != 1:
        return None
    if at.has(4) and (steps is None or len(steps) != 1):
        return None
    return found[starts[0] : ends[0] : steps[0] if steps else 1] if steps != (0,) else None


def _concat(at: At) -> Following:
    found: list[Maybe] = []
    for index in range(len(at.node.inputs)):
        part = yield from at.contents(index)
        if part is None:
            sizes = yield from at.extents(index)
            count = None if not sizes or sizes[0] is None else sizes[0].number
            if count is None or len(sizes or ()) != 1:
                return None
            part = (None,) * min(count, MOST_ENTRIES)
        found.extend(part)
        if len(found) > MOST_ENTRIES:
            return None
    return tuple(found)


def _split(at: At) -> Following:
    found, parts = (yield from at.contents(0)), (yield from at.listed("split", 1))
    if found is None or parts is None:
        return None
    count = len(at.node.outputs)
    even = -(-len(found) // count)
    parts = parts or tuple(
        max(0, min(even, len(found) - even * place)) for place in range(count)
    )
    place = at.value.index() or 0
    if len(parts) != count or sum(parts) != len(found):
        return None
    start = sum(parts[:place])
    return found[start : start + parts[place]]


def _reduce_prod(at: At) -> Following:
    found, sizes = (yield from at.contents(0)), (yield from at.extents(0))
    return None if found is None or sizes is None or len(sizes) > 1 else (product(found),)


def _constant_of_shape(at: At) -> Following:
    sizes = yield from at.integers(0)
    attribute = at.node.attributes.get("value")
    if sizes is None or len(sizes) > 1 or math.prod(sizes) > MOST_ENTRIES or attribute is None:
        return None
    filled = attribute.as_tensor().numpy().reshape(-1)
    if filled.dtype.kind != "i":
        return None
    return (Size.of(int(filled[0])),) * math.prod(sizes)


def _element_wise(of: _Of) -> Callable[[At], Following]:
    def follow(at: At) -> Following:
        if len(at.node.inputs) != 2:
            return None
        left, right = (yield from at.contents(0)), (yield from at.contents(1))
        pairs = _broadcast(left, right)
        return None if pairs is None else tuple(of(at.symbols, *pair) for pair in pairs)

    return follow


def _broadcast(
    left: Sequence[_Left] | None, right: Sequence[_Right] | None
) -> list[tuple[_Left, _Right]] | None:
    """Return entries side by side; one alone stands beside each of the others."""
    if left is None or right is None:
        return None
    if len(left) == 1:
        left = [*left] * len(right)
    if len(right) == 1:
        right = [*right] * len(left)
    return list(zip(left, right, strict=True)) if len(left) == len(right) else None


def _negated(at: At) -> Following:
    found = yield from at.contents(0)
    return None if found is None else tuple(times(size, -1) for size in found)


def _divided(symbols: Symbols, left: Maybe, right: Maybe) -> Maybe:
    """Return the quotient towards zero, which for what is never negative is the floor."""
    if left is None or right is None:
        return None
    if (exact := quotient(left, right)) is not None:
        return exact
    divisor = right.number
    if not symbols.is_never_negative(left) or (divisor is not None and divisor < 1):
        return None
    if divisor is None:
        return symbols.computed("Div", left, right)
    return symbols.floor_divided(left, divisor)


def _remainder(symbols: Symbols, left: Maybe, right: Maybe) -> Maybe:
    divisor = None if right is None else right.number
    if left is None or divisor is None or divisor < 1 or not symbols.is_never_negative(left):
        return None
    known = left.residue(divisor)
    return symbols.computed("Mod", left, right) if known is None else Size.of(known)


def _largest(symbols: Symbols, left: Maybe, right: Maybe) -> Maybe:
    return _of_difference(symbols, "Max", left, right)


def _smallest(symbols: Symbols, left: Maybe, right: Maybe) -> Maybe:
    return _of_difference(symbols, "Min", left, right)


def _of_difference(symbols: Symbols, operator: str, left: Maybe, right: Maybe) -> Maybe:
    difference = add(left, times(right, -1))
    opposite = times(difference, -1)
    if difference is not None and symbols.is_never_negative(difference):
        return left if operator == "Max" else right
    if opposite is not None and symbols.is_never_negative(opposite):
        return right if operator == "Max" else left
    return symbols.computed(operator, left, right)


def _equal(symbols: Symbols, left: Maybe, right: Maybe) -> Maybe:
    """Tell whether two integers are equal where that hangs on no symbol: 1, 0 or None."""
    difference = add(left, times(right, -1))
    if difference is None:
        return None
    if difference.number is not None:
        return Size.of(int(difference.number == 0))
    for one in (difference, times(difference, -1)):
        if one is not None and one.constant > 0 and symbols.is_never_negative(one):
            return Size.of(0)
    return None


def _where(at: At) -> Following:
    chosen = yield from at.contents(0)
    branches = _broadcast((yield from at.contents(1)), (yield from at.contents(2)))
    triples = None if branches is None else _broadcast(chosen, branches)
    if triples is None:
        return None
    return tuple(_chosen(one, *pair) for one, pair in triples)


def _chosen(condition: Maybe, then: Maybe, otherwise: Maybe) -> Maybe:
    number = None if condition is None else condition.number
    if number is None:
        return then if then == otherwise else None
    return then if number else otherwise


CONTENTS: Final[dict[str, Callable[[At], Following]]] = {
    "Shape": _shape,
    "Size": _size,
    "Identity": _same,
    "Cast": _cast,
    "Squeeze": _same,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Split": _split,
    "ReduceProd": _reduce_prod,
    "ConstantOfShape": _constant_of_shape,
    "Add": _element_wise(lambda _, left, right: add(left, right)),
    "Sub": _element_wise(lambda _, left, right: add(left, times(right, -1))),
    "Mul": _element_wise(lambda _, left, right: multiply(left, right)),
    "Div": _element_wise(_divided),
    "Mod": _element_wise(_remainder),
    "Max": _element_wise(_largest),
    "Min": _element_wise(_smallest),
    "Equal": _element_wise(_equal),
    "Where": _where,
    "Neg": _negated,
}
"""By operator: the entries of its result, if that is a list of integers or one integer."""
