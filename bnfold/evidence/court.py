"""Hear a case: run both models on the same inputs and measure what differs, in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.evidence.bench import Variant, bytes_of, nudged, plain, run_variants
from bnfold.evidence.budget import Budget
from bnfold.evidence.ground import Ground
from bnfold.evidence.in_float64 import References, error_of, evaluate
from bnfold.evidence.noise import (
    Draw,
    first_draws,
    for_quantisers,
    further_draws,
    roundoff,
)
from bnfold.evidence.readings import (
    Distances,
    Errors,
    Outputs,
    Readings,
    by_place,
    distances,
    measures,
)
from bnfold.evidence.variants import constants_of
from bnfold.evidence.weigh import in_doubt, shows_nothing
from bnfold.inputs.signature import inputs_of
from bnfold.runtime import Arrays, Level, Outcome, Run, Setting

_SHARE: Final = 0.5
"""Of the time left, for one round of runs; what comes after it needs the rest."""

_ENOUGH_S: Final = 8.0
"""What more than a few sets of inputs are worth."""

_LEAST_SETS: Final = 6
_FEW_SETS: Final = 3
_NUDGED_PER_S: Final = 1.5e8
_ATTEMPTS: Final = 2
_HURRIED: Final = 0.4
_SQUARED: Final = (1e-150, 1e150)
"""Between these, sums of squares of a million numbers and of their rounding are numbers."""
_OUT_OF_TIME: Final = (Outcome.TIMED_OUT, Outcome.SKIPPED)


@dataclass(frozen=True, slots=True)
class Court:
    """How both models are run, and what for.

    Attributes:
        ground: The models and inputs, and how the original runs.
        original: The original without further outputs.
        folded: The folded model without further outputs.
        settings: How to run the folded model; as the original, if there are none.
        seed: Of the noise.
        budget: The time for all of it.
        reference_share: Which share of the time left the float64 reference may take.
        referenced: On how many sets of inputs it runs at most; 0 for all.
    """

    ground: Ground
    original: ir.Model
    folded: ir.Model
    settings: tuple[Setting, ...]
    seed: int
    budget: Budget
    reference_share: float = 0.25
    referenced: int = 0

    @property
    def setting(self) -> Setting:
        """How the folded model runs."""
        return self.settings[0] if self.settings else self.ground.bench.setting

    @property
    def optimised(self) -> Setting | None:
        """At which setting each model is compared with itself; None where the user chose."""
        own = self.ground.bench.setting
        best = replace(own, level=Level.ALL)
        return None if self.settings or best == own else best


@dataclass(frozen=True, slots=True)
class Plan:
    """What there is time for.

    Attributes:
        sets: How many sets of inputs.
        draws: How many nudged runs.
        optimised: Whether the runtime's optimisation is looked at.
        seconds: How long that should take.
        left_out: What there is no time for, in words.
    """

    sets: int
    draws: int
    optimised: bool
    seconds: float
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hearing:
    """All readings of a case, or why there are none.

    Attributes:
        readings: What was measured; None when it could not be.
        sets: The inputs.
        original: The original's outputs on each of them.
        folded: The folded model's; None where there was no time.
        references: What the original computes in float64.
        warnings: What the user should know.
        broken: Why the folded model does not run where the original does.
        unheard: Why nothing could be measured though neither model is to blame.
    """

    readings: Readings | None = None
    sets: tuple[Arrays, ...] = ()
    original: tuple[Outputs, ...] = ()
    folded: tuple[Outputs | None, ...] = ()
    references: References = field(default_factory=References)
    warnings: tuple[str, ...] = ()
    broken: str = ""
    unheard: str = ""


def hear(court: Court) -> Hearing:
    """Run both models and measure them; inputs that show nothing are drawn anew.

    The order is that of what shows most: both models, the baseline, the runtime's doing, the
    float64 reference, then more noise where there is doubt.
    """
    plan = plan_of(court)
    found = _round(court, plan, court.ground.sets[: plan.sets])
    found = _redrawn(court, plan, found)
    found = replace(found, warnings=plan.left_out + found.warnings)
    if found.readings is None:
        return found
    found = _referenced(court, found)
    return _in_doubt(court, found)


def plan_of(court: Court) -> Plan:
    """Leave out what shows least until the rest fits: inputs, noise, the runtime's doing."""
    most, draws = len(court.ground.sets), len(first_draws(0))
    left = court.budget.left * _SHARE
    tries = [(most, draws, True), (_LEAST_SETS, draws, True), (_FEW_SETS, draws, True)]
    tries += [(2, draws, True), (2, 2, True), (2, 2, False), (1, 2, False), (1, 1, False)]
    for sets, some, levels in tries:
        plan = _planned(court, min(sets, most), some, optimised=levels)
        wanted_s = min(left, _ENOUGH_S) if sets > _FEW_SETS else left
        if plan.seconds <= wanted_s:
            break
    return plan


def _planned(court: Court, sets: int, draws: int, *, optimised: bool) -> Plan:
    ground, most = court.ground, len(court.ground.sets)
    is_asked = court.optimised is not None
    twice = 2 if ground.models.behind else 1
    runs = 2 + draws * twice + 2 * (optimised and is_asked)
    run_s = ground.overhead_s + sum(ground.seconds[:sets])
    seconds = (
        runs * run_s
        + draws * twice * bytes_of(court.ground.bench, court.original) / _NUDGED_PER_S
    )
    wanted = len(first_draws(0))
    left_out = [f"{most - sets} of {most} sets of inputs"] * (sets < min(most, _FEW_SETS))
    left_out += [f"{wanted - draws} of {wanted} nudged runs"] * (draws < wanted)
    left_out += ["the runtime's optimisation"] * (is_asked and not optimised)
    said = (f"no time for {', '.join(left_out)}",) if left_out else ()
    return Plan(sets, draws, optimised and is_asked, seconds, said)


def _redrawn(court: Court, plan: Plan, found: Hearing) -> Hearing:
    """Draw sets anew that leave every output NaN, saturated or unmoved; a few times.

    Where all do, two are enough to see whether other numbers help.
    """
    sources = list(court.ground.sources[: len(found.sets)])
    for attempt in range(1, _ATTEMPTS + 1):
        poor = _poor(found) if sources and plan.seconds <= court.budget.left else []
        if not poor:
            break
        tried = poor[:2] if len(poor) == len(found.sets) else poor
        fresh = _round(court, plan, [sources[index].drawn(attempt) for index in tried])
        if fresh.broken:
            return fresh
        if fresh.readings is None or len(fresh.sets) < len(tried):
            continue
        kept = [i for i in range(len(found.sets)) if i not in tried]
        better = len(_poor(fresh)) < len(tried)
        kept = [i for i in kept if not better or i not in poor]
        found = _joined(_kept(found, kept), fresh) if kept else fresh
        sources = [sources[index] for index in (*kept, *tried)]
    return found


def _poor(found: Hearing) -> list[int]:
    readings = found.readings
    if readings is None:
        return []
    return [index for index in range(len(found.sets)) if shows_nothing(readings, index)]


def _kept(found: Hearing, sets: Sequence[int]) -> Hearing:
    return replace(
        found,
        readings=found.readings and found.readings.kept(sets),
        sets=tuple(found.sets[index] for index in sets),
        original=tuple(found.original[index] for index in sets),
        folded=tuple(found.folded[index] for index in sets),
    )


def _joined(found: Hearing, fresh: Hearing) -> Hearing:
    if found.readings is None or fresh.readings is None:
        return found
    return replace(
        found,
        readings=found.readings.joined(fresh.readings),
        sets=found.sets + fresh.sets,
        original=found.original + fresh.original,
        folded=found.folded + fresh.folded,
        warnings=tuple(dict.fromkeys(found.warnings + fresh.warnings)),
    )


def _round(court: Court, plan: Plan, sets: Sequence[Arrays]) -> Hearing:
    """Run everything once on these inputs."""
    draws = _draws(court, plan)
    variants = [*_pair(court, sets), *_noise(court, sets, draws), *_others(court, plan, sets)]
    hurried = plan.seconds > _HURRIED * court.budget.left
    runs = run_variants(variants, court.budget, hurried=hurried)
    able = [run.ran for run in runs[0]]
    if not any(able):
        return Hearing(unheard=f"the original ran once and then no more: {_reason(runs[0])}")
    runs = [tuple(compress(one, able)) for one in runs]
    reference, folded = runs[:2]
    if any(_fails(run) for run in folded):
        return Hearing(broken=_broken(court.setting, folded))
    if not any(run.ran for run in folded):
        return Hearing(unheard="there was no time to run the folded model")
    return _measured(court, plan, list(compress(sets, able)), draws, runs, reference)


def _measured(
    court: Court,
    plan: Plan,
    sets: Sequence[Arrays],
    draws: Sequence[Draw],
    runs: Sequence[tuple[Run, ...]],
    reference: Sequence[Run],
) -> Hearing:
    models = court.ground.models
    expected = [by_place(models.original, run) for run in reference]
    names = tuple(value.name or "" for value in models.original.graph.outputs)
    beyond = next(filter(None, (_beyond_squares(one, names) for one in expected)), "")
    if beyond:
        return Hearing(unheard=beyond)
    folded = _outputs(models.folded, runs[1])
    drawn = runs[2 : 2 + len(draws)]
    others = list(runs[2 + len(draws) :])
    steps = models.behind
    noise = {
        draw: distances(expected, _outputs(models.original, one), steps)
        for draw, one in zip(draws, drawn, strict=True)
        if any(run.ran for run in one)
    }
    if not noise:
        return Hearing(unheard=f"the original does not run when nudged: {_reason(drawn[0])}")
    own: Distances = ()
    if court.setting != court.ground.bench.setting:
        own = distances(expected, _outputs(models.original, others.pop(0)), steps)
    broken = _broken_when_optimised(court, others) if plan.optimised else ""
    if broken:
        return Hearing(broken=broken)
    readings = Readings(
        names=names,
        own_outputs=len(court.original.graph.outputs),
        fronts=models.fronts,
        behind=models.behind,
        exact=models.exact,
        reference=measures(expected, steps),
        noise=noise,
        own=own,
        accused=distances(expected, folded, steps),
        selves=_selves(court, others, expected, folded) if plan.optimised else {},
        coarsest=_coarsest(court.original),
    )
    return Hearing(readings, tuple(sets), tuple(expected), tuple(folded))


def _beyond_squares(outputs: Outputs, names: Sequence[str]) -> str:
    """Say which output holds numbers whose squares are beyond float64; empty if none does.

    Noise is measured by sums of squares: they overflow, or vanish, where float64 outputs are
    of the size of 1e160 or 1e-160.
    """
    for place, array in outputs.items():
        if array.dtype == np.float64 and array.size:
            peak = float(
                np.abs(array, where=np.isfinite(array), out=np.zeros(array.shape)).max()
            )
            if peak > 0 and not _SQUARED[0] < peak < _SQUARED[1]:
                return (
                    f"output {names[place]!r} reaches {peak:.3g}:"
                    " its squares are beyond float64"
                )
    return ""


def _outputs(model: ir.Model, runs: Sequence[Run]) -> list[Outputs | None]:
    return [by_place(model, run) if run.ran else None for run in runs]


def _selves(
    court: Court,
    runs: Sequence[tuple[Run, ...]],
    expected: Sequence[Outputs],
    folded: Sequence[Outputs | None],
) -> dict[Setting, tuple[Distances, Distances]]:
    """How far the runtime's optimisation takes both models from themselves."""
    setting = court.optimised
    if setting is None or not all(run.ran for one in runs for run in one):
        return {}
    steps = court.ground.models.behind
    before, after = (
        _outputs(model, one)
        for model, one in zip((court.original, court.folded), runs, strict=True)
    )
    known = [one or {} for one in folded]
    return {setting: (distances(expected, before, steps), distances(known, after, steps))}


def _pair(court: Court, sets: Sequence[Arrays]) -> list[Variant]:
    bench, models = court.ground.bench, court.ground.models
    return [
        plain(bench, models.original, sets),
        plain(bench.at(court.setting), models.folded, sets),
    ]


def _noise(court: Court, sets: Sequence[Arrays], draws: Sequence[Draw]) -> list[Variant]:
    bench, models = court.ground.bench, court.ground.models
    return [nudged(bench, models.original, sets, draw) for draw in draws]


def _others(court: Court, plan: Plan, sets: Sequence[Arrays]) -> list[Variant]:
    """The original in the folded model's setting; both models as the runtime optimises."""
    bench, found = court.ground.bench, []
    if court.setting != bench.setting:
        found.append(plain(bench.at(court.setting), court.ground.models.original, sets))
    if plan.optimised and court.optimised is not None:
        at = bench.at(court.optimised)
        found += [plain(at, model, sets) for model in (court.original, court.folded)]
    return found


def _draws(court: Court, plan: Plan) -> tuple[Draw, ...]:
    draws = first_draws(court.seed)[: plan.draws]
    return draws + (for_quantisers(draws) if court.ground.models.behind else ())


def _referenced(court: Court, found: Hearing) -> Hearing:
    """Run the float64 reference on as many inputs as its share of the time allows."""
    if found.readings is None:
        return found
    seconds = court.budget.left * court.reference_share
    sets = found.sets[: court.referenced or None]
    references = evaluate(court.ground.models.original, sets, seconds, _ENOUGH_S / 2)
    errors: Errors = tuple(
        {
            place: error_of(known[place], array)
            for place, array in own.items()
            if place in known and place not in found.readings.behind
        }
        for known, own in zip(references.outputs, found.original, strict=False)
    )
    readings = replace(found.readings, errors=errors)
    return replace(found, readings=readings, references=references)


def _in_doubt(court: Court, found: Hearing) -> Hearing:
    """Draw more noise where chance has too much room, as far as there is time."""
    if found.readings is None or not in_doubt(found.readings):
        return found
    draws = further_draws(court.seed)
    behind = bool(court.ground.models.behind)
    one_s = court.ground.overhead_s + sum(court.ground.seconds[: len(found.sets)])
    one_s += bytes_of(court.ground.bench, court.original) / _NUDGED_PER_S
    count = int(court.budget.left / (one_s * (1 + behind) + 1e-9))
    draws = draws[:count]
    if behind:
        draws += for_quantisers(draws)
    if not draws:
        said = "no time for more nudged runs: the limits are wider for it"
        return replace(found, warnings=(*found.warnings, said))
    runs = run_variants(_noise(court, found.sets, draws), court.budget)
    original, steps = court.ground.models.original, court.ground.models.behind
    more = {
        draw: distances(found.original, _outputs(original, one), steps)
        for draw, one in zip(draws, runs, strict=True)
        if any(run.ran for run in one)
    }
    readings = replace(found.readings, noise={**found.readings.noise, **more})
    return replace(found, readings=readings)


def _fails(run: Run) -> bool:
    return not run.ran and run.outcome not in _OUT_OF_TIME


def _broken_when_optimised(court: Court, runs: Sequence[tuple[Run, ...]]) -> str:
    """What the folded model says where the original runs with optimisation."""
    before, after = runs
    setting = court.optimised
    if setting is None or not all(run.ran for run in before):
        return ""
    return _broken(setting, after) if any(_fails(run) for run in after) else ""


def _broken(setting: Setting, runs: Sequence[Run]) -> str:
    return f"the folded model fails with optimisation {setting}: {_reason(runs)}"


def _reason(runs: Sequence[Run]) -> str:
    return next((run.message for run in runs if not run.ran), "")


def _coarsest(model: ir.Model) -> float:
    kinds = {tensor.dtype for tensor in constants_of(model)}
    kinds |= {slot.dtype for slot in inputs_of(model) if slot.dtype is not None}
    floats = [kind for kind in kinds if kind.is_floating_point()]
    return max((roundoff(kind.numpy()) for kind in floats), default=0.0)
