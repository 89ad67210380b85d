"""The page of a fold: what moved where, what stayed and why, and what the check said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bnfold.records import Picture, Verdict
from bnfold.report import fold_tables, words
from bnfold.report.blocks import (
    Block,
    Bullets,
    Details,
    Drawing,
    Grid,
    Heading,
    Page,
    Section,
    Tile,
    folded_away,
    shortened,
    without_empty,
)
from bnfold.report.documents import FoldDocument, Made
from bnfold.report.drawing import draw_pair
from bnfold.report.encoding import encode
from bnfold.report.verify_page import check_blocks, verify_measured

_MOST_DRAWINGS: Final = 60
_MEASURED: Final = (
    "A map is what a node does when it multiplies by constants and adds constants, one for"
    " each channel. It is moved into the weights of its neighbours in float64 and rounded"
    " once, and only where the function stays the same.",
)


def fold_page(document: FoldDocument) -> Page:
    """Lay out a fold."""
    report, check = document.report, document.check
    answer, tone = _answer(document)
    said = [words.sentence(fold_tables.fold_said(report))]
    if document.cloned_bytes:
        grown = words.size(document.cloned_bytes)
        said.append(f"The model grew by {grown}: weights that others read too were copied.")
    if check is not None or report.steps:
        said.append(words.sentence(f"Check: {words.check_said(check)}"))
    sections = fold_sections(document)
    if check is not None:
        lead = "Both models were run on the same inputs; what differs is weighed, not assumed."
        blocks = check_blocks(check)
        sections += (Section("check", "Is it the same function?", blocks, lead),)
    warnings = (*document.warnings, *(() if check is None else check.warnings))
    return Page(
        title=f"{answer}: {document.model or 'a model'}",
        what="Fold",
        about=document.model or "a model in memory",
        answer=answer,
        tone=tone,
        sentences=tuple(said),
        tiles=tuple(_tiles(document)),
        why=(),
        warnings=warnings,
        sections=tuple(one for one in sections if one.blocks),
        measured=_MEASURED + (() if check is None else verify_measured(check)),
        made=made_said(document.made),
    )


def _answer(document: FoldDocument) -> tuple[str, str]:
    """What was done, in a few words; a check that failed comes before everything."""
    check = document.check
    if check is not None and check.verdict is Verdict.FAILED:
        return words.VERDICT[check.verdict], "bad"
    count = len(document.folded)
    if not count:
        return "nothing folded", "quiet"
    done = f"{words.counted(count, 'map')} folded"
    if check is None:
        return f"{done}, not checked", "quiet"
    if check.verdict is Verdict.NOT_JUDGED:
        return f"{done}, not judged", "warn"
    return f"{done}, {words.VERDICT[check.verdict]}", "good"


def _tiles(document: FoldDocument) -> list[Tile]:
    report = document.report
    before, after = fold_tables.batch_norms(report)
    nodes = [sum(counts.values()) for counts in (report.counts_before, report.counts_after)]
    tiles = [
        Tile("maps folded", str(len(report.steps)), f"{len(report.stays)} stay"),
        Tile("BatchNormalization", f"{before} → {after}", "nodes, before → after"),
        Tile("nodes in all", f"{nodes[0]} → {nodes[1]}", "before → after"),
    ]
    check = document.check
    worst = None if check is None else words.worst_output(check.outputs)
    if worst is not None:
        note = f"times its rounding noise; limit {worst.limit:g}"
        tiles.append(Tile("difference", words.digits(worst.ratio), note))
    return tiles


def fold_sections(document: FoldDocument) -> tuple[Section, ...]:
    """What moved, what stayed, and the nodes before and after."""
    report = document.report
    moved: tuple[Block | None, ...] = (
        *_pictures(document),
        folded_away(fold_tables.steps_table(report.steps)),
    )
    counts: tuple[Block | None, ...] = (
        fold_tables.operators_table(report),
        folded_away(fold_tables.all_operators_table(report)),
        folded_away(fold_tables.normalisations_table(report)),
    )
    found = (
        Section("moved", "What moved where?", without_empty(moved)),
        Section("stayed", "What stayed, and why?", without_empty(_stayed(document))),
        Section("nodes", "Nodes before and after", without_empty(counts)),
    )
    return tuple(one for one in found if one.blocks)


def _stayed(document: FoldDocument) -> list[Block]:
    """A part for each reason: its sentence, what can be done, and the maps it stopped."""
    blocks: list[Block] = []
    for code, found in fold_tables.refusals_by_code(document.report).items():
        refusal = found[0][1]
        told = [words.sentence(refusal.why)]
        told += (
            [f"What you can do: {words.sentence(refusal.remedy)}"] if refusal.remedy else []
        )
        table = shortened(fold_tables.refusal_table(f"Stopped by {code}", found))
        count = words.counted(len(found), "map")
        shown = Details("Which, and where", (table,), count)
        blocks += [Heading(f"{code.replace('-', ' ')} ({count})"), Bullets(tuple(told)), shown]
    return blocks


def _pictures(document: FoldDocument) -> list[Block]:
    """One drawing for each pattern, and the others of its kind behind a click."""
    groups: dict[str, list[Picture]] = {}
    for picture in document.pictures:
        groups.setdefault(picture.pattern, []).append(picture)
    left = _MOST_DRAWINGS - len(groups)
    blocks: list[Block] = []
    for found in groups.values():
        if len(blocks) >= _MOST_DRAWINGS:
            break
        blocks.append(_drawing(document, found[0]))
        if len(found) > 1:
            drawn = found[1 : 1 + max(left, 0)]
            left -= len(drawn)
            blocks.append(_alike(document, found, drawn))
    return blocks


def _drawing(document: FoldDocument, picture: Picture) -> Drawing:
    return Drawing(draw_pair(encode(picture)), _said(document, picture))


def _said(document: FoldDocument, picture: Picture) -> str:
    if not 0 <= picture.step < len(document.folded):
        return ""
    return fold_tables.step_said(document.folded[picture.step])


def _alike(
    document: FoldDocument, found: Sequence[Picture], drawn: Sequence[Picture]
) -> Details:
    """The others of one pattern: drawn as far as the page bears it, then named."""
    named = tuple(_said(document, one) for one in found[1 + len(drawn) :])
    grid = Grid(tuple(_drawing(document, one) for one in drawn))
    blocks = without_empty((grid, Bullets(named)))
    return Details("The same pattern elsewhere", blocks, f"×{len(found)}")


def made_said(made: Made) -> str:
    """Say who made a document, and when."""
    when = made.date.replace("T", " ").replace("+00:00", " UTC")
    return f"bnfold {made.bnfold}, Python {made.python}, {when}"
