"""Figures as SVG that stands in a page: no global state, no fixed colour, the same every time.

Matplotlib draws with sentinel colours; in the SVG each becomes a CSS variable of the page, so
that one drawing serves light and dark.
"""

from __future__ import annotations

import importlib
import io
import math
import re
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any, Final

from bnfold.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

INK: Final = "#010201"
FAINT: Final = "#010202"
LINE: Final = "#010203"
PAPER: Final = "#010204"
ARMS: Final = tuple(f"#01030{index}" for index in range(6))
GOOD: Final = "#010501"
BAD: Final = "#010502"
_VARIABLES: Final = {
    INK: "--ink",
    FAINT: "--faint",
    LINE: "--line",
    PAPER: "--paper",
    GOOD: "--good",
    BAD: "--bad",
    **{colour: f"--arm-{index}" for index, colour in enumerate(ARMS)},
}
WIDTH: Final = 4.6
"""In inches: at 72 units an inch it fits a telephone, with letters that can still be read."""
_FONT: Final = 9.5
_FINE: Final = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
_NO_USE: Final = (
    r"<metadata>.*?</metadata>|<!--.*?-->|<defs>\s*<style.*?</style>\s*</defs>"
    r"| font-family: [^;\"]*;"
)
"""What a page has of its own, or must not have: a style here would hold for all of it."""
_SETTINGS: Final[dict[str, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "bnfold",
    "font.family": "DejaVu Sans",
    "font.size": _FONT,
    "text.parse_math": False,
    "axes.titlesize": _FONT,
    "axes.labelsize": _FONT,
    "xtick.labelsize": _FONT,
    "ytick.labelsize": _FONT,
    "legend.fontsize": _FONT,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "axes.formatter.use_mathtext": False,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
}


def drawn(height: float, label: str, key: str, draw: Callable[[Figure], None]) -> str:
    """Return a figure as an ``svg`` element.

    Args:
        height: In inches.
        label: What it shows, for those who cannot see it.
        key: A word that no other figure of the page has.
        draw: Draws into the figure.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    matplotlib = require("matplotlib")
    figures = require("matplotlib.figure")
    out = io.StringIO()
    with matplotlib.rc_context(_SETTINGS):
        figure = figures.Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(out, format="svg", metadata=nothing)
    return _for_a_page(out.getvalue(), label, key)


def require(module: str) -> Any:
    """Import what only pages need, or say how to get it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "cannot make a page",
            why=f"{error.name} is not installed",
            remedy="pip install 'bnfold[report]'",
        ) from error


def bare(axes: Axes, grid: str = "x") -> None:
    """Leave only the grid lines of one direction, and the axis they stand on."""
    axes.grid(visible=False)
    axes.grid(visible=True, axis="x" if grid == "x" else "y")
    axes.spines["left" if grid == "x" else "bottom"].set_visible(grid != "x")
    axes.tick_params(length=0)


def round_ticks(axis: Axis, ends: tuple[float, float]) -> None:
    """Put a few round numbers on a logarithmic axis, whatever its range."""
    low, high = (math.log10(end) for end in ends)
    steps = (1.0,) if high - low > 2.5 else (1.0, 2.0, 5.0) if high - low > 0.7 else _FINE
    decades = range(math.floor(low), math.ceil(high) + 1)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    kept = [tick for tick in ticks if ends[0] <= tick <= ends[1]]
    kept = kept[:: math.ceil(len(kept) / 6)] if kept else [math.sqrt(ends[0] * ends[1])]
    axis.set_ticks(kept, [f"{tick:.3g}".replace("e-0", "e-") for tick in kept])
    axis.set_ticks([], minor=True)


def _for_a_page(svg: str, label: str, key: str) -> str:
    """Keep the drawing alone, its colours as variables and its ids its own."""
    body = svg[svg.index("<svg") :]
    view = re.search(r'viewBox="[^"]*"', body)
    inner = body[body.index(">") + 1 :]
    inner = re.sub(_NO_USE, "", inner, flags=re.DOTALL)
    inner = inner.replace("xlink:href", "href")
    inner = _own_ids(inner, key)
    for colour, variable in _VARIABLES.items():
        inner = inner.replace(colour, f"var({variable})")
    inner = re.sub(r"\s*\n\s*", " ", inner).strip()
    seen = view.group() if view else ""
    return f'<svg class="plot" {seen} role="img" aria-label="{escape(label)}">\n{inner}'


def _own_ids(svg: str, key: str) -> str:
    """Drop ids that nothing refers to, and put a word of this figure before the others."""
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg))
    names = {one for pair in used for one in pair if one}

    def kept(found: re.Match[str]) -> str:
        return f' id="{key}-{found.group(1)}"' if found.group(1) in names else ""

    svg = re.sub(r' id="([^"]+)"', kept, svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{key}-\1"', svg)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{key}-\1)", svg)
