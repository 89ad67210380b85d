"""What the operators of a model tell of its inputs: open sizes, and what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir

from bnfold.inputs.reading import private_copy
from bnfold.inputs.roles import symbols_in, use_of
from bnfold.inputs.signature import Slot
from bnfold.inputs.solving import Solution, solve


def with_hints(slots: Sequence[Slot], model: ir.Model) -> tuple[Slot, ...]:
    """The same inputs with ranks, sizes and uses filled in where the graph decides them.

    Args:
        slots: Inputs as `inputs_of` gives them; sizes may have been filled in since.
        model: Their model; it is left as it is.
    """
    return hinted(slots, model)[0]


def hinted(slots: Sequence[Slot], model: ir.Model) -> tuple[tuple[Slot, ...], Solution]:
    """The same, with how the sizes were found."""
    solution = solve(slots, private_copy(model))
    values = {value.name: value for value in solution.reading.graph.inputs}
    uses = [use_of(slot, values[slot.name], solution.reading) for slot in solution.slots]
    # A symbol of ours stays only where another dimension or a bound refers to it.
    bounding = set(symbols_in(uses))
    found = []
    for symbolic, named, use in zip(solution.slots, solution.named, uses, strict=True):
        dims = named.dims
        if dims is not None and symbolic.dims is not None:
            pairs = zip(dims, symbolic.dims, strict=True)
            dims = tuple(full if full in bounding else dim for dim, full in pairs)
        found.append(replace(named, dims=dims, use=use))
    return tuple(found), solution
