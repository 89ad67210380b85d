"""``bnfold verify``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnfold.cli.bounds import bound_options
from bnfold.cli.options import (
    given,
    markdown_option,
    max_time_option,
    report_option,
    shape_option,
)
from bnfold.cli.terminal import say

if TYPE_CHECKING:
    from bnfold.files.apart import Read

_LEVELS = click.Choice(["disabled", "basic", "all"])
_FAILED = 1


@click.command(
    "verify",
    epilog="Exit codes: 0 the same function; 1 another function, or it could not be judged;"
    " 2 usage; 3 unusable model, inputs or labels; 4 no runtime, or not the provider.",
)
@click.argument("original", type=click.Path(path_type=Path))
@click.argument("folded", type=click.Path(path_type=Path))
@click.option(
    "--certificate",
    type=click.Path(path_type=Path),
    help="What the fold says it did: every changed tensor is derived anew.",
)
@click.option(
    "--inputs",
    multiple=True,
    metavar="DATA",
    help="Your own inputs: .npz, .npy or .pb, a folder of them, or module:callable"
    " (repeatable).",
)
@shape_option
@click.option(
    "--provider",
    default="cpu",
    show_default=True,
    help="What runs both models: cpu, cuda, tensorrt, or the runtime's own name.",
)
@click.option("--folded-provider", help="Run FOLDED there instead.")
@click.option(
    "--level",
    type=_LEVELS,
    help="How much the runtime may optimise.  [default: nothing]",
)
@click.option("--folded-level", type=_LEVELS, help="The same for FOLDED alone.")
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    help="One integer for each sample of --inputs (.npy, .npz, .csv, .txt): accuracy before"
    " and after.",
)
@click.option(
    "--search",
    "search_s",
    default=0.0,
    metavar="SECONDS",
    help="Search for the input on which both differ most.",
)
@max_time_option
@click.option(
    "--run/--no-run",
    default=None,
    help="Run the models, or only compare the graphs."
    "  [default: run, unless a certificate decides]",
)
@click.option(
    "--refold/--no-refold",
    default=True,
    show_default=True,
    help="Fold ORIGINAL anew where no certificate tells how FOLDED was made: if that is this"
    " fold, every tensor is derived exactly.",
)
@click.option(
    "--impulses",
    is_flag=True,
    help="Probe affine segments by an impulse on every channel and place too.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of inputs and noise.")
@report_option
@markdown_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
@bound_options
def command(
    original: Path,
    folded: Path,
    as_json: bool,
    page: Path | None,
    markdown: str | None,
    max_time: float | None,
    **choices: Any,
) -> int:
    """Judge whether ORIGINAL and FOLDED compute the same function.

    Graphs that come from one another are compared segment by segment in float64 first. Then
    both run: for accuracy where that proved them, else the difference is weighed against the
    original's own rounding noise and a float64 reference.
    """
    from bnfold.cli.outputs import Outputs
    from bnfold.report.progress import progress
    from bnfold.report.to_json import verify_document
    from bnfold.report.verify_text import verify_to_text
    from bnfold.verified import verify

    outputs = Outputs(page, markdown, as_json)
    outputs.check(_reads(original, folded, choices))
    with progress() as tell:
        extra = given(max_time=max_time)
        report = verify(original, folded, progress=tell, **choices, **extra)
    say(verify_to_text(report, str(original), str(folded)))
    document = verify_document(report, str(original), str(folded))
    outputs.write(document)
    return 0 if report.passed else _FAILED


def _reads(original: Path, folded: Path, choices: Mapping[str, Any]) -> Iterator[Read]:
    """Every file that is read."""
    from bnfold.files.apart import Read
    from bnfold.inputs.reads import reads_of_inputs
    from bnfold.model.reads import reads_of_file

    yield from reads_of_file(original, "ORIGINAL")
    yield from reads_of_file(folded, "FOLDED")
    yield from reads_of_inputs(choices["inputs"], "--inputs")
    for option in ("certificate", "labels"):
        if choices[option] is not None:
            yield Read(choices[option], f"--{option}")
