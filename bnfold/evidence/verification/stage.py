"""Choose what both models run on: given inputs, asked sizes, or what the model takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Final

import onnx_ir as ir

from bnfold.evidence.bench import Bench, plain, run_variants
from bnfold.evidence.ground import Fit, Ground, NoGround, benches, find_fits, warnings_of
from bnfold.inputs.drawing import Binding, Case, Style, draw_inputs
from bnfold.inputs.signature import Slot
from bnfold.runtime import Arrays, Level, Run

_BUDGET_S: Final = 60.0
_RUNS_PER_CASE: Final = 9
_MOST_CASES: Final = 18
_MOST_BYTES: Final = 256_000_000
_ROUND_STEP: Final = 1000

_Fitting = list[tuple[tuple[Slot, ...], Fit]]


def set_stage(
    original: ir.Model,
    folder: Path,
    sizes: Sequence[tuple[Slot, ...]],
    *,
    provider: str,
    level: Level | None,
    seed: int,
) -> Ground | NoGround:
    """Find out how the original runs at these sizes, and draw inputs of every style.

    Args:
        original: The model that decides what can be run.
        folder: For working files.
        sizes: Its inputs, once for each combination of sizes to try.
        provider: What computes.
        level: How much the runtime may optimise; None tries to leave all as it is.
        seed: Of the inputs.
    """
    first_reason = ""
    try:
        for slots in sizes:
            draw_inputs(slots, Case(Binding(), Style.UNIFORM), seed)
    except TypeError as error:
        return NoGround(str(error))
    for bench in benches(original, folder, provider, level):
        found: _Fitting = []
        for slots in sizes:
            fits, reason = find_fits(bench, original, slots, seed)
            first_reason = first_reason or reason
            found += [(slots, fit) for fit in fits]
        if found:
            sets = tuple(_drawn(found, seed))
            warnings = tuple(warnings_of(bench, "" if level else first_reason))
            return Ground(bench, sets, warnings)
    return NoGround(f"the original does not run: {first_reason}")


def _drawn(fits: _Fitting, seed: int) -> Iterator[Arrays]:
    """Every style at every size at least once, and more as far as the time allows."""
    spent_s, held = 0.0, 0
    wanted = max(len(Style), len(fits))
    for index in count():
        style = list(Style)[index % len(Style)]
        slots, fit = fits[(index + index // len(Style)) % len(fits)]
        spent_s += fit.seconds * _RUNS_PER_CASE
        draw = seed + _ROUND_STEP * (index // (len(Style) * len(fits)))
        arrays = draw_inputs(slots, Case(fit.binding, style), draw)
        held += sum(array.nbytes for array in arrays.values())
        full = index >= _MOST_CASES or spent_s > _BUDGET_S or held > _MOST_BYTES
        if full and index >= wanted:
            return
        yield arrays


def given_stage(
    original: ir.Model,
    folder: Path,
    sets: tuple[Arrays, ...],
    *,
    provider: str,
    level: Level | None,
) -> Ground | NoGround:
    """Find out how the original runs on given inputs: on all of them, or not at all."""
    first_reason = ""
    for bench in benches(original, folder, provider, level):
        runs = run_variants([plain(bench, original, sets)])[0]
        if all(run.ran for run in runs):
            warnings = tuple(warnings_of(bench, "" if level else first_reason))
            return Ground(bench, sets, warnings)
        first_reason = first_reason or _first_failure(runs)
    return NoGround(f"the original does not run on the given inputs: {first_reason}")


def _first_failure(runs: Sequence[Run]) -> str:
    index, run = next((index, run) for index, run in enumerate(runs) if not run.ran)
    return f"{run.message} (set {index})"


def levels_tried(bench: Bench) -> str:
    """How the original runs, in words."""
    widened = ", ".join(sorted(kind.name.lower() for kind in bench.widened))
    return f"{bench.setting}" + (f", {widened} in float32" if widened else "")
