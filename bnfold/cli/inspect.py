"""``bnfold inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

import click

from bnfold.cli.bounds import bound_options
from bnfold.cli.options import FoldChoices, model_argument, selection_options, shape_option
from bnfold.cli.terminal import print_json, to_stdout


@click.command("inspect")
@model_argument
@shape_option
@selection_options
@bound_options
def command(
    model: Path,
    shapes: tuple[str, ...],
    as_json: bool,
    **choices: Unpack[FoldChoices],
) -> None:
    """List every affine map of MODEL: where a fold would put it, or what stops it.

    Nothing is written. Says, too, at which sizes a fold would be checked.
    """
    from bnfold.cli.outputs import Outputs
    from bnfold.folding.api import fold_unchecked
    from bnfold.inputs.checking import check_sizes
    from bnfold.model.io import opened
    from bnfold.model.reads import reads_of_file
    from bnfold.report.to_json import fold_to_json

    Outputs(as_json=True).check(reads_of_file(model, "MODEL"))
    sizes = check_sizes(opened(model, "inspect"), shapes)
    result = fold_unchecked(model, **choices)
    if as_json:
        print_json(fold_to_json(result.report, None, sizes=sizes))
        return
    from bnfold.report.to_terminal import print_sites

    with to_stdout():
        print_sites(result.report, str(model), sizes)
