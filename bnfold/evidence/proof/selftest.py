"""Whether a comparison that found no difference would have found one.

A segment that passes is tested itself: every constant that the folded model does not share
with the original is changed (the sign of every channel, its size, one single element), and the
comparison must notice each. What it does not notice it has not compared: a channel that an
axis cut short leaves out, that is dead for all numbers drawn, that a saturation hides.

A channel is found in the result by groups: with half of the channels changed, chosen at
random, exactly the slices of that half must differ. Where a result is laid out otherwise,
channels are numbered in binary and changed bit by bit, so that places that hang on one channel
tell which. Of what a weight reads, every channel must hold something: a column that only meets
zeros was not compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from bnfold.evidence.proof.comparer import Comparer, Pair
from bnfold.evidence.proof.links import EXACT, Array, Link, excess, slices
from bnfold.evidence.proof.mutations import Mask, Mutation, Mutator, Target
from bnfold.evidence.proof.sides import CannotEvaluateError, TooLateError
from bnfold.evidence.proof.storage import Trial
from bnfold.evidence.proof.summands import seen_alone

_ABOVE_NOISE: Final = 8.0
"""A change counts as seen from so many times the root mean square of the rounding noise."""

_STEP: Final = 1e-3
_STEP_OF_ROUNDING: Final = 128.0
"""By what a channel is changed to see it, at the least, and in half ulps of one."""

_TAPS: Final = 24
"""Single elements that are tried: some are never read, such as taps over padding alone."""

_SINGLY: Final = 256
"""Channels that are changed one by one where nothing else tells them apart."""

_OTHER_SEED: Final = 7919


@dataclass(slots=True)
class Coverage:
    """What self-tests have shown of one target.

    Attributes:
        target: The constant or attribute.
        shown: For each channel, whether a change of it was noticed, or none can be: a Where
            of a constant condition never picks it.
        read: Of a weight, for each channel it reads, whether that held anything; None for
            what is no weight.
        tap: Whether a change of one element was noticed; None where that was not asked.
        elements: How many elements of results were compared.
    """

    target: Target
    shown: Mask
    read: Mask | None = None
    tap: bool | None = None
    elements: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether every channel was shown to be compared."""
        read = self.read is None or bool(self.read.all())
        return read and bool(self.shown.all()) and self.tap is not False

    def join(self, other: Coverage) -> None:
        """Add what another comparison showed."""
        if self.shown.shape == other.shown.shape:
            self.shown = self.shown | other.shown
        if other.read is not None:
            known = self.read
            alike = known is not None and known.shape == other.read.shape
            self.read = other.read | known if alike and known is not None else other.read
        if other.tap is not None:
            self.tap = other.tap or bool(self.tap)
        self.elements += other.elements


@dataclass(slots=True)
class SelfTest:
    """The test of one segment that passed.

    Attributes:
        comparer: What compared it.
        pair: The segment.
        trials: What it was compared on.
        link: How the results are related; None for the same.
        deadline: By the monotonic clock; what is not tested by then counts as not shown.
    """

    comparer: Comparer
    pair: Pair
    trials: Sequence[Trial]
    link: Link | None
    deadline: float
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def run(self, targets: Iterable[Target]) -> list[Coverage]:
        """Return what a change of each target shows."""
        return [self._target(target) for target in targets]

    def reacts(self) -> bool:
        """Return whether the result differs for other inputs: it may be constant for them all.

        For segments whose nodes differ but not their constants. Where one step decides, as in
        a Hardmax, other sizes of the same numbers may all be on its same side, so they are
        turned round too.
        """
        first = self.trials[0]
        floats = {name: x for name, x in first.feeds.items() if x.dtype == np.float64}
        if not floats or not self.pair.folded.nodes:
            return True
        rng = np.random.default_rng((self.comparer.seed, _OTHER_SEED))
        for sign in (1.0, -1.0, 1.0, -1.0):
            moved = {
                name: sign * x * rng.uniform(0.5, 2.0, x.shape) for name, x in floats.items()
            }
            feeds = self.comparer.mapped(self.pair, {**first.feeds, **moved})
            result = self.comparer.folded.evaluate(self.pair.folded, feeds)
            if self._seen(first, result).any():
                return True
        return False

    def sees(self, name: str, axis: int | None, far: float = 0.0) -> Mask:
        """Return the channels of an input of the segment on which the result hangs.

        A value that is known to be a map of its counterpart, and lies in the branch of a Where
        that no draw takes, says nothing of what is computed from it.

        Args:
            name: The input.
            axis: Along which its channels lie; None for all of it as one.
            far: By how much its numbers are moved, in units of the largest; a little if 0.
        """
        rng = np.random.default_rng((self.comparer.seed, _OTHER_SEED))
        shown = np.zeros(1, bool)
        for trial in self.trials:
            feeds = self.comparer.mapped(self.pair, trial.feeds)
            x: Array | list[Array] = feeds[name]
            if isinstance(x, list):  # a sequence is handed on, never computed from
                return np.ones(1, bool)
            moved = x * rng.uniform(0.5, 2.0, x.shape) + far * np.abs(x).max(initial=0.0)
            shown = shown | self._moved(trial, feeds, name, moved, axis)
            if shown.all():
                break
        return shown

    def _moved(
        self, trial: Trial, feeds: dict[str, Array], name: str, moved: Array, axis: int | None
    ) -> Mask:
        x = feeds[name]
        count = 1 if axis is None else x.shape[axis]
        along = [-1 if place == axis else 1 for place in range(x.ndim)]

        def changed(mask: Mask) -> Array:
            here = {**feeds, name: np.where(mask.reshape(along), moved, x)}
            result = self.comparer.folded.evaluate(self.pair.folded, here)
            return self._seen(trial, result)

        def alone() -> Mask | None:
            segment, least = self.pair.folded, self._least(trial)
            if axis is None or least is None:
                return None
            return seen_alone(self.comparer.folded, segment, name, axis, moved - x, least)

        return self._told_apart(changed, count, alone)

    @property
    def _is_late(self) -> bool:
        return time.monotonic() > self.deadline

    def _target(self, target: Target) -> Coverage:
        elements = sum(trial.original.size for trial in self.trials)
        try:
            mutator = Mutator(self.comparer.folded, self.pair.folded, target, self.rng)
        except CannotEvaluateError:
            return Coverage(target, np.zeros(1, bool), elements=elements)
        found = Coverage(target, mutator.unpicked(), elements=elements)
        for trial in () if found.shown.all() else self.trials:
            feeds = self.comparer.mapped(self.pair, trial.feeds)
            try:
                shown, tap = self._channels(mutator, trial), self._tap(mutator, trial)
            except TooLateError:
                break
            found.join(Coverage(target, shown, mutator.reads(feeds), tap))
            if found.is_whole:
                break
        return found

    def _tap(self, mutator: Mutator, trial: Trial) -> bool | None:
        """Return whether a change of some single element is noticed; None if none is made."""
        for _ in range(_TAPS):
            mutation = mutator.tap()
            if mutation is None:
                return None
            if self._look(trial, mutation).any():
                return True
        return False

    def _channels(self, mutator: Mutator, trial: Trial) -> Mask:
        """Return which channels of a target the comparison notices on one trial.

        The verdict must be another if all signs are turned. Channel by channel a small change
        is asked for: one that is dead or saturated in all that was drawn wakes up when it is
        turned around, and says nothing of its size.
        """
        count = mutator.count
        everything = np.ones(count, bool)
        feeds = self.comparer.mapped(self.pair, trial.feeds)
        step = max(
            _STEP, _STEP_OF_ROUNDING * self.comparer.noise.coarsest if trial.nudged else 0.0
        )

        def changed(mask: Mask) -> Array:
            return self._look(trial, mutator.sizes(mask, feeds, trial.folded, step))

        result = self._evaluated(mutator.signs(everything, feeds, trial.folded), trial)
        if result is None:
            return everything  # nothing can be computed with other numbers: that is noticed
        if not self._is_noticed(trial, result):
            return np.zeros(count, bool)
        return self._told_apart(changed, count)

    def _told_apart(
        self,
        changed: Callable[[Mask], Array],
        count: int,
        alone: Callable[[], Mask | None] = lambda: None,
    ) -> Mask:
        """Return which channels are noticed.

        Args:
            changed: Says where a change of some of them is.
            count: How many there are.
            alone: Says which ones are noticed each for itself, if that can be computed.
        """
        everything = np.ones(count, bool)
        if count == 1:
            return everything & changed(everything).any()
        half = self._half(count)
        found = _by_slices(changed(everything), changed(half), half)
        if found is None:
            found = alone()
            if found is None or not found.all():
                none = np.zeros(count, bool)
                found = self._numbered(changed, none if found is None else found)
        return found

    def _is_noticed(self, trial: Trial, result: Array) -> bool:
        """Return whether the verdict itself would have been another."""
        moved = result - trial.folded if _is_like(result, trial.folded) else 0.0
        nudged = [one + moved for one in trial.nudged]  # the noise is what it was
        changed = Trial(self._expected(trial), result, nudged, trial.feeds)
        return self.comparer.differs([changed]) is not None

    def _half(self, count: int) -> Mask:
        mask = np.zeros(count, bool)
        mask[self.rng.permutation(count)[: count // 2]] = True
        return mask

    def _numbered(self, changed: Callable[[Mask], Array], known: Mask) -> Mask:
        """Change channels bit by bit, then those that this does not tell apart one by one.

        Args:
            changed: Says where a change of some of them is.
            known: Which ones are noticed, as is known.
        """
        count, shown = known.size, known.copy()
        numbers = np.arange(count)
        code: Array | None = None
        alone: Array | None = None
        for bit in range(int(count - 1).bit_length()):
            one, other = (changed((numbers >> bit & 1) == wanted) for wanted in (1, 0))
            if one.shape != other.shape or self._is_late:
                return shown
            code = (0 if code is None else code) + (one.astype(np.int64) << bit)
            either = one ^ other
            alone = either if alone is None else alone & either
        if code is not None and alone is not None and code.shape == alone.shape:
            told = code[alone]
            shown[told[told < count]] = True
        for channel in np.flatnonzero(~shown)[:_SINGLY]:
            if self._is_late:
                break
            shown[channel] = changed(numbers == channel).any()
        return shown

    def _look(self, trial: Trial, mutation: Mutation) -> Array:
        """Return where the comparison sees a mutation; everywhere if it breaks the graph."""
        result = self._evaluated(mutation, trial)
        return np.ones((1,), bool) if result is None else self._seen(trial, result)

    def _evaluated(self, mutation: Mutation, trial: Trial) -> Array | None:
        feeds = self.comparer.mapped(self.pair, trial.feeds)
        try:
            return mutation.evaluate(self.comparer.folded, self.pair.folded, feeds)
        except TooLateError:
            raise  # it shows nothing of the mutation
        except CannotEvaluateError:
            return None

    def _expected(self, trial: Trial) -> Array:
        return trial.original if self.link is None else self.link(trial.original)

    def _seen(self, trial: Trial, result: Array) -> Array:
        """Return where a result differs by more than rounding from that of no change.

        Not from the original's: what was off before any change would count as noticed.
        """
        expected = trial.folded
        if expected.shape != result.shape or expected.dtype != result.dtype:
            return np.ones((1,), bool)
        if expected.dtype != np.float64:
            return np.asarray(expected != result)
        seen = excess(expected, result) > EXACT
        for noise in _noises(trial):
            with np.errstate(invalid="ignore"):
                seen &= ~(np.abs(result - expected) <= _ABOVE_NOISE * noise)
        return seen

    def _least(self, trial: Trial) -> Array | None:
        """Return from which change on `_seen` sees an element; None of no floats."""
        expected = trial.folded
        if expected.dtype != np.float64:
            return None
        least = np.where(np.isfinite(expected), EXACT * slices(expected), np.inf)
        for noise in _noises(trial):
            least = np.maximum(least, _ABOVE_NOISE * noise)
        return least


def _is_like(one: Array, other: Array) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype == np.float64


def _noises(trial: Trial) -> Iterator[Array]:
    """Yield the rounding noise of each channel, if there is any; it broadcasts."""
    if not trial.nudged or trial.folded.dtype != np.float64 or not trial.folded.size:
        return
    far = [one - trial.folded for one in trial.nudged if one.shape == trial.folded.shape]
    axes = tuple(axis for axis in range(trial.folded.ndim) if axis != 1)
    with np.errstate(invalid="ignore", over="ignore"):
        power = sum(np.mean(one * one, axis=axes, keepdims=True) for one in far)
    yield np.nan_to_num(np.sqrt(np.asarray(power) / max(len(far), 1)), posinf=0.0)


def _by_slices(whole: Array, some: Array, half: Mask) -> Mask | None:
    """Return the channels seen, where channels are the slices along an axis of the result.

    That they are is shown by the half that was changed: chosen at random, it is met by chance
    with a probability of 2 to the minus of their number.
    """
    if whole.shape != some.shape:
        return None
    for axis in range(whole.ndim):
        if whole.shape[axis] != half.size:
            continue
        others = tuple(one for one in range(whole.ndim) if one != axis)
        all_of, half_of = whole.any(axis=others), some.any(axis=others)
        if np.array_equal(half_of, half & all_of) and half_of.any():
            return np.asarray(all_of)
    return None
