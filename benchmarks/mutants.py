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
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.mutant_rates import HONEST_JUDGES, Campaign, Case, report, summary
from tests.mutants.originals import PRECISIONS, family_of
from tests.mutants.trial import JUDGES, Fold, fold_of_seed, nursery_of, sentence

ALONE_EACH = 4
"""Of so many mutants, one is also judged without a certificate: it takes 40 times as long."""

DISHONEST_EACH = 12
"""Of so many mutants, one is also judged with certificates of its own."""

APART = 1_000_000
"""Seeds of one precision are this far from those of the next, so no two share a network."""


def run(
    campaign: Campaign, precision: str, start: int, mutants: int, honest: int, each: int
) -> None:
    """Judge so many honest and spoiled folds of one precision."""
    made = 0
    for place in range(max(honest, mutants)):
        if place >= honest and made >= mutants:
            return
        seed = start + list(PRECISIONS).index(precision) * APART + place
        fold = fold_of_seed(seed, precision)
        if place < honest:
            _acquit(campaign, fold, precision, seed)
        if made < mutants:
            made += _convict(campaign, fold, precision, seed, min(each, mutants - made))


def _acquit(campaign: Campaign, fold: Fold, precision: str, seed: int) -> None:
    for judge in HONEST_JUDGES:
        said = sentence(judge, fold, fold.folded)
        campaign.honest.append((precision, seed, judge, said))


def _judges(place: int) -> Sequence[str]:
    if place % DISHONEST_EACH == 0:
        return tuple(JUDGES)
    return HONEST_JUDGES if place % ALONE_EACH == 0 else HONEST_JUDGES[:1]


def _convict(campaign: Campaign, fold: Fold, precision: str, seed: int, count: int) -> int:
    nursery = nursery_of(fold, seed)
    before = len(campaign.cases)
    for mutant in nursery.sample(count):
        judges = _judges(len(campaign.cases))
        said = {j: sentence(j, fold, mutant.model, mutant.tensors) for j in judges}
        campaign.cases.append(Case(precision, seed, mutant, said))
    for (_, why), number in nursery.dropped.items():
        campaign.dropped[why] += number
    return len(campaign.cases) - before


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
        run(campaign, precision, options.seed, options.mutants, options.honest, options.each)
        _write(campaign, time.perf_counter() - start, options)


def _write(campaign: Campaign, took: float, options: argparse.Namespace) -> None:
    """Write what is known so far, so that a campaign cut short leaves something."""
    command = (
        f"python -m benchmarks.mutants --mutants {options.mutants} "
        f"--honest {options.honest} --each {options.each} --seed {options.seed}"
    )
    text = "\n".join(report(campaign, took, command)) + "\n"
    if options.out is None:
        print(text)
        return
    options.out.with_suffix(".md").write_text(text, encoding="utf-8")
    data = json.dumps(summary(campaign), sort_keys=True) + "\n"
    options.out.with_suffix(".json").write_text(data, encoding="utf-8")


if __name__ == "__main__":
    main()
