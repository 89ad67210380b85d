"""What samples of time show: pure functions of numbers.

A *turn* times every arm once, neighbours in time, so what disturbs the machine disturbs them
alike; its result is the logarithm of the ratio of two medians. Turns of one process share the
placement of memory and threads, so the *process* is what repeats, and intervals go over
processes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bnfold.records import Comparison, Latency, Series, Speed
from bnfold.resampling import expanded_tail, student_quantile

Vector = NDArray[np.float64]

FEWEST_PROCESSES: Final = 6
"""With fewer a resampled interval covers less than it claims (tests/measurement simulates)."""
_RESAMPLES: Final = 4000
_POWER: Final = 0.8
_NS_PER_MS: Final = 1e6


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of times with its interval, and the smallest difference it could have shown."""

    value: float
    low: float
    high: float
    detectable: float

    @property
    def half_width(self) -> float:
        """Half of what the interval spans, as a fraction of the ratio."""
        return math.sqrt(self.high / self.low) - 1 if self.low > 0 else math.inf


def paired_logs(arm: Series, base: Series) -> Vector:
    """The logarithm of arm over base, for every turn that both took; one entry for each."""
    ours = {turn.turn: float(np.median(turn.calls_ns)) for turn in arm.turns}
    theirs = {turn.turn: float(np.median(turn.calls_ns)) for turn in base.turns}
    both = [turn for turn in ours if turn in theirs]
    return np.array([math.log(ours[turn] / theirs[turn]) for turn in both])


def ratio_of(processes: Sequence[Vector], confidence: float, seed: int = 0) -> Ratio:
    """The ratio over processes, from logarithms of the ratios of their turns.

    The middle is the mean over processes of the median over turns. The interval resamples
    processes, whose medians already differ by what turns do, and is widened for few of them.

    Args:
        processes: For every process, the logarithm of the ratio of each turn.
        confidence: How often the interval should hold, e.g. 0.95.
        seed: Of the resampling.

    Raises:
        ValueError: If there are fewer than two processes, or one is empty.
    """
    count = len(processes)
    if count < 2 or any(turns.size == 0 for turns in processes):
        raise ValueError("a ratio needs two processes, and a turn in each")
    rng = np.random.default_rng(seed)
    middles = np.array([np.median(turns) for turns in processes])
    means = rng.choice(middles, (_RESAMPLES, count)).mean(axis=1)
    tail = expanded_tail((1 - confidence) / 2, count)
    low, high = np.quantile(means, (tail, 1 - tail))
    middle = float(middles.mean())
    error = float(middles.std(ddof=1)) / math.sqrt(count)
    wanted = student_quantile(1 - (1 - confidence) / 2, count - 1)
    reach = (wanted + student_quantile(_POWER, count - 1)) * error
    return Ratio(
        math.exp(middle),
        math.exp(min(low, middle)),
        math.exp(max(high, middle)),
        math.expm1(reach),
    )


def speed_shown(against_base: Ratio, against_copy: Ratio | None) -> Speed:
    """What the ratios to the base and to a second session of the base show.

    A difference counts when both intervals exclude 1, on the same side: what is faster than
    one session of a file and not than another one is lucky, not faster.
    """
    witnesses = [one for one in (against_base, against_copy) if one is not None]
    if all(one.high < 1 for one in witnesses):
        return Speed.FASTER
    if all(one.low > 1 for one in witnesses):
        return Speed.SLOWER
    return Speed.NO_DIFFERENCE


def compare(
    series: Sequence[Series], base: str, null: str, confidence: float, seed: int
) -> tuple[Comparison, ...]:
    """Compare every arm with the base, by what all processes measured.

    Args:
        series: Of all arms and processes.
        base: Name of the arm to compare with.
        null: Name of the arm that is a second session of it; empty if there is none.
        confidence: Of the intervals.
        seed: Of the resampling.
    """
    arms = dict.fromkeys(one.arm for one in series if one.arm != base)
    found = []
    for arm in arms:
        logs, copies = _logs(series, arm, base), list[Vector]()
        if null in arms and arm != null:
            copies = _logs(series, arm, null)
        ratio, copy = (_ratio_or_none(one, confidence, seed) for one in (logs, copies))
        found.append(_comparison(arm, base, logs, ratio, copy, confidence))
    return tuple(found)


def _logs(series: Sequence[Series], arm: str, base: str) -> list[Vector]:
    bases = {one.process: one for one in series if one.arm == base}
    ours = [one for one in series if one.arm == arm and one.process in bases]
    found = [paired_logs(one, bases[one.process]) for one in ours]
    return [turns for turns in found if turns.size]


def _ratio_or_none(logs: Sequence[Vector], confidence: float, seed: int) -> Ratio | None:
    return ratio_of(logs, confidence, seed) if len(logs) >= FEWEST_PROCESSES else None


def _comparison(
    arm: str,
    base: str,
    logs: Sequence[Vector],
    ratio: Ratio | None,
    copy: Ratio | None,
    confidence: float,
) -> Comparison:
    verdict = Speed.NOT_MEASURED if ratio is None else speed_shown(ratio, copy)
    if ratio is None:
        middles = [float(np.median(found)) for found in logs]
        value = math.exp(float(np.mean(middles))) if middles else math.nan
        ratio = Ratio(value, math.nan, math.nan, math.nan)
    elif copy is not None:  # both must be found
        ratio = replace(ratio, detectable=max(ratio.detectable, copy.detectable))
    return Comparison(
        arm,
        base,
        ratio.value,
        ratio.low,
        ratio.high,
        confidence,
        verdict,
        ratio.detectable,
        len(logs),
        sum(len(found) for found in logs),
    )


def latency_of(arm: str, series: Sequence[Series], batch: int | None) -> Latency:
    """The distribution of the time of a call, over all processes.

    Raises:
        ValueError: If the arm was never timed.
    """
    calls = [turn.calls_ns for one in series if one.arm == arm for turn in one.turns]
    if not calls:
        raise ValueError(f"{arm} was never timed")
    times_ms = np.concatenate([np.asarray(turn, np.float64) for turn in calls]) / _NS_PER_MS
    p50, p90, p99 = (float(one) for one in np.quantile(times_ms, (0.5, 0.9, 0.99)))
    mean = float(times_ms.mean())
    rate = (batch or 1) / mean * 1e3 if mean > 0 else math.inf
    return Latency(arm, int(times_ms.size), p50, p90, p99, mean, rate)


def settled(times: Sequence[float], window: int, tolerance: float) -> bool:
    """Whether the median of the last window is that of the one before, within a tolerance.

    Args:
        times: Of every call so far.
        window: How many calls make a window.
        tolerance: The difference that counts as none, as a fraction.
    """
    if len(times) < 2 * window:
        return False
    before = float(np.median(times[-2 * window : -window]))
    after = float(np.median(times[-window:]))
    return abs(after - before) <= tolerance * after
