"""What new tensors were made of, as plain data: what a certificate holds of each.

A recipe is one of

- ``{"value": NAME}``: a constant of the original model;
- ``{"numbers": ARRAY}``: numbers written out in float64;
- ``{"made": KIND, "settings": {…}, "of": [RECIPE, …]}``: made of others, see `Made`;
- ``{"product": RECIPE, "factors": [ARRAY, …]}``: multiplied by arrays that broadcast.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.expression import Expression, Held, Made, Named
from bnfold.model.constants import FLOATS, expression_of
from bnfold.model.graphs import graphs_of
from bnfold.model.origins import origin_of

Recipe = dict[str, object]

_LARGEST: Final = 1 << 16
"""Elements that are written out where nothing else can be told."""

_SMALL: Final = 1 << 12
"""Elements that are written out rather than told by what they were made of."""


def recipes_of(folded: ir.Model) -> dict[str, Recipe]:
    """Return a recipe for every floating tensor that a fold wrote, by name.

    A tensor whose origin nobody noted, and that is too large to write out, has none.
    """
    recipes: dict[str, Recipe] = {}
    for graph in graphs_of(folded.graph):
        for name, value in graph.initializers.items():
            tensor = value.const_value
            expression = None if tensor is None else expression_of(tensor)
            if tensor is None or expression is None or tensor.dtype not in FLOATS:
                continue
            recipe = recipe_of(expression)
            if recipe is not None:
                recipes[name] = recipe
    return recipes


def recipe_of(expression: Expression) -> Recipe | None:
    """Return what an expression is made of; None where that is unknown and too large."""
    whole = _base(expression)
    if whole is None or not expression.factors:
        return whole
    return {"product": whole, "factors": list(expression.factors)}


def _base(expression: Expression) -> Recipe | None:
    base = expression.base
    match origin_of(base):
        case Named(name):
            return {"value": name}
        case Made(kind, settings, sources) if not _is_small(base):
            parts = [recipe_of(source) for source in sources]
            if any(part is None for part in parts):
                return None
            return {"made": kind, "settings": dict(settings), "of": parts}
        case _:
            pass
    if int(np.prod(expression.shape)) <= _LARGEST:
        return {"numbers": np.asarray(base.numpy(), np.float64)}
    return None


def _is_small(base: object) -> bool:
    return isinstance(base, Held) and base.array.size <= _SMALL
