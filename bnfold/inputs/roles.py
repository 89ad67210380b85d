"""What an input is for: told by what reads it, and by its name only where nothing does."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, TypeVar

import numpy as np
import onnx_ir as ir

from bnfold.inputs.freedom import is_free
from bnfold.inputs.readers import signs_of
from bnfold.inputs.reading import Reading
from bnfold.inputs.signature import Dim, Role, Slot, Use, words_of
from bnfold.inputs.trails import (
    Above,
    Chooses,
    Counts,
    Lasts,
    Opens,
    Sign,
    Trail,
    Within,
)

_NAMES: Final = tuple(
    (re.compile(pattern), role)
    for pattern, role in (
        (r"scale_factor|im_scale", Role.ONES),
        (
            r"(im|img|image|ori|orig|original|target).*(shape|size)s?(_hw)?$|^im_info$"
            r"|(^|_)sizes?$",
            Role.SIZES,
        ),
        (r"mask", Role.MASK),
        (r"pos(ition)?s?(_|\.)?(ids?)?$|cache_position", Role.POSITION),
        (r"time_?steps?$", Role.STEP),
        (r"(^|_|\.)(len|lens|length|lengths|seqlens?)(_|$|\d)", Role.LENGTH),
    )
)
"""What names suggest, the more particular first."""

_ANY_NUMBERS: Final = (Role.ONES, Role.SIZES, Role.STEP, Role.MASK)
"""What a floating input may be by its name."""

_BYTE: Final = 8
_WHOLE: Final = 1 << 24
"""Up to here every whole number is a float32."""

_Sign = TypeVar("_Sign")


def use_of(slot: Slot, value: ir.Value, reading: Reading) -> Use:
    """Return what an input is for, and the numbers that make sense."""
    if slot.dtype is None or slot.dtype is ir.DataType.STRING:
        return Use()
    signs = list(signs_of(value, reading))
    indexed = _indexed(_of(signs, Within), slot)
    if indexed is not None:
        return indexed
    told = _told(slot, signs) or _named(slot) or _suspected(slot, signs)
    return told or _any_size(slot, value, reading) or Use()


def _of(signs: Sequence[Sign], kind: type[_Sign]) -> list[_Sign]:
    return [sign for sign in signs if isinstance(sign, kind)]


def _indexed(found: Sequence[Within], slot: Slot) -> Use | None:
    """The numbers that stay in every table that they reach."""
    if not found or slot.dtype is ir.DataType.BOOL:
        return None
    straight = [sign for sign in found if sign.trail.straight]
    use = _in_all(straight)
    if use is None:
        # As in ``where(i < 0, i + size, i)``: one way is for numbers that the other is not.
        use = _in_all([sign for sign in straight if sign.trail.zero == 0])
    if use is not None and _word(slot) is Role.POSITION:
        return replace(use, role=Role.POSITION)
    return use


def _in_all(found: Sequence[Within]) -> Use | None:
    """The numbers that lie in all of these; None where there is none, or nothing is known."""
    low, high, within = -math.inf, math.inf, []
    for sign in found:
        for dim in sign.dims:
            size = dim if isinstance(dim, int) else math.inf
            first, last = _line(sign.trail, size - 1)
            low, high = max(low, first), min(high, last)
            if isinstance(dim, str) and sign.trail.slope == 1:
                within.append((dim, 1 + int(sign.trail.zero)))
    if low == -math.inf or low > high:
        return None
    return Use(Role.INDEX, low, high, tuple(dict.fromkeys(within)))


def _line(trail: Trail, last: float) -> tuple[float, float]:
    """Which numbers at the input lie between 0 and ``last`` here."""
    ends = sorted((end - trail.zero) / trail.slope for end in (0.0, last))
    return ends[0], ends[1]


def _told(slot: Slot, signs: Sequence[Sign]) -> Use | None:
    """What readers say for certain."""
    if _of(signs, Chooses) and (_is_single(slot) or slot.dtype is ir.DataType.BOOL):
        return Use(Role.FLAG)
    certain = [sign for sign in _of(signs, Opens) if sign.certain]
    if certain:
        return Use(Role.MASK, 0, 1, opened=certain[0].number)
    if slot.dtype is not None and slot.dtype.is_floating_point():
        return _floats(slot, _of(signs, Above))
    lasting, counting = _of(signs, Lasts), _of(signs, Counts)
    if lasting:
        return _up_to(Role.LENGTH, [dim for sign in lasting for dim in sign.dims])
    if counting:
        return _up_to(Role.COUNT, [dim for sign in counting for dim in sign.dims])
    return None


def _any_size(slot: Slot, value: ir.Value, reading: Reading) -> Use | None:
    """Integers that nothing bounds, as far as each of them is a float32 too."""
    kind = slot.dtype
    if kind is None or not kind.is_integer() or kind.bitwidth < _BYTE:
        return None
    if not is_free(value, reading):
        return None
    ends = np.iinfo(kind.numpy())
    return Use(low=max(ends.min, -_WHOLE), high=min(ends.max, _WHOLE), is_free=True)


def _is_single(slot: Slot) -> bool:
    return slot.dims is not None and all(dim == 1 for dim in slot.dims)


def _up_to(role: Role, dims: Sequence[Dim]) -> Use:
    most = min((dim for dim in dims if isinstance(dim, int)), default=math.inf)
    words = ((dim, 0) for dim in dims if isinstance(dim, str))
    return Use(role, 1, most, tuple(dict.fromkeys(words)))


def _floats(slot: Slot, found: Sequence[Above]) -> Use | None:
    """Above every root's and logarithm's end; names of sizes say more than that."""
    if not found or _word(slot) in _ANY_NUMBERS:
        return None
    low, high = -math.inf, math.inf
    for sign in found:
        if not sign.trail.straight:
            continue
        end = -sign.trail.zero / sign.trail.slope
        low, high = (max(low, end), high) if sign.trail.slope > 0 else (low, min(high, end))
    return Use(Role.NUMBERS, low, high) if low < high else None


def _named(slot: Slot) -> Use | None:
    role = _word(slot)
    kind = slot.dtype
    if role is None or kind is None:
        return None
    if kind is ir.DataType.BOOL:
        return Use(Role.MASK, 0, 1) if role is Role.MASK else None
    if kind.is_floating_point() and role not in _ANY_NUMBERS:
        return None
    return Use(Role.MASK, 0, 1) if role is Role.MASK else Use(role)


def _word(slot: Slot) -> Role | None:
    name = slot.name.lower()
    return next((role for pattern, role in _NAMES if pattern.search(name)), None)


def _suspected(slot: Slot, signs: Sequence[Sign]) -> Use | None:
    """Integers and truth values of some axes that computed numbers are multiplied with."""
    weak = _of(signs, Opens)
    if weak and slot.dtype is ir.DataType.BOOL and _is_single(slot):
        return Use(Role.FLAG)
    whole = slot.dtype is not None and not slot.dtype.is_floating_point()
    if weak and whole and slot.dims:
        return Use(Role.MASK, 0, 1, opened=weak[0].number)
    return None


def symbols_in(uses: Sequence[Use]) -> Iterator[str]:
    """Yield the symbols that bound some input's numbers."""
    for use in uses:
        for dim, _ in use.within:
            yield from words_of(dim)
