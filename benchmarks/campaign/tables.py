"""The report of a campaign, as Markdown and as data."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import onnx

import bnfold
from benchmarks.campaign.counts import Counts, Tally, upper
from benchmarks.campaign.judges import CRASHED, OPEN, PASSED, REFUSED

LISTED: Final = 25
JUDGES: Final = {
    "fold with certificate": "`fold(certificate=True)` proves its own fold",
    "certificate": "`verify(certificate=…, run=False)`, certificate of the right fold",
    "rewritten": "the same, certificate rewritten for the spoiled file",
    "alone": "`verify(run=False)`, no certificate",
    "no refold": "the same with `refold=False`: as of a fold that another tool made",
    "files": "the same, models and certificate read from files",
    "run": "`verify(run=True)`, no certificate",
    "check": "the default check of `fold`",
}
GROUPS: Final = ("type", "source", "absorbed by", "site")
COLUMNS: Final = ("certificate", "rewritten", "alone", "forged")
INTRODUCTION: Final = """
A fold is right or wrong by a float64 evaluation of both models on two inputs (of two sizes
where sizes are open): at most one bound of rounding apart is right, more than two is wrong,
between them nothing is claimed. A bound is six times the largest change that moving the
tensors which the fold wrote by half an ulp, up or down at random, makes in three trials. A
mutant has a stored number that is off by three half ulps or more, or another graph, and other
outputs in float64 than the right fold; within four bounds of rounding it counts apart. Upper
bounds are one-sided, 95 %, Clopper–Pearson.
"""


def report(counts: Counts, settings: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the report."""
    right, mutants, forged = counts.progress()
    yield "# Evidence in both directions"
    yield ""
    yield f"`{settings['command']}`, {settings['date']}, {settings['machine']},"
    yield f"{settings['versions']}; {settings['seconds']:.0f} s of wall clock:"
    yield f"{right} different right folds, {mutants} mutants, {forged} forged certificates."
    yield from INTRODUCTION.splitlines()
    yield from _folds(counts)
    yield from _tally("Right folds", counts.right, PASSED, GROUPS)
    yield from _tally("Mutants", counts.mutants, REFUSED, (*GROUPS[:3], "fault"))
    yield from _tally("Mutants within rounding", counts.quiet, REFUSED, ("type",))
    yield from _sizes(counts)
    yield from _named(counts)
    yield from _tally("Forged certificates", counts.forged, REFUSED, (*GROUPS[:3], "forgery"))
    yield from _faults(counts)


def _folds(counts: Counts) -> Iterator[str]:
    yield ""
    yield "## Folds"
    yield ""
    yield from [f"- {what}: {number}" for what, number in counts.folds.most_common()]
    yield ""
    yield "In the graph's own types, by `onnx.reference`:"
    yield ""
    yield from [f"- {what}: {number}" for what, number in counts.native.most_common()]


def _tally(title: str, tally: Tally, wanted: str, groups: tuple[str, ...]) -> Iterator[str]:
    """Yield a table of all judges, and one for each group: wanted words of those judged."""
    other = REFUSED if wanted == PASSED else PASSED
    yield from ("", f"## {title}", "")
    yield f"| judge | judged | {wanted} | {other} | inconclusive | crashed | {other} below |"
    yield "|---|---|---|---|---|---|---|"
    for judge, words in tally.words.items():
        of = sum(words.values())
        bound = f"{100 * upper(words[other], of):.3g} %"
        cells = [of, words[wanted], words[other], words[OPEN], words[CRASHED], bound]
        yield f"| {JUDGES.get(judge, judge)} | {' | '.join(map(str, cells))} |"
    for group in groups:
        yield from _split(tally, group, wanted, other)


def _split(tally: Tally, group: str, wanted: str, other: str) -> Iterator[str]:
    judges = [one for one in COLUMNS if one in tally.words]
    values = sorted({value for kind, value, _ in tally.split if kind == group})
    yield ""
    yield f"{group}: {wanted} of judged, of the others {other} in brackets"
    yield ""
    yield f"| {group} | {' | '.join(judges)} |"
    yield "|---" * (len(judges) + 1) + "|"
    for value in values:
        cells = [
            _cell(tally.split.get((group, value, one), {}), wanted, other) for one in judges
        ]
        yield f"| {value} | {' | '.join(cells)} |"


def _cell(words: Mapping[str, int], wanted: str, other: str) -> str:
    of = sum(words.values())
    if not of:
        return "–"
    right, wrong = words.get(wanted, 0), words.get(other, 0)
    return f"{right}/{of}" if right == of else f"{right}/{of} ({wrong})"


def _sizes(counts: Counts) -> Iterator[str]:
    yield ""
    yield "Changes of a stored number that passed within rounding, in half ulps:"
    yield ""
    for judge, sizes in counts.sizes.items():
        finite = [size for size in sizes if np.isfinite(size)] or [0.0]
        parts = np.percentile(finite, [50, 90, 100])
        told = ", ".join(f"{part:.3g}" for part in parts)
        yield f"- {judge}: {len(sizes)}; median, 90 %, largest: {told}"


def _named(counts: Counts) -> Iterator[str]:
    yield ""
    yield "## The node that is named"
    yield ""
    yield "| judge | named | right | next to it | another | share |"
    yield "|---|---|---|---|---|---|"
    for judge, words in counts.named.words.items():
        of = sum(words.values())
        share = f"{words['right'] / of:.4f}"
        cells = [of, words["right"], words["next to it"], words["another"], share]
        yield f"| {JUDGES.get(judge, judge)} | {' | '.join(map(str, cells))} |"


def _faults(counts: Counts) -> Iterator[str]:
    sections = {
        "Wrong folds, and errors": counts.wrong,
        **{f"Right folds, {which}": told for which, told in counts.right.faults.items()},
        **{f"Mutants, {which}": told for which, told in counts.mutants.faults.items()},
        **{f"Forged certificates, {which}": t for which, t in counts.forged.faults.items()},
        **{f"Nodes named, {which}": told for which, told in counts.named.faults.items()},
    }
    for title, lines in sections.items():
        yield ""
        yield f"## {title} ({len(lines)})"
        yield ""
        yield from [f"- {' '.join(one.split())}" for one in lines[:LISTED]] or ["None."]


def settings_of(command: str, seconds: float, seed: int, jobs: int) -> dict[str, Any]:
    """Return what a campaign ran on."""
    versions = {
        "bnfold": bnfold.__version__,
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "onnx": onnx.__version__,
    }
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    return {
        "command": command,
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.system()} {platform.machine()}, {jobs} processes",
        "versions": told,
        "seconds": seconds,
        "seed": seed,
    }


def as_data(counts: Counts, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the counts as data: what stands in the tables, and every fault."""
    right, mutants, forged = counts.progress()
    tallies = {
        name: _tally_data(getattr(counts, name))
        for name in ("right", "mutants", "quiet", "forged", "named")
    }
    return {
        **settings,
        "totals": {"right": right, "mutants": mutants, "forged": forged},
        "folds": dict(counts.folds),
        "native": dict(counts.native),
        "wrong": counts.wrong,
        **tallies,
    }


def _tally_data(tally: Tally) -> dict[str, Any]:
    words = {judge: {**words, "upper": _uppers(words)} for judge, words in tally.words.items()}
    split = {f"{k}/{v}/{judge}": dict(words) for (k, v, judge), words in tally.split.items()}
    return {"words": words, "split": split, "faults": dict(tally.faults)}


def _uppers(words: Any) -> dict[str, float]:
    of = sum(words.values())
    return {word: round(upper(number, of), 6) for word, number in words.items()}
