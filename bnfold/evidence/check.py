"""Decide whether a folded model is still the same function as the original."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import onnx_ir as ir

from bnfold.evidence.budget import Budget
from bnfold.evidence.court import Court, Hearing, hear
from bnfold.evidence.effects import effect_on
from bnfold.evidence.effects import told as told_effect
from bnfold.evidence.ground import NoGround, Stage, find_ground
from bnfold.evidence.limits import ALPHA
from bnfold.evidence.readings import Readings
from bnfold.evidence.weigh import Weighed, sees, trials_of, weigh, weigh_proved
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
    report = judgement_of_proved(hearing) if proved else judgement(hearing)
    return replace(report, warnings=ground.warnings + report.warnings)


def judgement(hearing: Hearing) -> VerifyReport:
    """From what was measured to a verdict, by the run alone."""
    if hearing.readings is None:
        return _unmeasured(hearing)
    return _report(hearing, hearing.readings, weigh(hearing.readings))


def judgement_of_proved(hearing: Hearing) -> VerifyReport:
    """From what was measured to a verdict on accuracy: the function is known to be equal."""
    if hearing.readings is None:
        return replace(_unmeasured(hearing), only_accuracy=True)
    report = _report(hearing, hearing.readings, weigh_proved(hearing.readings))
    if report.verdict is Verdict.FAILED:
        report = replace(report, why="; ".join(map(_lost, _failing(report.outputs))))
    return replace(report, only_accuracy=True)


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


def _lost(check: OutputCheck) -> str:
    note = f" ({check.note})" if check.note else ""
    return (
        f"the function is the same, but the runtime computes output {check.name!r} of the"
        f" folded model less accurately: {check.ratio:.3g} times its rounding noise,"
        f" {check.limit:.3g} are allowed{note}"
    )
