"""From readings to one check per output: see blind outputs, and look in front of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bnfold.evidence.compare import Deviation
from bnfold.evidence.judge import (
    LIMIT,
    Trial,
    are_moved,
    is_suspect,
    judge,
    judge_proved,
    looks_at,
    looks_proved,
)
from bnfold.evidence.limits import Looks
from bnfold.evidence.readings import Measure, Readings
from bnfold.evidence.trust import told, trust_in, typical_trust
from bnfold.records import OutputCheck

_DROWNED: Final = 1 / 8
"""Share of choices that noise changes from which they say nothing of the scores."""

_FINITE: Final = 1 / 2
"""Share of an output that must be finite before it says anything of the whole."""

_PLAIN_TO_SEE: Final = 1e-3
"""Of the largest number, a difference that no rounding of a saturated output makes."""

_TIES: Final = "judged by what it was chosen from"
_BLIND: Final = "reacted neither to the inputs nor to rounding noise"
_NO_TENSOR: Final = "not a dense tensor: not compared"
_SHAPE_BY_CHANCE: Final = "its shape depends on rounding: not compared"
_ANOTHER: Final = "another shape or type"
_EXACT: Final = "integers that no rounding explains are others"

Judge = Callable[[str, Sequence[Trial], float, Looks | None], OutputCheck]
Count = Callable[[Sequence[Trial]], Looks]


@dataclass(frozen=True, slots=True)
class Weighed:
    """What all readings amount to.

    Attributes:
        checks: One per output, and one for what is in front of it where that was needed.
        looks: How many comparisons were made.
        warnings: Baselines that were not believed.
    """

    checks: tuple[OutputCheck, ...]
    looks: Looks
    warnings: tuple[str, ...]


def weigh(readings: Readings) -> Weighed:
    """Judge by the run alone: every output, its channels, its largest element."""
    return _weighed(readings, judge, looks_at)


def weigh_proved(readings: Readings) -> Weighed:
    """Judge only whether accuracy is lost: the function is known to be the same."""
    return _weighed(readings, judge_proved, looks_proved)


def _weighed(readings: Readings, how: Judge, count: Count) -> Weighed:
    scales = _Scales(readings, how, count)
    hidden = set(readings.fronts.values())
    checks: list[OutputCheck] = []
    for place in range(len(readings.names)):
        if place in hidden:
            continue
        check = scales.check(place)
        front = readings.fronts.get(place)
        if front is None or not _needs_front(readings, check, place):
            checks.append(check)
            continue
        before = _in_front(scales.check(front), readings.names[place])
        if not check.passed and before.passed and not is_blind(readings, place):
            check = _excused(check)
        checks += [check, before]
    return Weighed(tuple(checks), scales.looks, tuple(distrusted(readings)))


def _excused(check: OutputCheck) -> OutputCheck:
    """Choices differ because rounding decides ties anew: that is no ratio of its own."""
    return replace(check, passed=True, ratio=0.0, note=_joined(check.note, _TIES))


class _Scales:
    """Judges outputs by their position, each with what it may cost of all comparisons."""

    def __init__(self, readings: Readings, how: Judge, count: Count) -> None:
        self._readings, self._how = readings, how
        places = range(len(readings.names))
        self._trials = {
            place: [one for _, one in trials_of(readings, place)] for place in places
        }
        counts = [count(trials) for trials in self._trials.values() if trials]
        self.looks = sum(counts, Looks(0, 0))

    def check(self, place: int) -> OutputCheck:
        readings, name = self._readings, self._readings.names[place]
        trials = self._trials[place]
        plain = _plainly(readings, place, trials)
        check = plain or self._how(name, trials, readings.coarsest, self.looks)
        if is_blind(readings, place) and any(place in one for one in readings.reference):
            check = replace(check, note=_joined(check.note, f"{name} {_BLIND}"))
        return check

    def doubts(self, place: int) -> bool:
        trials = self._trials[place]
        if not trials or not is_suspect(trials, self._readings.coarsest):
            return False
        return self.check(place).passed or not are_moved(trials)


def _plainly(readings: Readings, place: int, trials: Sequence[Trial]) -> OutputCheck | None:
    """What can be said without measuring; None where there is something to measure."""
    name = readings.names[place]
    if any(place not in measures for measures in readings.reference):
        return _plain(name, 0.0, _NO_TENSOR)
    if reshaped(readings, place):
        return _plain(name, float("inf"), _ANOTHER)
    if not trials:
        return _plain(name, 0.0, _SHAPE_BY_CHANCE)
    changed = any(trial.accused.flipped for trial in trials)
    if changed and place in readings.exact:
        return _plain(name, float("inf"), _EXACT)
    return None


def changed_choices(readings: Readings) -> Iterator[int]:
    """Positions of outputs that are no floats, and that the folded model changes."""
    for place in range(len(readings.names)):
        seen = [measure[place] for measure in readings.reference if place in measure]
        is_choice = bool(seen) and not any(one.scale.floor for one in seen)
        accused = _present(one.get(place) for one in readings.accused)
        if is_choice and place not in readings.behind and any(x.flipped for x in accused):
            yield place


def in_doubt(readings: Readings) -> bool:
    """Whether any output passes that might be convicted if more noise were drawn.

    Choices that no nudge changed are always worth more of them.
    """
    scales = _Scales(readings, judge, looks_at)
    return any(map(scales.doubts, range(len(readings.names))))


def trials_of(readings: Readings, place: int) -> list[tuple[int, Trial]]:
    """What was seen of an output, with the number of the set of inputs."""
    found: list[tuple[int, Trial]] = []
    trusts = trusts_of(readings, place)
    draws = readings.draws_for(place)
    step = _step_behind(readings, place)
    for index, measures in enumerate(readings.reference):
        accused = readings.accused[index].get(place)
        drawn = [(draw.pattern, readings.noise[draw][index].get(place)) for draw in draws]
        noise = [(kind, one) for kind, one in drawn if one is not None]
        if place not in measures or accused is None or not noise:
            continue
        found.append(
            (
                index,
                Trial(
                    measures[place].scale,
                    tuple(one for _, one in noise),
                    _explained(readings, place, index),
                    accused,
                    tuple(kind for kind, _ in noise),
                    trusts[index],
                    step,
                ),
            )
        )
    return found


def _step_behind(readings: Readings, place: int) -> float:
    """How far a tie moves an element behind a quantiser, as far as noise shows; 0 elsewhere.

    Its scale is the same for all inputs. Few numbers may all be far from a tie for every nudge
    and one of them next to it for the folded model: that is a step as any other.
    """
    if place not in readings.behind:
        return 0.0
    noise = (readings.noise[draw] for draw in readings.draws_for(place))
    found = _present(one.get(place) for sets in noise for one in sets)
    return max((one.largest for one in found), default=0.0)


def _explained(readings: Readings, place: int, index: int) -> tuple[Deviation, ...]:
    """What rounding explains beside the noise: another way to run, and the own error."""
    own = readings.own[index].get(place) if readings.own else None
    error = readings.errors[index].get(place) if index < len(readings.errors) else None
    return _present((own, error))


def _present(found: Iterable[Deviation | None]) -> tuple[Deviation, ...]:
    return tuple(one for one in found if one is not None)


def trusts_of(readings: Readings, place: int) -> tuple[float, ...]:
    """How far the baseline of an output is believed, on each set of inputs.

    Behind a quantiser nudges are meant to be larger than rounding.
    """
    found: dict[int, float] = {}
    draws = [] if place in readings.behind else readings.draws_for(place)
    for index, errors in enumerate(readings.errors):
        measure = readings.reference[index].get(place)
        noise = _present(readings.noise[draw][index].get(place) for draw in draws)
        if measure is not None and errors.get(place) is not None:
            found[index] = trust_in(noise, errors.get(place), measure.scale, readings.coarsest)
    return typical_trust(found, len(readings.reference))


def distrusted(readings: Readings) -> Iterator[str]:
    """A warning for each output whose baseline is not believed."""
    for place, name in enumerate(readings.names):
        least = min(trusts_of(readings, place), default=1.0)
        if least < 1.0:
            yield told(name, least)


def _needs_front(readings: Readings, check: OutputCheck, place: int) -> bool:
    """Whether the output alone tells too little: blind, or choices that rounding decides."""
    if is_blind(readings, place):
        return True
    seen = [measure[place] for measure in readings.reference if place in measure]
    if not seen or any(one.scale.floor for one in seen):
        return False
    accused = _present(one.get(place) for one in readings.accused)
    changed = any(one.flipped for one in accused)
    return _is_drowned(readings, place, seen) or (
        (changed or not check.passed) and not reshaped(readings, place)
    )


def _is_drowned(readings: Readings, place: int, seen: Sequence[Measure]) -> bool:
    """Whether noise changes so many choices that they say nothing."""
    draws = readings.draws_for(place)
    found = _present(one.get(place) for draw in draws for one in readings.noise[draw])
    size = sum(one.scale.squares.size * one.scale.width for one in seen)
    return sum(one.flipped for one in found) > _DROWNED * size * len(draws)


def reshaped(readings: Readings, place: int) -> bool:
    """Whether the folded model gives another shape or type, which no rounding explains."""
    draws = readings.draws_for(place)
    for index, accused in enumerate(readings.accused):
        noise = [readings.noise[draw][index] for draw in draws]
        is_steady = all(one.get(place) is not None for one in noise if one)
        if place in accused and accused[place] is None and is_steady:
            return True
    return False


def sees(readings: Readings) -> bool:
    """Whether any output, or what is in front of one, was compared and reacted to anything."""
    places = range(len(readings.names))
    return any(trials_of(readings, one) and not is_blind(readings, one) for one in places)


def is_blind(readings: Readings, place: int) -> bool:
    """Whether noise never moved the output and equal shapes always held equal numbers."""
    if _moves(readings, place, range(len(readings.reference))):
        return False
    seen = [measure[place] for measure in readings.reference if place in measure]
    return len({(one.shape, one.checksum) for one in seen}) == len({one.shape for one in seen})


def _moves(readings: Readings, place: int, sets: Iterable[int]) -> bool:
    sets = list(sets)
    for draw in readings.draws_for(place):
        found = [readings.noise[draw][index] for index in sets]
        seen = [one[place] for one in found if place in one]
        if any(one is None or one.largest > 0 or one.flipped for one in seen):
            return True
    return False


def shows_nothing(readings: Readings, index: int) -> bool:
    """Whether a set of inputs leaves every output mostly NaN, or unmoved by any nudge.

    Where no nudge moves anything, but the folded model is plainly another, that is shown.
    """
    places = range(len(readings.names))
    known = readings.reference[index]
    finite = [place for place in places if place in known and known[place].finite >= _FINITE]
    return not any(
        _moves(readings, place, [index]) or _is_plain(readings, place, index)
        for place in finite
    )


def _is_plain(readings: Readings, place: int, index: int) -> bool:
    accused = readings.accused[index].get(place)
    if accused is None:
        return False
    size = readings.reference[index][place].scale.largest
    return accused.flipped > 0 or accused.largest > _PLAIN_TO_SEE * size


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _plain(name: str, ratio: float, note: str) -> OutputCheck:
    return OutputCheck(name, ratio, LIMIT, 0.0, 0.0, None, passed=ratio <= LIMIT, note=note)


def _in_front(check: OutputCheck, output: str) -> OutputCheck:
    said = f"compared in front of {output!r}, which is saturated"
    return replace(check, note=_joined(check.note, said))
