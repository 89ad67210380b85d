"""``bnfold fold``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Unpack

import click

from bnfold.cli.bounds import bound_options
from bnfold.cli.options import (
    FoldChoices,
    given,
    markdown_option,
    max_time_option,
    model_argument,
    report_option,
    selection_options,
    shape_option,
)

if TYPE_CHECKING:
    from bnfold.folding.api import FoldResult

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
@click.option("--dry-run", is_flag=True, help="Report what would be folded; write nothing.")
@click.option("--seed", default=0, show_default=True, help="Seed of the check's inputs.")
@selection_options
@bound_options
def command(
    model: Path,
    output: Path | None,
    verify: bool | None,
    shapes: tuple[str, ...],
    max_time: float | None,
    certificate: Path | None,
    require: tuple[str, ...],
    page: Path | None,
    markdown: str | None,
    dry_run: bool,
    seed: int,
    as_json: bool,
    **choices: Unpack[FoldChoices],
) -> None:
    """Fold the affine maps of MODEL into neighbouring weights.

    The result is compared with the original before it is written; a model that computes
    another function is never written.
    """
    from bnfold.checked import fold
    from bnfold.cli.outputs import check_outputs, write_outputs
    from bnfold.folding.requirements import check_met, check_words
    from bnfold.model.save import write_text

    if output is None and not dry_run:
        message = "give -o OUT, or --dry-run to see what would be folded"
        raise click.UsageError(message)
    check_words(require)
    _check_written(model, output, certificate)
    check_outputs(page, markdown)
    if shapes:
        _check_fit(model, shapes)
    wanted = certificate is not None and not dry_run
    asked = False if dry_run else verify
    extra = given(shapes=shapes, max_time=max_time)
    result = fold(model, verify=asked, certificate=wanted, seed=seed, **choices, **extra)
    if page is not None or markdown is not None or as_json:
        write_outputs(_document(result, model), page, markdown, as_json=as_json)
    check_met(require, result.report, result.check)
    if output is not None and not dry_run:
        result.save(output)
    if certificate is not None and result.certificate is not None:
        write_text(certificate, result.certificate.to_json())
    _tell(result, model, None if dry_run else output, asked)


def _tell(result: FoldResult, model: Path, written: Path | None, asked: bool | None) -> None:
    """Say what was done; first of all that it was not checked, if nobody wanted that."""
    from bnfold.report.to_text import fold_to_text

    if asked is None and result.check is None and result.report.steps:
        click.echo(f"{model}: NOT CHECKED: no ONNX Runtime is installed; {_REMEDY}", err=True)
    click.echo(fold_to_text(result.report, result.check, str(model), written), err=True)


def _check_written(model: Path, *paths: Path | None) -> None:
    """Find out before the work whether its results could be written."""
    from bnfold.model.save import check_writable

    for path in paths:
        if path is not None:
            _refuse_same_file(model, path)
            check_writable(path)


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


def _refuse_same_file(model: Path, output: Path) -> None:
    if model.resolve() == output.resolve():
        message = f"{output} is the input itself; write to another path"
        raise click.UsageError(message)
