"""Numbers for the inputs of a model, and which of them no numbers can be drawn for.

Sequences, optionals and text are not drawn. What does not hang on them is compared all the
same, and what is the same and reads the same needs no numbers at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from numpy.typing import NDArray

from bnfold.evidence.proof.failing import CannotEvaluateError
from bnfold.inputs.drawing import Case, draw_inputs
from bnfold.inputs.numbers import why_not_drawn
from bnfold.inputs.signature import Slot

Array = NDArray[Any]


class Given(Mapping[str, Array]):
    """Arrays for the inputs of a model; whoever asks for one that is not drawn is told why.

    It has a place for every input, so that nobody takes one without numbers for one of a size
    that is unknown; to go through it gives those that have numbers.

    Args:
        arrays: The numbers, by name.
        undrawn: Why there are none, by the name of each other input.
    """

    def __init__(
        self,
        arrays: Mapping[str, Array] | None = None,
        undrawn: Mapping[str, str] | None = None,
    ) -> None:
        self._arrays = arrays or {}
        self._undrawn = undrawn or {}

    def __getitem__(self, name: str) -> Array:
        if name in self._undrawn:
            self._refuse(name)
        return self._arrays[name]

    def __contains__(self, name: object) -> bool:
        return name in self._arrays or name in self._undrawn

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def _refuse(self, name: str) -> NoReturn:
        raise CannotEvaluateError(self._undrawn[name])


def drawable(slots: Sequence[Slot]) -> tuple[Slot, ...]:
    """Return the inputs that numbers can be drawn for."""
    return tuple(slot for slot in slots if not why_not_drawn(slot))


def given(slots: Sequence[Slot], case: Case, seed: int) -> Given:
    """Draw what can be drawn.

    Args:
        slots: The inputs, with hints.
        case: Their sizes.
        seed: Of the numbers.
    """
    undrawn = {slot.name: why for slot in slots if (why := why_not_drawn(slot))}
    return Given(draw_inputs(drawable(slots), case, seed), undrawn)
