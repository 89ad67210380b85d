"""Measure what a fold buys on this machine: what `bnfold.benchmark` does."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from bnfold.benchmarked.inputs import Asked, draw_cases
from bnfold.benchmarked.models import Models, gather_models, with_own_data
from bnfold.errors import ModelError, UsageError
from bnfold.files.scratch import scratch_folder
from bnfold.measurement.arms import BASE, DEFAULT_ARMS, How, plan_arms
from bnfold.measurement.lab import ArmPlan, Lab
from bnfold.measurement.machine import Watch
from bnfold.measurement.measure import Campaign, Goal, Measured, Stage
from bnfold.measurement.subjects import in_float16
from bnfold.measurement.why import doubts, explain
from bnfold.model.io import Openable
from bnfold.model.validity import models_blamed
from bnfold.records import BenchReport, BenchSettings, Ending
from bnfold.runtime import CPU, provider_named, require

if TYPE_CHECKING:
    from bnfold.inputs.samples import Inputs
    from bnfold.inputs.sizes import Shapes

_DTYPES: Final = ("model", "float16")
_SECONDS_PER_BATCH: Final = 60.0
_SENSIBLE: Final = {
    "precision": "give a fraction such as 0.01, or 0 to go on until the time is over",
    "max_time_s": "give seconds, more than 0; leave it out for as long as an interval takes",
    "confidence": "give a fraction from 0.5 on and below 1, such as 0.95",
    "threads": "give how many, or 0 for the runtime's own choice",
    "seed": "give a whole number, not below 0",
}


@np.errstate(all="ignore")  # what overflows is found and named, not warned of
def benchmark(
    model: Openable,
    folded: Openable | None = None,
    *,
    more: Sequence[Openable] | Mapping[str, Openable] = (),
    arms: Sequence[str] = DEFAULT_ARMS,
    provider: str = "cpu",
    provider_options: Mapping[str, str] | None = None,
    batch: int | Sequence[int] | None = None,
    shapes: Shapes | str | None = None,
    inputs: Inputs | None = None,
    threads: int = 0,
    dtype: str = "model",
    cuda_graph: bool = False,
    prefer_nhwc: bool = False,
    precision: float = 0.01,
    max_time_s: float | None = None,
    confidence: float = 0.95,
    details: bool = True,
    seed: int = 0,
    progress: Callable[[Stage], None] | None = None,
) -> BenchReport:
    """Measure a folded model against its original on ONNX Runtime.

    All arms are open in one process and take turns in random order; several fresh processes
    follow each other until the interval of the ratio is narrow enough. A second session of
    the original, which must show no difference, runs beside them. Inputs and outputs lie on
    the device. Models run in child processes; nothing of the machine is changed.

    The folded model is not verified here (see `bnfold.verify`); how far the outputs of the
    arms are from each other is reported.

    Args:
        model: The original: path of an ``.onnx`` file, an onnx.ModelProto or an onnx_ir.Model.
        folded: The folded model; None folds the original.
        more: Further models to compare with the original, as the runtime runs them.
        arms: Of ``original``, ``folded``, ``unfused`` (the original without the runtime's own
            BatchNorm fusions), ``plain`` and ``folded-plain`` (no optimisation at all).
        provider: ``cpu``, ``cuda``, ``tensorrt`` or the runtime's own name.
        provider_options: Options of the provider.
        batch: Batch sizes to measure; None takes what inputs, shapes or the model say, or 1.
        shapes: Sizes of the inputs: ``"x=1x3x224x224"``, several, or tuples by name.
        inputs: The user's own inputs, as `bnfold.verify` takes them; the first set is run.
        threads: Threads inside an operator; 0 is the runtime's own choice.
        dtype: ``"model"``, or ``"float16"`` to convert both models first.
        cuda_graph: Replay a captured CUDA graph (CUDA and TensorRT).
        prefer_nhwc: Run the CUDA provider in NHWC.
        precision: Stop when half the width of the interval is this fraction or less.
        max_time_s: Stop after so many seconds, even before there is an interval. None: 60 for
            each case, and as long as an interval takes.
        confidence: Of the intervals.
        details: Whether to measure session creation, first call and memory of each arm, and
            to look at the graph that runs, in processes of their own.
        seed: Of inputs and turns.
        progress: Told how far it has come.

    Returns:
        Every sample, ratios with intervals and verdicts, what the runtime ran, and what is to
        be doubted. Interrupted by Ctrl-C: what there is by then.

    Raises:
        ModelError: If a model cannot be read, or the original does not run.
        UsageError: If arms, shapes, batch sizes or options make no sense.
        DataError: If inputs cannot be read or do not fit.
        MissingDependencyError: If no runtime is installed, or not that provider.
    """
    require("benchmark")
    begun = time.monotonic()
    if dtype not in _DTYPES:
        raise UsageError(f"there is no dtype {dtype!r}", remedy=f"choose of {_DTYPES}")
    _check_numbers(precision, max_time_s, confidence, threads, seed)
    how = How(
        provider_named(provider), provider_options or {}, threads, cuda_graph, prefer_nhwc
    )
    watch = Watch(on_gpu=how.provider != CPU)
    tell = progress or _silent
    with scratch_folder("bench") as folder:
        tell(Stage("reading", 0.0))
        given = [model, *([] if folded is None else [folded])]
        with models_blamed(*given):
            models = gather_models(model, folded, more, arms, folder)
        as_given = models.original
        if dtype == "float16":
            tell(Stage("converting to float16", 0.0))
            models = models.mapped(lambda one: in_float16(with_own_data(one, folder), folder))
        plans = plan_arms(models.original, models.folded, models.more, arms, how)
        asked = Asked(batch, shapes, inputs, seed, max_time_s or _SECONDS_PER_BATCH)
        cases = draw_cases(models.original, as_given, asked, folder)
        seconds = max_time_s if max_time_s is not None else _SECONDS_PER_BATCH * len(cases)
        goal = Goal(precision, seconds, confidence, seed, insist=max_time_s is None)
        goal = replace(goal, arm=_arm_that_matters(plans))
        campaign = Campaign(Lab(folder), plans, cases, goal, watch, tell, details)
        measured = campaign.run()
    settings = BenchSettings(threads, dtype, cuda_graph, precision, seconds, confidence, seed)
    return _report(plans, measured, watch, settings, models, begun)


def _check_numbers(
    precision: float, max_time_s: float | None, confidence: float, threads: int, seed: int
) -> None:
    """Numbers that make no sense are found before anything is measured."""
    sensible = {
        f"precision {precision:g}": 0 <= precision < math.inf,
        f"max_time_s {max_time_s}": max_time_s is None or 0 < max_time_s < math.inf,
        f"confidence {confidence:g}": 0.5 <= confidence < 1,
        f"threads {threads}": threads >= 0,
        f"seed {seed}": seed >= 0,
    }
    for said, fine in sensible.items():
        if not fine:
            raise UsageError(f"{said} makes no sense", remedy=_SENSIBLE[said.split()[0]])


def _silent(_: Stage) -> None:
    """Tell nobody."""


def _arm_that_matters(plans: Sequence[ArmPlan]) -> str:
    """The folded one, or else the first that is compared with the base."""
    names = [one.arm.name for one in plans if not one.arm.null]
    return "folded" if "folded" in names else names[-1]


def _report(
    plans: Sequence[ArmPlan],
    measured: Measured,
    watch: Watch,
    settings: BenchSettings,
    models: Models,
    begun: float,
) -> BenchReport:
    arms = tuple(one.arm for one in plans)
    _check_ran(measured, arms[0].model)
    machine = watch.report()
    return BenchReport(
        arms=arms,
        cases=tuple(measured.cases),
        starts=tuple(measured.starts),
        graphs=tuple(measured.graphs),
        why=explain(measured.graphs),
        machine=machine,
        settings=settings,
        warnings=doubts(arms, measured.cases, measured.graphs, machine, settings),
        elapsed_s=time.monotonic() - begun,
        fold=models.report,
        pictures=models.pictures,
    )


def _check_ran(measured: Measured, shown: str) -> None:
    """A benchmark in which the original never ran is an error, not a report."""
    failures = [case.failures for case in measured.cases if not case.latencies]
    interrupted = any(case.ending is Ending.INTERRUPTED for case in measured.cases)
    if interrupted or not failures or len(failures) < len(measured.cases):
        return
    if BASE in failures[0]:
        raise ModelError(
            "the original does not run",
            where=shown,
            why=failures[0][BASE],
            remedy="if that is about sizes, say them with --shape or give your own --inputs;"
            " if not, this runtime cannot run it: another version or --provider may",
        )
    raise ModelError(
        "nothing could be timed",
        where=shown,
        why="; ".join(f"{name}: {why}" for name, why in failures[0].items()),
        remedy="with details each arm runs alone first, which shows whose fault it is; if all"
        " run alone, choose fewer --arms or a smaller batch",
    )
