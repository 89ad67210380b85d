"""``bnfold inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

import click

from bnfold.cli.options import FoldChoices, model_argument, selection_options


@click.command("inspect")
@model_argument
@selection_options
def command(
    model: Path,
    as_json: bool,
    **choices: Unpack[FoldChoices],
) -> None:
    """List every affine map of MODEL: where a fold would put it, or what stops it.

    Nothing is written.
    """
    from bnfold.folding.api import fold_unchecked
    from bnfold.report.to_json import fold_to_json

    result = fold_unchecked(model, **choices)
    if as_json:
        click.echo(fold_to_json(result.report, None))
        return
    from bnfold.report.to_terminal import print_sites

    print_sites(result.report, str(model))
