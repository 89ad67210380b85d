"""Figures as SVG that stands in a page: no global state, no fixed colour, the same every time.

Matplotlib draws with sentinel colours; in the SVG each becomes a CSS variable of the page, so
that one drawing serves light and dark.
"""

from __future__ import annotations

import importlib
import io
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from bnfold.errors import MissingDependencyError
from bnfold.report.svg import for_a_page

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
    figures = require("matplotlib.figure")
    out = io.StringIO()
    with _settings():
        figure = figures.Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(out, format="svg", metadata=nothing)
    return for_a_page(out.getvalue(), label, key, _VARIABLES)


@contextmanager
def _settings() -> Iterator[None]:
    """Draw with our own settings and matplotlib's defaults, whatever the user's file says.

    One that says ``text.usetex`` would run names as programs of TeX.
    """
    matplotlib = require("matplotlib")
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        # The reader's own letters show the page. That the font by which widths are estimated
        # lacks one (Chinese, emoji) is nothing that the user could do anything about.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


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
