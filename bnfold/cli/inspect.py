"""``bnfold inspect``."""

from __future__ import annotations

from pathlib import Path

import click

from bnfold.cli.options import model_argument, selection_options


@click.command("inspect")
@model_argument
@selection_options
def command(
    model: Path,
    only: tuple[str, ...],
    skip: tuple[str, ...],
    assume_constant_inputs: bool,
    as_json: bool,
) -> None:
    """List every affine map of MODEL: where a fold would put it, or what stops it.

    Nothing is written.
    """
    from bnfold.folding.api import fold_unchecked
    from bnfold.report.to_json import fold_to_json

    result = fold_unchecked(
        model, only=only, skip=skip, assume_constant_inputs=assume_constant_inputs
    )
    if as_json:
        click.echo(fold_to_json(result.report, None))
        return
    from bnfold.report.to_terminal import print_sites

    print_sites(result.report, str(model))
