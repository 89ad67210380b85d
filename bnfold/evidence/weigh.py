"""From readings to one check per output: match levels, see blind outputs, look behind them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bnfold.evidence.compare import Deviation
from bnfold.evidence.judge import LIMIT, Trial, judge
from bnfold.evidence.readings import Distances, Measures
from bnfold.records import OutputCheck
from bnfold.runtime import Setting

_DROWNED: Final = 1 / 8
"""Share of choices that noise changes from which they say nothing of the scores."""

_TIES: Final = "judged by what it was chosen from"
_BLIND: Final = "reacted neither to the inputs nor to rounding noise"


@dataclass(frozen=True, slots=True)
class Readings:
    """All that was measured.

    Attributes:
        names: Names of the outputs, those in front of a saturation behind the model's own.
        fronts: From the position of an output to the one in front of it.
        reference: Sizes of the original's outputs.
        noise: One entry per draw.
        own: Distance of the original from itself at another setting, by that setting.
        accused: The folded model's distance, by setting.
        coarsest: Largest unit roundoff among the numbers that the original stores or reads.
    """

    names: Sequence[str]
    fronts: Mapping[int, int]
    reference: Measures
    noise: Sequence[Distances]
    own: Mapping[Setting, Distances]
    accused: Mapping[Setting, Distances]
    coarsest: float


def weigh(readings: Readings) -> tuple[OutputCheck, ...]:
    """One check per output; one that is blind is joined by the value in front of it."""
    hidden = set(readings.fronts.values())
    checks: list[OutputCheck] = []
    for place in range(len(readings.names)):
        if place in hidden:
            continue
        check = _check(readings, place)
        front = readings.fronts.get(place)
        if front is None or not _needs_front(readings, check, place):
            checks.append(check)
            continue
        before = _in_front(_check(readings, front), readings.names[place])
        if not check.passed and before.passed and not is_blind(readings, place):
            check = replace(check, passed=True, note=_joined(check.note, _TIES))
        checks += [check, before]
    return tuple(checks)


def _needs_front(readings: Readings, check: OutputCheck, place: int) -> bool:
    """Whether the output alone tells too little: blind, or choices that rounding decides."""
    if is_blind(readings, place):
        return True
    seen = [measure[place] for measure in readings.reference if place in measure]
    if not seen or any(one.scale.floor for one in seen):
        return False
    found = [draw[index].get(place) for draw in readings.noise for index in range(len(draw))]
    flipped = sum(one.flipped for one in found if one is not None)
    size = sum(one.scale.squares.size * one.scale.width for one in seen)
    is_drowned = flipped > _DROWNED * size * len(readings.noise)
    return is_drowned or (not check.passed and not _reshaped(readings, place))


def _reshaped(readings: Readings, place: int) -> bool:
    """Whether the folded model gives another shape or type, which no rounding explains."""
    distances = [one for at in readings.accused.values() for one in at]
    return any(one.get(place) is None for one in distances if place in one)


def sees(readings: Readings) -> bool:
    """Whether any output, or what is in front of one, was compared and reacted to anything."""
    places = range(len(readings.names))
    return any(_compared(readings, one) and not is_blind(readings, one) for one in places)


def _compared(readings: Readings, place: int) -> bool:
    return any(
        place in measures and any(draw[index].get(place) for draw in readings.noise)
        for index, measures in enumerate(readings.reference)
    )


def is_blind(readings: Readings, place: int) -> bool:
    """Whether noise never moved the output and equal shapes always held equal numbers."""
    for distances in readings.noise:
        found = [distance.get(place) for distance in distances]
        if any(one is None or one.largest > 0 or one.flipped for one in found):
            return False
    seen = [measure[place] for measure in readings.reference if place in measure]
    return len({(one.shape, one.checksum) for one in seen}) == len({one.shape for one in seen})


def _check(readings: Readings, place: int) -> OutputCheck:
    name = readings.names[place]
    checks = [_check_at(readings, place, setting) for setting in readings.accused]
    worst = max(checks, key=lambda check: (not check.passed, check.ratio))
    if is_blind(readings, place) and any(place in one for one in readings.reference):
        worst = replace(worst, note=_joined(worst.note, f"{name} {_BLIND}"))
    return worst


def _check_at(readings: Readings, place: int, setting: Setting) -> OutputCheck:
    name = readings.names[place]
    trials: list[Trial] = []
    for index, measures in enumerate(readings.reference):
        if place not in measures:
            return _plain(name, 0.0, "not a dense tensor: not compared")
        noise = _present(draw[index].get(place) for draw in readings.noise)
        own = _present(
            one[index].get(place) for at, one in readings.own.items() if at == setting
        )
        accused = readings.accused[setting][index][place]
        if accused is not None and noise:
            trials.append(Trial(measures[place].scale, noise, own, accused))
        elif accused is None and len(noise) == len(readings.noise):
            return _plain(
                name, float("inf"), f"another shape or type (optimisation {setting})"
            )
    if not trials:
        return _plain(name, 0.0, "its shape depends on rounding: not compared")
    check = judge(name, trials, readings.coarsest)
    return check if check.passed else replace(check, note=_failed_at(check, setting))


def _present(found: Iterable[Deviation | None]) -> tuple[Deviation, ...]:
    return tuple(one for one in found if one is not None)


def _failed_at(check: OutputCheck, setting: Setting) -> str:
    return _joined(check.note, f"seen with the runtime's optimisation {setting}")


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _plain(name: str, ratio: float, note: str) -> OutputCheck:
    return OutputCheck(name, ratio, LIMIT, 0.0, 0.0, None, passed=ratio <= LIMIT, note=note)


def _in_front(check: OutputCheck, output: str) -> OutputCheck:
    said = f"compared in front of {output!r}, which is saturated"
    return replace(check, note=_joined(check.note, said))
