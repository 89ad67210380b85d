"""Decide whether a folded model is still the same function as the original."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

import onnx_ir as ir

from bnfold.evidence.court import Hearing, hear, open_court
from bnfold.evidence.ground import NoGround, find_ground
from bnfold.evidence.weigh import Readings, sees, weigh
from bnfold.inputs.drawing import shapes
from bnfold.inputs.signature import differences
from bnfold.records import OutputCheck, Verdict, VerifyReport
from bnfold.runtime import require

_BLIND: Final = "no output reacted to its inputs or to rounding noise: equality says nothing"


def check_fold(original: ir.Model, folded: ir.Model, *, seed: int = 0) -> VerifyReport:
    """Run both models on seeded inputs and weigh the difference against rounding noise.

    Args:
        original: The model before the fold; its own rounding noise is the measure.
        folded: The model that claims to be the same function.
        seed: Of inputs and noise; the same seed draws the same numbers.

    Returns:
        PASSED or FAILED with the figures per output, or NOT_JUDGED with the reason.

    Raises:
        MissingDependencyError: If ONNX Runtime is not installed.
    """
    require("check the folded model")
    unlike = differences(original, folded)
    if unlike:
        return VerifyReport(Verdict.FAILED, why="the interface differs: " + "; ".join(unlike))
    with tempfile.TemporaryDirectory(prefix="bnfold-check-") as folder:
        ground = find_ground(original, Path(folder), seed)
        if isinstance(ground, NoGround):
            return VerifyReport(Verdict.NOT_JUDGED, why=ground.why)
        court = open_court(original, folded, ground, seed)
        report = judgement(hear(court, seed))
        cases = tuple(shapes(arrays) for arrays in court.sets)
        return replace(report, cases=cases, warnings=ground.warnings + report.warnings)


def judgement(hearing: Hearing) -> VerifyReport:
    """From what was measured to a verdict."""
    if hearing.broken:
        why, verdict = hearing.broken, Verdict.FAILED
        return VerifyReport(verdict, why=why, warnings=hearing.warnings)
    if hearing.readings is None:
        return VerifyReport(Verdict.NOT_JUDGED, why=hearing.unheard, warnings=hearing.warnings)
    return _report(hearing.readings, hearing.warnings)


def _report(readings: Readings, warnings: tuple[str, ...]) -> VerifyReport:
    checks = weigh(readings)
    failed = [check for check in checks if not check.passed]
    if failed:
        why = "; ".join(_told(check) for check in failed)
        return VerifyReport(Verdict.FAILED, checks, why=why, warnings=warnings)
    if not sees(readings):
        return VerifyReport(Verdict.NOT_JUDGED, checks, why=_BLIND, warnings=warnings)
    return VerifyReport(Verdict.PASSED, checks, warnings=warnings)


def _told(check: OutputCheck) -> str:
    where = "" if check.channel is None else f", channel {check.channel}"
    return (
        f"output {check.name!r}{where} is {check.ratio:.3g} times its rounding noise away, "
        f"{check.limit:g} are allowed"
    )
