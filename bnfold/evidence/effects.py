"""What the runtime's optimisation does to both models: each against itself."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

from bnfold.evidence.compare import Deviation
from bnfold.evidence.judge import LIMIT, Trial
from bnfold.evidence.readings import Distances
from bnfold.records import RuntimeEffect
from bnfold.runtime import Setting


def effect_on(
    name: str,
    place: int,
    setting: Setting,
    trials: Sequence[tuple[int, Trial]],
    selves: tuple[Distances, Distances],
) -> RuntimeEffect | None:
    """How far an output of each model is from itself when the runtime optimises.

    Args:
        name: Of the output.
        place: Its position.
        setting: How the models are optimised.
        trials: What the noise is, with the number of each set of inputs.
        selves: Distances of the original and of the folded model from themselves.
    """
    moved = [list(_moved(place, trials, one)) for one in selves]
    if not all(moved):
        return None
    before, after = ([size for size, _ in one] for one in moved)
    own, far = ([distance for _, distance in one] for one in moved)
    return RuntimeEffect(
        output=name,
        level=str(setting),
        size_original=max(before),
        size_folded=max(after),
        max_abs_original=max(one.largest for one in own),
        max_abs_folded=max(one.largest for one in far),
        new_not_finite=sum(one.flipped for one in far) if trials[0][1].scale.floor else 0,
        limit=LIMIT,
    )


def _moved(
    place: int, trials: Sequence[tuple[int, Trial]], distances: Distances
) -> Iterator[tuple[float, Deviation]]:
    for index, trial in trials:
        one = distances[index].get(place) if index < len(distances) else None
        if one is not None:
            rms = math.sqrt(float(one.squares.sum()) / trial.size)
            yield rms / trial.noise_rms, one


_TELLING: Final = 1e6
"""Beyond, the noise is that of numbers all but exact (a quantised output that never crosses a
tie has none), and a quotient by it tells a reader nothing."""


def _times(size: float) -> str:
    if size > _TELLING:
        return "where rounding moves hardly anything"
    return f"{size:.3g} times its rounding noise"


def told(effect: RuntimeEffect) -> str:
    """A warning that names whose doing it is, and its size."""
    said = (
        f"output {effect.output!r}: optimisation {effect.level!r} of the runtime moves the"
        f" folded model by {effect.max_abs_folded:.3g} at most away from itself"
        f" ({_times(effect.size_folded)}), and the original by"
        f" {effect.max_abs_original:.3g} ({_times(effect.size_original)}):"
        " the runtime's doing, not the fold's"
    )
    if effect.new_not_finite:
        said += f"; {effect.new_not_finite} numbers are not finite only because of it"
    return said
