"""Find out how the original can be run at all: types, optimisation level, sizes, batch."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import onnx_ir as ir

from bnfold.errors import ModelError
from bnfold.evidence.bench import NO_TIME, Bench, plain, run_variants
from bnfold.evidence.budget import Budget
from bnfold.evidence.fronts import Exposed, bare, expose_fronts
from bnfold.evidence.variants import constants_of
from bnfold.inputs.drawing import (
    Binding,
    Case,
    Style,
    bindings,
    draw_inputs,
    shape_of,
)
from bnfold.inputs.signature import Slot, inputs_of
from bnfold.runtime import CPU, Arrays, Level, Outcome, Setting

_TRIED_TOGETHER: Final = 6
_ENOUGH: Final = 2
_PLENTY: Final = 3
_START_S: Final = 0.7
_ROUND_STEP: Final = 1000
_REDRAW_STEP: Final = 7919
_MOST_BYTES: Final = 256_000_000
_REDRAWN_TOPS: Final = (2, 1, 8)
"""Ranges of integers to try where inputs showed nothing: masks come first."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A binding that the original ran with, and how long it took."""

    binding: Binding
    seconds: float


@dataclass(frozen=True, slots=True)
class Source:
    """Where a set of inputs comes from, so that another can be drawn in its place.

    Attributes:
        slots: The inputs of the model, at the sizes asked for.
        case: The binding and the style.
        seed: Of the numbers.
        seconds: How long the original ran at this size.
    """

    slots: tuple[Slot, ...]
    case: Case
    seed: int
    seconds: float

    def drawn(self, attempt: int = 0) -> Arrays:
        """The set; at later attempts other numbers, and other ranges of integers."""
        if not attempt:
            return draw_inputs(self.slots, self.case, self.seed)
        top = _REDRAWN_TOPS[(attempt - 1) % len(_REDRAWN_TOPS)]
        case = replace(self.case, binding=replace(self.case.binding, int_top=top))
        return draw_inputs(self.slots, case, self.seed + _REDRAW_STEP * attempt)


@dataclass(frozen=True, slots=True)
class Ground:
    """What both models will be judged on.

    Attributes:
        bench: How the original runs.
        models: Both, with what is in front of saturations and quantisers as further outputs.
        sets: The inputs, those that show most first.
        warnings: What the user should know.
        sources: Where each set comes from; empty where the user gave them.
        overhead_s: How long it takes to write and open the original once.
        seconds: How long the original runs on each set.
    """

    bench: Bench
    models: Exposed
    sets: tuple[Arrays, ...]
    warnings: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()
    overhead_s: float = 1.0
    seconds: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class NoGround:
    """The original does not run here: the first reason met."""

    why: str


@dataclass(frozen=True, slots=True)
class Stage:
    """How the original is to be run, and on what.

    Attributes:
        sizes: Its inputs, once for each combination of sizes to try.
        styles: How numbers are spread, one set of inputs each at least.
        least: How many sets are wanted.
        most: How many sets are wanted where they are cheap.
        provider: What computes.
        level: How much the runtime may optimise; None tries to leave all as it is.
        seed: Of the inputs.
    """

    sizes: Sequence[tuple[Slot, ...]]
    styles: tuple[Style, ...] = (Style.NORMAL, Style.UNIFORM, Style.BORDERED)
    least: int = 5
    most: int = 5
    provider: str = CPU
    level: Level | None = None
    seed: int = 0


def find_ground(
    original: ir.Model, folded: ir.Model, folder: Path, stage: Stage, budget: Budget
) -> Ground | NoGround:
    """Try types, levels and sizes until the original runs, then draw the inputs."""
    first_reason = ""
    try:
        for slots in stage.sizes:
            draw_inputs(slots, Case(Binding(), Style.UNIFORM), stage.seed)
    except TypeError as error:
        return NoGround(str(error))
    except ModelError as error:
        return NoGround(f"{error.what}: {error.where}, {error.why}")
    ways = benches(original, folder, stage.provider, stage.level)
    for bench in _in_time(ways, budget):
        for models in ways_to_look(original, folded):
            start = time.monotonic()
            found: list[tuple[tuple[Slot, ...], Fit]] = []
            for slots in stage.sizes:
                fits, reason = find_fits(bench, models.original, slots, stage.seed, budget)
                first_reason = first_reason or reason
                found += [(slots, fit) for fit in fits]
            if not found:
                continue
            spent_s = time.monotonic() - start - sum(fit.seconds for _, fit in found)
            sources = tuple(_sources(found, stage))
            return Ground(
                bench,
                models,
                tuple(source.drawn() for source in sources),
                tuple(warnings_of(bench, "" if stage.level else first_reason)),
                sources,
                opening_s(spent_s / len(stage.sizes)),
                tuple(source.seconds for source in sources),
            )
    return NoGround(_never_ran(first_reason))


def _never_ran(reason: str) -> str:
    if reason == NO_TIME:
        return "the time was up before the original could run"
    return f"the original does not run: {reason}"


def _in_time(ways: Iterator[Bench], budget: Budget) -> Iterator[Bench]:
    """Yield the first way to run a model, and others while there is time to write it out."""
    for place, bench in enumerate(ways):
        if place and budget.left <= 0:
            return
        yield bench


def opening_s(spent_s: float) -> float:
    """How long a model took to be written and opened: without the start of a process."""
    return max(spent_s - _START_S, spent_s / 10, 0.0)


def ways_to_look(original: ir.Model, folded: ir.Model) -> Iterator[Exposed]:
    """With further outputs, and without where the runtime cannot run those."""
    exposed = expose_fronts(original, folded)
    yield exposed
    if exposed.original is not original:
        yield bare(original, folded)


def _sources(found: Sequence[tuple[tuple[Slot, ...], Fit]], stage: Stage) -> Iterator[Source]:
    """Every style and every size at least once, and more as long as they are small."""
    styles, held = stage.styles, 0
    wanted = max(stage.least, len(styles), len(found))
    for index in range(max(stage.most, wanted)):
        style = styles[index % len(styles)]
        slots, fit = found[(index + index // len(styles)) % len(found)]
        seed = stage.seed + _ROUND_STEP * (index // (len(styles) * len(found)))
        sizes = (math.prod(shape_of(slot, fit.binding, slots)) for slot in slots)
        held += 4 * sum(sizes)
        if index >= wanted and held > _MOST_BYTES:
            return
        yield Source(slots, Case(fit.binding, style), seed, fit.seconds)


def benches(
    original: ir.Model, folder: Path, provider: str = CPU, level: Level | None = None
) -> Iterator[Bench]:
    """As it is; in wider types where rare ones may be the trouble; with optimisation.

    Args:
        original: The model to run.
        folder: For working files.
        provider: What computes.
        level: The only optimisation to try; None tries all.
    """
    tried = dict.fromkeys(
        (Setting(level or own, provider), widened) for own, widened in _ways(original)
    )
    for setting, widened in tried:
        yield Bench(folder, setting, widened)


def _ways(original: ir.Model) -> Iterator[tuple[Level, frozenset[ir.DataType]]]:
    none: frozenset[ir.DataType] = frozenset()
    yield Level.DISABLED, none
    kinds = frozenset(tensor.dtype for tensor in constants_of(original))
    kinds |= {slot.dtype for slot in inputs_of(original) if slot.dtype is not None}
    rare = kinds & {ir.DataType.BFLOAT16, ir.DataType.DOUBLE}
    if rare:
        yield Level.DISABLED, rare
    yield Level.BASIC, none
    yield Level.ALL, none
    if rare:
        yield Level.ALL, rare
    if ir.DataType.FLOAT16 in kinds:
        yield Level.DISABLED, rare | {ir.DataType.FLOAT16}


def find_fits(
    bench: Bench,
    model: ir.Model,
    slots: Sequence[Slot],
    seed: int,
    budget: Budget | None = None,
) -> tuple[list[Fit], str]:
    """Bindings that run, three if they come early; goes on behind one that ended the child."""
    wishes = bindings(slots)
    fits: list[Fit] = []
    reason = ""
    while wishes and len(fits) < _ENOUGH:
        some = wishes[:_TRIED_TOGETHER]
        sets = [draw_inputs(slots, Case(wish, Style.UNIFORM), seed) for wish in some]
        (runs,) = run_variants([plain(bench, model, sets, _PLENTY - len(fits))], budget)
        answered = [run for run in runs if run.outcome is not Outcome.SKIPPED]
        reason = reason or next((run.message for run in answered if not run.ran), "")
        pairs = zip(some, answered, strict=False)
        fits.extend(Fit(wish, run.seconds) for wish, run in pairs if run.ran)
        if len(answered) <= 1 and not fits:
            break
        if budget is not None and budget.left <= 0:
            break
        wishes = wishes[len(answered) :]
    return fits, reason


def warnings_of(bench: Bench, reason: str) -> Iterator[str]:
    """What the user should know about how the original is run."""
    if reason and bench.setting.level is not Level.DISABLED:
        level = bench.setting.level.value
        yield f"the original ran only with optimisation {level!r}: {reason}"
    for kind in sorted(bench.widened, key=int):
        name = kind.name.lower()
        accuracy = "float32 only" if kind is ir.DataType.DOUBLE else name
        yield f"{name} was judged in a float32 copy, at the accuracy of {accuracy}: {reason}"
