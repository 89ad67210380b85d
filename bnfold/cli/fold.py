"""``bnfold fold``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Unpack

import click

from bnfold.cli.bounds import bound_options
from bnfold.cli.options import (
    FoldChoices,
    external_data_option,
    given,
    markdown_option,
    max_time_option,
    model_argument,
    report_option,
    selection_options,
    shape_option,
    size_threshold_option,
)
from bnfold.cli.terminal import say

if TYPE_CHECKING:
    import onnx_ir as ir

    from bnfold.files.pairs import Saved
    from bnfold.folding.api import FoldResult
    from bnfold.model.layout import Layout
    from bnfold.model.save import Begun

_REMEDY: Final = "pip install 'bnfold[cpu]', or prove it by --certificate C.json"


@click.command("fold")
@model_argument
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Where to write the folded model.",
)
@click.option(
    "--in-place",
    is_flag=True,
    help="Replace MODEL and its data by the folded model instead: at every moment the file is"
    " the old one or the new one.",
)
@click.option(
    "--verify/--no-verify",
    default=None,
    help="Prove segment by segment, then compare on ONNX Runtime, before writing."
    "  [default: when anything was folded; without a runtime, by the proof alone]",
)
@shape_option
@max_time_option
@click.option(
    "--certificate",
    type=click.Path(path_type=Path),
    metavar="C.json",
    help="Write down every fold as data, for `bnfold verify ORIGINAL FOLDED --certificate`.",
)
@click.option(
    "--require",
    multiple=True,
    metavar="WHAT",
    help="Write nothing and exit with 1 unless it holds: no-batchnorm, no-stays (no map is"
    " left), no-OPERATOR such as no-Mul, verified (repeatable).",
)
@report_option
@markdown_option
@external_data_option
@size_threshold_option
@click.option("--dry-run", is_flag=True, help="Report what would be folded; write nothing.")
@click.option("--seed", default=0, show_default=True, help="Seed of the check's inputs.")
@selection_options
@bound_options
def command(
    model: Path,
    output: Path | None,
    in_place: bool,
    verify: bool | None,
    shapes: tuple[str, ...],
    max_time: float | None,
    certificate: Path | None,
    require: tuple[str, ...],
    page: Path | None,
    markdown: str | None,
    external_data: str,
    size_threshold: int | None,
    dry_run: bool,
    seed: int,
    as_json: bool,
    **choices: Unpack[FoldChoices],
) -> None:
    """Fold the affine maps of MODEL into neighbouring weights.

    The result is compared with the original before it is written; a model that computes
    another function is never written.
    """
    from bnfold.checked import fold_into
    from bnfold.cli.outputs import Outputs
    from bnfold.files.replacing import write_text
    from bnfold.folding.requirements import check_met, check_words
    from bnfold.model.layout import Layout
    from bnfold.model.reads import reads_of_file

    _check_one_place(output, in_place=in_place, dry_run=dry_run)
    check_words(require)
    replaced = model if in_place else None
    texts = {"--certificate": certificate}
    outputs = Outputs(page, markdown, as_json, {"-o": output}, texts, replaced)
    outputs.check(reads_of_file(model, "MODEL"))
    if shapes:
        _check_fit(model, shapes)
    wanted = certificate is not None and not dry_run
    asked = False if dry_run else verify
    extra = given(shapes=shapes, max_time=max_time)
    writing = _Writing(output, Layout.of(external_data, size_threshold))
    with writing.stack:
        result = fold_into(
            model,
            None if dry_run else writing.begin,
            verify=asked,
            certificate=wanted,
            seed=seed,
            **choices,
            **extra,
        )
        if outputs.wants_document:
            outputs.write(_document(result, model))
        check_met(require, result.report, result.check)
        if certificate is not None and result.certificate is not None:
            # Before the model: where that replaces its original, no second try could make one.
            write_text(certificate, result.certificate.to_json())
        saved = None if dry_run else writing.finish(result)
    _tell(result, model, saved, asked)


class _Writing:
    """The folded model on its way to the disk: begun before the proof, if there is one."""

    def __init__(self, output: Path | None, layout: Layout) -> None:
        self._output = output
        self._layout = layout
        self._begun: Begun | None = None
        self.stack = contextlib.ExitStack()

    def begin(self, folded: ir.Model) -> Begun:
        """Write the data of a folded model, and note the digests of its tensors."""
        return self._begin(folded, digested=True)

    def finish(self, result: FoldResult) -> Saved:
        """Put it in its place."""
        return (self._begun or self._begin(result.model, digested=False)).finish()

    def _begin(self, folded: ir.Model, *, digested: bool) -> Begun:
        from bnfold.model.save import begun

        writing = begun(folded, self._output, self._layout, digested=digested)
        self._begun = self.stack.enter_context(writing)
        return self._begun


def _tell(result: FoldResult, model: Path, saved: Saved | None, asked: bool | None) -> None:
    """Say what was done; first of all that it was not checked, if nobody wanted that."""
    from bnfold.report.to_text import fold_to_text

    if asked is None and result.check is None and result.report.steps:
        say(f"{model}: NOT CHECKED: no ONNX Runtime is installed; {_REMEDY}")
    written = None if saved is None else saved.model
    say(fold_to_text(result.report, result.check, str(model), written))
    if saved is not None:
        for line in _beside(saved):
            say(f"  {line}")


def _beside(saved: Saved) -> Iterator[str]:
    """Say what lies beside the model now, and what lies there still."""
    if saved.said:
        yield saved.said
    more = len(saved.files) - 1
    if saved.data is not None:
        others = f" and {more} more file{'s' if more > 1 else ''}" if more else ""
        yield f"its data: {saved.data}{others}"
    for path in saved.left:
        yield f"left: {path}; the model before read it, remove it if nothing else does"


def _check_one_place(output: Path | None, *, in_place: bool, dry_run: bool) -> None:
    if output is not None and in_place:
        message = "give -o OUT or --in-place, not both"
        raise click.UsageError(message)
    if output is None and not in_place and not dry_run:
        message = "give -o OUT, or --in-place, or --dry-run to see what would be folded"
        raise click.UsageError(message)


def _document(result: FoldResult, model: Path) -> dict[str, Any]:
    """All that a page shows of the fold."""
    from bnfold.folding.pictures import pictures_of
    from bnfold.model.io import opened
    from bnfold.report.to_json import fold_document

    pictures = pictures_of(opened(model), result.model, result.report.steps)
    return fold_document(result.report, result.check, pictures, str(model))


def _check_fit(model: Path, shapes: tuple[str, ...]) -> None:
    """Refuse sizes that the model does not take before anything is done."""
    from bnfold.inputs.checking import check_sizes
    from bnfold.model.io import opened

    check_sizes(opened(model), shapes)
