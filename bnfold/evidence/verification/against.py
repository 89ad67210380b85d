"""Errors of both models against the original in float64: the second criterion."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.errors import BnfoldError
from bnfold.evidence.compare import Deviation, deviation, is_float
from bnfold.evidence.court import Court, Hearing
from bnfold.evidence.judge import Trial, judge
from bnfold.evidence.readings import by_place
from bnfold.evidence.reference import Evaluator, NoKernelError, runtime_fallback
from bnfold.evidence.verification.interval import Interval, Vector, ratio_interval
from bnfold.evidence.weigh import Readings
from bnfold.records import ReferenceErrors
from bnfold.runtime import Arrays

Outputs = dict[int, NDArray[Any]]
_NOT_EVALUATED: Final = (
    NoKernelError,
    BnfoldError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
)


class _OutOfTimeError(Exception):
    """The reference takes longer than the user wants to wait."""


@dataclass(frozen=True, slots=True)
class References:
    """What the original computes in float64.

    Attributes:
        outputs: By position, one entry per set of inputs; shorter where it had to stop.
        fell_back: Operators that ran on the runtime, in their own types.
        stopped: Why there are not as many as there are inputs.
    """

    outputs: tuple[Outputs, ...]
    fell_back: tuple[str, ...] = ()
    stopped: str = ""


def evaluate(model: ir.Model, sets: Sequence[Arrays], seconds: float) -> References:
    """Run a model in float64 on as many inputs as the time allows."""
    evaluator = Evaluator(model, fallback=runtime_fallback(model))
    deadline = time.monotonic() + seconds
    places = {value.name: place for place, value in enumerate(model.graph.outputs)}

    def watch(_: ir.Node) -> None:
        if time.monotonic() > deadline:
            raise _OutOfTimeError

    found: list[Outputs] = []
    stopped = ""
    for arrays in sets:
        try:
            with np.errstate(all="ignore"):
                outputs = evaluator.run(arrays, on_node=watch)
        except _OutOfTimeError:
            stopped = f"the float64 reference ran out of time ({seconds:g} s)"
            break
        except _NOT_EVALUATED as error:
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            stopped = f"the float64 reference cannot run: {said}"
            break
        found.append({places[name]: value for name, value in outputs.items()})
    return References(tuple(found), tuple(sorted(evaluator.fell_back)), stopped)


@dataclass(frozen=True, slots=True)
class Exhibit:
    """One output on one set of inputs.

    Attributes:
        trial: Its size and noise; the errors of the original and of the accused.
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
        largest = sum(float(one.squares.sum()) + one.flipped for one in noise) / len(noise)
        return max(largest, self._floor) / self.samples

    @property
    def _floor(self) -> float:
        scale = self.trial.scale
        elements = max(scale.squares.size * scale.width, 1)
        return float(scale.floor**2 * scale.squares.sum() + elements * scale.tiny**2)


def reference_errors(
    court: Court, hearing: Hearing, readings: Readings, references: References, place: int
) -> ReferenceErrors | None:
    """Weigh both errors on one output; None where it was not evaluated.

    The allowance is the original's own error together with its storage noise: a fold rounds
    its new weights once, which the original in float64 does not.
    """
    exhibits = list(_exhibits(court, hearing, readings, references, place))
    return errors_of(exhibits, readings.coarsest) if exhibits else None


def errors_of(exhibits: Sequence[Exhibit], coarsest: float) -> ReferenceErrors:
    """Weigh both errors on what was seen of one output.

    Args:
        exhibits: One for each set of inputs; at least one.
        coarsest: Largest unit roundoff among the numbers that the original stores or reads.
    """
    check = judge("", [exhibit.trial for exhibit in exhibits], coarsest)
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


def _exhibits(
    court: Court, hearing: Hearing, readings: Readings, references: References, place: int
) -> Iterator[Exhibit]:
    for index, known in enumerate(references.outputs):
        before = by_place(court.models.original, court.reference[index]).get(place)
        after = by_place(court.models.folded, hearing.runs[index]).get(place)
        reference = known.get(place)
        noise = [draw[index].get(place) for draw in readings.noise]
        seen = tuple(one for one in noise if one is not None)
        if not seen or reference is None or before is None or after is None:
            continue
        if not _alike(reference, before) or not _alike(reference, after):
            continue
        own, far = _deviation(reference, before), _deviation(reference, after)
        if own is not None and far is not None:
            scale = readings.reference[index][place].scale
            samples = _samples(court.sets[index], before)
            trial = Trial(scale, seen, (own,), far)
            yield Exhibit(trial, reference, before, after, samples)


def _alike(reference: Any, found: NDArray[Any]) -> bool:
    if not isinstance(reference, np.ndarray) or reference.shape != found.shape:
        return False
    return is_float(reference) == is_float(found) and found.size > 0


def _deviation(reference: NDArray[Any], found: NDArray[Any]) -> Deviation | None:
    return deviation(reference, found.astype(reference.dtype))


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
