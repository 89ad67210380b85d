"""Find out how the original can be run at all: types, optimisation level, sizes, batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx_ir as ir

from bnfold.evidence.bench import Bench, plain, run_variants
from bnfold.evidence.variants import constants_of
from bnfold.inputs.drawing import (
    Binding,
    Case,
    Style,
    bindings,
    draw_inputs,
)
from bnfold.inputs.hints import with_hints
from bnfold.inputs.signature import Slot, inputs_of
from bnfold.runtime import CPU, Arrays, Level, Outcome, Setting

_BUDGET_S: Final = 40.0
_RUNS_PER_CASE: Final = 8
_FEWEST_CASES: Final = 2
_TRIED_TOGETHER: Final = 6
_ENOUGH: Final = 2
_PLENTY: Final = 3


@dataclass(frozen=True, slots=True)
class Ground:
    """What both models will be judged on."""

    bench: Bench
    sets: tuple[Arrays, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NoGround:
    """The original does not run here: the first reason met."""

    why: str


@dataclass(frozen=True, slots=True)
class Fit:
    """A binding that the original ran with, and how long it took."""

    binding: Binding
    seconds: float


def find_ground(original: ir.Model, folder: Path, seed: int) -> Ground | NoGround:
    """Try types, levels and sizes until the original runs, then draw the inputs."""
    slots = with_hints(inputs_of(original), original)
    try:
        draw_inputs(slots, Case(Binding(), Style.UNIFORM), seed)
    except TypeError as error:
        return NoGround(str(error))
    first_reason = ""
    for bench in benches(original, folder):
        fits, reason = find_fits(bench, original, slots, seed)
        if fits:
            sets = tuple(draw_inputs(slots, case, seed) for case in _cases(fits))
            return Ground(bench, sets, tuple(warnings_of(bench, first_reason)))
        first_reason = first_reason or reason
    return NoGround(f"the original does not run: {first_reason}")


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
    bench: Bench, model: ir.Model, slots: Sequence[Slot], seed: int
) -> tuple[list[Fit], str]:
    """Bindings that run, three if they come early; goes on behind one that ended the child."""
    wishes = bindings(slots)
    fits: list[Fit] = []
    reason = ""
    while wishes and len(fits) < _ENOUGH:
        some = wishes[:_TRIED_TOGETHER]
        sets = [draw_inputs(slots, Case(wish, Style.UNIFORM), seed) for wish in some]
        runs = run_variants([plain(bench, model, sets, _PLENTY - len(fits))])[0]
        answered = [run for run in runs if run.outcome is not Outcome.SKIPPED]
        reason = reason or next((run.message for run in answered if not run.ran), "")
        pairs = zip(some, answered, strict=False)
        fits.extend(Fit(wish, run.seconds) for wish, run in pairs if run.ran)
        if len(answered) <= 1 and not fits:
            break
        wishes = wishes[len(answered) :]
    return fits, reason


def _cases(fits: Sequence[Fit]) -> tuple[Case, ...]:
    """Every style and binding as far as the time allows, two cases at least."""
    first, second, third = (*fits, *fits, *fits)[:3] if len(fits) < 3 else fits[:3]
    wanted = (
        (first, Style.NORMAL),
        (second, Style.UNIFORM),
        (first, Style.BORDERED),
        (third, Style.NORMAL),
        (second, Style.NORMAL),
    )
    cases: list[Case] = []
    spent_s = 0.0
    for fit, style in dict.fromkeys(wanted):
        spent_s += fit.seconds * _RUNS_PER_CASE
        if spent_s <= _BUDGET_S or len(cases) < _FEWEST_CASES:
            cases.append(Case(fit.binding, style))
    return tuple(cases)


def warnings_of(bench: Bench, reason: str) -> Iterator[str]:
    """What the user should know about how the original is run."""
    if reason and bench.setting.level is not Level.DISABLED:
        level = bench.setting.level.value
        yield f"the original ran only with optimisation {level!r}: {reason}"
    for kind in sorted(bench.widened, key=int):
        name = kind.name.lower()
        accuracy = "float32 only" if kind is ir.DataType.DOUBLE else name
        yield f"{name} was judged in a float32 copy, at the accuracy of {accuracy}: {reason}"
