"""The page of an export: how far it is from torch, and all that the fold's own page shows."""

from __future__ import annotations

from bnfold.report import export_tables, words
from bnfold.report.blocks import Block, Page, Section, Tile, without_empty
from bnfold.report.documents import ExportDocument
from bnfold.report.fold_page import fold_sections, made_said
from bnfold.report.verify_page import check_blocks

_MEASURED = (
    "The torch module and the exported model run on the same inputs: the user's own, drawn"
    " ones like them, and other sizes where sizes are open. The error of both is taken against"
    " the module in float64; the model's must be explained by the module's own and by what"
    " half-ulp changes of its numbers do.",
)


def export_page(document: ExportDocument) -> Page:
    """Lay out an export."""
    report, found = document.report, document.report.verification
    answer, tone = export_tables.export_answer(report)
    said = tuple(words.sentence(one) for one in export_tables.export_said(document))
    ports: tuple[Block, ...] = without_empty((export_tables.ports_table(report),))
    sections = (
        *(() if document.fold is None else fold_sections(document.fold)),
        Section("interface", "What goes in, and what comes out?", ports),
    )
    if found is not None:
        lead = "The original is the torch module, the folded model is the file."
        blocks = check_blocks(found)
        sections = (
            Section("torch", "Does it compute what torch does?", blocks, lead),
            *sections,
        )
    return Page(
        title=f"{answer}: {document.source or report.module}",
        what="Export",
        about=document.source or report.module,
        answer=answer,
        tone=tone,
        sentences=said,
        tiles=tuple(_tiles(document)),
        why=(),
        warnings=(*report.warnings, *(() if found is None else found.warnings)),
        sections=tuple(one for one in sections if one.blocks),
        measured=() if found is None else _MEASURED,
        made=made_said(document.made),
    )


def _tiles(document: ExportDocument) -> list[Tile]:
    tiles = []
    if document.fold is not None:
        fold = document.fold.report
        tiles.append(Tile("maps folded", str(len(fold.steps)), f"{len(fold.stays)} stay"))
    found = document.report.verification
    worst = None if found is None else words.worst_output(found.outputs)
    if worst is not None:
        note = f"times what explains it; limit {worst.limit:g}"
        tiles.append(Tile("error", words.digits(worst.ratio), note))
    return tiles
