"""Judge two models by what they compute, whoever made them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.errors import UsageError
from bnfold.evidence.budget import Budget
from bnfold.evidence.check import judged
from bnfold.evidence.court import Court, Hearing, hear
from bnfold.evidence.ground import Ground, NoGround, Stage, find_ground
from bnfold.evidence.readings import Readings
from bnfold.evidence.verification.against import reference_errors
from bnfold.evidence.verification.labels import Labels, compare_labels, read_labels
from bnfold.evidence.verification.losses import losses
from bnfold.evidence.verification.metrics import metrics_of
from bnfold.evidence.verification.search import Hunt, search
from bnfold.evidence.verification.stage import given_stage, levels_tried
from bnfold.files.scratch import scratch_folder
from bnfold.inputs.drawing import Style
from bnfold.inputs.hints import with_hints
from bnfold.inputs.samples import Inputs, read_samples
from bnfold.inputs.signature import conflicts, differences, inputs_of
from bnfold.inputs.sizes import Shapes, sized
from bnfold.records import (
    LabelReport,
    OutputCheck,
    OutputMetrics,
    SearchReport,
    Verdict,
    VerifyReport,
)
from bnfold.runtime import CPU, Level, Setting, require

_MOST_SETS: Final = 12
_REFERENCE: Final = 0.4
"""Share of the time left that the float64 reference may take."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user wants of the judge.

    Attributes:
        inputs: Sources of inputs; drawn ones if there are none.
        shapes: Sizes to draw inputs of.
        provider: What runs the original.
        folded_provider: What runs the folded model; None for the same.
        level: How much the runtime may optimise the original; None leaves it as it is, and
            runs the folded model that way and by the runtime's default.
        folded_level: The same for the folded model; None for the same.
        labels: What the samples are, for accuracy.
        search_s: How long to search for the worst input.
        max_time_s: How long all of it may take, but for the search.
        seed: Of all that is random.
    """

    inputs: Sequence[Inputs] = ()
    shapes: Shapes = ()
    provider: str = CPU
    folded_provider: str | None = None
    level: Level | None = None
    folded_level: Level | None = None
    labels: Labels | None = None
    search_s: float = 0.0
    max_time_s: float = 60.0
    seed: int = 0

    @property
    def settings(self) -> tuple[Setting, ...]:
        """How to run the folded model; empty for the way of `check_fold`."""
        if self.level is self.folded_level is self.folded_provider is None:
            return ()
        level = self.folded_level or self.level or Level.DISABLED
        return (Setting(level, self.folded_provider or self.provider),)


def judge_end_to_end(
    original: ir.Model,
    folded: ir.Model,
    wishes: Wishes,
    progress: Progress,
    *,
    proved: bool = False,
) -> VerifyReport:
    """Run both models on the same inputs and judge the difference.

    Args:
        original: The model that is right.
        folded: The model that claims to be the same function.
        wishes: What to run on, and how.
        progress: Told what is being done.
        proved: Exact evidence has shown that the functions are equal: only whether the
            runtime computes the folded model as well is judged.

    Raises:
        DataError: If given inputs or labels cannot be read or do not fit.
        UsageError: If shapes do not fit, or labels come without inputs.
        MissingDependencyError: If there is no runtime, or not the provider.
    """
    unlike = conflicts(original, folded)
    if unlike:
        return VerifyReport(Verdict.FAILED, why="the interface differs: " + "; ".join(unlike))
    less = tuple(f"declared otherwise: {one}" for one in differences(original, folded))
    if wishes.labels is not None and not wishes.inputs:
        raise UsageError(
            "labels need samples", where="--labels", remedy="give the samples with --inputs"
        )
    labels = None if wishes.labels is None else read_labels(wishes.labels)
    budget = Budget(wishes.max_time_s)
    with scratch_folder("verify") as folder:
        ground = _ground((original, folded), folder, wishes, progress, budget)
        if isinstance(ground, NoGround):
            return VerifyReport(Verdict.NOT_JUDGED, why=ground.why)
        progress(f"running both models on up to {len(ground.sets)} inputs")
        settings = wishes.settings
        court = Court(ground, original, folded, settings, wishes.seed, budget, _REFERENCE)
        hearing = hear(court)
        report = judged(court, hearing, proved=proved)
        report = replace(
            report,
            warnings=less + ground.warnings + report.warnings,
            settings=(levels_tried(ground.bench), str(court.setting)),
        )
        if hearing.readings is None:
            return report
        report = _with_figures(report, hearing, hearing.readings)
        if labels is not None:
            report = replace(report, labels=_labelled(hearing, hearing.readings, labels))
        if wishes.search_s > 0:
            progress(f"searching for the worst input ({wishes.search_s:g} s)")
            found = search(_hunt(court, hearing, wishes), wishes.search_s)
            report = _with_search(replace(report, search=found), found)
        return report


def _ground(
    pair: tuple[ir.Model, ir.Model],
    folder: Path,
    wishes: Wishes,
    progress: Progress,
    budget: Budget,
) -> Ground | NoGround:
    slots = inputs_of(pair[0])
    if wishes.inputs and wishes.shapes:
        raise UsageError("give either inputs or shapes", remedy="inputs bring their shapes")
    if wishes.inputs:
        sets = read_samples(wishes.inputs, slots)
        require("verify a model by running it")
        progress(f"running the original on {len(sets)} given inputs")
        return given_stage(
            *pair, folder, sets, budget, provider=wishes.provider, level=wishes.level
        )
    sizes = sized(with_hints(slots, pair[0]), wishes.shapes)
    require("verify a model by running it")
    progress("finding out how the original runs")
    styles = tuple(Style)
    stage = Stage(
        sizes, styles, len(styles), _MOST_SETS, wishes.provider, wishes.level, wishes.seed
    )
    return find_ground(*pair, folder, stage, budget)


def _with_figures(report: VerifyReport, hearing: Hearing, readings: Readings) -> VerifyReport:
    """Add plain figures and both errors against float64."""
    references = hearing.references
    warnings = report.warnings
    if references.stopped:
        count = len(references.outputs)
        left = f"{count} of {len(hearing.sets)} inputs" if count else "rounding noise alone"
        warnings = (*warnings, f"{references.stopped}; judged by {left}")
    metrics = tuple(_metrics(hearing, readings, report.outputs))
    if report.passed:
        warnings = (*losses(readings, metrics), *warnings)
    return replace(
        report,
        metrics=metrics,
        referenced=len(references.outputs),
        fell_back=references.fell_back,
        warnings=warnings,
    )


def _metrics(
    hearing: Hearing, readings: Readings, checks: Sequence[OutputCheck]
) -> Iterator[OutputMetrics]:
    decided = {check.name: check for check in checks}
    for place in range(readings.own_outputs):
        name = readings.names[place]
        both = [
            (one[place], other[place])
            for one, other in zip(hearing.original, hearing.folded, strict=True)
            if other is not None and place in one and place in other
        ]
        if both:
            errors = reference_errors(hearing, readings, place, decided.get(name))
            found = metrics_of(name, both, is_choice=place not in readings.behind)
            yield replace(found, reference=errors)


def _labelled(hearing: Hearing, readings: Readings, labels: np.ndarray) -> LabelReport:
    pairs = zip(hearing.original, hearing.folded, strict=True)
    both = [(one[0], other[0]) for one, other in pairs if other is not None]
    before, after = [one for one, _ in both], [other for _, other in both]
    return compare_labels(labels, before, after, readings.names[0])


def _hunt(court: Court, hearing: Hearing, wishes: Wishes) -> Hunt:
    ground = court.ground
    return Hunt(
        ground.bench,
        ground.models.original,
        ground.models.folded,
        court.setting,
        hearing.sets,
        wishes.seed,
    )


def _with_search(report: VerifyReport, found: SearchReport) -> VerifyReport:
    if found.passed:
        return report
    why = (
        f"on the worst input found, the difference is {found.worst:.3g} times the noise; the"
        f" same search finds {found.control:.3g} for rounding alone"
    )
    why = "; ".join(filter(None, (report.why, why)))
    return replace(report, verdict=Verdict.FAILED, why=why)
