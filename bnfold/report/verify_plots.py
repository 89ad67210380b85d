"""The figures of a comparison of two models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from bnfold.records import OutputCheck, OutputMetrics, ReferenceErrors
from bnfold.report import canvas, words
from bnfold.report.bench_plots import short
from bnfold.report.blocks import Figure as Shown
from bnfold.report.canvas import INK, bare

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST: Final = 24
_FEWEST_CHANNELS: Final = 4


def shares(outputs: Sequence[OutputCheck], key: str) -> Shown | None:
    """How much of its limit every output uses; the worst ones where there are many."""
    worst = sorted(outputs, key=lambda one: -words.share_of_limit(one))[:_MOST]
    if not worst:
        return None
    found = [words.share_of_limit(one) for one in worst]
    finite = [one for one in found if math.isfinite(one)]
    top = max(1.0, *finite) if finite else 1.0

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        bare(axes)
        for y, (one, share) in enumerate(zip(worst, found, strict=True)):
            _share_bar(axes, y, one, min(share, top))
        axes.axvline(1, color=INK, linewidth=1.2)
        axes.set_yticks(range(len(worst)), [short(one.name, 20) for one in worst])
        axes.set_ylim(len(worst) - 0.5, -0.5)
        if top > 4:
            axes.set_xscale("log")
            axes.set_xlim(min(0.05, *(one for one in finite if one > 0)), top * 4)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.xaxis.set_minor_formatter(lambda *_: "")
        else:
            axes.set_xlim(0, top * 1.18)
        axes.set_xlabel("share of the limit (line: the limit)")

    told = "; ".join(f"{one.name} {words.digits(one.ratio)} of {one.limit:g}" for one in worst)
    svg = canvas.drawn(0.65 + 0.28 * len(worst), f"Difference over noise: {told}", key, draw)
    return Shown(
        svg,
        "How much of its limit each output uses",
        "The difference of both models, in units of what half-ulp changes of the original's"
        " own numbers do to it. Numbers: how many times that noise.",
    )


def _share_bar(axes: Axes, y: int, one: OutputCheck, share: float) -> None:
    colour = canvas.GOOD if one.passed else canvas.BAD
    axes.barh([y], [share], color=colour, height=0.6, alpha=0.85)
    axes.text(share, y, f" {words.digits(one.ratio)}", va="center", color=INK)


def channels(metrics: Sequence[OutputMetrics]) -> tuple[Shown, ...]:
    """For every output with channels, both models' error against float64 in each."""
    found = []
    for index, one in enumerate(metrics):
        errors = one.reference
        if errors is not None and len(errors.channels) >= _FEWEST_CHANNELS:
            drawn = _channels(one.name, errors, f"channels-{index}")
            found += [drawn] if drawn is not None else []
    return tuple(found)


def _channels(name: str, errors: ReferenceErrors, key: str) -> Shown | None:
    pairs = np.array(errors.channels, dtype=np.float64)
    pairs = pairs[np.isfinite(pairs).all(axis=1) & (pairs > 0).all(axis=1)]
    if len(pairs) < _FEWEST_CHANNELS:
        return None
    ends = (float(pairs.min()) / 1.3, float(pairs.max()) * 1.3)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        bare(axes, "y")
        axes.plot(ends, ends, color=INK, linewidth=1)
        axes.plot(
            pairs[:, 0], pairs[:, 1], "o", color=canvas.ARMS[1], markersize=4, alpha=0.7, mew=0
        )
        axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
        axes.set_xlabel("error of the original")
        axes.set_ylabel("error of the folded model")
        for axis in (axes.xaxis, axes.yaxis):
            canvas.round_ticks(axis, ends)

    svg = canvas.drawn(2.9, f"Errors of {len(pairs)} channels of {name}", key, draw)
    return Shown(
        svg,
        f"Errors of every channel of {short(name, 30)}",
        "A point for each channel: root mean square error against the original in float64."
        " On the line both are alike; below it the folded model is closer to the truth.",
    )
