"""At which sizes a fold of a model would be checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from bnfold.inputs.drawing import Binding, shape_of
from bnfold.inputs.hints import hinted
from bnfold.inputs.numbers import why_not_drawn
from bnfold.inputs.signature import Slot, inputs_of
from bnfold.inputs.sizes import Shapes, sized
from bnfold.records import InputSizes


def check_sizes(model: ir.Model, shapes: Shapes | str | None = None) -> tuple[InputSizes, ...]:
    """Return the sizes that a check of a fold would begin with, for each input.

    Args:
        model: The model.
        shapes: Sizes that the user gives.

    Raises:
        UsageError: If a shape cannot be read, or does not fit the model.
    """
    found = hinted(inputs_of(model), model)
    turns = sized(found.slots, (shapes,) if isinstance(shapes, str) else shapes or ())
    return tuple(_sizes(slot, turns[0], found.sources) for slot in turns[0])


def _sizes(
    slot: Slot, slots: Sequence[Slot], sources: Mapping[tuple[str, int], str]
) -> InputSizes:
    why = why_not_drawn(slot)
    if why:
        return InputSizes(slot.name, None, why=why)
    shape = shape_of(slot, Binding(), slots)
    dims = slot.dims or (None,) * len(shape)
    decided = {str(axis): who for (name, axis), who in sources.items() if name == slot.name}
    opened = tuple(axis for axis, dim in enumerate(dims) if not isinstance(dim, int))
    return InputSizes(slot.name, shape, decided, opened, slot.use.role.value)
