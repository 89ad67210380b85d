r"""Measure the evidence in both directions: right folds pass, wrong and forged ones do not.

    python -m benchmarks.evidence_campaign --right 10000 --mutants 10000 --forged 500 \
        --jobs 2 --output benchmarks/results/NAME
    python -m benchmarks.evidence_campaign --quick
    python -m benchmarks.evidence_campaign --replay "windows/8"

Every model is folded and judged as right; then it is spoiled in drawn ways, and certificates
are forged for what was spoiled. What is right and what is wrong is decided by a float64
evaluation of its own. Lines of NAME.jsonl say what happened to each model; a campaign that was
stopped goes on from them. NAME.md and NAME.json hold the rates, and every fault with the seed
that shows it again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from pathlib import Path

from benchmarks.campaign.counts import Counts
from benchmarks.campaign.stream import Goal, campaign
from benchmarks.campaign.tables import as_data, report, settings_of
from benchmarks.campaign.work import Task, done

EVERY_S = 10.0


def main() -> None:
    """Run a campaign, or replay one model."""
    options = _options()
    warnings.simplefilter("ignore")
    if options.replay:
        replay(options.replay, options.mutants, options.forged)
        return
    goal = Goal(
        options.right, options.mutants, options.forged, options.seed, options.run_each,
        packaged=not options.quick,
    )  # fmt: skip
    path = options.output.with_suffix(".jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    counts = campaign(goal, options.jobs, options.max_time, path, Clock(start))
    write(counts, options, time.monotonic() - start)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--right", type=int, default=10_000)
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--forged", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0, help="where seeds start")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--max-time", type=float, default=7200.0, help="seconds")
    parser.add_argument("--run-each", type=int, default=60, help="run one model of so many")
    parser.add_argument(
        "--quick", action="store_true", help="150 folds, 150 mutants, 60 forged"
    )
    parser.add_argument("--replay", help="SOURCE/SEED of one model: print what is said of it")
    default = Path("benchmarks/results/evidence-campaign")
    parser.add_argument("--output", type=Path, default=default)
    options = parser.parse_args()
    if options.quick:
        options.right, options.mutants, options.forged = 150, 150, 60
        options.output = options.output.with_name(f"{options.output.name}-quick")
    return options


class Clock:
    """Tells how far a campaign is, now and then."""

    def __init__(self, start: float) -> None:
        self.start, self.told = start, start

    def __call__(self, counts: Counts) -> None:
        """Tell, if the last time is long ago."""
        now = time.monotonic()
        if now - self.told > EVERY_S:
            self.told = now
            right, mutants, forged = counts.progress()
            took = now - self.start
            text = f"{took:6.0f} s: {right} right, {mutants} mutants, {forged} forged"
            print(text, file=sys.stderr, flush=True)


def write(counts: Counts, options: argparse.Namespace, seconds: float) -> None:
    """Write the rates as Markdown and as data."""
    command = "python -m benchmarks.evidence_campaign " + " ".join(sys.argv[1:])
    settings = settings_of(command, seconds, options.seed, options.jobs)
    text = "\n".join(report(counts, settings)) + "\n"
    options.output.with_suffix(".md").write_text(text, encoding="utf-8")
    data = json.dumps(as_data(counts, settings), indent=1, sort_keys=True) + "\n"
    options.output.with_suffix(".json").write_text(data, encoding="utf-8")
    print(f"wrote {options.output.with_suffix('.md')}")


def replay(key: str, mutants: int, forged: int) -> None:
    """Print what is said of one model, its mutants and forged certificates."""
    source, _, seed = key.rpartition("/")
    task = Task(source, int(seed), min(mutants, 20), min(forged, 8), runs=True)
    print(json.dumps(done(task), indent=1, default=str))


if __name__ == "__main__":
    main()
