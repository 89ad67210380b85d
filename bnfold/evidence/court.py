"""Hear a case: run both models on the same inputs and weigh what differs against noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress

import onnx_ir as ir

from bnfold.evidence.bench import Bench, Variant, nudged, plain, run_variants
from bnfold.evidence.fronts import Exposed, expose_fronts
from bnfold.evidence.ground import Ground
from bnfold.evidence.noise import first_draws, further_draws, roundoff
from bnfold.evidence.readings import Distances, distances, measures
from bnfold.evidence.variants import constants_of
from bnfold.evidence.weigh import Readings, weigh
from bnfold.inputs.signature import inputs_of
from bnfold.runtime import Arrays, Level, Run, Setting


@dataclass(frozen=True, slots=True)
class Court:
    """Both models, and the original's runs on the inputs that it can run on.

    Attributes:
        models: Both, with what is in front of their saturations as further outputs.
        bench: How the original is run.
        sets: The inputs.
        reference: The original's runs.
        nudged: Its runs with every number nudged, one entry per draw.
        settings: How the folded model is run.
    """

    models: Exposed
    bench: Bench
    sets: tuple[Arrays, ...]
    reference: tuple[Run, ...]
    nudged: tuple[tuple[Run, ...], ...]
    settings: tuple[Setting, ...]

    def distances(self, model: ir.Model, runs: Sequence[Run]) -> Distances:
        """How far those runs are from the original's."""
        return distances((self.models.original, self.reference), (model, runs))

    def noise(self, draws: Sequence[Sequence[Run]]) -> tuple[Distances, ...]:
        """The distance of nudged originals; draws that do not run are left out."""
        whole = (runs for runs in draws if all(run.ran for run in runs))
        return tuple(self.distances(self.models.original, runs) for runs in whole)


@dataclass(frozen=True, slots=True)
class Accused:
    """What the folded model did, by setting; ``broken`` says why it did not run."""

    own: dict[Setting, Distances]
    distances: dict[Setting, Distances]
    runs: tuple[Run, ...] = ()
    warnings: tuple[str, ...] = ()
    broken: str = ""


@dataclass(frozen=True, slots=True)
class Hearing:
    """All readings of a case, or why there are none.

    Attributes:
        readings: What was measured; None when it could not be.
        runs: The folded model's runs in the first setting.
        warnings: What the user should know.
        broken: Why the folded model does not run where the original does.
        unheard: Why nothing could be measured though neither model is to blame.
    """

    readings: Readings | None = None
    runs: tuple[Run, ...] = ()
    warnings: tuple[str, ...] = ()
    broken: str = ""
    unheard: str = ""


def open_court(
    original: ir.Model,
    folded: ir.Model,
    ground: Ground,
    seed: int,
    settings: tuple[Setting, ...] = (),
) -> Court:
    """Run the original, plain and nudged; values in front of saturations only if they run.

    Args:
        original: The model whose noise is the measure.
        folded: The model that is judged.
        ground: How the original runs, and on what.
        seed: Of the noise.
        settings: How to run the folded model; like the original, and as the runtime does by
            default, if there are none.
    """
    own = ground.bench.setting
    default = tuple(dict.fromkeys((own, replace(own, level=Level.ALL))))
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
    return Court(
        models,
        ground.bench,
        tuple(compress(ground.sets, able)),
        tuple(compress(reference, able)),
        tuple(tuple(compress(runs, able)) for runs in draws),
        settings or default,
    )


def hear(court: Court, seed: int) -> Hearing:
    """Run the folded model and measure it; more noise is drawn before it is convicted."""
    if not court.sets:
        return Hearing(unheard="the original ran once and then no more")
    accused = _run_accused(court)
    if accused.broken:
        return Hearing(warnings=accused.warnings, broken=accused.broken)
    noise = court.noise(court.nudged)
    if not noise:
        return Hearing(unheard="the original does not run when nudged")
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
    return Hearing(readings, accused.runs, accused.warnings)


def _further_noise(court: Court, seed: int) -> tuple[Distances, ...]:
    original = court.models.original
    variants = [
        nudged(court.bench, original, court.sets, draw) for draw in further_draws(seed)
    ]
    return court.noise(run_variants(variants))


def _run_accused(court: Court) -> Accused:
    """Run the folded model in every setting, and the original where that is not its own."""
    runs = iter(run_variants([one for at in court.settings for one in _variants(court, at)]))
    found = Accused({}, {})
    for setting in court.settings:
        folded = next(runs)
        itself = next(runs) if setting != court.bench.setting else ()
        found = _with(found, court, setting, (folded, itself))
        if found.broken:
            break
    return found


def _variants(court: Court, setting: Setting) -> list[Variant]:
    bench = court.bench.at(setting)
    models = [court.models.folded]
    if setting != court.bench.setting:
        models.append(court.models.original)
    return [plain(bench, model, court.sets) for model in models]


def _with(
    found: Accused,
    court: Court,
    setting: Setting,
    runs: tuple[tuple[Run, ...], tuple[Run, ...]],
) -> Accused:
    """Add what was seen in one setting; one in which the original fails too tells nothing."""
    folded, itself = runs
    original = court.models.original
    if not all(run.ran for run in itself):
        warning = f"not judged with optimisation {setting}: {_reason(itself)}"
        if len(court.settings) > 1:
            return replace(found, warnings=(*found.warnings, warning))
        itself = ()
    if not all(run.ran for run in folded):
        return replace(found, broken=_broken(setting, folded))
    own = {setting: court.distances(original, itself)} if itself else {}
    far = {setting: court.distances(court.models.folded, folded)}
    return replace(
        found,
        own=found.own | own,
        distances=found.distances | far,
        runs=found.runs or folded,
    )


def _broken(setting: Setting, runs: Sequence[Run]) -> str:
    return f"the folded model fails with optimisation {setting}: {_reason(runs)}"


def _reason(runs: Sequence[Run]) -> str:
    return next((run.message for run in runs if not run.ran), "")


def _coarsest(model: ir.Model) -> float:
    kinds = {tensor.dtype for tensor in constants_of(model)}
    kinds |= {slot.dtype for slot in inputs_of(model) if slot.dtype is not None}
    floats = [kind for kind in kinds if kind.is_floating_point()]
    return max((roundoff(kind.numpy()) for kind in floats), default=0.0)
