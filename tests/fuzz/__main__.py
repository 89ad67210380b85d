"""Draw graphs, fold them, and hold the fold to its promise; print counts and every fault.

    python -m tests.fuzz [--count N] [--seed S] [--first K] [--seconds T]
    python -m tests.fuzz --seed S --replay K

Graph K of a seed is the same each time. What is faulty is made small, and written to the
folder of --output. The exit code is 1 if there is any. All runs in a process of its own: one
that a graph ends is a fault, and another one goes on behind it.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import onnx

from tests.fuzz.draws import by_number, replayed
from tests.fuzz.shrink import shrunk
from tests.fuzz.supervised import Progress, supervised
from tests.fuzz.trial import CONTROLLED, Trial, tried
from tests.laws.by_runtime import Runtime

EVERY_S = 20.0
ENOUGH = 1
"""Faults of one kind are made small so often: the rest is likely the same."""


def main() -> int:
    """Draw as many graphs as were asked for, or as the time allows."""
    options = _options()
    warnings.simplefilter("ignore")
    if options.replay is not None:
        with Runtime() as runtime:
            trial = tried(by_number(options.replay, options.seed), runtime)
        return int(_told(trial))
    if options.progress is not None:
        with Runtime() as runtime:
            _campaign(options, runtime)
        return 0
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output.resolve() / f"progress-{options.seed}.json"
    Progress(options.first).write(path)
    ends = ["--end", str(options.first + options.count), "--until", str(_until(options))]
    seed = ["--seed", str(options.seed), "--output", str(options.output.resolve())]
    found = supervised([*ends, *seed], path)
    print(words(found.counts))
    for kind, often in found.kinds.most_common():
        print(f"{often} times: {kind}")
    return int(bool(found.kinds))


def _until(options: argparse.Namespace) -> float:
    return time.time() + options.seconds


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--count", type=int, default=1000, help="graphs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first graph")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so many")
    parser.add_argument("--replay", type=int, help="one graph: print it, and what is said")
    parser.add_argument("--output", type=Path, default=Path("build/fuzz"))
    for name, kind in (("--progress", Path), ("--end", int), ("--until", float)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)  # of supervised ones
    return parser.parse_args()


def _campaign(options: argparse.Namespace, runtime: Runtime) -> None:
    progress = Progress.read(options.progress)
    told = time.time()
    for number in range(progress.number, options.end):
        progress.number = number
        _one(options, progress, runtime)
        now = time.time()
        if now - told > EVERY_S:
            told = now
            print(f"{progress.counts['graphs']} graphs", file=sys.stderr, flush=True)
        if now > options.until:
            break
    progress.counts["runtime: died"] += runtime.deaths
    progress.write(options.progress)


def _one(options: argparse.Namespace, progress: Progress, runtime: Runtime) -> None:
    draws = by_number(progress.number, options.seed)

    def at(stage: str) -> None:
        progress.stage = stage
        progress.write(options.progress)

    control = progress.number % CONTROLLED == 0
    trial = tried(draws, runtime, control=control, at=at)
    count(progress.counts, trial)
    for kind in trial.kinds:
        progress.kinds[kind] += 1
        print(f"FAULT {progress.number}: {trial.said.faults}", flush=True)
        if progress.kinds[kind] <= ENOUGH:
            at("shrinking")
            _write(options, progress.number, _smallest(draws.made, kind, runtime), kind)


def count(counts: Counter[str], trial: Trial) -> None:
    """Add what became of a graph."""
    counts["graphs"] += 1
    counts[trial.end] += 1
    counts["faulty"] += bool(trial.said.faults)
    if trial.said.folded is not None:
        counts["compared in float64"] += trial.said.compared > 0
        counts[f"runtime: {trial.said.runtime}"] += 1
    if trial.noticed is not None:
        counts[f"wrong on purpose: {'noticed' if trial.noticed else 'not noticed'}"] += 1


def words(counts: Counter[str]) -> str:
    """Return counts as text."""
    rest = sorted(set(counts) - {"graphs"})
    return "\n".join(f"{counts[name]:8} {name}" for name in ("graphs", *rest))


def _smallest(made: list[int], kind: str, runtime: Runtime) -> Trial:
    asked = runtime if "runtime" in kind else None
    small = shrunk(made, lambda other: kind in _kinds(other, asked), seconds=25.0)
    return tried(replayed(small), runtime)


def _kinds(made: list[int], runtime: Runtime | None) -> set[str]:
    try:
        return tried(replayed(made), runtime).kinds
    except Exception:  # noqa: BLE001  decisions that nobody would draw
        return set()


def _write(options: argparse.Namespace, number: int, trial: Trial, kind: str) -> None:
    path = options.output / f"{options.seed}-{number}-{kind.split()[0].strip(':')}.onnx"
    onnx.save(trial.drawn.case.model, path)
    print(f"wrote {path}")
    _told(trial)


def _told(trial: Trial) -> bool:
    print(onnx.printer.to_text(trial.drawn.case.model))
    print(f"options {dict(trial.drawn.case.options)}, end: {trial.end}")
    for fault in trial.said.faults:
        print(f"  {fault}")
    return bool(trial.said.faults)


if __name__ == "__main__":
    sys.exit(main())
