"""Judge two models by what they compute, whoever made them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from bnfold.errors import UsageError
from bnfold.evidence.check import judgement
from bnfold.evidence.court import Court, Hearing, hear, open_court
from bnfold.evidence.ground import Ground, NoGround
from bnfold.evidence.readings import by_place
from bnfold.evidence.verification.against import References, evaluate, reference_errors
from bnfold.evidence.verification.labels import Labels, compare_labels, read_labels
from bnfold.evidence.verification.metrics import metrics_of
from bnfold.evidence.verification.search import Hunt, search
from bnfold.evidence.verification.stage import given_stage, levels_tried, set_stage
from bnfold.inputs.drawing import shapes as shapes_of
from bnfold.inputs.hints import with_hints
from bnfold.inputs.samples import Inputs, read_samples
from bnfold.inputs.signature import conflicts, differences, inputs_of
from bnfold.inputs.sizes import Shapes, sized
from bnfold.records import (
    LabelReport,
    OutputMetrics,
    ReferenceErrors,
    SearchReport,
    Verdict,
    VerifyReport,
)
from bnfold.runtime import CPU, Level, Setting, require

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
        reference_s: How long the float64 reference may take.
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
    reference_s: float = 60.0
    seed: int = 0

    @property
    def settings(self) -> tuple[Setting, ...]:
        """How to run the folded model; empty for the way of `check_fold`."""
        if self.level is self.folded_level is self.folded_provider is None:
            return ()
        level = self.folded_level or self.level or Level.DISABLED
        return (Setting(level, self.folded_provider or self.provider),)


def judge_end_to_end(
    original: ir.Model, folded: ir.Model, wishes: Wishes, progress: Progress
) -> VerifyReport:
    """Run both models on the same inputs and judge the difference.

    Args:
        original: The model that is right.
        folded: The model that claims to be the same function.
        wishes: What to run on, and how.
        progress: Told what is being done.

    Raises:
        DataError: If inputs or labels cannot be read or do not fit.
        MissingDependencyError: If no runtime is installed, or not the provider.
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
    with tempfile.TemporaryDirectory(prefix="bnfold-verify-") as folder:
        ground = _ground(original, Path(folder), wishes, progress)
        if isinstance(ground, NoGround):
            return VerifyReport(Verdict.NOT_JUDGED, why=ground.why)
        progress(f"running both models on {len(ground.sets)} inputs")
        court = open_court(original, folded, ground, wishes.seed, wishes.settings)
        hearing = hear(court, wishes.seed)
        report = judgement(hearing)
        report = replace(
            report,
            cases=tuple(shapes_of(arrays) for arrays in court.sets),
            warnings=less + ground.warnings + report.warnings,
            settings=(levels_tried(court.bench), ", ".join(map(str, court.settings))),
        )
        if hearing.readings is None:
            return report
        report = _with_figures(report, court, hearing, wishes, progress)
        if labels is not None:
            report = replace(report, labels=_labelled(court, hearing, labels))
        if wishes.search_s > 0:
            progress(f"searching for the worst input ({wishes.search_s:g} s)")
            found = search(_hunt(court, wishes), wishes.search_s)
            report = _with_search(replace(report, search=found), found)
        return report


def _ground(
    original: ir.Model, folder: Path, wishes: Wishes, progress: Progress
) -> Ground | NoGround:
    slots = inputs_of(original)
    if wishes.inputs and wishes.shapes:
        raise UsageError("give either inputs or shapes", remedy="inputs bring their shapes")
    if wishes.inputs:
        sets = read_samples(wishes.inputs, slots)
        require("verify a model by running it")
        progress(f"running the original on {len(sets)} given inputs")
        return given_stage(
            original, folder, sets, provider=wishes.provider, level=wishes.level
        )
    sizes = sized(with_hints(slots, original), wishes.shapes)
    require("verify a model by running it")
    progress("finding out how the original runs")
    return set_stage(
        original,
        folder,
        sizes,
        provider=wishes.provider,
        level=wishes.level,
        seed=wishes.seed,
    )


def _with_figures(
    report: VerifyReport, court: Court, hearing: Hearing, wishes: Wishes, progress: Progress
) -> VerifyReport:
    """Add plain figures and reference errors, and let the latter judge too."""
    progress("evaluating the original in float64")
    references = evaluate(court.models.original, court.sets, wishes.reference_s)
    metrics = tuple(_metrics(court, hearing, references))
    warnings = report.warnings
    if references.stopped:
        count = len(references.outputs)
        left = f"{count} of {len(court.sets)} inputs" if count else "rounding noise alone"
        warnings = (*warnings, f"{references.stopped}; judged by {left}")
    report = replace(
        report,
        metrics=metrics,
        referenced=len(references.outputs),
        fell_back=references.fell_back,
        warnings=warnings,
    )
    return _judged_by_reference(report)


def _metrics(
    court: Court, hearing: Hearing, references: References
) -> Iterator[OutputMetrics]:
    readings = hearing.readings
    if readings is None:
        return
    pairs = [
        (by_place(court.models.original, one), by_place(court.models.folded, other))
        for one, other in zip(court.reference, hearing.runs, strict=True)
    ]
    hidden = set(readings.fronts.values())
    for place, name in enumerate(readings.names):
        both = [(a[place], b[place]) for a, b in pairs if place in a and place in b]
        if place in hidden or not both:
            continue
        errors = reference_errors(court, hearing, readings, references, place)
        yield replace(metrics_of(name, both), reference=errors)


def _judged_by_reference(report: VerifyReport) -> VerifyReport:
    tied = {
        check.name for check in report.outputs if check.passed and check.ratio > check.limit
    }
    wrong, unsure = [], []
    for one in report.metrics:
        errors = one.reference
        if errors is None or one.name in tied:
            continue
        if errors.worst > errors.limit or errors.excess_low > errors.limit:
            wrong.append(_told(one.name, errors))
        elif errors.excess_high > errors.limit:
            unsure.append(one.name)
    if wrong:
        why = "; ".join(filter(None, (report.why, *wrong)))
        return replace(report, verdict=Verdict.FAILED, why=why)
    if unsure and report.verdict is Verdict.PASSED:
        why = f"the error of {', '.join(unsure)} varies too much over so few inputs: give more"
        return replace(report, verdict=Verdict.NOT_JUDGED, why=why)
    return report


def _told(name: str, errors: ReferenceErrors) -> str:
    where = "" if errors.channel is None else f", channel {errors.channel}"
    share = max(errors.worst, errors.excess)
    return (
        f"output {name!r}{where}: the error against float64 is {share:.3g} times what the"
        f" original's own error and its rounding explain, {errors.limit:g} is allowed"
    )


def _labelled(court: Court, hearing: Hearing, labels: np.ndarray) -> LabelReport:
    name = court.models.original.graph.outputs[0].name or ""
    before = [by_place(court.models.original, run)[0] for run in court.reference]
    after = [by_place(court.models.folded, run)[0] for run in hearing.runs]
    return compare_labels(labels, before, after, name)


def _hunt(court: Court, wishes: Wishes) -> Hunt:
    models = court.models
    return Hunt(
        court.bench,
        models.original,
        models.folded,
        court.settings[0],
        court.sets,
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
