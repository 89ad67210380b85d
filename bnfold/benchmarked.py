"""Measure what a fold buys on this machine: what `bnfold.benchmark` does."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir

from bnfold.errors import ModelError, UsageError
from bnfold.folding.api import FoldResult, fold_unchecked
from bnfold.inputs.drawing import Binding, Case, Style, draw_inputs, shape_of
from bnfold.inputs.hints import with_hints
from bnfold.inputs.samples import read_samples
from bnfold.inputs.signature import Slot, differences, inputs_of
from bnfold.inputs.sizes import sized
from bnfold.measurement.arms import DEFAULT_ARMS, How, Subject, plan_arms
from bnfold.measurement.lab import ArmPlan, CasePlan, Lab
from bnfold.measurement.machine import Watch
from bnfold.measurement.measure import Campaign, Goal, Measured, Stage
from bnfold.measurement.subjects import in_float16, subject
from bnfold.measurement.why import doubts, explain
from bnfold.model.io import Openable, opened
from bnfold.model.save import save
from bnfold.records import BenchReport, BenchSettings, FoldReport
from bnfold.runtime import CPU, Arrays, Level, Setting, provider_named, require, write_arrays

if TYPE_CHECKING:
    from bnfold.inputs.samples import Inputs
    from bnfold.inputs.sizes import Shapes

_DTYPES: Final = ("model", "float16")
_SECONDS_PER_BATCH: Final = 60.0
_FOLDED_ARMS: Final = frozenset({"folded", "folded-plain"})


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
    how = How(
        provider_named(provider), provider_options or {}, threads, cuda_graph, prefer_nhwc
    )
    watch = Watch(on_gpu=how.provider != CPU)
    tell = progress or _silent
    with tempfile.TemporaryDirectory(prefix="bnfold-bench-") as made:
        folder = Path(made)
        tell(Stage("reading", 0.0))
        models = _models(model, folded, more, arms, folder)
        if dtype == "float16":
            tell(Stage("converting to float16", 0.0))
            models = models.mapped(lambda one: in_float16(one, folder))
        plans = plan_arms(models.original, models.folded, models.more, arms, how)
        asked = _Asked(batch, shapes, inputs, seed)
        cases = _cases(models.original, asked, folder)
        seconds = max_time_s if max_time_s is not None else _SECONDS_PER_BATCH * len(cases)
        goal = Goal(precision, seconds, confidence, seed, insist=max_time_s is None)
        goal = replace(goal, arm=_arm_that_matters(plans))
        campaign = Campaign(Lab(folder), plans, cases, goal, watch, tell)
        measured = campaign.run()
    settings = BenchSettings(threads, dtype, cuda_graph, precision, seconds, confidence, seed)
    return _report(plans, measured, watch, settings, models.report, begun)


def _silent(_: Stage) -> None:
    """Tell nobody."""


def _arm_that_matters(plans: Sequence[ArmPlan]) -> str:
    """The folded one, or else the first that is compared with the base."""
    names = [one.arm.name for one in plans if not one.arm.null]
    return "folded" if "folded" in names else names[-1]


@dataclass(frozen=True, slots=True)
class _Models:
    """The files to measure, and what the fold did where it was made for this."""

    original: Subject
    folded: Subject
    more: Mapping[str, Subject]
    report: FoldReport | None = None

    def mapped(self, change: Callable[[Subject], Subject]) -> _Models:
        """The same with every file changed; one that serves twice is changed once."""
        original = change(self.original)
        same = self.folded == self.original
        more = {name: change(one) for name, one in self.more.items()}
        return replace(
            self,
            original=original,
            folded=original if same else change(self.folded),
            more=more,
        )


def _models(
    model: Openable,
    folded: Openable | None,
    more: Sequence[Openable] | Mapping[str, Openable],
    arms: Sequence[str],
    folder: Path,
) -> _Models:
    original = _subject(model, "original", folder)
    report = None
    if folded is not None:
        other = _subject(folded, "folded", folder)
        _check_interface(original, other)
    elif _FOLDED_ARMS & set(arms):
        result = fold_unchecked(model)
        other, report = _saved(result, original, folder), result.report
    else:
        other = original
    return _Models(original, other, dict(_further(more, original, folder)), report)


def _subject(model: Openable, word: str, folder: Path) -> Subject:
    """The file as it is, once it was read; of a model in memory, a file of our own."""
    graph = opened(model, "benchmark")
    if isinstance(model, str | Path):
        return subject(Path(model), str(model))
    path = folder / f"{word}.onnx"
    save(graph, path)
    return subject(path, f"{word} ({type(model).__name__})")


def _saved(result: FoldResult, original: Subject, folder: Path) -> Subject:
    path = folder / "folded.onnx"
    result.save(path)
    return subject(path, f"{original.shown}, folded by bnfold")


def _further(
    more: Sequence[Openable] | Mapping[str, Openable], original: Subject, folder: Path
) -> Iterator[tuple[str, Subject]]:
    named = more if isinstance(more, Mapping) else {_stem(one, more): one for one in more}
    for index, (name, one) in enumerate(named.items()):
        other = _subject(one, f"more{index}", folder)
        _check_interface(original, other)
        yield name, other


def _stem(model: Openable, among: Sequence[Openable]) -> str:
    """The name of a file without its ending, or of a model in memory its number."""
    if isinstance(model, str | Path):
        stems = [Path(one).stem for one in among if isinstance(one, str | Path)]
        stem = Path(model).stem
        return stem if stems.count(stem) == 1 else str(model)
    return f"model {among.index(model) + 1}"


def _check_interface(original: Subject, other: Subject) -> None:
    """Arms run on the same inputs, so they must read the same."""
    unlike = differences(opened(original.path), opened(other.path))
    wrong = [one for one in unlike if one.startswith("input")]
    if wrong:
        raise ModelError(
            "the models read different inputs",
            where=other.shown,
            why="; ".join(wrong),
            remedy="compare models with the same inputs",
        )


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the user wants to be run."""

    batch: int | Sequence[int] | None
    shapes: Shapes | str | None
    inputs: Inputs | None
    seed: int

    @property
    def batches(self) -> tuple[int | None, ...]:
        """The batch sizes in order; None where the user asked for none."""
        if self.batch is None:
            return (None,)
        found = (self.batch,) if isinstance(self.batch, int) else tuple(self.batch)
        if not found or min(found) < 1:
            raise UsageError("a batch size is at least 1", where=f"batch {self.batch}")
        return tuple(dict.fromkeys(found))


def _cases(original: Subject, asked: _Asked, folder: Path) -> tuple[CasePlan, ...]:
    graph = opened(original.path, "benchmark")
    slots = with_hints(inputs_of(graph), graph)
    found = []
    for index, (batch, arrays) in enumerate(_sets(graph, slots, asked, folder)):
        path = folder / f"inputs{index}.npz"
        write_arrays(path, arrays)
        shapes = {name: array.shape for name, array in arrays.items()}
        found.append(CasePlan(batch, path, shapes))
    return tuple(found)


def _sets(
    graph: ir.Model, slots: Sequence[Slot], asked: _Asked, folder: Path
) -> Iterator[tuple[int | None, Arrays]]:
    """The inputs of every case, with its batch size."""
    if asked.inputs is not None:
        given = read_samples((asked.inputs,), slots)[0]
        for batch in asked.batches:
            _check_batch(slots, batch)
            arrays = {name: _repeated(array, batch) for name, array in given.items()}
            yield batch or _batch_of(arrays), arrays
        return
    shapes = (asked.shapes,) if isinstance(asked.shapes, str) else asked.shapes or ()
    for these in sized(slots, shapes):
        binding = _binding(graph, these, folder, asked.seed)
        for batch in asked.batches:
            _check_batch(these, batch)
            bound = binding if batch is None else replace(binding, batch=batch)
            arrays = draw_inputs(these, Case(bound, Style.NORMAL), asked.seed)
            yield batch or _batch_of(arrays), arrays


def _check_batch(slots: Sequence[Slot], batch: int | None) -> None:
    """A fixed first axis is a fixed batch, and cannot become another."""
    for slot in slots:
        first = slot.dims[0] if slot.dims else None
        if batch is not None and isinstance(first, int) and first not in (0, batch):
            raise UsageError(
                f"the batch size is fixed at {first}",
                where=f"input {slot.name!r}, shape {slot.dims}",
                why=f"batch {batch} was asked for",
                remedy="export the model with a dynamic first axis, or leave --batch out",
            )


def _repeated(array: np.ndarray[Any, Any], batch: int | None) -> np.ndarray[Any, Any]:
    """The first samples, from the start again where there are too few."""
    if batch is None or array.ndim == 0 or len(array) == 0:
        return array
    return np.ascontiguousarray(array[np.arange(batch) % len(array)])


def _batch_of(arrays: Arrays) -> int | None:
    first = next(iter(arrays.values()), None)
    return None if first is None or first.ndim == 0 else int(first.shape[0])


def _binding(graph: ir.Model, slots: Sequence[Slot], folder: Path, seed: int) -> Binding:
    """Sizes that the model takes: as it declares them, or the first that run.

    Raises:
        ModelError: If none of those that are tried run.
    """
    from bnfold.evidence.bench import Bench
    from bnfold.evidence.ground import find_fits

    try:
        draw_inputs(slots, Case(Binding(), Style.UNIFORM), seed)
    except TypeError as error:
        raise ModelError(
            "no inputs can be drawn", why=str(error), remedy="give your own with --inputs"
        ) from error
    if all(map(_is_told, slots)):
        return Binding()
    bench = Bench(folder, Setting(Level.ALL))
    fits, why = find_fits(bench, graph, slots, seed)
    if not fits:
        tried = ", ".join(f"{one.name}={shape_of(one, Binding(), slots)}" for one in slots)
        raise ModelError(
            "the original does not run on drawn inputs",
            where=tried,
            why=why,
            remedy="say the sizes with --shape, or give your own with --inputs",
        )
    return fits[0].binding


def _is_told(slot: Slot) -> bool:
    """Whether everything but the batch size is declared, and any numbers will do."""
    floats = slot.dtype is not None and slot.dtype.is_floating_point()
    dims = slot.dims
    return (
        floats
        and dims is not None
        and all(isinstance(dim, int) and dim > 0 for dim in dims[1:])
    )


def _report(
    plans: Sequence[ArmPlan],
    measured: Measured,
    watch: Watch,
    settings: BenchSettings,
    fold: FoldReport | None,
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
        fold=fold,
    )


def _check_ran(measured: Measured, shown: str) -> None:
    """A benchmark in which the original never ran is an error, not a report."""
    failures = [case.failures for case in measured.cases if not case.latencies]
    if failures and len(failures) == len(measured.cases) and not measured.interrupted:
        why = failures[0].get("original") or next(iter(failures[0].values()), "")
        raise ModelError(
            "the original does not run",
            where=shown,
            why=why,
            remedy="say the sizes with --shape, or give your own inputs with --inputs",
        )
