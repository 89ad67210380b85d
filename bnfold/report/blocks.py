"""What a page is made of, before it is HTML: sections of paragraphs, tables, figures.

Every text here is plain; whatever shows it escapes it. Only `Figure` and `Drawing` carry
markup, which `plots` and `drawing` made safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

MOST_ROWS: Final = 300
"""Of one table in a page."""


@dataclass(frozen=True, slots=True)
class Cell:
    """An entry of a table.

    Attributes:
        text: What it says.
        tone: ``"good"``, ``"bad"``, ``"warn"`` or ``"quiet"``; empty for none of them.
    """

    text: str
    tone: str = ""


Entry = str | Cell


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        title: What it shows, in a few words; its caption.
        head: Names of the columns; one that begins with ``#`` holds numbers.
        rows: Its rows.
        note: What else is to be said, below it.
    """

    kind: ClassVar[str] = "table"
    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Prose:
    """Paragraphs."""

    kind: ClassVar[str] = "prose"
    paragraphs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Bullets:
    """A list of sentences; `tone` as in `Cell`."""

    kind: ClassVar[str] = "bullets"
    items: tuple[str, ...]
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Code:
    """Text to be copied."""

    kind: ClassVar[str] = "code"
    text: str


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot.

    Attributes:
        svg: Its drawing, safe to stand in a page.
        title: What it shows, in a few words.
        caption: How to read it.
    """

    kind: ClassVar[str] = "figure"
    svg: str
    title: str
    caption: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """A drawing of a graph: safe HTML, and the words below it."""

    kind: ClassVar[str] = "drawing"
    html: str
    caption: str


@dataclass(frozen=True, slots=True)
class Grid:
    """Blocks side by side where there is room."""

    kind: ClassVar[str] = "grid"
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Details:
    """Blocks that open on a click."""

    kind: ClassVar[str] = "details"
    summary: str
    blocks: tuple[Block, ...]
    count: str = ""


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading below that of a section."""

    kind: ClassVar[str] = "heading"
    text: str


Block = Table | Prose | Bullets | Code | Figure | Drawing | Grid | Details | Heading


@dataclass(frozen=True, slots=True)
class Tile:
    """A number that stands out, what it is, and what it means."""

    label: str
    number: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page under a heading; `key` names it in the address bar."""

    key: str
    title: str
    blocks: tuple[Block, ...]
    lead: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """A page.

    Attributes:
        title: Name of the window.
        what: What kind of report it is.
        about: What it is about: the models.
        answer: The answer in a few words.
        tone: As in `Cell`.
        sentences: The answer in sentences, the most telling first.
        tiles: The numbers that matter most.
        why: What explains the answer.
        warnings: What the reader should know.
        sections: The rest.
        measured: How it was found, for the foot of the page.
        made: When and by what it was made.
    """

    title: str
    what: str
    about: str
    answer: str
    tone: str
    sentences: tuple[str, ...]
    tiles: tuple[Tile, ...]
    why: tuple[str, ...]
    warnings: tuple[str, ...]
    sections: tuple[Section, ...]
    measured: tuple[str, ...]
    made: str


def text_of(entry: Entry) -> str:
    """Return what an entry of a table says."""
    return entry.text if isinstance(entry, Cell) else entry


def is_number_column(name: str) -> bool:
    """Return whether a column of this name holds numbers."""
    return name.startswith("#")


def column_title(name: str) -> str:
    """Return the name of a column as it is shown."""
    return name.removeprefix("#")


def shortened(table: Table) -> Table:
    """Return a table with no more rows than a page can bear; the document has them all."""
    if len(table.rows) <= MOST_ROWS:
        return table
    note = f"{len(table.rows) - MOST_ROWS} more are in the JSON. {table.note}".strip()
    return Table(table.title, table.head, table.rows[:MOST_ROWS], note)


def folded_away(table: Table) -> Details | None:
    """Return a table that opens on a click; nothing if it has no rows."""
    if not table.rows:
        return None
    return Details(table.title, (shortened(table),), str(len(table.rows)))


def without_empty(blocks: Sequence[Block | None]) -> tuple[Block, ...]:
    """Return the blocks that are there and have something in them."""
    return tuple(one for one in blocks if one is not None and not _is_empty(one))


def _is_empty(block: Block) -> bool:
    match block:
        case Table(rows=found):
            return not found
        case Grid(blocks=found) | Details(blocks=found):
            return not found
        case Bullets(items=found) | Prose(paragraphs=found):
            return not found
        case Code() | Figure() | Drawing() | Heading():
            return False
