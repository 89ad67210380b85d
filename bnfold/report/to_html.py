"""A page from a document alone: one file, readable offline, without a script."""

from __future__ import annotations

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
    return str(template.render(page=_page(document), drawing_css=DRAWING_CSS))


def _page(document: Mapping[str, Any]) -> Page:
    match decode(kind_of(document), document):
        case BenchDocument() as read:
            return bench_page(read)
        case FoldDocument() as read:
            return fold_page(read)
        case VerifyDocument() as read:
            return verify_page(read)
        case ExportDocument() as read:
            return export_page(read)


def _together(text: str) -> str:
    """Keep a number and its unit in one line."""
    return re.sub(r"(\d|batch) (?=%|ms\b|[kMG]?B\b|\d)", "\\1\u00a0", text)


@cache
def _environment() -> Any:
    jinja2 = require("jinja2")
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["text"] = text_of
    made.filters["together"] = _together
    made.filters["column"] = column_title
    made.tests["number_column"] = is_number_column
    return made
