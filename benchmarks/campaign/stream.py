"""The tasks of a campaign, all sources mixed, and the processes that do them."""

from __future__ import annotations

import json
import os
import signal
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path
from types import FrameType
from typing import Any, Final

from benchmarks.campaign import packaged
from benchmarks.campaign.counts import Counts
from benchmarks.campaign.work import Task, done

SHARES: Final = {
    "suite": 8,
    "chain": 7,
    "bodies": 3,
    "computed constants": 2,
    "windows": 3,
    "wide": 1,
    "masked attention": 2,
    "open features": 1,
    "pre-activation": 2,
    "quantised": 3,
    "networks": 3,
    "without weights": 1,
}
"""How many of 36 models are from each source."""
LIMIT_S: Final = 180
"""Seconds for one task: what takes longer is an error of its own."""


@dataclass(frozen=True, slots=True)
class Goal:
    """How much is to be judged, and how.

    Attributes:
        right: Different right folds.
        mutants: Spoiled folds that rounding does not explain.
        forged: Forged certificates.
        seed: Where the seeds of every source start.
        run_each: Of so many models, one is run by ONNX Runtime; 0 for none.
        packaged: Whether the models at hand are judged too.
    """

    right: int
    mutants: int
    forged: int
    seed: int = 0
    run_each: int = 60
    packaged: bool = True

    def is_met(self, counts: Counts) -> bool:
        """Return whether there is enough of everything."""
        wanted = (self.right, self.mutants, self.forged)
        return all(n >= w for n, w in zip(counts.progress(), wanted, strict=True))


def tasks(goal: Goal) -> Iterator[Task]:
    """Yield tasks without end: every source by its share, models at hand now and then."""
    tenths = -(-13 * goal.mutants // max(goal.right, 1))  # some are sorted out: 1.3 for 1
    each = max(goal.right // max(goal.forged // 3, 1), 1)
    at_hand = _at_hand() if goal.packaged else iter(())
    seeds: Counter[str] = Counter()
    for place, source in enumerate(cycle(_mixed())):
        forgeries = 4 if goal.forged and seeds[source] % each == 0 else 0
        runs = bool(goal.run_each) and place % goal.run_each == 7 % goal.run_each
        mutants = (tenths * (place + 1)) // 10 - (tenths * place) // 10
        yield Task(source, goal.seed + seeds[source], mutants, forgeries, runs)
        seeds[source] += 1
        if place % 8 == 7:
            yield from islice(at_hand, 1)


def _at_hand() -> Iterator[Task]:
    """Yield the graphs of the battery, and after every ninety a packaged model."""
    files = iter(range(len(packaged.files())))
    for number in range(packaged.battery()):
        yield Task("battery", number, mutants=1)
        if number % 90 == 30:
            yield from (
                Task("packaged", one, mutants=2, forgeries=1) for one in islice(files, 1)
            )


def _mixed() -> list[str]:
    """Return the sources by their shares, spread evenly."""
    slots = [(n / share, name) for name, share in SHARES.items() for n in range(share)]
    return [name for _, name in sorted(slots)]


def _start() -> None:
    """Prepare a process: one thread, silent, with a clock of its own."""
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _late)
    os.environ["OMP_NUM_THREADS"] = "1"


def _late(_number: int, _frame: FrameType | None) -> None:
    message = f"it took more than {LIMIT_S} s"
    raise TimeoutError(message)


def limited(task: Task) -> dict[str, Any]:
    """Do a task; give it up when it takes too long."""
    signal.alarm(LIMIT_S)
    try:
        return done(task)
    finally:
        signal.alarm(0)


def campaign(goal: Goal, jobs: int, seconds: float, path: Path, tell: Any) -> Counts:
    """Do tasks until the goal is met or the time is up; go on where the last one stopped.

    Every task is a line of ``path``. The same goal yields the same tasks, so lines that are
    there already are counted and not done again.
    """
    counts, known = _read(path)
    stop = time.monotonic() + seconds
    stream = (task for task in tasks(goal) if task.key not in known)
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" if path.stat().st_size else "")  # the last line may be cut short
        while not goal.is_met(counts) and time.monotonic() < stop:
            with (
                suppress(BrokenProcessPool),
                ProcessPoolExecutor(jobs, get_context("spawn"), _start) as pool,
            ):
                for line in _lines(pool, stream, goal, counts, jobs, stop):
                    counts.add(line)
                    file.write(json.dumps(line, default=str) + "\n")
                    file.flush()
                    tell(counts)
    return counts


def _lines(
    pool: ProcessPoolExecutor,
    stream: Iterator[Task],
    goal: Goal,
    counts: Counts,
    jobs: int,
    stop: float,
) -> Iterator[dict[str, Any]]:
    running: dict[Future[dict[str, Any]], Task] = {}
    while True:
        ended = goal.is_met(counts) or time.monotonic() > stop
        while not ended and len(running) < 3 * jobs:
            task = next(stream)
            running[pool.submit(limited, task)] = task
        if not running:
            return
        finished, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in finished:
            task = running.pop(future)
            try:
                yield future.result()
            except BrokenProcessPool:
                yield {"key": task.key, "source": task.source, "error": "the process died"}
                raise


def _read(path: Path) -> tuple[Counts, set[str]]:
    counts, known = Counts(), set()
    if path.exists():
        for text in path.read_text(encoding="utf-8").splitlines():
            with suppress(json.JSONDecodeError):  # the last line of a campaign that was killed
                line = json.loads(text)
                counts.add(line)
                known.add(line["key"])
    return counts, known
