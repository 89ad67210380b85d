"""The steps of an export, in order; nothing is written to its place before all are done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn

from bnfold.checked import fold as fold_checked
from bnfold.errors import CheckFailedError, ModelError
from bnfold.exporting.against_torch import heard, judged
from bnfold.exporting.axes import Axes, Dynamic, axes_of, traceable
from bnfold.exporting.calls import calls_to_try, first_call, open_outputs
from bnfold.exporting.examples import Example, example_of, output_names, tensors_in
from bnfold.exporting.exporters import Request, check_valid, written
from bnfold.exporting.modules import (
    about_statistics,
    as_it_is,
    call,
    check_eval_mode,
    module_in,
    to_export,
)
from bnfold.exporting.result import ExportResult
from bnfold.exporting.tensors import sizes
from bnfold.files.targets import target_of
from bnfold.folding.api import FoldResult
from bnfold.folding.pictures import pictures_of
from bnfold.inputs.signature import Slot, inputs_of, outputs_of
from bnfold.model.io import load
from bnfold.model.layout import Layout, plan_of
from bnfold.model.save import save
from bnfold.records import ExportReport, Picture, Port, Verdict, VerifyReport


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user wants, as `bnfold.export` describes it."""

    path: Path
    unfolded: Path | None
    fold: bool
    verify: bool
    exporter: str
    opset: int | None
    dynamic: Dynamic
    dynamic_batch: bool
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    eval_mode: bool
    certificate: bool
    layout: Layout
    seed: int
    tell: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Subject:
    """A module that is ours to run, and how it is called.

    Attributes:
        user: The user's own module, never run.
        model: A copy of it in eval mode.
        example: The user's call.
        axes: Sizes that stay open.
        outputs: Names of the outputs.
        sets: Inputs to try; the first is the example.
        warnings: About statistics of the batch, and sizes that could not be tried.
    """

    user: nn.Module
    model: nn.Module
    example: Example
    axes: Axes
    outputs: tuple[str, ...]
    sets: tuple[tuple[Tensor, ...], ...]
    warnings: tuple[str, ...]


def carried_out(
    model: object,
    args: object,
    kwargs: Mapping[str, Any] | None,
    wishes: Wishes,
    folder: Path,
) -> ExportResult:
    """Export, fold, check, verify, and only then write.

    Args:
        model: What the user gave.
        args: Its arguments.
        kwargs: Its arguments by name.
        wishes: What is wanted.
        folder: A folder for what comes before the result.

    Raises:
        BnfoldError: As `bnfold.export` says.
    """
    subject = _subject(model, args, kwargs, wishes)
    wishes.tell(f"exporting ({wishes.exporter})")
    exported = folder / "exported.onnx"
    remarks = _exported(subject, wishes, exported)
    original, final = load(exported), exported
    result: FoldResult | None = None
    pictures: tuple[Picture, ...] = ()
    if wishes.fold:
        wishes.tell("folding")
        final = folder / "folded.onnx"
        result = fold_checked(
            exported, verify=wishes.verify, certificate=wishes.certificate, seed=wishes.seed
        )
        result.save(final)
        check_valid(final, "the folded model")
        pictures = tuple(pictures_of(original, result.model, result.report.steps))
    said = plan_of(load(final), wishes.layout).said
    remarks = (*remarks, *([said] if said else ()))
    subject = replace(subject, warnings=(*subject.warnings, *remarks))
    verification = _verified(subject, wishes, final, folder) if wishes.verify else None
    report = _report(subject, wishes, load(final), result, verification)
    if wishes.unfolded is not None:
        save(original, wishes.unfolded, wishes.layout)
    save(load(final), wishes.path, wishes.layout)
    certificate = None if result is None else result.certificate
    there = final if target_of(wishes.path).is_stream else wishes.path
    return ExportResult(load(there), wishes.path, report, certificate, pictures)


def _subject(
    model: object, args: object, kwargs: Mapping[str, Any] | None, wishes: Wishes
) -> Subject:
    user = module_in(model)
    if not wishes.eval_mode:
        check_eval_mode(user)
    example = example_of(user, args, kwargs, wishes.input_names)
    axes = axes_of(example, wishes.dynamic, batch=wishes.dynamic_batch)
    copy = as_it_is(user)
    wishes.tell("running the module")
    outputs = first_call(copy, example)
    if not tensors_in(outputs):
        raise ModelError("the module returns no tensor", where=type(user).__name__)
    names = output_names(outputs, wishes.output_names, example.names)
    sets, warnings = calls_to_try(copy, example, axes, wishes.seed)
    warnings = (*about_statistics(user), *warnings)
    return Subject(user, copy, example, axes, names, tuple(sets), warnings)


def _exported(subject: Subject, wishes: Wishes, path: Path) -> tuple[str, ...]:
    """Write the model as it is before the fold; return warnings."""
    request = Request(
        to_export(subject.user),
        traceable(subject.example, subject.axes),
        subject.axes,
        subject.outputs,
        wishes.opset,
        _open_outputs(subject) if subject.axes.symbols else (),
    )
    remarks = written(request, wishes.exporter, path)
    _check_open(subject, path)
    return remarks


def _open_outputs(subject: Subject) -> tuple[Mapping[int, str], ...]:
    example = subject.example
    shapes = [
        sizes(tensors_in(call(subject.model, *example.filled(tensors))))
        for tensors in subject.sets
    ]
    return open_outputs(subject.axes, example, subject.sets, shapes)


def _check_open(subject: Subject, path: Path) -> None:
    """Refuse an export that fixed a size which was to stay open.

    Raises:
        ModelError: Naming input and axis.
    """
    slots = {slot.name: slot for slot in inputs_of(load(path))}
    for name, axes in zip(subject.example.names, subject.axes.by_tensor, strict=True):
        dims = slots[name].dims if name in slots else None
        fixed = [axis for axis in axes if dims is not None and isinstance(dims[axis], int)]
        if fixed:
            raise ModelError(
                "the exporter fixed a size that was to stay open",
                where=f"{name}.{fixed[0]}={axes[fixed[0]]}",
                why="what the module does depends on this size",
                remedy="leave it out, or write the module without Python numbers of sizes",
            )


def _verified(subject: Subject, wishes: Wishes, path: Path, folder: Path) -> VerifyReport:
    """Judge the file that is about to be written.

    Raises:
        CheckFailedError: If it computes something else.
    """
    wishes.tell(f"verifying against torch on {len(subject.sets)} inputs")
    names, sets = subject.outputs, subject.sets
    witness = heard(subject.model, subject.example, names, sets, wishes.seed)
    report = judged(witness, path, folder, wishes.seed)
    if report.verdict is Verdict.FAILED:
        checked = "the fold itself was checked: the exporter's own file is off"
        raise CheckFailedError(
            "the exported model computes something else than the module; nothing is written",
            where=str(wishes.path),
            why="; ".join(
                (report.why, *([checked] if wishes.fold else []), *subject.warnings)
            ),
            remedy="try the other exporter; look for what depends on the data or is random",
        )
    return report


def _report(
    subject: Subject,
    wishes: Wishes,
    model: ir.Model,
    result: FoldResult | None,
    verification: VerifyReport | None,
) -> ExportReport:
    return ExportReport(
        module=type(subject.user).__name__,
        exporter=wishes.exporter,
        torch=str(torch.__version__),
        opset=model.opset_imports.get("", 0),
        inputs=tuple(_port(slot) for slot in inputs_of(model)),
        outputs=tuple(_port(slot) for slot in outputs_of(model)),
        fold=None if result is None else result.report,
        check=None if result is None else result.check,
        verification=verification,
        warnings=subject.warnings,
    )


def _port(slot: Slot) -> Port:
    return Port(slot.name, "" if slot.dtype is None else slot.dtype.name, slot.dims or ())
