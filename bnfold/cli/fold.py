"""``bnfold fold``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import click

from bnfold.cli.options import (
    FoldChoices,
    markdown_option,
    model_argument,
    report_option,
    selection_options,
)

if TYPE_CHECKING:
    from bnfold.folding.api import FoldResult


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
    help="Compare with the original on ONNX Runtime before writing."
    "  [default: when a runtime is installed]",
)
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
def command(
    model: Path,
    output: Path | None,
    verify: bool | None,
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
    from bnfold.model.save import check_writable, write_text
    from bnfold.report.to_text import fold_to_text

    if output is None and not dry_run:
        message = "give -o OUT, or --dry-run to see what would be folded"
        raise click.UsageError(message)
    check_words(require)
    for path in (output, certificate):
        if path is not None:
            _refuse_same_file(model, path)
            check_writable(path)
    check_outputs(page, markdown)
    wanted = certificate is not None and not dry_run
    asked = False if dry_run else verify
    result = fold(model, verify=asked, certificate=wanted, seed=seed, **choices)
    if page is not None or markdown is not None or as_json:
        write_outputs(_document(result, model), page, markdown, as_json=as_json)
    check_met(require, result.report, result.check)
    if output is not None and not dry_run:
        result.save(output)
    if certificate is not None and result.certificate is not None:
        write_text(certificate, result.certificate.to_json())
    written = None if dry_run else output
    click.echo(fold_to_text(result.report, result.check, str(model), written), err=True)


def _document(result: FoldResult, model: Path) -> dict[str, Any]:
    """All that a page shows of the fold."""
    from bnfold.folding.pictures import pictures_of
    from bnfold.model.io import opened
    from bnfold.report.to_json import fold_document

    pictures = pictures_of(opened(model), result.model, result.report.steps)
    return fold_document(result.report, result.check, pictures, str(model))


def _refuse_same_file(model: Path, output: Path) -> None:
    if model.resolve() == output.resolve():
        message = f"{output} is the input itself; write to another path"
        raise click.UsageError(message)
