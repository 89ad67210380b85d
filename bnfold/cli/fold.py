"""``bnfold fold``."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

import click

from bnfold.cli.options import FoldChoices, model_argument, selection_options


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
@click.option("--dry-run", is_flag=True, help="Report what would be folded; write nothing.")
@click.option("--seed", default=0, show_default=True, help="Seed of the check's inputs.")
@selection_options
def command(
    model: Path,
    output: Path | None,
    verify: bool | None,
    certificate: Path | None,
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
    from bnfold.model.save import check_writable, write_text
    from bnfold.report.to_json import fold_to_json
    from bnfold.report.to_text import fold_to_text

    if output is None and not dry_run:
        message = "give -o OUT, or --dry-run to see what would be folded"
        raise click.UsageError(message)
    if output is not None:
        _refuse_same_file(model, output)
        check_writable(output)
    if certificate is not None:
        check_writable(certificate)
    wanted = certificate is not None and not dry_run
    asked = False if dry_run else verify
    result = fold(model, verify=asked, certificate=wanted, seed=seed, **choices)
    if output is not None and not dry_run:
        result.save(output)
    if certificate is not None and result.certificate is not None:
        write_text(certificate, result.certificate.to_json())
    if as_json:
        click.echo(fold_to_json(result.report, result.check))
    written = None if dry_run else output
    click.echo(fold_to_text(result.report, result.check, str(model), written), err=True)


def _refuse_same_file(model: Path, output: Path) -> None:
    if model.resolve() == output.resolve():
        message = f"{output} is the input itself; write to another path"
        raise click.UsageError(message)
