"""Arms that take turns, and what their samples show: pure functions of callables and numbers.

Turns are neighbours in time, so what disturbs the machine disturbs all arms of a turn alike;
ratios are paired by turn. Consecutive turns make a block, whose median stands for it, and the
interval resamples blocks: it covers what changes within a process, not between processes.
"""

from __future__ import annotations

import gc
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from bnfold.measurement.stats import FEWEST_PROCESSES, ratio_of

BLOCKS: Final = 8
CONFIDENCE: Final = 0.95
Samples = dict[str, list[float]]


def in_turns(
    work: Mapping[str, Callable[[], Mapping[str, float]]],
    turns: int,
    fail: Callable[[str, Exception], None],
) -> dict[str, Samples]:
    """Let every arm take its samples in every turn, from left to right and back.

    An arm that fails takes no more turns, and what it had is dropped. Garbage is collected
    between turns: who switches collection off for a while does not run out of memory.

    Args:
        work: For each arm, what takes its samples and returns them by name.
        turns: How often.
        fail: Told of an arm that failed, and why.
    """
    samples: dict[str, Samples] = {arm: {} for arm in work}
    for turn in range(turns):
        gc.collect()
        for arm in list(samples) if turn % 2 == 0 else list(reversed(samples)):
            try:
                found = work[arm]()
            except Exception as error:  # noqa: BLE001  one arm's failure must not cost the others
                del samples[arm]
                fail(arm, error)
                continue
            for name, value in found.items():
                samples[arm].setdefault(name, []).append(_rounded(value))
    return samples


def medians(samples: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the median of each list."""
    return {name: _rounded(statistics.median(values)) for name, values in samples.items()}


def ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, float | None]:
    """Return the ratio of two lists of samples, turn by turn, with its interval.

    With fewer blocks than an interval needs there is none.
    """
    logs = [math.log(a / b) for a, b in zip(above, below, strict=True)]
    blocks = [block for block in np.array_split(np.array(logs), BLOCKS) if block.size]
    if len(blocks) < FEWEST_PROCESSES:
        value = math.exp(statistics.median(logs))
        return {"value": _rounded(value), "low": None, "high": None}
    found = ratio_of(blocks, CONFIDENCE)
    return {
        "value": _rounded(found.value),
        "low": _rounded(found.low),
        "high": _rounded(found.high),
    }


def ratios(samples: Mapping[str, Samples]) -> dict[str, Any]:
    """Return every arm over ours, and torch's second over its first: the null run.

    Pairs that are not there are left out. Each has a ratio for every quantity.
    """
    pairs = [(arm, "ours") for arm in samples if arm not in ("ours", "again")]
    pairs += [("again", "eager")] if "again" in samples else []
    return {
        f"{above} / {below}": {
            name: ratio(values, samples[below][name])
            for name, values in samples[above].items()
        }
        for above, below in pairs
        if below in samples
    }


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")
