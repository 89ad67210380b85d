"""What matplotlib draws, as an ``svg`` element that may stand in a page.

It is read as XML and written anew from what a page may hold, so that no text of a drawing can
be taken for markup. Styles become attributes: a page whose policy allows its own style sheet
alone has no use for others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Final
from xml.etree import ElementTree as ET

from bnfold.safe_text import for_html

_SVG: Final = "{http://www.w3.org/2000/svg}"
_HREF: Final = "{http://www.w3.org/1999/xlink}href"
_ELEMENTS: Final = frozenset({"g", "path", "defs", "use", "text", "tspan", "clipPath", "rect"})
_ATTRIBUTES: Final = frozenset(
    {"d", "x", "y", "width", "height", "transform", "clip-path", "href", "id", "rx"}
)
_STYLES: Final = frozenset(
    {
        "fill", "fill-opacity", "fill-rule", "stroke", "stroke-opacity", "stroke-width",
        "stroke-dasharray", "stroke-dashoffset", "stroke-linecap", "stroke-linejoin",
        "stroke-miterlimit", "opacity", "font-size", "font-style", "font-weight",
        "text-anchor",
    }
)  # fmt: skip
"""Properties that SVG knows as attributes too; letters are those of the page."""


def for_a_page(svg: str, label: str, key: str, variables: Mapping[str, str]) -> str:
    """Return a drawing as one element without ids, colours and styles of its own.

    Args:
        svg: What matplotlib wrote.
        label: What it shows, for those who cannot see it.
        key: A word that no other drawing of the page has; ids begin with it.
        variables: CSS variables of the page by the colour that stands for them.
    """
    colours = {colour: f"var({one})" for colour, one in variables.items()}
    root = ET.fromstring(svg)  # written by matplotlib a moment ago
    used = {one for element in root.iter() for one in _refers_to(element)}
    inner = "".join(part for child in root for part in _written(child, key, used, colours))
    view = escape(root.get("viewBox", ""))
    told = for_html(label)
    return f'<svg class="plot" viewBox="{view}" role="img" aria-label="{told}">\n{inner}</svg>'


def _written(
    element: ET.Element, key: str, used: set[str], colours: Mapping[str, str]
) -> Iterator[str]:
    """Yield an element and what is in it, with nothing between elements but a space."""
    tag = element.tag.removeprefix(_SVG)
    if tag not in _ELEMENTS:
        return
    told = _attributes(element, key, used)
    # Not made visible, which would shorten paths: no name is in an attribute of matplotlib's.
    named = "".join(f' {name}="{escape(colours.get(v, v))}"' for name, v in told.items())
    yield f"<{tag}{named}>"
    if tag in ("text", "tspan"):
        yield for_html(element.text or "")
    for child in element:
        yield from _written(child, key, used, colours)
    yield f"</{tag}> "


def _attributes(element: ET.Element, key: str, used: set[str]) -> dict[str, str]:
    """Return the attributes that a page may hold, styles among them; ids only where used."""
    found = {name: one for name, one in element.attrib.items() if name in _ATTRIBUTES}
    for declared in element.get("style", "").split(";"):
        name, _, value = declared.partition(":")
        if name.strip() in _STYLES:
            found[name.strip()] = value.strip()
    if found.get("id") in used:
        found["id"] = f"{key}-{found['id']}"
    else:
        found.pop("id", None)
    for name, reference in _references(element).items():
        shown = f"#{key}-{reference}"
        found[name] = shown if name == "href" else f"url({shown})"
    return found


def _refers_to(element: ET.Element) -> Iterator[str]:
    yield from _references(element).values()


def _references(element: ET.Element) -> dict[str, str]:
    """Return the ids within the drawing that an element refers to, by attribute."""
    found = {}
    href = element.get(_HREF, element.get("href", ""))
    if href.startswith("#"):
        found["href"] = href[1:]
    clip = element.get("clip-path", "")
    if clip.startswith("url(#"):
        found["clip-path"] = clip[5:].rstrip(")")
    return found
