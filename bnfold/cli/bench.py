"""``bnfold bench``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnfold.cli.bounds import bound_options
from bnfold.cli.options import markdown_option, percent, report_option
from bnfold.cli.terminal import say
from bnfold.records import BenchReport, Case, Ending, Speed

if TYPE_CHECKING:
    from bnfold.files.apart import Read

_SLOWER = 1
_INTERRUPTED = 130
_JUDGED = "folded"


def _words(text: str) -> tuple[str, ...]:
    """Words between commas."""
    found = tuple(filter(None, (part.strip() for part in text.split(","))))
    if not found:
        message = "the list is empty"
        raise click.BadParameter(message)
    return found


def _sizes(text: str) -> tuple[int, ...]:
    """Whole numbers between commas, none below 1."""
    words = _words(text)
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        message = f"{text!r} is not a list of sizes such as 1,8,32"
        raise click.BadParameter(message)
    return tuple(map(int, words))


def _pair(text: str) -> tuple[str, str]:
    """``KEY=VALUE``."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        message = f"{text!r} is not KEY=VALUE"
        raise click.BadParameter(message)
    return key, value


@click.command(
    "bench",
    epilog="Exit codes: 0 measured; 1 slower than --fail-if-slower allows, or not measured"
    " where that was asked; 2 usage; 3 unusable model or inputs; 4 no runtime, or not the"
    " provider; 130 interrupted (the partial result is given).",
)
@click.argument("model", type=click.Path(path_type=Path), metavar="MODEL")
@click.argument("folded", type=click.Path(path_type=Path), metavar="[FOLDED]", required=False)
@click.argument("more", type=click.Path(path_type=Path), metavar="[MORE]...", nargs=-1)
@click.option(
    "--arms",
    type=_words,
    metavar="ARM[,ARM]...",
    default="original,folded,unfused",
    show_default=True,
    help="original, folded: as the runtime runs them; unfused: the original without the"
    " runtime's own BatchNorm fusions; plain, folded-plain: without any optimisation.",
)
@click.option(
    "--provider",
    default="cpu",
    show_default=True,
    help="cpu, cuda, tensorrt, or the runtime's own name.",
)
@click.option(
    "--provider-option",
    "provider_options",
    type=_pair,
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the provider (repeatable).",
)
@click.option("--batch", type=_sizes, metavar="1,8,32", help="Batch sizes.")
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="NAME=SIZES",
    help="Sizes of an input that the model leaves open: x=1x3x224x224 (repeatable).",
)
@click.option(
    "--inputs",
    metavar="DATA",
    help="Your own inputs: .npz, .npy or .pb, a folder of them, or module:callable.",
)
@click.option("--threads", default=0, help="Threads inside an operator.  [default: runtime's]")
@click.option(
    "--dtype",
    type=click.Choice(["model", "float16"]),
    default="model",
    show_default=True,
    help="float16 converts all models first.",
)
@click.option("--cuda-graph", is_flag=True, help="Replay a captured CUDA graph.")
@click.option("--prefer-nhwc", is_flag=True, help="Run the CUDA provider in NHWC.")
@click.option(
    "--precision",
    type=percent,
    default="1%",
    show_default=True,
    help="Stop when half the width of the interval is no more than this.",
)
@click.option(
    "--max-time",
    "max_time_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Stop after so long, whatever there is.  [default: 60 for each batch size, and as"
    " long as an interval takes]",
)
@click.option(
    "--details/--no-details",
    default=True,
    help="Also measure session creation, first call and memory, and look at the graph that"
    " runs.  [default: yes]",
)
@click.option("--seed", default=0, show_default=True, help="Seed of inputs and turns.")
@click.option(
    "--fail-if-slower",
    type=percent,
    metavar="2%",
    help="Exit with 1 if the folded model is slower than the original by more than this.",
)
@report_option
@markdown_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout: every sample.")
@bound_options
def command(
    model: Path,
    folded: Path | None,
    more: tuple[Path, ...],
    as_json: bool,
    page: Path | None,
    markdown: str | None,
    fail_if_slower: float | None,
    provider_options: tuple[tuple[str, str], ...],
    **choices: Any,
) -> int:
    """Measure FOLDED (or a fold of MODEL) against MODEL on ONNX Runtime.

    All arms take turns in random order, in several fresh processes, beside a second session
    of the original that must show no difference. Ends when the answer is precise enough.
    """
    from bnfold.benchmarked import benchmark
    from bnfold.cli.outputs import Outputs
    from bnfold.report.bench_text import bench_to_text
    from bnfold.report.progress import bar
    from bnfold.report.to_json import bench_document

    outputs = Outputs(page, markdown, as_json)
    outputs.check(_reads(model, folded, more, choices["inputs"]))
    if fail_if_slower is not None:
        if _JUDGED not in choices["arms"]:
            message = f"--fail-if-slower judges the arm {_JUDGED!r}: name it in --arms"
            raise click.UsageError(message)
        choices["precision"] = min(choices["precision"], max(fail_if_slower / 2, 0.001))
    with bar() as show:
        report = benchmark(
            model,
            folded,
            more=more,
            provider_options=dict(provider_options),
            progress=lambda stage: show(stage.doing, stage.done),
            **choices,
        )
    say(bench_to_text(report))
    outputs.write(bench_document(report, _command_line()))
    return _exit_code(report, fail_if_slower)


def _reads(
    model: Path, folded: Path | None, more: tuple[Path, ...], inputs: str | None
) -> Iterator[Read]:
    """Every file that is read."""
    from bnfold.inputs.reads import reads_of_inputs
    from bnfold.model.reads import reads_of_file

    yield from reads_of_file(model, "MODEL")
    for other in (*(() if folded is None else (folded,)), *more):
        yield from reads_of_file(other, "FOLDED")
    yield from reads_of_inputs(() if inputs is None else (inputs,), "--inputs")


def _command_line() -> str:
    """The command as it was typed, to be typed again."""
    return shlex.join(["bnfold", *sys.argv[1:]])


def _exit_code(report: BenchReport, limit: float | None) -> int:
    """0 when it was measured and no gate fell."""
    if any(case.ending is Ending.INTERRUPTED for case in report.cases) or not report.cases:
        return _INTERRUPTED
    return 0 if limit is None else max(_judge(case, limit) for case in report.cases)


def _judge(case: Case, limit: float) -> int:
    """Say what the gate has to say of a batch size; 1 if it is not passed."""
    where = "" if case.batch is None else f"batch {case.batch}: "
    found = [one for one in case.comparisons if one.arm == _JUDGED]
    if not found or found[0].verdict is Speed.NOT_MEASURED:
        why = case.failures.get(_JUDGED) or "give more --max-time"
        say(f"{where}whether it is slower was not measured: {why}")
        return _SLOWER
    one = found[0]
    if one.verdict is Speed.SLOWER and one.ratio > 1 + limit:
        say(f"{where}slower by more than {limit:.1%} ({one.ratio - 1:.1%})")
        return _SLOWER
    if one.high > 1 + limit:
        up_to = f"up to {one.high - 1:.1%} cannot be ruled out"
        say(f"{where}not shown slower than that; {up_to}")
    return 0
