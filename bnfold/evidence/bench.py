"""The bench on which variants of two models are run, in child processes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import onnx_ir as ir

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
    with_types_widened,
    write_variant,
)
from bnfold.runtime import Arrays, Job, Run, Setting, run_all, write_arrays

_TOGETHER_BYTES: Final = 400_000_000
_PLAIN: Final = Setting()


@dataclass(frozen=True, slots=True)
class Bench:
    """Where runs are made and how.

    Attributes:
        folder: Working files; models and inputs are removed as soon as they have run.
        setting: How the original and its noise are run.
        widened: Element types that are run as float32 because the runtime cannot run them.
    """

    folder: Path
    setting: Setting = _PLAIN
    widened: frozenset[ir.DataType] = frozenset()

    def at(self, setting: Setting) -> Bench:
        """The same bench with another setting of the runtime."""
        return replace(self, setting=setting)


@dataclass(frozen=True, slots=True)
class Variant:
    """A model, what to change in its constants, and the inputs to run it on."""

    bench: Bench
    model: ir.Model
    change: Change
    sets: tuple[Arrays, ...]
    stop_after: int = 0


def plain(
    bench: Bench, model: ir.Model, sets: Sequence[Arrays], stop_after: int = 0
) -> Variant:
    """The model as it is, widened if the bench says so."""
    fed = tuple(widen_inputs(arrays, bench.widened) for arrays in sets)
    return Variant(bench, model, widening(bench.widened), fed, stop_after)


def nudged(bench: Bench, model: ir.Model, sets: Sequence[Arrays], draw: Draw) -> Variant:
    """The model with every stored number and every input nudged by half an ulp."""
    nudge = nudging(draw, fixed_constants(model), bench.widened)
    moved = (nudge_inputs(arrays, draw, bench.widened) for arrays in sets)
    fed = tuple(widen_inputs(arrays, bench.widened) for arrays in moved)
    return Variant(bench, model, chained(nudge, widening(bench.widened)), fed)


def run_variants(variants: Sequence[Variant]) -> list[tuple[Run, ...]]:
    """Run them in order: small ones share a child process, large ones never share the disk."""
    found: list[tuple[Run, ...]] = []
    for group in _groups(variants):
        jobs = [_write(variant) for variant in group]
        found.extend(run_all(jobs))
        for job in jobs:
            shutil.rmtree(job.model.parent)
    return found


def _groups(variants: Sequence[Variant]) -> Iterator[Sequence[Variant]]:
    group: list[Variant] = []
    held_bytes = 0
    for variant in variants:
        size_bytes = sum(tensor.nbytes for tensor in constants_of(variant.model))
        if group and held_bytes + size_bytes > _TOGETHER_BYTES:
            yield group
            group, held_bytes = [], 0
        group.append(variant)
        held_bytes += size_bytes
    yield group


def _write(variant: Variant) -> Job:
    bench = variant.bench
    folder = Path(tempfile.mkdtemp(prefix="in-", dir=bench.folder))
    is_wide = bool(bench.widened)
    model = with_types_widened(variant.model, bench.widened) if is_wide else variant.model
    write_variant(model, folder / "model.onnx", variant.change)
    files = tuple(folder / f"inputs{index}.npz" for index in range(len(variant.sets)))
    for file, arrays in zip(files, variant.sets, strict=True):
        write_arrays(file, arrays)
    outputs = Path(tempfile.mkdtemp(prefix="out-", dir=bench.folder))
    return Job(
        folder / "model.onnx",
        files,
        outputs,
        bench.setting.level,
        variant.stop_after,
        provider=bench.setting.provider,
    )
