"""What the operators of a model tell of its inputs: open sizes, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from bnfold.errors import BnfoldError
from bnfold.inputs.reading import private_copy
from bnfold.inputs.roles import symbols_in, use_of
from bnfold.inputs.signature import Slot, Use, words_of
from bnfold.inputs.solving import Solution, solve


@dataclass(frozen=True, slots=True)
class Hinted:
    """Inputs with all that is known of them.

    Attributes:
        slots: The inputs.
        sources: For each size found, by input and axis, the node that decides it.
    """

    slots: tuple[Slot, ...]
    sources: Mapping[tuple[str, int], str] = field(default_factory=dict)


def with_hints(slots: Sequence[Slot], model: ir.Model) -> tuple[Slot, ...]:
    """The same inputs with ranks, sizes and uses filled in where the graph decides them.

    Args:
        slots: Inputs as `inputs_of` gives them; sizes may have been filled in since.
        model: Their model; it is left as it is.
    """
    return hinted(slots, model).slots


def hinted(slots: Sequence[Slot], model: ir.Model) -> Hinted:
    """The same, with who decides the sizes."""
    try:
        solution = solve(slots, private_copy(model))
        values = {value.name: value for value in solution.reading.graph.inputs}
        uses = [use_of(one, values[one.name], solution.reading) for one in solution.slots]
    except (BnfoldError, RuntimeError, ValueError, TypeError, LookupError):
        # No valid graph: whoever runs it says so in its own words, and needs no hints.
        return Hinted(tuple(slots))
    return Hinted(tuple(_told(solution, uses)), solution.sources)


def _told(solution: Solution, uses: Sequence[Use]) -> list[Slot]:
    """Join sizes and uses; a symbol of ours stays where another dimension or a bound is it."""
    dims = [dim for slot in solution.slots for dim in slot.dims or ()]
    known = {word for dim in dims for word in words_of(dim)}
    bounded = [use.bounded_by(known) for use in uses]
    bounding = set(symbols_in(bounded))
    found = []
    for symbolic, named, use in zip(solution.slots, solution.named, bounded, strict=True):
        shape = named.dims
        if shape is not None and symbolic.dims is not None:
            pairs = zip(shape, symbolic.dims, strict=True)
            shape = tuple(full if full in bounding else dim for dim, full in pairs)
        found.append(replace(named, dims=shape, use=use))
    return found
