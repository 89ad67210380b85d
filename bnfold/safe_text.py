r"""Text that others wrote, made safe for what shows it: a terminal, Markdown, HTML, JSON.

The names in a model are free text. ``\x1b]0;`` renames a window, a line feed forges a line of
a report, U+202E turns what follows around, ``|`` splits a row of a table. Each face has one
function here, and whatever shows text calls it; errors do so themselves. Only JSON is exact:
the others spell out what cannot be seen, and shorten what is too long to read.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, Final

LONGEST_WORD: Final = 256
"""Of what no space parts: names and paths. Longer than what tools make, and three lines."""

LONGEST_LINE: Final = 4096
"""Of a sentence, a cell, a line: about what a screen holds."""

_MOST_MARKS: Final = 4
"""Accents on one letter: languages need up to three; a pile of them runs over other lines."""

_BLANK: Final = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
).union(map(chr, range(0xFE00, 0xFE10)), map(chr, range(0xE0100, 0xE01F0)))
"""Letters and marks of which nothing is seen, though Python calls them printable: Unicode's
Default_Ignorable_Code_Point, and the empty cell of Braille."""

_MARKS: Final = ("Mn", "Me")
_LONG_WORD: Final = re.compile(rf"[^ ]{{{LONGEST_WORD + 1},}}")
_BYTES: Final = re.compile("[\udc80-\udcff]+")
"""Bytes of a file name that Python could not decode, as it hands them on (PEP 383)."""
_NOT_ASCII: Final = re.compile(r"[^\x00-\x7e]")

_ENTITIES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_MARKUP: Final = re.compile(r"[\\`*_\[\]|$~#^]")
_BEGINS_A_BLOCK: Final = re.compile(
    r"[-+](?=\s|$)|[-=]+(?=\s*$)|(?P<number>\d{1,9})(?=[.)](?:\s|$))"
)
"""Bullets, rules, underlines of headings and numbered lists; the others begin with markup."""

_LINKS: Final = re.compile(
    r"(?<=:)(?=//)|:(?=[\w+-]+:)|(?<![a-z0-9])www(?=\.)|@|\bgh-(?=\d)|\\#(?=\d)",
    re.IGNORECASE,
)
"""Where GitHub begins to see an address, an emoji's name, a mention of somebody, an issue."""

_JOINER: Final = "&#8288;"
"""A word joiner: nothing is seen of it, but what it parts is no link."""


class Shown(str):
    """Text whose lines were made safe: whatever prints may print it as it is."""

    __slots__ = ()


def visible(text: str) -> str:
    r"""Return text as one line in which everything is seen: ``\x1b`` for an escape character.

    What is printable stays, wide letters and accents too; the rest is written as Python writes
    it, and bytes of file names that make no letter as bytes. Long names lose their middle, and
    so do long lines. A second time changes nothing.

    Args:
        text: Anything, half a surrogate pair too.
    """
    text = _bounded(_BYTES.sub(_decoded, text))
    if not (text.isascii() and text.isprintable()):
        text = _bounded("".join(_spelled(text)))
    return text


def shown_lines(parts: Iterable[str]) -> Shown:
    """Return lines, each made visible: whatever stands in one makes no other."""
    return Shown("\n".join(for_terminal(part) for part in parts))


def for_terminal(text: str) -> str:
    """Return text that a terminal may be given; what is not made of lines here is one line."""
    return text if isinstance(text, Shown) else visible(text)


def for_html(text: str) -> str:
    """Return text for HTML, XML and SVG, between tags or in an attribute in quotes."""
    return html.escape(visible(text))


def for_markdown(text: str) -> str:
    """Return text that Markdown shows as it is, in one line.

    What GitHub links without being asked is parted by a character that is not seen: addresses,
    @mentions, #issues. Spaces are joined, as Markdown itself does.
    """
    line = " ".join(visible(text).split())
    line = re.sub("[&<>]", lambda found: _ENTITIES[found.group()], line)
    line = _MARKUP.sub(lambda found: f"\\{found.group()}", line)
    line = _LINKS.sub(lambda found: found.group() + _JOINER, line)
    begun = _BEGINS_A_BLOCK.match(line)
    if begun is None:
        return line
    number = begun["number"] or ""
    return f"{number}\\{line[len(number) :]}"


def for_json(serialised: str) -> str:
    r"""Return JSON that means exactly the same, and in which everything is seen.

    Half a surrogate pair, which UTF-8 cannot hold, becomes ``\udc80`` too.

    Args:
        serialised: What ``json.dumps`` wrote: beyond ASCII it has strings only.
    """
    return _NOT_ASCII.sub(
        lambda found: found.group() if _is_seen(found.group()) else _as_json(found), serialised
    )


def for_json_in_ascii(serialised: str) -> str:
    """Return JSON that means exactly the same, for a terminal that knows no other letters."""
    return _NOT_ASCII.sub(_as_json, serialised)


def one_line(message: str) -> str:
    """Return what a library says in several lines as one: its line breaks mean nothing."""
    return " ".join(message.split())


def visible_document(document: Mapping[str, Any]) -> dict[str, Any]:
    r"""Return a document (dicts, lists, numbers, text) with all its text visible.

    Names that would look alike are kept apart: of the operators ``a\x1b`` (two characters) and
    ``a\\x1b`` (five), the second gets a number behind it, and a table has a row for each.
    """
    made: dict[str, Any] = _VisibleText()(document)
    return made


class _VisibleText:
    """Makes text visible, different text in different ways."""

    def __init__(self) -> None:
        self._shown: dict[str, str] = {}
        self._taken: set[str] = set()
        self._count: dict[str, int] = {}

    def __call__(self, entry: Any) -> Any:
        if isinstance(entry, str):
            return self._of(entry)
        if isinstance(entry, Mapping):
            return {self._of(str(key)): self(value) for key, value in entry.items()}
        if isinstance(entry, list | tuple):
            return [self(value) for value in entry]
        return entry

    def _of(self, text: str) -> str:
        if text not in self._shown:
            shown = seen = visible(text)
            while shown in self._taken:
                self._count[seen] = self._count.get(seen, 1) + 1
                shown = f"{seen} ({self._count[seen]})"
            self._taken.add(shown)
            self._shown[text] = shown
        return self._shown[text]


def _is_seen(letter: str) -> bool:
    return letter.isprintable() and letter not in _BLANK


def _decoded(found: re.Match[str]) -> str:
    r"""Read bytes as UTF-8, as nearly every name is; write what is none as ``\xff``.

    A locale of ASCII leaves all letters of a name as bytes, beside which it can be read.
    """
    return found.group().encode(errors="surrogateescape").decode(errors="backslashreplace")


def _spelled(text: str) -> Iterable[str]:
    """Yield letters, and in Python's spelling those that are not seen or pile up."""
    pile = 0
    for letter in text:
        is_mark = not letter.isascii() and unicodedata.category(letter) in _MARKS
        pile = pile + 1 if is_mark else 0
        if _is_seen(letter) and pile <= _MOST_MARKS:
            yield letter
        else:
            yield letter.encode("unicode_escape").decode("ascii")


def _bounded(text: str) -> str:
    """Shorten words, then the line; where that joins two words, the new one too."""
    if len(text) <= LONGEST_WORD:
        return text
    text = _without_middle_words(text)
    if len(text) > LONGEST_LINE:
        text = _without_middle_words(_without_middle(text, LONGEST_LINE))
    return text


def _without_middle_words(text: str) -> str:
    return _LONG_WORD.sub(lambda found: _without_middle(found.group(), LONGEST_WORD), text)


def _without_middle(text: str, most: int) -> str:
    """Take the middle out: names tell most at their ends."""
    tail = (most - 1) // 2
    return f"{text[: most - 1 - tail]}…{text[-tail:]}"


def _as_json(found: re.Match[str]) -> str:
    r"""Write a letter as ``\uXXXX``; beyond U+FFFF as two of them (RFC 8259, section 7)."""
    code = ord(found.group())
    if code < 0x10000:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
