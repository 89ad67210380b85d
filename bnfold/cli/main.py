"""The ``bnfold`` command: loads only what a subcommand needs, turns errors to text."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import sys
import traceback
from typing import Final

import click

from bnfold import __version__
from bnfold.cli.allocator import keep_freed_memory
from bnfold.cli.signals import Ending
from bnfold.cli.terminal import prepare, say, say_misuse
from bnfold.errors import BnfoldError, refused_by_disk
from bnfold.safe_text import one_line, shown_lines

_COMMANDS: Final = {
    "fold": "Fold affine maps into neighbouring weights and check the result.",
    "verify": "Judge whether two models compute the same function.",
    "bench": "Measure what a fold buys on this machine.",
    "inspect": "List every map: where it would go, or what stops it.",
    "export": "Write a torch module as ONNX, folded, and verified against torch.",
}
_UNUSABLE: Final = 3
_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _LazyGroup(click.Group):
    """A group whose commands are imported when they are called, and described without."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  click's signature
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"bnfold.cli.{cmd_name}")
        command = module.command
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  click's signature
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 the answer is no, 2 usage, 3 unusable input, 4 something is"
    " missing on this machine.",
)
@click.version_option(__version__, prog_name="bnfold")
def cli() -> None:
    """Fold per-channel affine maps (BatchNorm, Mul/Add chains) of ONNX models into weights."""


def main() -> None:
    """Run the command line and exit with its code."""
    ending = Ending()
    prepare()
    keep_freed_memory()
    try:
        with ending.like_ctrl_c():
            code = cli.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Abort:
        with contextlib.suppress(OSError):  # the terminal may be gone
            say("interrupted")
        sys.exit(ending.exit_code)
    except click.ClickException as error:
        say_misuse(error)
        sys.exit(error.exit_code)
    except BnfoldError as error:
        say(error.shown("error: "))
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:  # noqa: BLE001 (whatever it is, the user is told in words)
        if os.environ.get("BNFOLD_DEBUG"):
            say(shown_lines(traceback.format_exc().split("\n")))
        say(_unexpected(error).shown("error: "))
        sys.exit(_UNUSABLE)


def _unexpected(error: Exception) -> BnfoldError:
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        return refused_by_disk(error)
    return BnfoldError(
        "bnfold met something it does not know how to handle; nothing was written",
        where=" ".join(sys.argv[1:]),
        why=one_line(f"{type(error).__name__}: {error}"),
        remedy="please report it with the model; BNFOLD_DEBUG=1 shows the traceback",
    )
