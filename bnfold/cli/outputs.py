"""Where a command's documents go: a page, Markdown, JSON on stdout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bnfold.cli.terminal import print_json, print_text


def check_outputs(page: Path | None, markdown: str | None) -> None:
    """Find out before the work whether its results could be written.

    Raises:
        OutputError: If a file could not be written.
        MissingDependencyError: If a page is asked for and what draws it is not installed.
    """
    from bnfold.model.save import check_writable
    from bnfold.report.canvas import require

    if page is not None:
        require("jinja2")
        require("matplotlib")
        check_writable(page)
    if markdown is not None and markdown != "-":
        check_writable(markdown)


def write_outputs(
    document: Mapping[str, Any], page: Path | None, markdown: str | None, *, as_json: bool
) -> None:
    """Write a document wherever the user wants it, what is hardest to make last.

    Raises:
        OutputError: If a file cannot be written.
    """
    from bnfold.model.save import write_text
    from bnfold.report.to_html import to_html
    from bnfold.report.to_json import to_json
    from bnfold.report.to_markdown import to_markdown

    if as_json:
        print_json(to_json(document))
    if markdown == "-":
        print_text(to_markdown(document))
    elif markdown is not None:
        write_text(markdown, to_markdown(document))
    if page is not None:
        write_text(page, to_html(document))
