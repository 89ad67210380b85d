"""Whether both models are other functions in float64 too: then no accuracy is what differs.

A run that fails behind a proof may mean that the runtime loses digits, or that the proof was
mistaken. Float64 tells: of accuracy nothing is lost there, and what is left of rounding is
that of the stored tensors, half an ulp of each at most. So the folded model is nudged by
sixteen times as much: a number that this moves as far, a choice that it changes, may be
rounding's. One that no nudge moves, but that differs from the original's on the runtime and in
float64 alike, is another function's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.evidence.bench import bytes_of
from bnfold.evidence.compare import is_float
from bnfold.evidence.court import Court, Hearing
from bnfold.evidence.in_float64 import References, evaluate
from bnfold.evidence.judge import Trial
from bnfold.evidence.limits import PROVED
from bnfold.evidence.noise import Draw, Pattern, nudge_inputs, nudging
from bnfold.evidence.readings import Outputs, Readings
from bnfold.evidence.variants import fixed_constants, write_variant
from bnfold.evidence.weigh import reshaped, trials_of
from bnfold.runtime import Arrays

_TIMES: Final = 16.0
"""So many times the rounding of stored tensors are the nudges."""

_PATTERNS: Final = (Pattern.EACH, Pattern.EACH, Pattern.EACH, Pattern.ROWS) * 2
_FEWEST: Final = 4
"""With fewer nudges, what none of them moves says nothing."""

_SEED: Final = 5000
_SETS: Final = 2
_SHARE: Final = 0.01
"""It must show on two sets of inputs, or in that share of all elements: one choice next to a
tie may escape the nudges."""

_OF_WHAT_IS_LEFT: Final = 0.5
_LEAST_S: Final = 1.0
_MOST_BYTES: Final = 500_000_000


@dataclass(frozen=True, slots=True)
class Contradictions:
    """What float64 says of outputs that differ on the runtime.

    Attributes:
        unlike: By position, how the folded model differs in float64 too, in words.
        alike: Positions of outputs where no more than rounding differs in float64.
    """

    unlike: dict[int, str]
    alike: frozenset[int] = frozenset()


def contradictions(court: Court, hearing: Hearing, places: Collection[int]) -> Contradictions:
    """Look at some outputs in float64, in both models.

    Args:
        court: Both models, and the time that is left.
        hearing: What ran, with the original's float64 reference as far as there is one.
        places: Positions of the outputs.
    """
    readings = hearing.readings
    if readings is None or not places:
        return Contradictions({})
    unlike = dict(_without_float64(readings, places))
    sets = hearing.sets[: len(hearing.references.outputs)]
    model = court.ground.models.folded
    if not sets or bytes_of(court.ground.bench, model) > _MOST_BYTES:
        return Contradictions(unlike)
    seconds = max(court.budget.left * _OF_WHAT_IS_LEFT, _LEAST_S) / (1 + len(_PATTERNS))
    folded = evaluate(model, sets, seconds)
    nudged = [
        one.outputs
        for one in _nudged(court, readings.coarsest, sets[: len(folded.outputs)], seconds)
        if len(one.outputs) == len(folded.outputs)
    ]
    if not folded.outputs or len(nudged) < _FEWEST:
        return Contradictions(unlike)
    alike = set[int]()
    for place in set(places) - unlike.keys():
        seen = list(_seen(hearing, readings, place, folded.outputs, nudged))
        said = _judged(seen)
        if said:
            unlike[place] = said
        elif seen:
            alike.add(place)
    return Contradictions(unlike, frozenset(alike))


def _without_float64(readings: Readings, places: Collection[int]) -> Iterator[tuple[int, str]]:
    """What rounding never explains: other integers of integers, and another shape."""
    for place in places:
        if reshaped(readings, place):
            yield place, "it has another shape or type"
        elif place in readings.exact:
            yield place, "nothing in front of it is a float"


def _nudged(
    court: Court, coarsest: float, sets: Sequence[Arrays], seconds: float
) -> Iterator[References]:
    """The folded model in float64, with stored numbers and inputs moved."""
    model, folder = court.ground.models.folded, court.ground.bench.folder
    fixed = fixed_constants(model)
    for index, pattern in enumerate(_PATTERNS):
        draw = Draw(court.seed + _SEED + index, pattern, _TIMES * coarsest)
        path = Path(tempfile.mkdtemp(prefix="f64-", dir=folder)) / "model.onnx"
        write_variant(model, path, nudging(draw, fixed, frozenset()))
        moved = [nudge_inputs(arrays, draw, frozenset()) for arrays in sets]
        yield evaluate(ir.load(path), moved, seconds)


@dataclass(frozen=True, slots=True)
class _Seen:
    """One output on one set of inputs: of how many elements, how many nothing explains."""

    size: int
    unexplained: int


def _seen(
    hearing: Hearing,
    readings: Readings,
    place: int,
    folded: Sequence[Outputs],
    nudged: Sequence[Sequence[Outputs]],
) -> Iterator[_Seen]:
    trials = dict(trials_of(readings, place))
    for index, found in enumerate(folded):
        ran = [hearing.original[index].get(place), (hearing.folded[index] or {}).get(place)]
        exact = [hearing.references.outputs[index].get(place), found.get(place)]
        moved = [one[index].get(place) for one in nudged]
        arrays = [one for one in (*ran, *exact, *moved) if isinstance(one, np.ndarray)]
        is_whole = len(arrays) == 4 + len(moved) and index in trials
        if is_whole and len({one.shape for one in arrays}) == 1:
            yield _weighed(trials[index], arrays)


def _weighed(trial: Trial, arrays: Sequence[NDArray[Any]]) -> _Seen:
    """Count elements that differ twice, on the runtime and in float64, unexplained.

    The difference must exceed what the original itself is off, and what would count as lost
    accuracy on the runtime.
    """
    original, accused, reference, folded, *nudged = arrays
    far = _far(reference, folded)
    explained = np.maximum.reduce([_far(folded, one) for one in nudged])
    explained = np.maximum(explained, _far(reference, original))
    if is_float(reference):
        explained = np.maximum(explained, PROVED.plain * trial.noise_rms)
        least = PROVED.plain * trial.noise_rms
    else:
        least = 0.0
    wrong = (far > explained) & (_far(original, accused) > least)
    return _Seen(int(wrong.size), int(np.count_nonzero(wrong)))


def _far(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """Distances; of what cannot be subtracted, 1 or infinity where it differs."""
    if not is_float(one) or not is_float(other):
        return np.asarray(one != other).astype(np.float64)
    left, right = one.astype(np.float64), other.astype(np.float64)
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    with np.errstate(invalid="ignore", over="ignore"):
        far = np.abs(left - right)
    return np.where(same, 0.0, np.where(np.isfinite(far), far, np.inf))


def _judged(seen: Sequence[_Seen]) -> str:
    shown = [one for one in seen if one.unexplained]
    size, count = sum(one.size for one in seen), sum(one.unexplained for one in seen)
    if len(shown) < _SETS and count < _SHARE * max(size, 1):
        return ""
    if not count:
        return ""
    return f"{count} of {size} elements differ in float64 too, beyond what rounding explains"
