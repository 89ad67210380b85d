"""What the lines of a campaign add up to."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import exp, lgamma, log
from typing import Any, Final

from benchmarks.campaign.judges import CRASHED, OPEN, PASSED, REFUSED

Line = Mapping[str, Any]
Words = Counter[str]

NOISE: Final = 4.0
"""A mutant of no more than this many bounds of rounding may be taken for rounding by a judge
that has no certificate: these are counted apart. The walk allows 5 times the root mean square
of the rounding noise of a channel, a bound is six times the largest of three moves of outputs:
they meet at a few bounds (set to 4 after bfloat16 mutants of 1.0 to 2.5 bounds had passed)."""


def upper(hits: int, of: int, confidence: float = 0.95) -> float:
    """Return the upper bound of a rate, one-sided: Clopper and Pearson's.

    Without a hit it is the rule of three, 1 − 0.05^(1/n).
    """
    if of == 0 or hits >= of:
        return 1.0
    low, high = hits / of, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _at_most(hits, of, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def _at_most(hits: int, of: int, rate: float) -> float:
    """Return the chance of so many hits or fewer."""
    if not 0 < rate < 1:
        return float(rate <= 0)
    whole = lgamma(of + 1)
    return sum(
        exp(
            whole
            - lgamma(k + 1)
            - lgamma(of - k + 1)
            + k * log(rate)
            + (of - k) * log(1 - rate)
        )
        for k in range(hits + 1)
    )


@dataclass(slots=True)
class Tally:
    """Counts of words, split by judge and by whatever the folds have in common.

    Attributes:
        words: By judge.
        split: By what splits (type, source …), its value, and judge.
        faults: Lines of text for every wrong word, by judge and word: ``"alone: passed"``.
    """

    words: defaultdict[str, Words] = field(default_factory=lambda: defaultdict(Counter))
    split: defaultdict[tuple[str, str, str], Words] = field(
        default_factory=lambda: defaultdict(Counter)
    )
    faults: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, judge: str, word: str, groups: Iterable[tuple[str, str]]) -> None:
        """Count one word."""
        self.words[judge][word] += 1
        for kind, value in groups:
            self.split[kind, value, judge][word] += 1


@dataclass(slots=True)
class Counts:
    """All of a campaign.

    Attributes:
        right: What was said of right folds.
        mutants: What was said of spoiled folds that rounding does not explain.
        quiet: What was said of those that rounding could explain.
        forged: What was said of forged certificates.
        named: Whether the node that was named is the right one, by judge.
        folds: Right, wrong and unclear folds, errors and what was skipped.
        native: What ``onnx.reference`` says of folds, in the types of the graph.
        wrong: Folds that are another function, or within which bnfold broke.
        digests: Of the models.
        sizes: Half ulps of mutants that passed, by judge.
    """

    right: Tally = field(default_factory=Tally)
    mutants: Tally = field(default_factory=Tally)
    quiet: Tally = field(default_factory=Tally)
    forged: Tally = field(default_factory=Tally)
    named: Tally = field(default_factory=Tally)
    folds: Words = field(default_factory=Counter)
    native: Words = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    digests: set[str] = field(default_factory=set)
    sizes: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    seconds: float = 0.0

    def add(self, line: Line) -> None:
        """Add what one task showed."""
        self.seconds += line.get("seconds", 0.0)
        if "skipped" in line:
            self.folds[f"skipped: {line['skipped'].split(':')[0]}"] += 1
            return
        if "error" in line:
            self.folds["no task: error"] += 1
            self.wrong.append(f"{line['key']}: {line['error']}")
        if "fold" in line:
            self._fold(line)
        self._mutants(line)

    def _fold(self, line: Line) -> None:
        said, name = line["fold"], line.get("name", "")
        if said["word"] == CRASHED:
            self.folds["fold crashed"] += 1
            self.wrong.append(f"{line['key']} {name}: fold raises {said['why']}")
        if "right" not in line:
            return
        self.folds[line["right"]] += 1
        opinion = line.get("native", "not asked")
        self.native[opinion] += 1
        if opinion == "contradicts" and line["right"] == "right":
            self.wrong.append(
                f"{line['key']} {name} {line['type']}: onnx.reference contradicts"
            )
        if line["right"] == "wrong":
            self.wrong.append(
                f"{line['key']} {name} {line['type']}: {line['excess']:.3g} bounds of rounding"
                f" off, certificate {said['word']}, alone {line['said']['alone']['word']}"
            )
        if line["right"] == "right":
            self.digests.add(line["digest"])
            self._acquitted(line)

    def _acquitted(self, line: Line) -> None:
        groups = [("type", line["type"]), ("source", line["source"].split(":")[0])]
        groups += [("site", one) for one in line["ops"]]
        groups += [("absorbed by", one) for one in line["absorbed"]]
        fold = line["fold"]
        said = {"fold with certificate": fold, **line["said"]}
        for judge, one in said.items():
            self.right.add(judge, one["word"], groups)
            if one["word"] != PASSED:
                text = f"{line['key']} {line.get('name', '')} {line['type']}: {one['word']}"
                told = self.right.faults[f"{judge}: {one['word']}"]
                told.append(f"{text} {one.get('why', '')[:160]}")

    def _mutants(self, line: Line) -> None:
        groups = [("type", line.get("type", "")), ("source", line["source"].split(":")[0])]
        groups += [("absorbed by", one) for one in line.get("absorbed", ())]
        for number, one in enumerate(line.get("mutants", ())):
            loud = one["excess"] > NOISE
            tally = self.mutants if loud else self.quiet
            for judge, said in one["said"].items():
                tally.add(judge, said["word"], [*groups, ("fault", one["kind"])])
                if said["word"] != REFUSED:
                    self._survived(line, number, judge, tally, loud=loud)
            for judge, right in one["node"].items():
                self.named.add(judge, right, groups)
                if right != "right":
                    where = one["said"][judge]["node"]
                    text = f"{line['key']} mutant {number}, {one['kind']}: {where}"
                    self.named.faults[f"{judge}: {right}"].append(
                        f"{text}, not {', '.join(one['nodes'])}"
                    )
        for one in line.get("forged", ()):
            if "said" in one:
                self._forged(line, one, groups)

    def _survived(
        self, line: Line, number: int, judge: str, tally: Tally, *, loud: bool
    ) -> None:
        one = line["mutants"][number]
        said = one["said"][judge]
        if said["word"] == PASSED and not loud:
            self.sizes[judge].append(one["half_ulps"])
        text = f"{line['key']} mutant {number} {line['type']}, {one['kind']}: {said['word']}"
        size = f"{one['half_ulps']:.3g} half ulps, {one['excess']:.3g} bounds"
        told = tally.faults[f"{judge}: {said['word']}"]
        told.append(f"{text}, {size} {said.get('why', '')[:120]}")

    def _forged(self, line: Line, one: Line, groups: list[tuple[str, str]]) -> None:
        parts = one["what"].split("; ")
        groups = [*groups, *(("forgery", part) for part in parts)]
        self.forged.add("forged", one["said"]["word"], groups)
        word = one["said"]["word"]
        if word not in (REFUSED, OPEN):
            text = f"{line['key']} {line['type']}, {one['what']}, {one.get('kind', '')}"
            self.forged.faults[f"forged: {word}"].append(text)

    def progress(self) -> tuple[int, int, int]:
        """Return how many different right folds, mutants and forgeries there are."""
        judged = sum(self.mutants.words["alone"].values())
        return len(self.digests), judged, sum(self.forged.words["forged"].values())
