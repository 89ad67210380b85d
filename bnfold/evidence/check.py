"""Decide whether a folded model is still the same function as the original."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

import onnx_ir as ir

from bnfold.evidence.budget import Budget
from bnfold.evidence.contradiction import Contradictions, contradictions
from bnfold.evidence.court import Court, Hearing, hear
from bnfold.evidence.effects import effect_on
from bnfold.evidence.effects import told as told_effect
from bnfold.evidence.ground import NoGround, Stage, find_ground
from bnfold.evidence.limits import ALPHA
from bnfold.evidence.readings import Readings
from bnfold.evidence.weigh import (
    Weighed,
    changed_choices,
    sees,
    trials_of,
    weigh,
    weigh_proved,
)
from bnfold.files.scratch import scratch_folder
from bnfold.inputs.drawing import shapes as shapes_of
from bnfold.inputs.hints import with_hints
from bnfold.inputs.signature import differences, inputs_of
from bnfold.inputs.sizes import Shapes, sized
from bnfold.records import OutputCheck, RuntimeEffect, Verdict, VerifyReport
from bnfold.runtime import require

_BLIND: Final = "no output reacted to its inputs or to rounding noise: equality says nothing"
_DEFAULT_S: Final = 60.0
_REFERENCED: Final = 2
_BEYOND_ACCURACY: Final = 1e4
"""Times the noise: four digits lost in one fold would be worth knowing the reason of."""

_CONTRADICTED: Final = "another function: the run contradicts the proof"


def check_fold(
    original: ir.Model,
    folded: ir.Model,
    *,
    seed: int = 0,
    shapes: Shapes = (),
    proved: bool = False,
    max_time: float | None = None,
) -> VerifyReport:
    """Run both models on seeded inputs and weigh the difference against rounding noise.

    Args:
        original: The model before the fold; its own rounding noise is the measure.
        folded: The model that claims to be the same function.
        seed: Of inputs and noise; the same seed draws the same numbers.
        shapes: Sizes to draw inputs of, see `bnfold.inputs.sizes.sized`.
        proved: Exact evidence has shown that the functions are equal: only whether the
            runtime computes the folded model as well is judged.
        max_time: Seconds for all of it; 60 if None.

    Returns:
        PASSED or FAILED with the figures per output, or NOT_JUDGED with the reason.

    Raises:
        MissingDependencyError: If ONNX Runtime is not installed.
        UsageError: If a shape cannot be read or does not fit.
    """
    require("check the folded model")
    unlike = differences(original, folded)
    if unlike:
        return VerifyReport(Verdict.FAILED, why="the interface differs: " + "; ".join(unlike))
    budget = Budget(_DEFAULT_S if max_time is None else max_time)
    stage = Stage(sized(with_hints(inputs_of(original), original), shapes), seed=seed)
    with scratch_folder("check") as folder:
        ground = find_ground(original, folded, folder, stage, budget)
        if isinstance(ground, NoGround):
            return VerifyReport(Verdict.NOT_JUDGED, why=ground.why)
        court = Court(ground, original, folded, (), seed, budget, referenced=_REFERENCED)
        hearing = hear(court)
        report = judged(court, hearing, proved=proved)
    return replace(report, warnings=ground.warnings + report.warnings)


def judged(court: Court, hearing: Hearing, *, proved: bool) -> VerifyReport:
    """From what was measured to a verdict, with float64 where that must tell two things apart.

    Args:
        court: Both models, and the time that is left.
        hearing: What ran.
        proved: Exact evidence has shown that the functions are equal.
    """
    if hearing.readings is None:
        return replace(_unmeasured(hearing), only_accuracy=proved)
    weighed = (weigh_proved if proved else weigh)(hearing.readings)
    asked = _asked_of_float64(hearing.readings, weighed, proved=proved)
    seen = contradictions(court, hearing, asked)
    return _judgement(hearing, hearing.readings, weighed, seen, proved=proved)


def _asked_of_float64(readings: Readings, weighed: Weighed, *, proved: bool) -> set[int]:
    """Outputs of which it must be known whether float64 shows the difference too.

    These are what failed behind a proof, and choices that changed: how many of them are many
    is hard to tell of counts, and whether rounding could change them is not.
    """
    failed = {check.name for check in _failing(weighed.checks)} if proved else set[str]()
    places = {place for place, name in enumerate(readings.names) if name in failed}
    return places | set(changed_choices(readings))


def judgement(hearing: Hearing) -> VerifyReport:
    """From what was measured to a verdict, by the run alone."""
    if hearing.readings is None:
        return _unmeasured(hearing)
    weighed = weigh(hearing.readings)
    return _judgement(hearing, hearing.readings, weighed, Contradictions({}), proved=False)


def judgement_of_proved(hearing: Hearing) -> VerifyReport:
    """From what was measured to a verdict on accuracy: the function is known to be equal."""
    if hearing.readings is None:
        return replace(_unmeasured(hearing), only_accuracy=True)
    weighed = weigh_proved(hearing.readings)
    return _judgement(hearing, hearing.readings, weighed, Contradictions({}), proved=True)


def _judgement(
    hearing: Hearing,
    readings: Readings,
    weighed: Weighed,
    seen: Contradictions,
    *,
    proved: bool,
) -> VerifyReport:
    """Weigh the run, and what float64 says of it: another function is no lost accuracy."""
    unlike = {readings.names[place]: said for place, said in seen.unlike.items()}
    alike = {readings.names[place] for place in seen.alike}
    checks = tuple(_against_float64(one, unlike) for one in weighed.checks)
    report = _report(hearing, readings, replace(weighed, checks=checks))
    failed = list(_failing(checks))
    others = [_other(one, unlike[one.name]) for one in failed if one.name in unlike]
    if others and proved:
        return replace(report, why="; ".join([_CONTRADICTED, *others]), contradicts=True)
    if not proved:
        told = [_told(one) for one in failed if one.name not in unlike]
        return replace(report, why="; ".join([*told, *others]) or report.why)
    if failed:
        why = "; ".join(_lost(one, agreed=one.name in alike) for one in failed)
        report = replace(report, why=why)
    return replace(report, only_accuracy=True)


def _against_float64(check: OutputCheck, unlike: Mapping[str, str]) -> OutputCheck:
    """An output that differs in float64 too fails, whatever its limit is."""
    said = unlike.get(check.name)
    if said is None:
        return check
    note = "; ".join(filter(None, (check.note, said)))
    ratio = float("inf") if check.passed else check.ratio
    return replace(check, passed=False, ratio=ratio, note=note)


def _unmeasured(hearing: Hearing) -> VerifyReport:
    verdict = Verdict.FAILED if hearing.broken else Verdict.NOT_JUDGED
    why = hearing.broken or hearing.unheard
    return VerifyReport(verdict, why=why, warnings=hearing.warnings)


def _report(hearing: Hearing, readings: Readings, weighed: Weighed) -> VerifyReport:
    """The one place where verdict and reason come from the checks of the outputs."""
    failed = list(_failing(weighed.checks))
    verdict, why = Verdict.PASSED, ""
    if failed:
        verdict, why = Verdict.FAILED, "; ".join(map(_told, failed))
    elif not sees(readings):
        verdict, why = Verdict.NOT_JUDGED, _BLIND
    effects = tuple(_effects(readings))
    wrong = {check.name for check in failed}
    large = [one for one in effects if one.is_large and one.output not in wrong]
    return VerifyReport(
        verdict,
        weighed.checks,
        tuple(shapes_of(arrays) for arrays in hearing.sets),
        why=why,
        warnings=hearing.warnings + weighed.warnings + tuple(map(told_effect, large)),
        runtime=effects,
        comparisons=weighed.looks.total,
        false_alarms=ALPHA,
    )


def _failing(checks: tuple[OutputCheck, ...]) -> Iterator[OutputCheck]:
    return (check for check in checks if not check.passed)


def _effects(readings: Readings) -> Iterator[RuntimeEffect]:
    for setting, selves in readings.selves.items():
        for place in range(readings.own_outputs):
            trials = trials_of(readings, place)
            if trials:
                name = readings.names[place]
                effect = effect_on(name, place, setting, trials, selves)
                if effect is not None:
                    yield effect


def _told(check: OutputCheck) -> str:
    where = "" if check.channel is None else f", channel {check.channel}"
    note = f" ({check.note})" if check.ratio == float("inf") and check.note else ""
    return (
        f"output {check.name!r}{where} is {check.ratio:.3g} times its rounding noise away, "
        f"{check.limit:.3g} are allowed{note}"
    )


def _other(check: OutputCheck, said: str) -> str:
    return f"output {check.name!r} of the folded model is another: {said}"


def _lost(check: OutputCheck, *, agreed: bool) -> str:
    """Say that accuracy is lost, and how certain it is that it is no more than that."""
    note = f" ({check.note})" if check.note else ""
    size = f"{check.ratio:.3g} times its rounding noise, {check.limit:.3g} are allowed{note}"
    if agreed and _BEYOND_ACCURACY < check.ratio < math.inf:
        return (
            f"in float64 both models agree, but the runtime computes output {check.name!r} of"
            f" the folded model otherwise: {size}. That is more than accuracy loses as a rule:"
            " the standard leaves the result of an operator open, or the runtime is mistaken"
        )
    if agreed or check.ratio <= _BEYOND_ACCURACY or check.ratio == math.inf:
        known = ", in float64 too" if agreed else ""
        return (
            f"the function is the same{known}, but the runtime computes output"
            f" {check.name!r} of the folded model less accurately: {size}"
        )
    return (
        f"output {check.name!r} of the folded model is another on the runtime: {size}. That is"
        " more than accuracy loses as a rule, and float64 could not tell: the runtime or the"
        " proof is mistaken"
    )
