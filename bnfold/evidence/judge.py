"""Weigh a difference against the original's own rounding noise.

A ratio of one means: as far from the original as half-ulp nudges of its own numbers carry it.
The limits know two things: what honest folds do (measured, see below), and how many channels,
values and draws were looked at (`bnfold.evidence.limits`).

=====================================================  =======  =======================
largest ratio over all outputs                         honest   grossly spoiled
=====================================================  =======  =======================
float32: 6 torch nets x 5 seeds, 80 small branches*    <= 2.7   8e3 ... 4e9
float32: 3 PP-OCR nets, 4 light_* of the onnx wheel    <= 1.5   (see below)
float16: 6 torch nets x 5 seeds, 80 small branches     <= 1.0   24 ... 5e5
bfloat16: the same, in a float32 copy                  <= 1.1   2.9 ... 6e4
=====================================================  =======  =======================

(*) and the same branches in float64, judged in a float32 copy. ONNX Runtime 1.32, CPU.
Grossly: sign, order, axis, shift or bias forgotten, padding ignored. One channel of a weight
off by 1 % gives 5e1 ... 4e4 in float32 (PP-OCR: 50 to 110), a forgotten epsilon of 1e-5 gives
3.5 ... 150.

What it cannot see is an error below the storage noise. In float16, 1 % of one channel gives 5
in a shallow net, but 0.3 ... 1.3 in nets of three to twenty layers, where the rounding of all
other weights hides it; in bfloat16, 1 % is two units in the last place. Nor does it see faults
in channels that no input wakes. Only a check of the weights themselves can convict there.

Where storage is coarser than arithmetic the honest ratios are smaller (a fold rounds once, by
half an ulp at most, and touches few tensors), so a stricter limit holds there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from bnfold.evidence.compare import Deviation, Scale, Vector
from bnfold.evidence.limits import (
    COARSE,
    FINE,
    PROVED,
    Leeway,
    Looks,
    by_chance,
    freedom,
    most_flips,
)
from bnfold.records import OutputCheck

LIMIT: Final = FINE.plain
STORAGE_LIMIT: Final = COARSE.plain
_FINE: Final = 2.0**-20
_SHARE: Final = 1 / 16
_TRUST: Final = 8.0
"""How many noise samples the typical noise of all channels counts as."""

_ULPS_OF_ONE: Final = 2.0
"""Roundoffs in an ulp."""
_ENOUGH: Final = 4
"""That many nudges in vain, on every set of inputs, are no chance."""

_LEAST: Final = float(np.finfo(np.float64).tiny)
_CLIPPED: Final = 16.0
"""No channel counts as noisier than so many times the median, as a mean square, when the
typical noise of all is taken."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One output on one set of inputs: its size, its noise, and the accused's distance.

    Attributes:
        scale: Size of the reference.
        noise: Distances of nudged originals; at least one.
        own: Further distances that rounding explains: the original's own error, and its
            distance from itself where the accused runs in another way.
        accused: Distance of the folded model.
        kinds: What kind of nudge each distance in ``noise`` is from; all alike if empty.
        trust: What the mean squares of the noise are multiplied by, where they are far above
            what the original's own error explains.
        step: Behind a quantiser, the largest that noise did to any element on any set of
            inputs; 0 elsewhere.
    """

    scale: Scale
    noise: tuple[Deviation, ...]
    own: tuple[Deviation, ...]
    accused: Deviation
    kinds: tuple[object, ...] = ()
    trust: float = 1.0
    step: float = 0.0

    @property
    def size(self) -> int:
        """Elements of the output."""
        return max(self.scale.squares.size * self.scale.width, 1)

    @property
    def drawn_squares(self) -> Vector:
        """Sum of squares per draw (row) and channel (column)."""
        return np.stack([one.squares for one in self.noise]) * self.trust

    @property
    def own_squares(self) -> Vector:
        """Sum of squares per channel that is added to every draw."""
        return np.asarray(
            sum((o.squares for o in self.own), np.zeros_like(self.scale.squares))
        )

    @property
    def noise_squares(self) -> Vector:
        """Sum of squares per channel that one run's noise amounts to."""
        return np.asarray(self.drawn_squares.mean(axis=0) + self.own_squares)

    @property
    def noise_rms(self) -> float:
        """Typical noise, never below half an ulp of the typical output."""
        floor = self.scale.floor * np.sqrt(self.scale.squares.sum() / self.size)
        rms = np.sqrt(self.noise_squares.sum() / self.size)
        return float(max(rms, floor, self.grain, self.scale.tiny))

    @property
    def grain(self) -> float:
        """What an output may be rounded to that no nudge moved at all: an ulp of one.

        A Sigmoid of 2e-5 is computed as a difference of numbers near one, in steps of 3e-8. Of
        few nudges none may reach the next step, and that is not: there is no noise. Behind a
        quantiser one number may be next to a tie that none of the nudges met.
        """
        moved = self.noise_squares.any() or any(one.largest for one in self.noise)
        if self.step and not moved:
            return float(self.step / np.sqrt(self.size))
        is_enough = moved or len(self.noise) >= _ENOUGH
        return 0.0 if is_enough else _ULPS_OF_ONE * self.scale.floor

    @property
    def relative_noise(self) -> float:
        """Typical noise over typical output."""
        return float(np.sqrt(self.noise_squares.sum() / max(self.scale.squares.sum(), _LEAST)))

    @property
    def sorts(self) -> tuple[object, ...]:
        """What kind of nudge each draw is."""
        return self.kinds or ("",) * len(self.noise)

    def seen(self, size: Callable[[Deviation], float]) -> Vector:
        """Some size of the noise squared, one entry per draw."""
        return np.array([size(one) ** 2 for one in self.noise]) * self.trust

    def explained(self, size: Callable[[Deviation], float]) -> float:
        """The largest that rounding did of some size; half an ulp of the largest at least.

        The typical noise stands in for a quantile of few elements.
        """
        squares = self.seen(size).max() + sum(size(one) ** 2 for one in self.own)
        floor = self.scale.floor * self.scale.largest
        return float(max(np.sqrt(squares), floor, self.noise_rms, self.step))


@dataclass(frozen=True, slots=True)
class Ratio:
    """One comparison: a difference over what rounding explains, and what that may be."""

    value: float
    limit: float
    channel: int | None = None
    note: str = ""

    @property
    def excess(self) -> float:
        """What is looked for is the largest of these."""
        return self.value / self.limit if self.limit > 0 else float(self.value > 0)


def looks_at(trials: Sequence[Trial]) -> Looks:
    """How many comparisons `judge` makes."""
    return Looks(2 * len(trials) + 2, trials[0].scale.squares.size if trials else 0)


def looks_proved(trials: Sequence[Trial]) -> Looks:
    """How many comparisons `judge_proved` makes."""
    return Looks(2 * len(trials) + 1, 0)


def judge(
    name: str, trials: Sequence[Trial], coarsest: float, looks: Looks | None = None
) -> OutputCheck:
    """Judge by the largest ratio of difference to noise: overall, by element, by channel.

    Args:
        name: Of the output.
        trials: One for each set of inputs; at least one.
        coarsest: Largest unit roundoff among the numbers that the original stores or reads.
        looks: How many comparisons the whole report makes; those of this call if None.
    """
    return _check(name, trials, _ratios(trials, coarsest, looks or looks_at(trials)))


def is_suspect(trials: Sequence[Trial], coarsest: float) -> bool:
    """Whether `judge` might convict if more noise were drawn: chance has less room then."""
    ratios = _ratios(trials, coarsest, looks_at(trials))
    return any(one.value > leeway_of(trials, coarsest).plain for one in ratios)


def _ratios(trials: Sequence[Trial], coarsest: float, looks: Looks) -> list[Ratio]:
    leeway = leeway_of(trials, coarsest)
    return [
        *_overall(trials, leeway, looks),
        *_by_size(trials, _largest, leeway, looks),
        *_by_channel(trials, leeway, looks),
        _flips(trials, leeway, looks),
    ]


def judge_proved(
    name: str, trials: Sequence[Trial], _: float, looks: Looks | None = None
) -> OutputCheck:
    """Judge only whether accuracy is lost: by the mean, and by what 99 % stay below.

    Args:
        name: Of the output.
        trials: One for each set of inputs; at least one.
        looks: How many comparisons the whole report makes; those of this call if None.
    """
    looks = looks or looks_proved(trials)
    ratios = [
        *_overall(trials, PROVED, looks),
        *_by_size(trials, _high, PROVED, looks),
        _flips(trials, PROVED if are_moved(trials) else FINE, looks),
    ]
    return _check(name, trials, ratios)


def _check(name: str, trials: Sequence[Trial], ratios: Sequence[Ratio]) -> OutputCheck:
    worst = max(ratios, key=lambda one: one.excess)
    return OutputCheck(
        name=name,
        ratio=worst.value,
        limit=worst.limit,
        max_abs=max(trial.accused.largest for trial in trials),
        noise_abs=max(one.largest for trial in trials for one in (*trial.noise, *trial.own)),
        channel=worst.channel,
        passed=worst.value <= worst.limit,
        note="; ".join(dict.fromkeys(one.note for one in ratios if one.note)),
        values=sum(trial.scale.width for trial in trials),
        draws=min(len(trial.noise) for trial in trials),
    )


def leeway_of(trials: Sequence[Trial], coarsest: float) -> Leeway:
    """Return what a right fold is allowed: less where storage, not arithmetic, makes noise."""
    relative = min(trial.relative_noise for trial in trials)
    return COARSE if coarsest > _FINE and relative > coarsest * _SHARE else FINE


def _overall(trials: Sequence[Trial], leeway: Leeway, looks: Looks) -> Iterator[Ratio]:
    """Compare means; the largest element does not make one, it is compared by itself."""
    limit = _limit([one.drawn_squares.sum(axis=1) for one in trials], trials, leeway, looks)
    for trial in trials:
        most = trial.accused.largest**2 if trial.size > 1 else 0.0
        rms = np.sqrt(max(trial.accused.squares.sum() - most, 0.0) / trial.size)
        yield Ratio(float(rms) / trial.noise_rms, limit)


def _by_size(
    trials: Sequence[Trial],
    size: Callable[[Deviation], float],
    leeway: Leeway,
    looks: Looks,
) -> Iterator[Ratio]:
    limit = _limit([trial.seen(size) for trial in trials], trials, leeway, looks)
    for trial in trials:
        yield Ratio(size(trial.accused) / trial.explained(size), limit)


def _largest(one: Deviation) -> float:
    return one.largest


def _high(one: Deviation) -> float:
    return one.high


def _limit(
    rows: Sequence[Vector], trials: Sequence[Trial], leeway: Leeway, looks: Looks
) -> float:
    """What the sizes of all draws say of chance, each set of inputs in units of its mean."""
    count = min(len(one) for one in rows)
    moved = [one[:count] / one[:count].mean() for one in rows if one[:count].any()]
    if not moved:
        return leeway.plain
    size = max(trial.size for trial in trials)
    worth = freedom(np.stack(moved, axis=1), trials[0].sorts[:count], size)
    chance = by_chance(looks.whole_share, worth, worth * count)
    return max(leeway.plain, leeway.true * chance)


def are_moved(trials: Sequence[Trial]) -> bool:
    """Whether rounding changed any choice, in nudged runs or against float64; or none was."""
    accused = any(trial.accused.flipped for trial in trials)
    return not accused or any(
        one.flipped for trial in trials for one in (*trial.noise, *trial.own)
    )


def _flips(trials: Sequence[Trial], leeway: Leeway, looks: Looks) -> Ratio:
    """Compare counts: of elements that changed and cannot be subtracted.

    A new infinity is no matter of counts: rounding makes one only of what is next to it.
    """
    flipped = sum(trial.accused.flipped for trial in trials)
    usual = sum(one.flipped for trial in trials for one in trial.noise)
    draws = min(len(trial.noise) for trial in trials)
    unit = draws / max(usual, 1)
    overflown = sum(trial.accused.overflown for trial in trials)
    if overflown and not any(one.overflown for trial in trials for one in trial.noise):
        return Ratio(float("inf"), leeway.plain, None, f"{overflown} new infinities")
    if not flipped:
        return Ratio(0.0, leeway.plain)
    allowed = most_flips(looks.whole_share, usual, draws, leeway.plain) * unit
    if not usual:
        said = f"{flipped} elements changed that cannot be subtracted, by noise none"
        return Ratio(flipped * unit, allowed, None, said)
    said = "elements changed that cannot be subtracted, {:.3g} times as many as by noise"
    return Ratio(flipped * unit, allowed, None, said.format(flipped * unit))


def _by_channel(trials: Sequence[Trial], leeway: Leeway, looks: Looks) -> Iterator[Ratio]:
    """Pool all sets of inputs, each in units of its own noise; none if channels differ.

    The noise of a channel is a blend of what was seen there and of what is typical. Few
    samples that happen to be small must not convict: so what was seen there alone counts with
    the few samples that it has, and the blend with those that it has.
    """
    sizes = {trial.scale.squares.size for trial in trials}
    if len(sizes) != 1 or not trials[0].scale.width or max(sizes) < 2:
        return
    pool = _pool(trials)
    count = len(pool.draws)
    worth = freedom(pool.draws, trials[0].sorts[:count], pool.width)
    alone = _chance_squared(leeway, looks, worth, worth * count)
    together = _chance_squared(leeway, looks, worth, worth * count + _TRUST)
    seen = pool.draws.mean(axis=0) + pool.own
    blended = _blended(pool, seen, worth * count)
    allowed = np.maximum(leeway.plain**2 * blended, alone * seen)
    limits = np.sqrt(np.maximum(allowed, together * blended) / blended)
    limits = np.maximum(limits, _worst_of_noise(pool, trials[0].sorts, leeway, looks))
    ratios = np.sqrt(pool.accused / blended)
    worst = int(np.argmax(ratios / limits))
    yield Ratio(float(ratios[worst]), float(limits[worst]), worst)


def _worst_of_noise(
    pool: _Pool, sorts: Sequence[object], leeway: Leeway, looks: Looks
) -> float:
    """What the worst channel of a nudged run may be, measured by the other nudged runs.

    Errors with heavy tails have far worse channels than the F distribution knows of; how far
    they go, and how much that varies, shows in the noise itself.
    """
    count = len(pool.draws)
    others = (pool.draws.sum(axis=0) - pool.draws) / max(count - 1, 1)
    worth = freedom(pool.draws, sorts[:count], pool.width)
    worst = [
        float((one / _blended(pool, other + pool.own, worth * (count - 1))).max())
        for one, other in zip(pool.draws, others, strict=True)
    ]
    rows = np.array(worst)[:, None]
    steady = freedom(rows, sorts[:count], rows.size * pool.width * pool.size.size)
    chance = by_chance(looks.whole_share, steady, steady * count)
    typical = float(np.sqrt(rows.mean()))
    gaussian = by_chance(1 / pool.draws.size, worth, worth * count + _TRUST)
    return leeway.true * chance * typical * max(1.0, typical / gaussian)


def _chance_squared(leeway: Leeway, looks: Looks, above: float, below: float) -> float:
    return (leeway.true * by_chance(looks.channel_share, above, below)) ** 2


@dataclass(frozen=True, slots=True)
class _Pool:
    """Mean squares per channel over all sets of inputs; ``draws`` with one row per draw."""

    draws: Vector
    own: Vector
    accused: Vector
    size: Vector
    floor: float
    least: float
    width: int


def _pool(trials: Sequence[Trial]) -> _Pool:
    width = sum(trial.scale.width for trial in trials)
    units = [trial.noise_rms**2 for trial in trials]
    count = min(len(trial.noise) for trial in trials)
    tiny = max(trial.scale.tiny / trial.noise_rms for trial in trials)
    return _Pool(
        _pooled([trial.drawn_squares[:count] for trial in trials], units) / width,
        _pooled([trial.own_squares for trial in trials], units) / width,
        _pooled([trial.accused.squares for trial in trials], units) / width,
        _pooled([trial.scale.squares for trial in trials], units) / width,
        trials[0].scale.floor,
        float(max(tiny, _LEAST) ** 2),
        width,
    )


def _pooled(squares: Sequence[Vector], units: Sequence[float]) -> Vector:
    return np.asarray(
        np.sum([one / unit for one, unit in zip(squares, units, strict=True)], axis=0)
    )


def _blended(pool: _Pool, seen: Vector, samples: float) -> Vector:
    """What was seen in a channel, and what is typical of all as so many samples more."""
    blend = (samples * seen + _TRUST * _typical(seen, pool.size)) / (samples + _TRUST)
    return np.maximum(blend, np.maximum(pool.floor**2 * pool.size, pool.least))


def _typical(seen: Vector, size: Vector) -> Vector:
    """The typical noise of a channel: absolute, and relative to its size where that is more.

    Relative noise alone says that what happens to be next to zero has none.
    """
    noisy, alive = seen[seen > 0], size > 0
    if not noisy.size:
        return np.zeros_like(seen)
    absolute = np.minimum(noisy, _CLIPPED * np.median(noisy)).mean()
    relative = np.median(seen[alive] / size[alive]) if alive.any() else 0.0
    return np.asarray(np.maximum(absolute, relative * size))
