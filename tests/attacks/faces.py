"""Readers of what commands show: what must not be in it, and how it is built."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from unittest.mock import patch

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from bnfold.cli.main import main

UNSAFE = re.compile(
    r"[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u200b-\u200f\u2028-\u202e"
    r"\u2060-\u206f\u3164\ufeff\uffa0\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Written down again, not taken from the package: controls but the line feed, zero-width and
bidirectional ones, half surrogates."""

SGR = re.compile(r"\x1b\[[0-9;]*m")
"""What a terminal's colours are made of."""

EMPTY = frozenset({"meta", "link", "br", "hr", "img", "input"})


@dataclass(frozen=True)
class Done:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str


def run(*arguments: str | Path) -> Done:
    """The command line inside this process, without a runtime unless it asks for one."""
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.object(sys, "argv", ["bnfold", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return Done(int(ended.value.code or 0), out.getvalue(), err.getvalue())


def assert_safe(*texts: str) -> None:
    """Nothing that acts on a terminal, reorders text or hides."""
    for text in texts:
        found = UNSAFE.search(text)
        assert found is None, (
            f"{found.group()!r} in {text[max(found.start() - 80, 0) :][:200]!r}"
        )


class Elements(HTMLParser):
    """Reads a page strictly, as tags with the names of their attributes; plots apart."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.built: list[tuple[str, ...]] = []
        self.in_plots: set[tuple[str, ...]] = set()
        self.open: list[str] = []
        self.text = ""
        self.plots = 0

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), f"{tag} has an attribute twice"
        if tag == "svg" and dict(attrs).get("class") == "plot":
            self.plots = len(self.open) + 1
        told = (tag, *sorted(names))
        self.in_plots.add(told) if self.plots else self.built.append(told)
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in EMPTY:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes something else"
        if len(self.open) < self.plots:
            self.plots = 0

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data!r}")

    def handle_data(self, data):
        self.text += data


def elements(page: str) -> Elements:
    """Read a page."""
    found = Elements()
    found.feed(page)
    found.close()
    assert found.open == []
    return found


def built_alike(page: str, tame: str, *, in_order: bool = True) -> None:
    """Same elements, same attributes; in plots, whose ticks depend on the room, no others."""
    found, expected = elements(page), elements(tame)
    kept = list if in_order else sorted
    assert kept(found.built) == kept(expected.built)
    assert found.in_plots <= expected.in_plots


_MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def blocks(markdown: str) -> list[str]:
    """What Markdown is made of: the kinds of its tokens, text joined."""
    found: list[str] = []
    for token in _MARKDOWN.parse(markdown):
        inner = [one.type for one in token.children or () if one.type != "text"]
        found += [token.type, *inner]
    return found


def shown_by_markdown(markdown: str) -> str:
    """What a reader of one paragraph sees, who does not see a word joiner."""
    (_, inline, _) = _MARKDOWN.parse(markdown)
    return _plain(inline)


def cells(markdown: str) -> list[str]:
    """What a reader of one table sees in its cells."""
    found = _MARKDOWN.parse(markdown)
    assert {one.tag for one in found} <= {"table", "thead", "tbody", "tr", "th", "td", ""}
    return [_plain(one) for one in found if one.type == "inline"]


def _plain(inline: Token) -> str:
    kinds = {one.type for one in inline.children or ()}
    assert kinds <= {"text", "text_special"}, kinds
    return "".join(one.content for one in inline.children or ()).replace("\u2060", "")


def all_texts(document: object) -> set[str]:
    """Every text in JSON, keys too."""
    if isinstance(document, str):
        return {document}
    if isinstance(document, dict):
        return set(document).union(*map(all_texts, document.values()))
    if isinstance(document, list):
        return set().union(*map(all_texts, document))
    return set()


def loaded(text: str) -> dict:
    """Read a document from what was printed."""
    return json.loads(text)
