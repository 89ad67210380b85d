"""Choose what both models run on: given inputs, or what is drawn for the sizes asked for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir

from bnfold.evidence.bench import Bench, plain, run_variants
from bnfold.evidence.budget import Budget
from bnfold.evidence.ground import (
    Ground,
    NoGround,
    benches,
    opening_s,
    warnings_of,
    ways_to_look,
)
from bnfold.runtime import Arrays, Level, Run


def given_stage(
    original: ir.Model,
    folded: ir.Model,
    folder: Path,
    sets: tuple[Arrays, ...],
    budget: Budget,
    *,
    provider: str,
    level: Level | None,
) -> Ground | NoGround:
    """Find out how the original runs on given inputs: on all of them, or not at all."""
    first_reason = ""
    for bench in benches(original, folder, provider, level):
        for models in ways_to_look(original, folded):
            start = time.monotonic()
            (runs,) = run_variants([plain(bench, models.original, sets)], budget)
            if all(run.ran for run in runs):
                seconds = tuple(run.seconds for run in runs)
                return Ground(
                    bench,
                    models,
                    sets,
                    tuple(warnings_of(bench, "" if level else first_reason)),
                    overhead_s=opening_s(time.monotonic() - start - sum(seconds)),
                    seconds=seconds,
                )
            first_reason = first_reason or _first_failure(runs)
    return NoGround(f"the original does not run on the given inputs: {first_reason}")


def _first_failure(runs: Sequence[Run]) -> str:
    index, run = next((index, run) for index, run in enumerate(runs) if not run.ran)
    return f"{run.message} (set {index})"


def levels_tried(bench: Bench) -> str:
    """How the original runs, in words."""
    widened = ", ".join(sorted(kind.name.lower() for kind in bench.widened))
    return f"{bench.setting}" + (f", {widened} in float32" if widened else "")
