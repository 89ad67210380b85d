"""Test the judge: spoiled folds must be convicted, and honest ones never.

    python -m benchmarks.mutants --mutants 1500 --honest 800 --out benchmarks/results/NAME
    python -m benchmarks.mutants --replay 17 --precision bf16

Originals are drawn from seeds. Every spoiled fold is shown, in float64, to be another function
than the honest one before it is brought before the judge. Four judges see it: one has the
certificate of the honest fold, one has none, one is shown a certificate of the spoiled fold
itself that states its wrong numbers, one is shown such a certificate that is silent on them.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from typing import Any

from bnfold.records import Verdict
from tests.mutants.originals import PRECISIONS, family_of
from tests.mutants.subject import Mutant
from tests.mutants.trial import JUDGES, Fold, Sentence, fold_of_seed, nursery_of, sentence

HONEST_JUDGES = ("certificate", "no certificate")
DISHONEST_EACH = 4
"""Of so many mutants, one is also judged with certificates of its own."""

APART = 1_000_000
"""Seeds of one precision are this far from those of the next, so no two share a network."""


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

    def run(self, precision: str, start: int, mutants: int, honest: int, each: int) -> None:
        """Judge so many honest and spoiled folds of one precision."""
        made = 0
        for place in range(max(honest, mutants)):
            if place >= honest and made >= mutants:
                return
            seed = start + list(PRECISIONS).index(precision) * APART + place
            fold = fold_of_seed(seed, precision)
            if place < honest:
                self._acquit(fold, precision, seed)
            if made < mutants:
                made += self._convict(fold, precision, seed, min(each, mutants - made))

    def _acquit(self, fold: Fold, precision: str, seed: int) -> None:
        for judge in HONEST_JUDGES:
            said = sentence(judge, fold, fold.folded)
            self.honest.append((precision, seed, judge, said))

    def _convict(self, fold: Fold, precision: str, seed: int, count: int) -> int:
        nursery = nursery_of(fold, seed)
        before = len(self.cases)
        for mutant in nursery.sample(count):
            all_judges = len(self.cases) % DISHONEST_EACH == 0
            judges = JUDGES if all_judges else HONEST_JUDGES
            said = {j: sentence(j, fold, mutant.model, mutant.tensors) for j in judges}
            self.cases.append(Case(precision, seed, mutant, said))
        for (_, why), number in nursery.dropped.items():
            self.dropped[why] += number
        return len(self.cases) - before


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
        yield from [
            _told_case(case, judge) for case in campaign.cases if _is_missed(case, judge)
        ][:60] or ["None."]


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


def replay(seed: int, precision: str) -> None:
    """Print what every judge says of every mutant of one seed."""
    fold = fold_of_seed(seed, precision)
    print(f"{precision} seed {seed}: {family_of(seed)}, certified: {fold.certified.verdict}")
    for judge in HONEST_JUDGES:
        print("honest,", judge, sentence(judge, fold, fold.folded))
    for mutant in nursery_of(fold, seed).mutants():
        print(f"\n{mutant.kind} at {mutant.nodes} {mutant.tensors} {mutant.channel}")
        for judge in JUDGES:
            said = sentence(judge, fold, mutant.model, mutant.tensors)
            print("  ", judge, said.verdict.value, said.finding)


def main() -> None:
    """Run a campaign, or replay one seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=100, help="for each precision")
    parser.add_argument("--honest", type=int, default=50, help="for each precision")
    parser.add_argument("--each", type=int, default=12, help="at most so many of one fold")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--precision", choices=PRECISIONS, help="only this one")
    parser.add_argument("--replay", type=int, help="judge all mutants of one seed")
    parser.add_argument("--out", type=Path, help="write PATH.md and PATH.json")
    options = parser.parse_args()
    if options.replay is not None:
        replay(options.replay, options.precision or "fp32")
        return
    start, campaign = time.perf_counter(), Campaign()
    for precision in [options.precision] if options.precision else PRECISIONS:
        campaign.run(precision, options.seed, options.mutants, options.honest, options.each)
    command = (
        f"python -m benchmarks.mutants --mutants {options.mutants} "
        f"--honest {options.honest} --each {options.each} --seed {options.seed}"
    )
    text = "\n".join(report(campaign, time.perf_counter() - start, command)) + "\n"
    if options.out is None:
        print(text)
        return
    options.out.with_suffix(".md").write_text(text, encoding="utf-8")
    data = json.dumps(summary(campaign), indent=1) + "\n"
    options.out.with_suffix(".json").write_text(data, encoding="utf-8")


if __name__ == "__main__":
    main()
