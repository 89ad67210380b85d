"""Derive tensors anew from the original's constants, by the recipes of a certificate.

The arithmetic is written here a second time, on purpose: the folder's is not asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from itertools import product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bnfold import limits
from bnfold.evidence import clock
from bnfold.evidence.clock import OutOfTimeError
from bnfold.evidence.proof.sides import CannotEvaluateError

Wide = NDArray[np.float64]
Recipe = Mapping[str, Any]
Constants = Callable[[str], NDArray[Any] | None]
"""Gives a constant of the original by its name, None if there is none of that name."""

_FREE_ELEMENTS: Final = 1 << 24
_TIMES: Final = 64
"""What a recipe may make on its way, and in times of what it should make in the end: a grouped
convolution is a matrix with zeros between the groups."""


class RecipeError(Exception):
    """A recipe that cannot be followed; says why."""


def derive(recipe: Recipe, constants: Constants, elements: int = 0) -> NDArray[Any]:
    """Return the tensor that a recipe describes: in float64, or as it is stored.

    Args:
        recipe: How it is made.
        constants: Gives the constants of the original.
        elements: How many it should have; arrays that are far larger are not made on the way.

    Raises:
        RecipeError: If it names what is not there, makes no sense, or asks for huge arrays.
        OutOfTimeError: If there is no time for it.
    """
    most = min(max(_FREE_ELEMENTS, _TIMES * elements), limits.current().elements)
    token = _MOST.set(most)
    try:
        return _derived(recipe, constants)
    except (RecipeError, MemoryError, OutOfTimeError, CannotEvaluateError):
        raise
    except Exception as error:
        message = "its recipe makes no sense: what it names does not fit together"
        raise RecipeError(message) from error
    finally:
        _MOST.reset(token)


def rows_of(
    recipe: Recipe, constants: Constants, shape: tuple[int, ...]
) -> Callable[[slice], NDArray[Any]] | None:
    """Return what derives rows (along axis 0) of a tensor, or None where rows hang together.

    What is made element by element need not be held as a whole: a weight of a gigabyte is
    two in float64, and memory that was never touched costs more than the arithmetic.

    Args:
        recipe: How the tensor is made.
        constants: Gives the constants of the original.
        shape: Of the tensor; a recipe that gives another one is for `derive`.

    Raises:
        RecipeError: If it names what is not there.
    """
    if not shape:
        return None
    if "value" in recipe or "numbers" in recipe:
        whole = _derived(recipe, constants)
        return whole.__getitem__ if whole.shape == shape else None
    by, source = _by_elements(recipe)
    inner = None if source is None else rows_of(source, constants, shape)
    if inner is None or any(_broadcast(shape, one.shape) != shape for one in by):
        return None
    if "product" in recipe:
        return lambda part: _product(inner(part), [_rows(one, part, shape) for one in by])
    scale, shift = by
    return lambda part: _mapped(
        inner(part), _rows(scale, part, shape), _rows(shift, part, shape)
    )


def _by_elements(recipe: Recipe) -> tuple[list[NDArray[Any]], Recipe | None]:
    """Return what every element of a tensor is multiplied by or added to, and that tensor."""
    if "product" in recipe and recipe["factors"]:
        return [np.asarray(one) for one in recipe["factors"]], recipe["product"]
    if recipe.get("made") == "map":
        settings, (source,) = recipe["settings"], recipe["of"]
        return [np.asarray(settings[key]) for key in ("scale", "shift")], source
    return [], None


def _broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...] | None:
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        return None


def _rows(part: NDArray[Any], rows: slice, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return what of a factor belongs to rows of a tensor that it broadcasts to."""
    varies = part.ndim == len(shape) and part.shape[0] > 1
    return part[rows] if varies else part


_MOST: Final[ContextVar[int]] = ContextVar("bnfold.recipes", default=1 << 24)


def _checked(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of an array that may be made; nothing is allocated yet."""
    if any(isinstance(size, bool) or not isinstance(size, int) for size in shape):
        message = f"{list(shape)} is no shape"
        raise RecipeError(message)
    if any(size < 0 for size in shape) or math.prod(shape) > _MOST.get():
        message = f"it asks for an array of shape {list(shape)}"
        raise RecipeError(message)
    return tuple(shape)


def _together(*parts: Any) -> tuple[int, ...]:
    """Return the shape that arrays broadcast to, if it may be made."""
    return _checked(np.broadcast_shapes(*(np.shape(part) for part in parts)))


def _derived(recipe: Recipe, constants: Constants) -> Wide:
    if "numbers" in recipe:
        return np.asarray(recipe["numbers"], np.float64)
    if "value" in recipe:
        found = constants(recipe["value"])
        if found is None:
            message = f"the original has no constant {recipe['value']!r}"
            raise RecipeError(message)
        return np.asarray(found)
    if "product" in recipe:
        whole = _derived(recipe["product"], constants)
        for factor in recipe["factors"]:
            _same_shape(_together(whole, factor), whole.shape)
        return _product(whole, recipe["factors"])
    make = _KINDS.get(recipe.get("made", ""))
    if make is None:
        message = f"no way is known to make {recipe.get('made')!r}"
        raise RecipeError(message)
    sources = [np.asarray(_derived(one, constants), np.float64) for one in recipe["of"]]
    return make(recipe["settings"], sources)


def _product(whole: NDArray[Any], factors: Sequence[Any]) -> Wide:
    first, *others = factors
    if whole.dtype.kind == "f" and _broadcast(whole.shape, np.shape(first)) == whole.shape:
        wide = whole.astype(np.float64)  # numpy's cast inside of a product is slower
        wide *= first
    else:
        wide = np.multiply(whole, first, dtype=np.float64)
    for factor in others:
        wide = wide * factor
    return np.asarray(wide)


def _mapped(source: NDArray[Any], scale: Any, shift: Any) -> Wide:
    return np.asarray(np.asarray(source, np.float64) * scale + shift)


def named_in(recipe: Recipe) -> set[str]:
    """Return the names of the constants that a recipe asks for."""
    if "value" in recipe:
        return {recipe["value"]}
    parts = [recipe["product"]] if "product" in recipe else recipe.get("of", [])
    return {name for part in parts for name in named_in(part)}


def _same_shape(found: tuple[int, ...], shape: tuple[int, ...]) -> None:
    if found != shape:
        message = f"a factor changes the shape {shape} to {found}"
        raise RecipeError(message)


def _map(settings: Recipe, sources: Sequence[Wide]) -> Wide:
    _together(sources[0], settings["scale"], settings["shift"])
    return _mapped(sources[0], settings["scale"], settings["shift"])


def _sum_of_convolutions(settings: Recipe, sources: Sequence[Wide]) -> Wide:
    whole = settings["form"]
    out = _empty(whole)
    for part, weight in zip(settings["parts"], sources, strict=True):
        for place, taps in _taps_by_offset(weight, part["form"]).items():
            out[_at(_index(place, whole))] += part["sign"] * _regrouped(
                taps, part["form"], whole
            )
    return out


def _convolution_behind(settings: Recipe, sources: Sequence[Wide]) -> Wide:
    """Tap by tap: what ``second`` reads at q, ``first`` read at stride·q + p."""
    whole, first, second = settings["form"], settings["first"], settings["second"]
    out = _empty(whole)
    strides = [window["stride"] for window in first["windows"]]
    inner = _taps_by_offset(sources[0], first)
    for there, outer_taps in _taps_by_offset(sources[1], second).items():
        outer = _matrix(outer_taps, second)
        for here, inner_taps in inner.items():
            pairs = zip(strides, there, here, strict=True)
            place = _index([stride * q + p for stride, q, p in pairs], whole)
            clock.check()
            dense = outer @ _matrix(inner_taps, first)
            out[_at(place)] += _blocks(dense, whole)
    return out


def _empty(form: Recipe) -> Wide:
    return np.zeros(_shape_of(form))


def _shape_of(form: Recipe) -> tuple[int, ...]:
    """Return the shape of the weight of a convolution; its groups share channels evenly."""
    outputs, inputs, groups = _checked([form[key] for key in ("outputs", "inputs", "groups")])
    taps = _checked([window["taps"] for window in form["windows"]])
    if not groups or outputs % groups or inputs % groups:
        message = f"{groups} groups do not share {outputs} and {inputs} channels"
        raise RecipeError(message)
    return _checked((outputs, inputs // groups, *taps))


def _taps_by_offset(weight: Wide, form: Recipe) -> dict[tuple[int, ...], Wide]:
    """Return a matrix [M, C/group] for each place that a convolution reads."""
    if weight.shape != _shape_of(form):
        message = f"a weight has the shape {weight.shape}, {_shape_of(form)} is stated"
        raise RecipeError(message)
    ranges = [range(window["taps"]) for window in form["windows"]]
    return {
        tuple(
            window["first"] + window["step"] * tap
            for window, tap in zip(form["windows"], taps, strict=True)
        ): weight[_at(taps)]
        for taps in product(*ranges)
    }


def _at(taps: Sequence[int]) -> tuple[slice | int, ...]:
    """Return the place of a tap in a weight [M, C/group, k…]."""
    return (slice(None), slice(None), *taps)


def _index(place: Sequence[int], form: Recipe) -> tuple[int, ...]:
    """Return which tap of ``form`` reads at ``place``."""
    found = []
    for offset, window in zip(place, form["windows"], strict=True):
        tap, rest = divmod(offset - window["first"], window["step"])
        if rest or not 0 <= tap < window["taps"]:
            message = f"no tap of the result reads at {tuple(place)}"
            raise RecipeError(message)
        found.append(tap)
    return tuple(found)


def _regrouped(taps: Wide, form: Recipe, whole: Recipe) -> Wide:
    if form["groups"] == whole["groups"]:
        return taps
    return _blocks(_matrix(taps, form), whole)


def _matrix(taps: Wide, form: Recipe) -> Wide:
    """Return one tap as the matrix [outputs, inputs] that it is, zeros between groups."""
    groups, outputs = form["groups"], form["outputs"]
    dense = np.zeros(_checked((outputs, form["inputs"])))
    rows, columns = outputs // groups, form["inputs"] // groups
    for group in range(groups):
        mine = slice(group * rows, (group + 1) * rows)
        dense[mine, group * columns : (group + 1) * columns] = taps[mine]
    return dense


def _blocks(dense: Wide, form: Recipe) -> Wide:
    """Return what a matrix is per group; what lies outside of the groups must be zero."""
    groups = form["groups"]
    rows, columns = form["outputs"] // groups, form["inputs"] // groups
    parts = []
    for group in range(groups):
        mine = slice(group * columns, (group + 1) * columns)
        block = dense[group * rows : (group + 1) * rows]
        parts.append(block[:, mine])
        if np.count_nonzero(block) != np.count_nonzero(block[:, mine]):
            message = "channels of different groups are connected"
            raise RecipeError(message)
    return np.concatenate(parts)


def _as_multiplied(stored: Wide, settings: Recipe) -> Wide:
    turned = np.swapaxes(stored, -1, -2) if settings["transposed"] else stored
    _together(settings["factor"], turned)
    return np.asarray(settings["factor"] * turned)


def _sum_of_products(settings: Recipe, sources: Sequence[Wide]) -> Wide:
    rest = iter(sources)
    whole: Wide | float = 0.0
    for part in settings["parts"]:
        outer = np.asarray(part["outer"], np.float64)
        clock.check()
        if part["product"] is None:
            _checked((outer.size, outer.size))
            term = np.diag(outer)
        else:
            laid = outer[:, None] if settings["constant_is_left"] else outer
            source = _as_multiplied(next(rest), part["product"])
            _together(source, laid)
            term = source * laid
        _together(whole, term)
        whole = whole + part["sign"] * term
    return np.asarray(np.swapaxes(whole, -1, -2) if settings["transposed"] else whole)


def _product_behind(settings: Recipe, sources: Sequence[Wide]) -> Wide:
    first = _as_multiplied(sources[0], settings["first"])
    second = _as_multiplied(sources[1], settings["second"])
    _checked(
        (*np.broadcast_shapes(first.shape[:-2], second.shape[:-2]), *_outer(first, second))
    )
    whole = first @ second
    return whole.T if settings["transposed"] else whole


def _product_of_elements(settings: Recipe, sources: Sequence[Wide]) -> Wide:
    """``aᵖ · bᵍ`` element by element, p and g 1 or −1."""
    _together(*sources)
    raised = (one if p == 1 else 1.0 / one for one, p in _powers(settings, sources))
    return np.asarray(math.prod(raised, start=np.float64(1.0)))


def _sum_of_elements(settings: Recipe, sources: Sequence[Wide]) -> Wide:
    """``p · a + q · b``, p and q 1 or −1."""
    _together(*sources)
    first, second = (p * one for one, p in _powers(settings, sources))
    return np.asarray(first + second)


def _powers(settings: Recipe, sources: Sequence[Wide]) -> Iterator[tuple[Wide, int]]:
    for one, power in zip(sources, settings["powers"], strict=True):
        if power not in (1, -1):
            message = f"{power!r} is no power of an element"
            raise RecipeError(message)
        yield one, power


def _outer(first: Wide, second: Wide) -> tuple[int, ...]:
    return first.shape[-2:-1] + (second.shape[-1:] if second.ndim > 1 else ())


_KINDS: Final[dict[str, Callable[[Recipe, Sequence[Wide]], Wide]]] = {
    "map": _map,
    "sum of convolutions": _sum_of_convolutions,
    "convolution behind convolution": _convolution_behind,
    "sum of products": _sum_of_products,
    "product behind product": _product_behind,
    "product of elements": _product_of_elements,
    "sum of elements": _sum_of_elements,
}
