"""Derive tensors anew from the original's constants, by the recipes of a certificate.

The arithmetic is written here a second time, on purpose: the folder's is not asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Wide = NDArray[np.float64]
Recipe = Mapping[str, Any]
Constants = Callable[[str], NDArray[Any] | None]
"""Gives a constant of the original by its name, None if there is none of that name."""


class RecipeError(Exception):
    """A recipe that cannot be followed; says why."""


def derive(recipe: Recipe, constants: Constants) -> NDArray[Any]:
    """Return the tensor that a recipe describes: in float64, or as it is stored.

    Raises:
        RecipeError: If it names what is not there, or makes no sense.
    """
    try:
        return _derived(recipe, constants)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        message = f"its recipe makes no sense: {type(error).__name__} {error}"
        raise RecipeError(message) from error


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
        first, *others = recipe["factors"]
        wide = np.multiply(whole, first, dtype=np.float64)
        for factor in others:
            wide = wide * factor
        return _of_shape(wide, whole.shape)
    make = _KINDS.get(recipe.get("made", ""))
    if make is None:
        message = f"no way is known to make {recipe.get('made')!r}"
        raise RecipeError(message)
    sources = [np.asarray(_derived(one, constants), np.float64) for one in recipe["of"]]
    return make(recipe["settings"], sources)


def named_in(recipe: Recipe) -> set[str]:
    """Return the names of the constants that a recipe asks for."""
    if "value" in recipe:
        return {recipe["value"]}
    parts = [recipe["product"]] if "product" in recipe else recipe.get("of", [])
    return {name for part in parts for name in named_in(part)}


def _of_shape(wide: Wide, shape: tuple[int, ...]) -> Wide:
    if wide.shape != shape:
        message = f"a factor changes the shape {shape} to {wide.shape}"
        raise RecipeError(message)
    return wide


def _map(settings: Recipe, sources: Sequence[Wide]) -> Wide:
    return np.asarray(sources[0] * settings["scale"] + settings["shift"])


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
            dense = outer @ _matrix(inner_taps, first)
            out[_at(place)] += _blocks(dense, whole)
    return out


def _empty(form: Recipe) -> Wide:
    taps = [window["taps"] for window in form["windows"]]
    return np.zeros((form["outputs"], form["inputs"] // form["groups"], *taps))


def _taps_by_offset(weight: Wide, form: Recipe) -> dict[tuple[int, ...], Wide]:
    """Return a matrix [M, C/group] for each place that a convolution reads."""
    if weight.shape != _empty(form).shape:
        message = f"a weight has the shape {weight.shape}, {_empty(form).shape} is stated"
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
    dense = np.zeros((outputs, form["inputs"]))
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
    return np.asarray(settings["factor"] * turned)


def _sum_of_products(settings: Recipe, sources: Sequence[Wide]) -> Wide:
    rest = iter(sources)
    whole: Wide | float = 0.0
    for part in settings["parts"]:
        outer = np.asarray(part["outer"], np.float64)
        if part["product"] is None:
            term = np.diag(outer)
        else:
            laid = outer[:, None] if settings["constant_is_left"] else outer
            term = _as_multiplied(next(rest), part["product"]) * laid
        whole = whole + part["sign"] * term
    return np.asarray(np.swapaxes(whole, -1, -2) if settings["transposed"] else whole)


def _product_behind(settings: Recipe, sources: Sequence[Wide]) -> Wide:
    first = _as_multiplied(sources[0], settings["first"])
    whole = first @ _as_multiplied(sources[1], settings["second"])
    return whole.T if settings["transposed"] else whole


_KINDS: Final[dict[str, Callable[[Recipe, Sequence[Wide]], Wide]]] = {
    "map": _map,
    "sum of convolutions": _sum_of_convolutions,
    "convolution behind convolution": _convolution_behind,
    "sum of products": _sum_of_products,
    "product behind product": _product_behind,
}
