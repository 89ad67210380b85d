"""Decide whether a folded model is still the same function as the original."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Final

import onnx_ir as ir

from bnfold.evidence.bench import Bench, nudged, plain, run_variants
from bnfold.evidence.fronts import Exposed, expose_fronts
from bnfold.evidence.ground import Ground, NoGround, find_ground
from bnfold.evidence.inputs import shapes
from bnfold.evidence.noise import first_draws, further_draws, roundoff
from bnfold.evidence.readings import Distances, distances, measures
from bnfold.evidence.signature import differences, inputs_of
from bnfold.evidence.variants import constants_of
from bnfold.evidence.weigh import Readings, sees, weigh
from bnfold.records import OutputCheck, Verdict, VerifyReport
from bnfold.runtime import Arrays, Level, Run, require

_BLIND: Final = "no output reacted to its inputs or to rounding noise: equality says nothing"


@dataclass(frozen=True, slots=True)
class _Court:
    """Both models, and the original's runs on the inputs that it can run on."""

    models: Exposed
    bench: Bench
    sets: tuple[Arrays, ...]
    reference: tuple[Run, ...]
    nudged: tuple[tuple[Run, ...], ...]

    def distances(self, model: ir.Model, runs: Sequence[Run]) -> Distances:
        """How far those runs are from the original's."""
        return distances((self.models.original, self.reference), (model, runs))

    def noise(self, draws: Sequence[Sequence[Run]]) -> tuple[Distances, ...]:
        """The distance of nudged originals; draws that do not run are left out."""
        whole = (runs for runs in draws if all(run.ran for run in runs))
        return tuple(self.distances(self.models.original, runs) for runs in whole)


@dataclass(frozen=True, slots=True)
class _Accused:
    """What the folded model did, by level; ``broken`` says why it did not run."""

    own: dict[Level, Distances]
    distances: dict[Level, Distances]
    warnings: tuple[str, ...] = ()
    broken: str = ""


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
        court = _open_court(original, folded, ground, seed)
        report = _hear(court, seed)
        cases = tuple(shapes(arrays) for arrays in court.sets)
        return replace(report, cases=cases, warnings=ground.warnings + report.warnings)


def _open_court(original: ir.Model, folded: ir.Model, ground: Ground, seed: int) -> _Court:
    """Run the original, plain and nudged; values in front of saturations only if they run."""
    for models in (expose_fronts(original, folded), Exposed(original, folded, {})):
        variants = [plain(ground.bench, models.original, ground.sets)]
        variants += [
            nudged(ground.bench, models.original, ground.sets, draw)
            for draw in first_draws(seed)
        ]
        reference, *draws = run_variants(variants)
        if any(run.ran for run in reference):
            break
    able = [run.ran for run in reference]
    return _Court(
        models,
        ground.bench,
        tuple(compress(ground.sets, able)),
        tuple(compress(reference, able)),
        tuple(tuple(compress(runs, able)) for runs in draws),
    )


def _hear(court: _Court, seed: int) -> VerifyReport:
    if not court.sets:
        return VerifyReport(Verdict.NOT_JUDGED, why="the original ran once and then no more")
    accused = _run_accused(court)
    if accused.broken:
        return VerifyReport(Verdict.FAILED, why=accused.broken, warnings=accused.warnings)
    noise = court.noise(court.nudged)
    if not noise:
        return VerifyReport(Verdict.NOT_JUDGED, why="the original does not run when nudged")
    readings = Readings(
        names=[value.name or "" for value in court.models.original.graph.outputs],
        fronts=court.models.fronts,
        reference=measures(court.models.original, court.reference),
        noise=noise,
        own=accused.own,
        accused=accused.distances,
        coarsest=_coarsest(court.models.original),
    )
    if any(not check.passed for check in weigh(readings)):
        readings = replace(readings, noise=noise + _further_noise(court, seed))
    return _report(readings, accused.warnings)


def _further_noise(court: _Court, seed: int) -> tuple[Distances, ...]:
    original = court.models.original
    variants = [
        nudged(court.bench, original, court.sets, draw) for draw in further_draws(seed)
    ]
    return court.noise(run_variants(variants))


def _run_accused(court: _Court) -> _Accused:
    """Run the folded model as the original was run, and as the runtime does by default."""
    original, folded = court.models.original, court.models.folded
    best = court.bench.at(Level.ALL)
    accused = [plain(court.bench, folded, court.sets)]
    if best != court.bench:
        accused += [plain(best, model, court.sets) for model in (original, folded)]
    as_is, *optimised = run_variants(accused)
    if not all(run.ran for run in as_is):
        return _Accused({}, {}, (), _broken(court.bench.level, as_is))
    found = {court.bench.level: court.distances(folded, as_is)}
    if not optimised:
        return _Accused({}, found)
    itself, runs = optimised
    if not all(run.ran for run in itself):
        warning = f"not judged with optimisation {Level.ALL}: {_reason(itself)}"
        return _Accused({}, found, (warning,))
    if not all(run.ran for run in runs):
        return _Accused({}, found, (), _broken(Level.ALL, runs))
    found[Level.ALL] = court.distances(folded, runs)
    return _Accused({Level.ALL: court.distances(original, itself)}, found)


def _broken(level: Level, runs: Sequence[Run]) -> str:
    return f"the folded model fails with optimisation {level}: {_reason(runs)}"


def _coarsest(model: ir.Model) -> float:
    kinds = {tensor.dtype for tensor in constants_of(model)}
    kinds |= {slot.dtype for slot in inputs_of(model) if slot.dtype is not None}
    floats = [kind for kind in kinds if kind.is_floating_point()]
    return max((roundoff(kind.numpy()) for kind in floats), default=0.0)


def _reason(runs: Sequence[Run]) -> str:
    return next((run.message for run in runs if not run.ran), "")


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
