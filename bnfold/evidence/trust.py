"""Whether a baseline can be believed: rounding noise against the original's own error.

Both are made by rounding: the noise by that of every stored number, the error by that of every
operation. In 6 torch nets, 4 nets of the onnx wheel and 80 small branches the noise is 0.5 to
30 times the error. One that is a hundred times as large was made by something else, e.g. a
mask that a nudge opened: it would hide every fault.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from bnfold.evidence.compare import Deviation, Scale

DISTRUSTED: Final = 100.0
"""So many times the original's own error, a baseline is not believed."""

REPLACED: Final = 30.0
"""It counts as so many times the original's own error then."""

_ARITHMETIC: Final = 2.0**-24


def trust_in(
    noise: Sequence[Deviation], error: Deviation | None, scale: Scale, coarsest: float
) -> float:
    """What the mean squares of the noise are to be multiplied by: 1 where it is believed.

    Where storage is coarser than arithmetic, the noise is larger than the error by as much.

    Args:
        noise: Distances of nudged runs on one set of inputs.
        error: The original's distance from float64 there; None if that is not known.
        scale: Size of the output.
        coarsest: Largest unit roundoff among the numbers that the original stores or reads.
    """
    if error is None or not noise:
        return 1.0
    drawn = sum(float(one.squares.sum()) for one in noise) / len(noise)
    floor = scale.floor**2 * float(scale.squares.sum())
    own = max(float(error.squares.sum()), floor) * max(coarsest / _ARITHMETIC, 1.0) ** 2
    if own <= 0 or drawn <= DISTRUSTED**2 * own:
        return 1.0
    return REPLACED**2 * own / drawn


def typical_trust(found: Mapping[int, float], sets: int) -> tuple[float, ...]:
    """Trust per set: as measured, and the least of all where no error is known."""
    least = min(found.values(), default=1.0)
    return tuple(found.get(index, least) for index in range(sets))


def told(name: str, trust: float) -> str:
    """A warning that says by how much a baseline was too large."""
    times = REPLACED / math.sqrt(trust)
    return (
        f"output {name!r}: nudges of half an ulp move it {times:.2g} times as far as the"
        f" original is from float64, which is no rounding: its own error, {REPLACED:g} times,"
        " takes their place"
    )
