"""Errors of both models against the original in float64, as figures.

They are no second criterion: the original's own error is a part of what rounding explains
wherever it is known (`bnfold.evidence.weigh`), so one ratio decides, and is repeated here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.evidence.compare import is_float
from bnfold.evidence.court import Hearing
from bnfold.evidence.in_float64 import alike
from bnfold.evidence.judge import Trial, judge
from bnfold.evidence.readings import Readings
from bnfold.evidence.verification.interval import Interval, Vector, ratio_interval
from bnfold.evidence.weigh import trials_of
from bnfold.records import OutputCheck, ReferenceErrors
from bnfold.runtime import Arrays


@dataclass(frozen=True, slots=True)
class Exhibit:
    """One output on one set of inputs.

    Attributes:
        trial: Its size and noise.
        reference: What the original computes in float64.
        original: What it computes in its own types.
        folded: What the accused computes.
        samples: How many samples the output holds.
    """

    trial: Trial
    reference: NDArray[Any]
    original: NDArray[Any]
    folded: NDArray[Any]
    samples: int

    def squares(self, found: NDArray[Any]) -> Vector:
        """Squared errors summed for each sample of the batch."""
        far = _gap(self.reference, found)
        return np.asarray(np.sum((far * far).reshape(self.samples, -1), axis=1))

    def by_channel(self, found: NDArray[Any]) -> Vector:
        """Squared errors summed for each channel."""
        far = _gap(self.reference, found)
        axes = tuple(axis for axis in range(far.ndim) if axis != 1)
        return np.asarray(np.sum(far * far, axis=axes if far.ndim > 1 else None)).reshape(-1)

    @property
    def allowed(self) -> float:
        """Squared storage noise of one sample."""
        noise = self.trial.noise
        drawn = sum(float(o.squares.sum()) * self.trial.trust + o.flipped for o in noise)
        return max(drawn / len(noise), self._floor) / self.samples

    @property
    def _floor(self) -> float:
        scale = self.trial.scale
        elements = max(scale.squares.size * scale.width, 1)
        return float(scale.floor**2 * scale.squares.sum() + elements * scale.tiny**2)


def reference_errors(
    hearing: Hearing, readings: Readings, place: int, check: OutputCheck | None
) -> ReferenceErrors | None:
    """Both errors on one output; None where it was not evaluated.

    Args:
        hearing: What ran.
        readings: What was measured of it.
        place: The position of the output.
        check: What decided on it: its ratio and limit are repeated.
    """
    exhibits = list(_exhibits(hearing, readings, place))
    if not exhibits:
        return None
    return errors_of(exhibits, readings.coarsest, check)


def errors_of(
    exhibits: Sequence[Exhibit], coarsest: float, check: OutputCheck | None = None
) -> ReferenceErrors:
    """Weigh both errors on what was seen of one output.

    Args:
        exhibits: One for each set of inputs; at least one.
        coarsest: Largest unit roundoff among the numbers that the original stores or reads.
        check: What decided on the output; the exhibits are judged by themselves if None.
    """
    check = check or judge("", [exhibit.trial for exhibit in exhibits], coarsest)
    ratio, excess = _intervals(exhibits)
    before, after = (
        [one.squares(one.original) for one in exhibits],
        [one.squares(one.folded) for one in exhibits],
    )
    size = max(sum(one.reference.size for one in exhibits), 1)
    return ReferenceErrors(
        error_original=float(np.sqrt(np.concatenate(before).sum() / size)),
        error_folded=float(np.sqrt(np.concatenate(after).sum() / size)),
        ratio=ratio.ratio,
        low=ratio.low,
        high=ratio.high,
        excess=excess.ratio,
        excess_low=excess.low,
        excess_high=excess.high,
        worst=check.ratio,
        limit=check.limit,
        samples=sum(one.samples for one in exhibits),
        channels=tuple(_channels(exhibits)),
        channel=check.channel,
    )


def _exhibits(hearing: Hearing, readings: Readings, place: int) -> Iterator[Exhibit]:
    trials = dict(trials_of(readings, place))
    for index, known in enumerate(hearing.references.outputs):
        reference, trial = known.get(place), trials.get(index)
        before = hearing.original[index].get(place)
        after = (hearing.folded[index] or {}).get(place)
        if trial is None or reference is None or before is None or after is None:
            continue
        if alike(reference, before) and alike(reference, after):
            samples = _samples(hearing.sets[index], before)
            yield Exhibit(trial, reference, before, after, samples)


def _samples(arrays: Arrays, output: NDArray[Any]) -> int:
    """The batch, if inputs and output have one; they are one sample otherwise."""
    firsts = {array.shape[0] if array.ndim else 1 for array in arrays.values()}
    if output.ndim < 2 or firsts != {output.shape[0]}:
        return 1
    return max(int(output.shape[0]), 1)


def _gap(reference: NDArray[Any], found: NDArray[Any]) -> Vector:
    """Differences where both are finite; of what cannot be subtracted, whether it differs."""
    if not is_float(reference):
        return np.asarray(reference != found).astype(np.float64)
    wide, other = reference.astype(np.float64), found.astype(np.float64)
    both = np.isfinite(wide) & np.isfinite(other)
    far: Vector = np.zeros_like(wide)
    np.subtract(other, wide, out=far, where=both)
    return far


def _intervals(exhibits: Sequence[Exhibit]) -> tuple[Interval, Interval]:
    """The ratio of errors, and that of error to allowance; every input counts alike."""
    above, own, allowed = [], [], []
    for one in exhibits:
        before, after = one.squares(one.original), one.squares(one.folded)
        unit = float(before.mean()) + one.allowed
        above.append(after / unit)
        own.append(before / unit)
        allowed.append((before + one.allowed) / unit)
    errors = np.concatenate(above)
    return (
        ratio_interval(errors, np.concatenate(own)),
        ratio_interval(errors, np.concatenate(allowed)),
    )


def _channels(exhibits: Sequence[Exhibit]) -> Iterator[tuple[float, float]]:
    counts = {one.by_channel(one.original).size for one in exhibits}
    if len(counts) != 1:
        return
    count = counts.pop()
    size = max(sum(one.reference.size for one in exhibits) / max(count, 1), 1.0)
    before = np.sum([one.by_channel(one.original) for one in exhibits], axis=0)
    after = np.sum([one.by_channel(one.folded) for one in exhibits], axis=0)
    yield from zip(
        np.sqrt(before / size).tolist(), np.sqrt(after / size).tolist(), strict=True
    )
