"""The bench on which variants of two models are run, in child processes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import onnx_ir as ir

from bnfold.evidence.budget import Budget
from bnfold.evidence.noise import (
    Draw,
    chained,
    nudge_inputs,
    nudging,
    widen_inputs,
    widening,
)
from bnfold.evidence.variants import (
    Change,
    constants_of,
    fixed_constants,
    fixed_inputs,
    with_types_widened,
    write_variant,
)
from bnfold.runtime import Arrays, Job, Outcome, Run, Setting, run_all, write_arrays

_TOGETHER_BYTES: Final = 400_000_000
_WRITTEN_PER_S: Final = 2e9
"""Bytes that are hardly written faster anywhere: what is estimated by it takes longer."""
_PLAIN: Final = Setting()
NO_TIME: Final = "not reached: the time was up"


@dataclass(frozen=True, slots=True)
class Bench:
    """Where runs are made and how.

    Attributes:
        folder: Working files; nudged models are removed as soon as they have run.
        setting: How the original and its noise are run.
        widened: Element types that are run as float32 because the runtime cannot run them.
        shelf: Models that were written as they are: they run more than once.
        sizes: How much the constants of models take.
    """

    folder: Path
    setting: Setting = _PLAIN
    widened: frozenset[ir.DataType] = frozenset()
    shelf: dict[int, tuple[ir.Model, Path]] = field(default_factory=dict, compare=False)
    sizes: dict[int, tuple[ir.Model, int]] = field(default_factory=dict, compare=False)

    def at(self, setting: Setting) -> Bench:
        """The same bench with another setting of the runtime."""
        return replace(self, setting=setting)


@dataclass(frozen=True, slots=True)
class Variant:
    """A model, what to change in its constants, and the inputs to run it on.

    Attributes:
        change: None for the model as it is, which is kept on the shelf.
    """

    bench: Bench
    model: ir.Model
    change: Change | None
    sets: tuple[Arrays, ...]
    stop_after: int = 0


def plain(
    bench: Bench, model: ir.Model, sets: Sequence[Arrays], stop_after: int = 0
) -> Variant:
    """The model as it is, widened if the bench says so."""
    fed = tuple(widen_inputs(arrays, bench.widened) for arrays in sets)
    return Variant(bench, model, None, fed, stop_after)


def nudged(bench: Bench, model: ir.Model, sets: Sequence[Arrays], draw: Draw) -> Variant:
    """The model with every stored number and every input nudged, by half an ulp by default."""
    kept = frozenset() if draw.unit else fixed_inputs(model)
    nudge = nudging(draw, fixed_constants(model), bench.widened)
    moved = (nudge_inputs(arrays, draw, bench.widened, kept) for arrays in sets)
    fed = tuple(widen_inputs(arrays, bench.widened) for arrays in moved)
    return Variant(bench, model, chained(nudge, widening(bench.widened)), fed)


def run_variants(
    variants: Sequence[Variant], budget: Budget | None = None, *, hurried: bool = False
) -> list[tuple[Run, ...]]:
    """Run them in order: small ones share a child process, large ones never share the disk.

    Args:
        variants: What to run.
        budget: What has not run when it is spent, is left out.
        hurried: Run each in a child of its own, which is ended when time is up.
    """
    found: list[tuple[Run, ...]] = []
    for group in _groups(variants, 0 if hurried else _TOGETHER_BYTES):
        if budget is not None and _is_late(group, budget, is_first=not found):
            found.extend(_left_out(variant) for variant in group)
            continue
        jobs = [_write(variant) for variant in group]
        if budget is not None:
            share = budget.timeout / len(jobs)
            jobs = [replace(job, timeout_s=share) for job in jobs]
        found.extend(run_all(jobs))
        for job, variant in zip(jobs, group, strict=True):
            _tidy(job, variant)
    return found


def bytes_of(bench: Bench, model: ir.Model) -> int:
    """How much the constants of a model take; counted once."""
    if id(model) not in bench.sizes:
        bench.sizes[id(model)] = (model, sum(one.nbytes for one in constants_of(model)))
    return bench.sizes[id(model)][1]


def _is_late(group: Sequence[Variant], budget: Budget, *, is_first: bool) -> bool:
    """Return whether time is up, or would be before the models were written out.

    The first group is run all the same where that takes no time worth mentioning.
    """
    held_bytes = sum(bytes_of(one.bench, one.model) for one in group)
    written_s = held_bytes / _WRITTEN_PER_S
    return written_s >= budget.timeout if is_first else written_s >= budget.left


def _left_out(variant: Variant) -> tuple[Run, ...]:
    return (Run(Outcome.TIMED_OUT, NO_TIME),) * len(variant.sets)


def _groups(variants: Sequence[Variant], together_bytes: int) -> Iterator[Sequence[Variant]]:
    group: list[Variant] = []
    held_bytes = 0
    for variant in variants:
        size_bytes = bytes_of(variant.bench, variant.model)
        if group and held_bytes + size_bytes > together_bytes:
            yield group
            group, held_bytes = [], 0
        group.append(variant)
        held_bytes += size_bytes
    if group:
        yield group


def _write(variant: Variant) -> Job:
    bench = variant.bench
    folder = Path(tempfile.mkdtemp(prefix="in-", dir=bench.folder))
    files = tuple(folder / f"inputs{index}.npz" for index in range(len(variant.sets)))
    for file, arrays in zip(files, variant.sets, strict=True):
        write_arrays(file, arrays)
    outputs = Path(tempfile.mkdtemp(prefix="out-", dir=bench.folder))
    return Job(
        _file(variant, folder),
        files,
        outputs,
        bench.setting.level,
        variant.stop_after,
        provider=bench.setting.provider,
    )


def _file(variant: Variant, folder: Path) -> Path:
    """Write the model; one that is unchanged only once."""
    bench, model, change = variant.bench, variant.model, variant.change
    if change is None and id(model) in bench.shelf:
        return bench.shelf[id(model)][1]
    if change is None:
        folder = Path(tempfile.mkdtemp(prefix="shelf-", dir=bench.folder))
        bench.shelf[id(model)] = (model, folder / "model.onnx")
    wide = with_types_widened(model, bench.widened) if bench.widened else model
    write_variant(wide, folder / "model.onnx", change or widening(bench.widened))
    return folder / "model.onnx"


def _tidy(job: Job, variant: Variant) -> None:
    """Remove what only this run needed."""
    for file in job.inputs:
        file.unlink()
    if variant.change is not None:
        shutil.rmtree(job.model.parent)
