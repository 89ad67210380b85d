"""A second set of inputs for what is not drawn: integers, booleans and masks.

One set may say nothing: a mask that is open everywhere hides where it goes. In the second one
indices are others, and masks are closed at places of their own, the first of a row excepted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bnfold.inputs.drawing import Case, draw_inputs
from bnfold.inputs.signature import Slot

_CLOSED: Final = 0.4
_NEXT: Final = 1


def other_inputs(slots: Sequence[Slot], case: Case, seed: int) -> dict[str, NDArray[Any]]:
    """Return another array for every input, of the same shapes where these allow it.

    Args:
        slots: The inputs, with hints.
        case: Their sizes.
        seed: Of the first set.
    """
    rng = np.random.default_rng((seed, _NEXT))
    drawn = draw_inputs(slots, case, seed + _NEXT)
    return {name: _scattered(array, rng) for name, array in drawn.items()}


def _scattered(array: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Close some places of what holds zeros and ones; most of them stay as they are."""
    if array.size < 2 or array.ndim < 2 or not np.isin(array, (0, 1)).all():
        return array
    open_word = array.reshape(-1)[0]
    closed = rng.random(array.shape) < _CLOSED
    closed[..., 0] = False  # a row that is closed altogether gives no number
    return np.where(closed, 1 - open_word.astype(np.int8), array).astype(array.dtype)
