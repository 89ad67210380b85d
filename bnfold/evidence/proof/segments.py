"""Compare what computes one value in both models, and test the comparison itself."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.evidence.proof.comparer import Comparer, Pair
from bnfold.evidence.proof.corners import corners
from bnfold.evidence.proof.draws import Style
from bnfold.evidence.proof.extents import Sizes
from bnfold.evidence.proof.fronts import fronts, is_steady
from bnfold.evidence.proof.impulses import probe
from bnfold.evidence.proof.links import EXACT, Gap, Link, gap
from bnfold.evidence.proof.mutations import Target, targets_of
from bnfold.evidence.proof.outcomes import SAME, UNMOVED
from bnfold.evidence.proof.reach import reads_any_elements, reads_elements
from bnfold.evidence.proof.selftest import Coverage, SelfTest
from bnfold.evidence.proof.sides import CannotEvaluateError
from bnfold.evidence.proof.storage import MORE_NUDGES, Trial, is_beyond_nudges

Key = tuple[ir.Node, ir.Value | str]
"""What tells a constant that is new, see `Target.key`."""

_LEAST_S: Final = 2.0
_TIMES: Final = 3.0
"""What a self-test may take, at the least, and in times of the comparison that it tests: a
machine that is busy with other work must not make an inconclusive one of it."""

_ELSEWHERE: Final = (
    (Style.NEAR, 0),
    (Style.TINY, 0),
    (Style.NORMAL, 0),
    (Style.FAR, 0),
    *((style, turn) for turn in range(1, 9) for style in (Style.NORMAL, Style.SPREAD)),
)
"""What is drawn where something was not seen, and in which turn."""

ROUNDINGS: Final = 8.0
"""A map found beside rounding is off from the identity by as many half ulps, if it is one."""

_FAR: Final = 1e4
"""So far beyond the largest number drawn lies every bound that a network meets."""

_TWICE: Final = 2
"""So often a difference that steps may explain has to show: by chance it does not."""

_RESIDUES: Final = 4
"""Lengths of open axes that are tried, modulo strides: pools and convolutions have 2 to 4."""

_BEYOND: Final = 1024.0
"""So many half ulps, beside the largest of its channel, no rounding of weights makes."""


@dataclass(slots=True)
class SegmentJudge:
    """Compares pairs of segments, and keeps what its self-tests showed.

    Attributes:
        comparer: Both models, and how a value is compared.
        deadline: By the monotonic clock.
        with_impulses: Whether affine segments are probed by every impulse too.
        is_brief: Whether the models are known to differ: then few nudges have to do.
        probed: How many segments were probed by impulses.
        windows: How many segments were evaluated.
        elements: How many elements of results were found to agree.
        coverage: What self-tests of comparisons that ended in "the same" showed, for each
            constant that is new.
        mapped: What those of comparisons that ended in a map showed, by the value mapped. It
            counts for what follows from that value alone: whoever goes back behind it
            compares anew, and has to see for himself.
        dark: Values that were the same while nothing at all was seen of a constant behind
            them: such a value may be zero for all inputs, and is then both any value and its
            negative.
    """

    comparer: Comparer
    deadline: float = math.inf
    with_impulses: bool = False
    is_brief: bool = False
    probed: int = 0
    windows: int = 0
    elements: int = 0
    coverage: dict[Key, Coverage] = field(default_factory=dict)
    mapped: dict[str, dict[Key, Coverage]] = field(default_factory=dict)
    dark: set[str] = field(default_factory=set)
    _behind_maps: dict[Key, list[Coverage]] = field(default_factory=dict)

    def verdict(self, pair: Pair, sizes: Sizes) -> Link | Gap | None:
        """Compare one pair of segments, and test the comparison if it finds no difference."""
        begun = time.monotonic()
        self.windows += 1
        pair, trials, verdict = self._weighed(pair, sizes)
        if verdict is SAME and self.with_impulses:
            found = probe(self.comparer, pair, sizes)
            self.probed += found is not None
            verdict = found if found is not None and found.size > EXACT else SAME
        if isinstance(verdict, Gap):
            return verdict
        apart = self._seen_otherwise(pair, sizes, verdict)
        if apart is not None:
            return apart
        self.elements += sum(trial.original.size for trial in trials)
        took_s = time.monotonic() - begun
        self._test(pair, trials, verdict, took_s)
        if verdict is SAME:
            verdict = self._see_maps(pair, trials, sizes)
        if sizes is not Sizes.REAL or isinstance(verdict, Gap):
            return verdict
        return self._look_elsewhere(pair, verdict, took_s)

    def _seen_otherwise(self, pair: Pair, sizes: Sizes, link: Link | None) -> Gap | None:
        """Return how far results are apart where usual numbers of one length are alike."""
        found = self._in_front(pair, sizes)
        for look in (self._at_other_lengths, self._behind_bounds, self._in_corners):
            found = look(pair, sizes, link) if found is None else found
        return found

    def _weighed(
        self, pair: Pair, sizes: Sizes, styles: Sequence[Style] = ()
    ) -> tuple[Pair, list[Trial], Link | Gap | None]:
        """Evaluate a pair of segments, with more nudges where few leave a doubt.

        Steps make noise that few nudges may not meet at all: there nothing is clear.
        """
        trials = self.comparer.trials(pair, sizes, styles=styles)
        verdict, is_clear = self.comparer.weigh(trials)
        if verdict is SAME:
            return pair, trials, verdict
        steady = is_steady(pair, self.comparer)
        is_enough = self.is_brief and isinstance(verdict, Gap)
        if trials[0].nudged and not is_enough and not (steady and is_clear):
            trials = self.comparer.trials(pair, sizes, MORE_NUDGES, styles)
            verdict, is_clear = self.comparer.weigh(trials)
        if verdict is SAME:
            return pair, trials, verdict
        if trials[0].nudged and isinstance(verdict, Gap):
            verdict = replace(verdict, is_clear=steady and is_clear)
        return self._as_rounded(pair, trials, sizes, styles) or (pair, trials, verdict)

    def _as_rounded(
        self, pair: Pair, seen: Sequence[Trial], sizes: Sizes, styles: Sequence[Style]
    ) -> tuple[Pair, list[Trial], Link | Gap | None] | None:
        """Compare with tensors nudged that did not change; None if that explains nothing."""
        found = self.comparer.keeping(pair)
        if found is None:
            return None
        kept, roundoff = found
        if not self._is_near(seen, roundoff):
            return None
        before = self.comparer.noise.coarsest
        self.comparer.noise.coarsest = max(before, roundoff)
        answer: Link | Gap | object = before
        try:
            _, trials, answer = self._weighed(kept, sizes, styles)
        finally:
            if answer is not SAME:  # else: what else is compared is rounded so too
                self.comparer.noise.coarsest = before
        return (kept, trials, SAME) if answer is SAME else None

    @staticmethod
    def _is_near(seen: Sequence[Trial], roundoff: float) -> bool:
        """Return whether rounding of tensors could explain what was seen."""
        return max(gap(one.original, one.folded).size for one in seen) <= _BEYOND * roundoff

    def _in_front(self, pair: Pair, sizes: Sizes, styles: Sequence[Style] = ()) -> Gap | None:
        """Return how far apart the segments are in front of the steps that they take."""
        for front in fronts(pair, self.comparer):
            _, trials, found = self._weighed(front.pair, sizes, styles)
            if isinstance(found, Link) and front.is_absolute:
                found = self.comparer.differs(trials)
            if isinstance(found, Gap):
                return found
        return None

    def _at_other_lengths(self, pair: Pair, sizes: Sizes, link: Link | None) -> Gap | None:
        """Return how far results are apart where windows end elsewhere, if sizes are open.

        A window at stride 2 ends alike with ceil_mode and without on every even axis. The axes
        that are drawn are as long as one size of the input makes them, modulo the strides; an
        axis that is open is of other lengths too.
        """
        if not (self.comparer.is_open and self.comparer.is_restructured(pair.folded)):
            return None
        for longer in range(1, _RESIDUES):
            try:
                trials = self.comparer.trials(pair, sizes, longer=longer)
            except CannotEvaluateError:
                continue  # what is computed from two axes wants them alike
            found = self.comparer.differs(_mapped(trials, link))
            unlike = any(one.original.shape != one.folded.shape for one in trials)
            if found is not None and (found.is_clear or unlike or not trials[0].nudged):
                return found
        return None

    def _behind_bounds(self, pair: Pair, sizes: Sizes, link: Link | None) -> Gap | None:
        """Return how far results are apart on large numbers, where a bound is not the same.

        A Clip or Mod whose bounds no usual number meets is the same as none.
        """
        if not self.comparer.has_other_bounds(pair):
            return None
        trials, found = self._drawn_again(pair, sizes, link, Style.FAR)
        return found if found is not None and self._is_sure(found, pair, trials) else None

    def _in_corners(self, pair: Pair, sizes: Sizes, link: Link | None) -> Gap | None:
        """Return how far results are apart at ties and thresholds, and in other bodies."""
        for corner in corners(self.comparer, pair, sizes):
            trials = _mapped(corner.trials, link)
            found = self.comparer.differs(trials)
            if found is not None and (
                self._is_sure(found, pair, trials) or is_beyond_nudges(trials)
            ):
                return replace(found, is_special=True)
        return None

    def _test(self, pair: Pair, trials: list[Trial], link: Link | None, took_s: float) -> None:
        """Change what is new in the folded segment, and note what the comparison notices.

        To tell channels apart one by one may take a few times as long as the comparison did.
        """
        targets = list(self.blind(pair))
        rng = np.random.default_rng((self.comparer.seed, self.windows))
        until = min(self.deadline, time.monotonic() + max(_LEAST_S, _TIMES * took_s))
        test = SelfTest(self.comparer, pair, trials, link, until, rng)
        lacks = self.comparer.lacks(pair.original) and any(map(reads_any_elements, pair[:2]))
        if link is SAME and not targets and lacks and not test.reacts():
            raise CannotEvaluateError(UNMOVED)
        name = pair.folded.result.name or ""
        held = self.coverage if link is None else self.mapped.setdefault(name, {})
        for one in test.run(targets):
            known = held.setdefault(one.target.key, one)
            if known is not one:
                known.join(one)
            elif link is not None:
                self._behind_maps.setdefault(one.target.key, []).append(one)
        unseen = link is None and any(not held[one.key].shown.any() for one in targets)
        (self.dark.add if unseen else self.dark.discard)(name)

    def _see_maps(self, pair: Pair, trials: list[Trial], sizes: Sizes) -> Gap | None:
        """Make sure that every map matters, on the numbers drawn, that the result comes from.

        A channel that is off, in front of a Max with a larger constant, leaves the result as
        it is for most numbers. So others are drawn, until each mapped channel was seen.
        Channels that no number at all brings forth, as what a Slice leaves out, need not be.

        Returns:
            How far the results are apart on these; None where they are not.

        Raises:
            CannotEvaluateError: Naming the value that none of them lets through.
        """
        for name in pair.folded.inputs:
            link = self.comparer.relations.get(name)
            if link is None or not reads_elements(pair.folded, name):
                continue
            mapped = link.moves(
                ROUNDINGS * self.comparer.noise.coarsest if link.hazy else EXACT
            )
            unseen, seen = mapped, np.zeros(1, bool)
            again: Iterator[tuple[list[Trial], Gap | None]] = (
                self._drawn_again(pair, sizes, SAME, *how) for how in _ELSEWHERE
            )
            for drawn, found in chain([(trials, None)], again):
                if found is not None and (found.is_clear or not drawn[0].nudged):
                    return found
                test = SelfTest(self.comparer, pair, drawn, SAME, self.deadline)
                seen = seen | test.sees(name, link.axis)
                unseen = mapped & ~seen
                if not unseen.any() or self.is_late:
                    break
            if not unseen.any():
                continue
            test = SelfTest(self.comparer, pair, trials, SAME, self.deadline)
            reached = test.sees(name, link.axis, _FAR) | test.sees(name, link.axis, -_FAR)
            if (unseen & reached).any() or not seen.any():
                message = f"no number drawn for {name!r}, which is a map, reaches the result"
                raise CannotEvaluateError(message)
        return None

    def _look_elsewhere(
        self, pair: Pair, verdict: Link | None, took_s: float
    ) -> Link | Gap | None:
        """Compare on small and on large numbers what is not seen beside the usual ones.

        A bias is not seen beside the rounding of large numbers, one of 1e-6 beside that of
        hardly any; a bound not before it is met.
        And of a sample of few numbers half of the channels are shut behind a Relu: all are
        open once in so many draws.
        """
        for style, again in _ELSEWHERE:
            if not any(self.blind(pair)) or self.is_late:
                break
            trials, found = self._drawn_again(pair, Sizes.REAL, verdict, style, again)
            if found is None:  # a step may hide it
                found = self._in_front(pair, Sizes.REAL, (style,))
            if found is None:
                self._test(pair, trials, verdict, took_s)
            elif self._is_sure(found, pair, trials):
                return found
        return verdict

    def differs_elsewhere(self, pair: Pair) -> Gap | None:
        """Return how far apart results are on other numbers of the real sizes.

        What differs on shorter axes is the same on the real ones if it hangs on their length;
        or if all that was drawn there lies behind a bound.
        """
        for style, again in _ELSEWHERE:
            if self.is_late:
                break
            trials, found = self._drawn_again(pair, Sizes.REAL, SAME, style, again)
            if found is not None and self._is_sure(found, pair, trials):
                return found
        return None

    def _drawn_again(
        self, pair: Pair, sizes: Sizes, link: Link | None, style: Style, again: int = 0
    ) -> tuple[list[Trial], Gap | None]:
        """Compare on other numbers: as stored, and with tensors nudged that did not change.

        Returns:
            What was evaluated, and how far apart the results are; None where they are not.
        """
        trials = self.comparer.trials(pair, sizes, styles=(style,), again=again)
        found = self.comparer.differs(_mapped(trials, link))
        kept = None if found is None else self.comparer.keeping(pair)
        if kept is None or not self._is_near(_mapped(trials, link), kept[1]):
            return trials, found
        rounded = self.comparer.trials(kept[0], sizes, styles=(style,), again=again)
        if self.comparer.differs(_mapped(rounded, link)) is None:
            return rounded, None
        return trials, found

    def _is_sure(self, found: Gap, pair: Pair, trials: Sequence[Trial]) -> bool:
        """Return whether a difference is one, and not what nudges that were not made do."""
        steady = is_steady(pair, self.comparer)
        return not trials[0].nudged or (found.is_clear and steady)

    def blind(self, pair: Pair) -> Iterator[Target]:
        """Yield what is new in a segment and was not shown to be compared so far."""
        mapped = self.mapped.get(pair.folded.result.name or "", {})
        for target in targets_of(pair.folded, self.comparer.folded, self.comparer):
            if not (is_whole(self.coverage, target) or is_whole(mapped, target)):
                yield target

    def shown_of(self, key: Key) -> Coverage | None:
        """Return what was shown of a constant: where it was compared last, or least.

        What is the same although a value on its way is mapped was compared behind that value.
        """
        if key in self.coverage:
            return self.coverage[key]
        found = self._behind_maps.get(key)
        if found is None:
            return None
        return next((one for one in found if not one.is_whole), found[0])

    @property
    def is_late(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() > self.deadline


def is_whole(held: Mapping[Key, Coverage], target: Target) -> bool:
    """Return whether all of a constant was shown to be compared."""
    known = held.get(target.key)
    return known is not None and known.is_whole


def _mapped(trials: list[Trial], link: Link | None) -> list[Trial]:
    if link is None:
        return trials
    return [trial._replace(original=link(trial.original)) for trial in trials]
