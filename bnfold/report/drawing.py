"""Draw the graph around a fold: an inline SVG, and two of them as before and after.

The drawings are made of the plain data of a report (`bnfold.records.Patch` as JSON). Colours
are CSS classes only: a page defines the variables that `DRAWING_CSS` uses, for light and dark.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from markupsafe import Markup

from bnfold.records import Role
from bnfold.report.patch_canvas import STAYS, WORDS, Canvas, number
from bnfold.safe_text import for_html

DRAWING_CSS: Final = """
.fold-pair { display: flex; flex-wrap: wrap; gap: 0.75rem 1.5rem; align-items: flex-start; }
.fold-pair figure { flex: 1 1 auto; min-width: min(100%, 18rem); max-width: 100%; margin: 0;
  overflow-x: auto; }
.fold-pair figcaption { color: var(--faint); font-size: 0.8125rem; margin-bottom: 0.25rem; }
.fold-key { display: flex; flex-wrap: wrap; gap: 0.25rem 1rem; margin: 0.25rem 0 0;
  flex-basis: 100%; padding: 0; list-style: none; color: var(--faint); font-size: 0.8125rem; }
.fold-key li::before { content: ""; display: inline-block; width: 0.8em; height: 0.8em;
  margin-right: 0.4em; border: 2px solid var(--line); border-radius: 3px;
  vertical-align: -0.05em; }
.fold-key .site::before { border: 2px dashed var(--site); }
.fold-key .stays::before { border-style: solid; }
.fold-key .absorbed::before { border-color: var(--absorbed); background: var(--absorbed); }
.fold-key .passed::before { border-color: var(--passed); }
.fold-key .changed::before { border-color: var(--changed); }
.fold-key .gone::before { border: 2px dashed var(--faint); }
.fold-graph { display: block; max-width: 100%; height: auto; margin: 0 auto; }
.fold-graph.wide { max-width: none; }
.fold-graph text { fill: var(--ink); font-size: 11px; text-anchor: middle; }
.fold-graph .kind { font-size: 13px; font-weight: 600; }
.fold-graph .name { fill: var(--faint); }
.fold-graph .box rect { fill: var(--paper); stroke: var(--line); stroke-width: 1.25; }
.fold-graph .box .tint { stroke: none; fill-opacity: 0; }
.fold-graph .site rect { stroke: var(--site); stroke-width: 2; stroke-dasharray: 6 4; }
.fold-graph .site .kind { fill: var(--site); text-decoration: line-through; }
.fold-graph .stays rect { stroke-dasharray: none; }
.fold-graph .stays .kind { text-decoration: none; }
.fold-graph .absorbed rect { stroke: var(--absorbed); stroke-width: 2.5; }
.fold-graph .absorbed .tint { fill: var(--absorbed); fill-opacity: 0.16; }
.fold-graph .passed rect { stroke: var(--passed); stroke-width: 2; }
.fold-graph .changed rect { stroke: var(--changed); stroke-width: 2; }
.fold-graph .changed .tint { fill: var(--changed); fill-opacity: 0.12; }
.fold-graph .gone rect { stroke: var(--faint); stroke-dasharray: 6 4; }
.fold-graph .gone .kind { fill: var(--faint); text-decoration: line-through; }
.fold-graph .wire { fill: none; stroke: var(--faint); stroke-width: 1.5; }
.fold-graph .wire.far { stroke-dasharray: 2 4; }
.fold-graph .tip { fill: var(--faint); }
.fold-graph .label { fill: var(--faint); paint-order: stroke; stroke: var(--paper);
  stroke-width: 4px; stroke-linejoin: round; }
.fold-graph .at-side { text-anchor: start; }
.fold-graph .move { fill: none; stroke: var(--site); stroke-width: 2; stroke-dasharray: 6 4; }
.fold-graph .move-tip { fill: var(--site); }
"""
"""What a page must say for the drawings; it defines the variables itself."""

_WIDEST: Final = 380.0
"""A drawing that is wider keeps its size and scrolls: shrunk, it could not be read."""


def draw(
    patch: Mapping[str, Any], label: str = "", staying: Collection[str] = frozenset()
) -> Markup:
    """Return the drawing of a patch as an SVG element.

    Args:
        patch: A `bnfold.records.Patch` as JSON.
        label: What it shows, in words, for those who do not see it.
        staying: Names of boxes that are still there after the fold.
    """
    canvas = Canvas.of(patch)
    parts = [*canvas.moves(), *canvas.wires(), *canvas.boxes(frozenset(staying))]
    x, y, width, height = canvas.frame()
    size = f'width="{number(width)}" height="{number(height)}"'
    frame = " ".join(number(n) for n in (x, y, width, height))
    shape = "fold-graph wide" if width > _WIDEST else "fold-graph"
    said = for_html(label or _in_words(patch))
    return Markup(
        f'<svg xmlns="http://www.w3.org/2000/svg" class="{shape}" role="img"'
        f' aria-label="{said}" {size} viewBox="{frame}">{"".join(parts)}</svg>'
    )


def draw_pair(picture: Mapping[str, Any]) -> Markup:
    """Return before and after of a picture: side by side, or stacked on a narrow page.

    Args:
        picture: A `bnfold.records.Picture` as JSON.
    """
    before, after = picture["before"], picture["after"]
    staying = {box["name"] for box in after["boxes"]}
    figures = (
        _figure("before", before, draw(before, f"Before: {_in_words(before)}", staying)),
        _figure("after", after, draw(after, f"After: {_in_words(after)}")),
    )
    key = _key(before, after, staying)
    return Markup(f'<div class="fold-pair">{"".join(figures)}{key}</div>')


def _figure(title: str, patch: Mapping[str, Any], drawing: str) -> str:
    hidden = patch.get("hidden", 0)
    nodes = "node" if hidden == 1 else "nodes"
    more = f" ({hidden} more {nodes} not drawn)" if hidden else ""
    if not patch["boxes"]:
        more, drawing = ": nothing is left", ""
    return f"<figure><figcaption>{title}{more}</figcaption>{drawing}</figure>"


def _key(before: Mapping[str, Any], after: Mapping[str, Any], staying: Collection[str]) -> str:
    """Say what the boxes mean, in the order of the roles."""
    boxes = [*before["boxes"], *after["boxes"]]
    entries: list[str] = []
    for role, words in WORDS.items():
        names = [box["name"] for box in boxes if box["role"] == role]
        if role is Role.SITE and names and all(name in staying for name in names):
            entries.append(f'<li class="site stays">{STAYS}</li>')
        elif names:
            entries.append(f'<li class="{role.value}">{words}</li>')
    return f'<ul class="fold-key">{"".join(entries)}</ul>' if entries else ""


def _in_words(patch: Mapping[str, Any]) -> str:
    """Return what a patch shows, e.g. ``BatchNormalization bn1 moves into Conv conv1``."""
    named = {
        role: _listed([box for box in patch["boxes"] if box["role"] == role]) for role in Role
    }
    site, absorbed = named[Role.SITE], named[Role.ABSORBED]
    if site and absorbed:
        return f"{site} moves into {absorbed}"
    if site:
        return f"{site} is replaced or leaves"
    rest = (f"{_listed([box])}" for box in patch["boxes"])
    return ", then ".join(rest) or "nothing"


def _listed(boxes: Sequence[Mapping[str, Any]]) -> str:
    words = [f"{box['kind']} {box['name']}" for box in boxes]
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
