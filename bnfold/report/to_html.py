"""A page from a document alone: one file, readable offline, without a script."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from bnfold.report.bench_page import bench_page
from bnfold.report.blocks import Page, column_title, is_number_column, text_of
from bnfold.report.canvas import require
from bnfold.report.documents import (
    BenchDocument,
    Document,
    ExportDocument,
    FoldDocument,
    VerifyDocument,
    kind_of,
)
from bnfold.report.drawing import DRAWING_CSS
from bnfold.report.encoding import decode
from bnfold.report.export_page import export_page
from bnfold.report.fold_page import fold_page
from bnfold.report.verify_page import verify_page
from bnfold.safe_text import for_html, visible, visible_document

_TEMPLATES: Final = Path(__file__).parent / "templates"


def to_html(document: Mapping[str, Any]) -> str:
    """Return a report as a page.

    Args:
        document: A document of `to_json`, perhaps read from a file.

    Raises:
        UsageError: If it is none.
        MissingDependencyError: If Jinja2 or matplotlib is not installed.
    """
    require("jinja2")
    require("matplotlib")
    template = _environment().get_template("page.html.j2")
    style = f"{(_TEMPLATES / 'style.css').read_text(encoding='utf-8')}{DRAWING_CSS}"
    page = _page(kind_of(document), visible_document(document))
    return str(template.render(page=page, style=style, policy=_policy(style)))


def _policy(style: str) -> str:
    """Return what a page may load and run: its own style sheet, and an icon that is empty."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )


def _page(kind: type[Document], document: Mapping[str, Any]) -> Page:
    match decode(kind, document):
        case BenchDocument() as read:
            return bench_page(read)
        case FoldDocument() as read:
            return fold_page(read)
        case VerifyDocument() as read:
            return verify_page(read)
        case ExportDocument() as read:
            return export_page(read)


def _together(text: str) -> Any:
    """Keep a number and its unit in one line; what comes out is HTML."""
    said = re.sub(r"(\d|batch) (?=%|ms\b|[kMG]?B\b|\d)", "\\1\u00a0", for_html(text))
    return require("markupsafe").Markup(said)


def _seen(entry: object) -> object:
    """Make plain text visible that a template puts in; what is HTML was made safe before."""
    is_plain = isinstance(entry, str) and not hasattr(entry, "__html__")
    return visible(str(entry)) if is_plain else entry


@cache
def _environment() -> Any:
    jinja2 = require("jinja2")
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        finalize=_seen,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["text"] = text_of
    made.filters["together"] = _together
    made.filters["column"] = column_title
    made.tests["number_column"] = is_number_column
    return made
