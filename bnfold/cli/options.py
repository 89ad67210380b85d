"""Options that commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import click


class FoldChoices(TypedDict):
    """What `selection_options` adds to a command, spelled as `bnfold.fold` spells it."""

    only: tuple[str, ...]
    skip: tuple[str, ...]
    assume_constant_inputs: bool
    assume_inference: bool
    norms: bool
    requantize_bias: bool
    strict: bool


_Command = TypeVar("_Command", bound=Callable[..., object])

model_argument = click.argument("model", type=click.Path(path_type=Path), metavar="MODEL")

report_option = click.option(
    "--report",
    "page",
    type=click.Path(path_type=Path),
    metavar="R.html",
    help="Write a page that shows it all, in one file.",
)
markdown_option = click.option(
    "--markdown",
    metavar="FILE",
    help="Write a summary in Markdown, for a pull request or a log; - for stdout.",
)
shape_option = click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="NAME=SIZES",
    help="Check by inputs of this size: x=1x3x224x224, or a range: x=1..8x3x224x224"
    " (repeatable). What is folded holds at all sizes.",
)
max_time_option = click.option(
    "--max-time",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Time for all of the comparison; what shows most comes first."
    "  [default: verify 60; fold three times the fold, or 10, and 60 for a certificate]",
)


external_data_option = click.option(
    "--external-data",
    type=click.Choice(["keep", "one", "per-tensor", "inline"]),
    default="keep",
    show_default=True,
    help="Where weights go: as they lay before; one file beside the model; a file for each;"
    " into the model, as far as its 2 GB hold them.",
)
size_threshold_option = click.option(
    "--size-threshold",
    type=click.IntRange(min=0),
    metavar="BYTES",
    help="Tensors of fewer bytes go into the model.  [default: as they lay before; 1024]",
)


def given(**choices: Any) -> dict[str, Any]:
    """Return the options that the user gave; the call knows the defaults of the others."""
    return {name: choice for name, choice in choices.items() if choice not in (None, ())}


def percent(text: str) -> float:
    """Return a share, written as ``2%`` or ``0.02``, as a fraction."""
    number = text.strip()
    try:
        share = float(number.removesuffix("%")) / (100 if number.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        message = f"{text!r} is not a share such as 2% or 0.02"
        raise click.BadParameter(message)
    return share


_SELECTION = (
    click.option(
        "--only",
        multiple=True,
        metavar="PATTERN",
        help="Fold only sites whose operator or node name matches (wildcards; repeatable).",
    ),
    click.option(
        "--skip",
        multiple=True,
        metavar="PATTERN",
        help="Leave nodes alone whose operator or node name matches (wildcards; repeatable).",
    ),
    click.option(
        "--assume-constant-inputs",
        is_flag=True,
        help="Treat initializers that are also graph inputs as constants. Overriding them"
        " afterwards gives wrong results.",
    ),
    click.option(
        "--assume-inference",
        is_flag=True,
        help="Read normalisations exported in training mode by their running statistics.",
    ),
    click.option(
        "--norms",
        is_flag=True,
        help="Move the affine tails of layer, RMS, group and instance normalisations too.",
    ),
    click.option(
        "--requantize-bias",
        is_flag=True,
        help="Allow a bias stored as integers to be rounded to new integers.",
    ),
    click.option(
        "--strict",
        is_flag=True,
        help="Make a variance that is negative or not finite an error.  [default: leave that"
        " node, and say so]",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout."),
)


def selection_options(command: _Command) -> _Command:
    """Add the options that say what may be folded, and how to print it."""
    for option in reversed(_SELECTION):
        command = option(command)
    return command
