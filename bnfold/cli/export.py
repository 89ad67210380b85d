"""``bnfold export``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import click

from bnfold.cli.bounds import kept_running
from bnfold.cli.options import (
    external_data_option,
    markdown_option,
    report_option,
    size_threshold_option,
)
from bnfold.cli.terminal import say

if TYPE_CHECKING:
    from bnfold.exporting.result import ExportResult
    from bnfold.files.apart import Read


class _Choices(TypedDict):
    """What goes to `bnfold.export` as it is."""

    fold: bool
    verify: bool
    exporter: str
    opset: int | None
    dynamic: tuple[str, ...]
    dynamic_batch: bool
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    eval_mode: bool
    unfolded: Path | None
    external_data: str
    size_threshold: int | None
    seed: int


@click.command(
    "export",
    epilog="Exit codes: 0 written; 1 it computes something else than torch, and nothing is"
    " written; 2 usage; 3 the module cannot be exported; 4 torch or a runtime is missing.",
)
@click.argument("target", metavar="MODULE:CALLABLE")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Where to write the model.",
)
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=SIZES",
    help="Call the module with numbers of this size: x=1x3x224x224, ids:int64=1x128"
    " (repeatable).  [default: the arguments that the callable returns]",
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Load a state dict first; read as data only, every name must fit.",
)
@click.option("--dynamic-batch", is_flag=True, help="Leave the first size of inputs open.")
@click.option(
    "--dynamic",
    multiple=True,
    metavar="INPUT.AXIS=NAME",
    help="Leave sizes open: x.0=batch,x.2=height (repeatable).",
)
@click.option(
    "--exporter",
    type=click.Choice(["dynamo", "torchscript"]),
    default="dynamo",
    show_default=True,
    help="Which of torch's exporters writes the graph.",
)
@click.option("--opset", type=int, help="Version of ONNX's operators.")
@click.option(
    "--input-name", "input_names", multiple=True, metavar="NAME", help="Name inputs, in order."
)
@click.option(
    "--output-name",
    "output_names",
    multiple=True,
    metavar="NAME",
    help="Name outputs, in order.",
)
@click.option(
    "--eval",
    "eval_mode",
    is_flag=True,
    help="Export a module in train mode as it is in eval mode.  [default: refuse it]",
)
@click.option("--fold/--no-fold", default=True, show_default=True, help="Fold affine maps.")
@click.option(
    "--verify/--no-verify",
    default=True,
    show_default=True,
    help="Judge the file by what torch computes, before it is written.",
)
@click.option(
    "--unfolded",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the model as it was before the fold, too.",
)
@click.option(
    "--certificate",
    type=click.Path(path_type=Path),
    metavar="C.json",
    help="Write down every fold as data, for `bnfold verify UNFOLDED OUT --certificate`.",
)
@external_data_option
@size_threshold_option
@click.option("--seed", default=0, show_default=True, help="Seed of inputs and noise.")
@report_option
@markdown_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
@kept_running
def command(
    target: str,
    output: Path,
    inputs: tuple[str, ...],
    weights: Path | None,
    certificate: Path | None,
    page: Path | None,
    markdown: str | None,
    as_json: bool,
    **choices: Unpack[_Choices],
) -> None:
    """Write the torch module that MODULE:CALLABLE returns as ONNX, folded and verified.

    The callable returns a torch.nn.Module in eval mode, or (module, args), or (module, args,
    kwargs). Modules beside the current folder are found.
    """
    from bnfold.cli.outputs import Outputs
    from bnfold.exporting.presence import require_torch
    from bnfold.files.replacing import write_text
    from bnfold.report.export_text import export_to_text
    from bnfold.report.to_json import export_document

    require_torch(choices["exporter"])
    if certificate is not None:
        _check_certificate(choices)
    models = {"-o": output, "--unfolded": choices["unfolded"]}
    outputs = Outputs(page, markdown, as_json, models, {"--certificate": certificate})
    outputs.check(_reads(target, weights))
    # What modules and exporters print is for people; stdout is for data.
    with contextlib.redirect_stdout(sys.stderr):
        result = _exported(
            target, inputs, weights, output, choices, certificate=certificate is not None
        )
    if certificate is not None and result.certificate is not None:
        write_text(certificate, result.certificate.to_json())
    document = export_document(result.report, result.pictures, target, str(output))
    outputs.write(document)
    say(export_to_text(result.report, target, output))


def _exported(
    target: str,
    inputs: tuple[str, ...],
    weights: Path | None,
    output: Path,
    choices: _Choices,
    *,
    certificate: bool,
) -> ExportResult:
    from bnfold.exporting.examples import drawn_arguments
    from bnfold.exporting.from_torch import export
    from bnfold.exporting.sources import current_folder_first, load_weights, source_named
    from bnfold.report.progress import progress

    # A module may import its neighbours as late as in its forward.
    with current_folder_first(), progress() as tell:
        tell("making the module")
        source = source_named(target)
        if weights is not None:
            load_weights(source.model, weights)
        args: Any = source.args
        kwargs: Any = source.kwargs
        if inputs:
            args, kwargs = drawn_arguments(source.model, inputs, choices["seed"])
        if args is None:
            message = f"{target} returns no example arguments: give --input NAME=SIZES"
            raise click.UsageError(message)
        return export(
            source.model,
            args,
            output,
            kwargs=kwargs,
            certificate=certificate,
            progress=tell,
            **choices,
        )


def _reads(target: str, weights: Path | None) -> Iterator[Read]:
    """Every file that is read, as far as it is known before the module runs."""
    from bnfold.files.apart import Read
    from bnfold.inputs.reads import reads_of_code

    yield from reads_of_code(target, target)
    if weights is not None:
        yield Read(weights, "--weights")


def _check_certificate(choices: _Choices) -> None:
    if not choices["fold"]:
        message = "--certificate writes down folds, and --no-fold makes none"
        raise click.UsageError(message)
    if choices["unfolded"] is None:
        message = "--certificate needs --unfolded FILE too: it is checked against that model"
        raise click.UsageError(message)
