"""Measure what a fold buys on this machine: what `bnfold.benchmark` does."""

from __future__ import annotations

import math
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
from bnfold.folding.pictures import pictures_of
from bnfold.inputs.drawing import Binding, Case, Style, draw_inputs, shape_of
from bnfold.inputs.fitting import spelled
from bnfold.inputs.hints import with_hints
from bnfold.inputs.samples import read_samples
from bnfold.inputs.signature import Slot, differences, inputs_of
from bnfold.inputs.sizes import sized
from bnfold.measurement.arms import BASE, DEFAULT_ARMS, How, Subject, plan_arms
from bnfold.measurement.lab import ArmPlan, CasePlan, Lab
from bnfold.measurement.machine import Watch, memory_bytes
from bnfold.measurement.measure import Campaign, Goal, Measured, Stage
from bnfold.measurement.subjects import in_float16, subject
from bnfold.measurement.why import doubts, explain
from bnfold.model.io import Openable, opened
from bnfold.model.save import save
from bnfold.records import BenchReport, BenchSettings, Ending, FoldReport, Picture
from bnfold.runtime import CPU, Arrays, Level, Setting, provider_named, require, write_arrays

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
_COPIES: Final = 3
"""Of the inputs, at the same time: drawn, cast to their type, and in the child process."""
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
    with tempfile.TemporaryDirectory(prefix="bnfold-bench-") as made:
        folder = Path(made)
        tell(Stage("reading", 0.0))
        models = _models(model, folded, more, arms, folder)
        as_given = models.original
        if dtype == "float16":
            tell(Stage("converting to float16", 0.0))
            models = models.mapped(lambda one: in_float16(one, folder))
        plans = plan_arms(models.original, models.folded, models.more, arms, how)
        asked = _Asked(batch, shapes, inputs, seed)
        cases = _cases(models.original, as_given, asked, folder)
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


@dataclass(frozen=True, slots=True)
class _Models:
    """The files to measure, and what the fold did where it was made for this."""

    original: Subject
    folded: Subject
    more: Mapping[str, Subject]
    report: FoldReport | None = None
    pictures: tuple[Picture, ...] = ()

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
    report: FoldReport | None = None
    pictures: tuple[Picture, ...] = ()
    if folded is not None:
        other = _subject(folded, "folded", folder)
        _check_interface(original, other)
    elif _FOLDED_ARMS & set(arms):
        result = fold_unchecked(model)
        other, report = _saved(result, original, folder), result.report
        pictures = pictures_of(opened(model), result.model, report.steps)
    else:
        other = original
    return _Models(original, other, dict(_further(more, original, folder)), report, pictures)


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
    named = more if isinstance(more, Mapping) else _by_stem(more)
    for index, (name, one) in enumerate(named.items()):
        other = _subject(one, f"more{index}", folder)
        _check_interface(original, other)
        yield name, other


def _by_stem(models: Sequence[Openable]) -> dict[str, Openable]:
    """By the name of the file without its ending, or of a model in memory by its number."""
    stems = [Path(one).stem for one in models if isinstance(one, str | Path)]
    found: dict[str, Openable] = {}
    for number, model in enumerate(models, 1):
        name = f"model {number}"
        if isinstance(model, str | Path):
            stem = Path(model).stem
            name = stem if stems.count(stem) == 1 else str(model)
        found[name] = model
    return found


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
        found = (self.batch,) if isinstance(self.batch, int) else tuple(map(int, self.batch))
        if not found or min(found) < 1:
            raise UsageError("a batch size is at least 1", where=f"batch {self.batch}")
        return tuple(dict.fromkeys(found))


def _cases(
    original: Subject, as_given: Subject, asked: _Asked, folder: Path
) -> tuple[CasePlan, ...]:
    """What to run; the user's own inputs fit the model as it was given."""
    graph = opened(original.path, "benchmark")
    slots = with_hints(inputs_of(graph), graph)
    if asked.inputs is None:
        sets = _drawn(graph, slots, asked, folder)
    else:
        given = read_samples((asked.inputs,), inputs_of(opened(as_given.path)))[0]
        sets = _given(given, slots, asked)
    found = []
    for index, (batch, arrays) in enumerate(sets):
        path = folder / f"inputs{index}.npz"
        write_arrays(path, arrays)
        shapes = {name: array.shape for name, array in arrays.items()}
        found.append(CasePlan(batch, path, shapes))
    return tuple(found)


def _given(
    given: Arrays, slots: Sequence[Slot], asked: _Asked
) -> Iterator[tuple[int | None, Arrays]]:
    """The user's inputs at every batch size, in the element types that the model reads."""
    for batch in asked.batches:
        _check_batch(slots, batch)
        arrays = {}
        for slot in slots:
            array = given[slot.name]
            array = _repeated(array, batch) if _is_open(slot) else array
            halved = slot.dtype is ir.DataType.FLOAT16
            arrays[slot.name] = array.astype(np.float16) if halved else array
        yield batch or _batch_of(arrays), arrays


def _drawn(
    graph: ir.Model, slots: Sequence[Slot], asked: _Asked, folder: Path
) -> Iterator[tuple[int | None, Arrays]]:
    """Drawn inputs for every case, with its batch size."""
    shapes = (asked.shapes,) if isinstance(asked.shapes, str) else asked.shapes or ()
    for these in sized(slots, shapes):
        binding = _binding(graph, these, folder, asked.seed)
        for batch in asked.batches:
            _check_batch(these, batch)
            bound = binding if batch is None else replace(binding, batch=batch)
            _check_memory(these, bound)
            arrays = draw_inputs(these, Case(bound, Style.NORMAL), asked.seed)
            yield batch or _batch_of(arrays), arrays


def _check_batch(slots: Sequence[Slot], batch: int | None) -> None:
    """A fixed first axis is a fixed batch; one open first axis can become another."""
    if batch is None or any(map(_is_open, slots)):
        return
    fixed = [slot for slot in slots if slot.dims]
    if any(slot.dims[0] == batch for slot in fixed if slot.dims):
        return
    if not fixed:
        raise UsageError(
            "the model has no batch axis",
            why=f"batch {batch} was asked for, and no input has an axis",
            remedy="leave --batch out",
        )
    dims = fixed[0].dims or ()
    raise UsageError(
        f"the batch size is fixed at {dims[0]}",
        where=f"input {fixed[0].name!r}, shape {spelled(dims)}",
        why=f"batch {batch} was asked for",
        remedy="export the model with a dynamic first axis, or leave --batch out",
    )


def _is_open(slot: Slot) -> bool:
    """Whether its first axis can be of any size."""
    dims = slot.dims
    return dims is None or (bool(dims) and not (isinstance(dims[0], int) and dims[0] > 0))


def _check_memory(slots: Sequence[Slot], binding: Binding) -> None:
    """Inputs that are larger than the machine would end more than this process."""
    elements = sum(math.prod(shape_of(slot, binding, slots)) for slot in slots)
    needed, there = elements * _COPIES * np.dtype(np.float64).itemsize, memory_bytes()
    if there is not None and needed > there:
        shapes = ", ".join(
            f"{slot.name}={spelled(shape_of(slot, binding, slots))}" for slot in slots
        )
        raise UsageError(
            "these inputs are larger than the machine's memory",
            where=shapes,
            why=f"drawing them takes {needed / 1e9:.3g} GB, and there are {there / 1e9:.3g}",
            remedy="choose a smaller --batch or --shape",
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

    _check_memory(slots, Binding())
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
    models: _Models,
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
