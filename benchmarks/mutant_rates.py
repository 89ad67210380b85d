"""Rates of a campaign of spoiled folds, as Markdown and as data."""

from __future__ import annotations

import platform
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

from bnfold.records import Verdict
from tests.mutants.originals import PRECISIONS, family_of
from tests.mutants.subject import Mutant
from tests.mutants.trial import JUDGES, Sentence

HONEST_JUDGES = ("certificate", "no certificate")
LISTED = 40

INTRODUCTION = """
Intervals are Wilson's, at 95 %. *Right node*: of the convicted, how often the first finding
names the node whose constant, attribute or input is wrong. *Right channel*: of convicted
mutants that are wrong in one output channel only, how often it is named.
"""
EXCLUSION = """A candidate counts only if its bytes are not those of the honest fold, if it can
be run, and if its outputs differ in float64 by more than 1e-12 of the largest number (or in
shape) on one of two drawn inputs. Sorted out:
"""


@dataclass(frozen=True)
class Case:
    """One spoiled fold and what each judge said of it."""

    precision: str
    seed: int
    mutant: Mutant
    said: dict[str, Sentence]


@dataclass
class Campaign:
    """What happened so far."""

    cases: list[Case] = field(default_factory=list)
    honest: list[tuple[str, int, str, Sentence]] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


def wilson(hits: int, of: int) -> tuple[float, float]:
    """Return the 95 % interval of a rate."""
    if not of:
        return 0.0, 1.0
    z, rate = 1.96, hits / of
    middle = (rate + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * sqrt(rate * (1 - rate) / of + z * z / (4 * of * of))
    return max(0.0, middle - half), min(1.0, middle + half)


def told(hits: int, of: int) -> str:
    """Return a rate with its interval."""
    if not of:
        return "–"
    low, high = wilson(hits, of)
    return f"{hits}/{of} ({100 * low:.1f}–{100 * high:.1f} %)"


def counts(cases: Iterable[Case], judge: str) -> dict[str, int]:
    """Return how many cases a judge got right, and how far."""
    chosen = [case for case in cases if judge in case.said]
    guilty = [case for case in chosen if case.said[judge].convicted]
    single = [case for case in guilty if case.mutant.channel is not None]
    return {
        "mutants": len(chosen),
        "convicted": len(guilty),
        "node": sum(case.said[judge].names_node(case.mutant) for case in guilty),
        "single": len(single),
        "channel": sum(case.said[judge].names_channel(case.mutant) for case in single),
        "not judged": sum(c.said[judge].verdict is Verdict.NOT_JUDGED for c in chosen),
    }


def row(name: str, cases: Iterable[Case], judge: str) -> str:
    """Return a line of a table."""
    one = counts(cases, judge)
    return (
        f"| {name} | {told(one['convicted'], one['mutants'])} "
        f"| {told(one['node'], one['convicted'])} | {told(one['channel'], one['single'])} |"
    )


def report(campaign: Campaign, took: float, command: str) -> Iterator[str]:
    """Yield the lines of the report."""
    honest = len(campaign.honest) // len(HONEST_JUDGES)
    yield "# The judge is tested: spoiled and honest folds"
    yield ""
    yield f"`{command}`, {time.strftime('%Y-%m-%d')}, {platform.machine()}, one process,"
    yield f"{took:.0f} s: {len(campaign.cases)} spoiled folds and {honest} honest ones."
    yield from INTRODUCTION.splitlines()
    yield "## Honest folds acquitted"
    yield ""
    yield "| precision | judge | acquitted | median time |"
    yield "|---|---|---|---|"
    for precision in PRECISIONS:
        for judge in HONEST_JUDGES:
            said = [s for p, _, j, s in campaign.honest if (p, j) == (precision, judge)]
            if said:
                passed = sum(one.verdict is Verdict.PASSED for one in said)
                median = statistics.median(one.seconds for one in said) * 1e3
                rate = told(passed, len(said))
                yield f"| {precision} | {judge} | {rate} | {median:.1f} ms |"
    for judge in JUDGES:
        yield from _judge_tables(campaign, judge)
    yield from _failures(campaign)
    yield from _unseen(campaign)
    yield from _exclusions(campaign)


def _judge_tables(campaign: Campaign, judge: str) -> Iterator[str]:
    yield ""
    yield f"## Spoiled folds, judge: {judge}"
    yield ""
    yield (JUDGES[judge].__doc__ or "").strip().splitlines()[0]
    precisions = [
        (one, [c for c in campaign.cases if c.precision == one]) for one in PRECISIONS
    ]
    kinds = sorted({case.mutant.kind for case in campaign.cases})
    by_kind = [(one, [c for c in campaign.cases if c.mutant.kind == one]) for one in kinds]
    for title, rows in (
        ("precision", [*precisions, ("all", campaign.cases)]),
        ("fault", by_kind),
    ):
        yield ""
        yield f"| {title} | convicted | right node | right channel |"
        yield "|---|---|---|---|"
        for name, chosen in rows:
            yield row(name, chosen, judge)


def _failures(campaign: Campaign) -> Iterator[str]:
    yield ""
    yield "## False convictions"
    yield ""
    false = [
        f"- {p} seed {seed} ({family_of(seed)}), {judge}: {said.verdict.value} {said.finding}"
        for p, seed, judge, said in campaign.honest
        if said.verdict is not Verdict.PASSED
    ]
    yield from false or ["None."]
    for judge in ("certificate", "forged"):
        yield ""
        yield f"## Survivors and wrong nodes, judge: {judge}"
        yield ""
        missed = [case for case in campaign.cases if _is_missed(case, judge)]
        yield from [_told_case(case, judge) for case in missed[:LISTED]] or ["None."]


def _unseen(campaign: Campaign) -> Iterator[str]:
    """Yield where the judge without a certificate saw nothing: seeds by kind."""
    yield ""
    yield "## Survivors, judge: no certificate"
    yield ""
    by_kind: dict[str, list[str]] = {}
    for case in campaign.cases:
        said = case.said.get("no certificate")
        if said is not None and not said.convicted:
            by_kind.setdefault(case.mutant.kind, []).append(f"{case.precision} {case.seed}")
    for kind, seeds in sorted(by_kind.items()):
        more = f" and {len(seeds) - LISTED} more" if len(seeds) > LISTED else ""
        yield f"- {kind}: {', '.join(seeds[:LISTED])}{more}"


def _is_missed(case: Case, judge: str) -> bool:
    said = case.said.get(judge)
    if said is None:
        return False
    return not said.convicted or not said.names_node(case.mutant)


def _told_case(case: Case, judge: str) -> str:
    said, mutant = case.said[judge], case.mutant
    found = "" if said.finding is None else f", {said.finding.node!r} named"
    return (
        f"- {case.precision} seed {case.seed} ({family_of(case.seed)}), {mutant.kind} at "
        f"{', '.join(mutant.nodes)} {list(mutant.tensors)}: {said.verdict.value}{found}"
    )


def _exclusions(campaign: Campaign) -> Iterator[str]:
    yield ""
    yield "## Candidates that were no mutants"
    yield ""
    yield from EXCLUSION.splitlines()
    yield from [f"- {why}: {number}" for why, number in campaign.dropped.most_common()]


def summary(campaign: Campaign) -> dict[str, Any]:
    """Return the counts as data."""
    kinds = sorted({case.mutant.kind for case in campaign.cases})
    return {
        "honest": {
            f"{precision}/{judge}": dict(
                Counter(
                    said.verdict.value
                    for p, _, j, said in campaign.honest
                    if (p, j) == (precision, judge)
                )
            )
            for precision in PRECISIONS
            for judge in HONEST_JUDGES
        },
        "spoiled": {
            judge: {
                f"{precision}/{kind}": list(counts(chosen, judge).values())
                for precision in PRECISIONS
                for kind in kinds
                if (
                    chosen := [
                        case
                        for case in campaign.cases
                        if (case.precision, case.mutant.kind) == (precision, kind)
                    ]
                )
            }
            for judge in JUDGES
        },
        "columns": ["mutants", "convicted", "node", "single", "channel", "not judged"],
    }
