"""Weigh a difference against the original's own rounding noise.

A ratio of one means: as far from the original as half-ulp nudges of its own numbers carry it.
The limits come from measurement (ONNX Runtime 1.32, CPU, 2 threads; folds by hand in numpy).

=====================================================  =======  =======================
largest ratio over all outputs                         honest   grossly spoiled
=====================================================  =======  =======================
float32: 6 torch nets x 5 seeds, 80 small branches*    <= 2.7   8e3 ... 4e9
float32: 3 PP-OCR nets, 4 light_* of the onnx wheel    <= 1.5   (see below)
float16: 6 torch nets x 5 seeds, 80 small branches     <= 1.0   24 ... 5e5
bfloat16: the same, in a float32 copy                  <= 1.1   2.9 ... 6e4
=====================================================  =======  =======================

(*) and the same branches in float64, judged in a float32 copy.
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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from bnfold.evidence.compare import Deviation, Scale, Vector
from bnfold.records import OutputCheck

LIMIT: Final = 5.0
STORAGE_LIMIT: Final = 2.5
_FINE: Final = 2.0**-20
_SHARE: Final = 1 / 16
_TRUST: Final = 8.0
"""How many noise samples the typical relative noise of all channels counts as."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One output on one set of inputs: its size, its noise, and the accused's distance.

    Attributes:
        scale: Size of the reference.
        noise: Distances of nudged originals; at least one.
        own: Distance of the original from itself at the accused's optimisation level, if that
            is another one: what the runtime may do to the accused as well.
        accused: Distance of the folded model.
    """

    scale: Scale
    noise: tuple[Deviation, ...]
    own: tuple[Deviation, ...]
    accused: Deviation

    @property
    def samples(self) -> int:
        """Differences that the noise was estimated from, per channel."""
        return self.scale.width * len(self.noise)

    @property
    def noise_squares(self) -> Vector:
        """Sum of squares per channel that one run's noise amounts to."""
        nudged = np.mean([one.squares for one in self.noise], axis=0)
        return np.asarray(nudged + sum(one.squares for one in self.own))

    @property
    def noise_rms(self) -> float:
        """Typical noise, never below half an ulp of the typical output."""
        size = max(self.scale.squares.size * self.scale.width, 1)
        floor = self.scale.floor * np.sqrt(self.scale.squares.sum() / size)
        return float(max(np.sqrt(self.noise_squares.sum() / size), floor, self.scale.tiny))

    @property
    def relative_noise(self) -> float:
        """Typical noise over typical output."""
        least = np.finfo(np.float64).tiny
        return float(np.sqrt(self.noise_squares.sum() / max(self.scale.squares.sum(), least)))

    @property
    def noise_largest(self) -> float:
        """Largest noise, never below half an ulp of the largest output."""
        seen = max(one.largest for one in (*self.noise, *self.own))
        return max(seen, self.scale.floor * self.scale.largest, self.scale.tiny)


def judge(name: str, trials: Sequence[Trial], coarsest: float) -> OutputCheck:
    """Judge by the largest ratio of difference to noise: overall, by element, by channel."""
    overall = max(_ratio_overall(trial) for trial in trials)
    flips = _ratio_of_flips(trials)
    ratios = _ratios_by_channel(trials)
    worst = int(np.argmax(ratios)) if ratios.size else None
    in_channel = float(ratios[worst]) if worst is not None else 0.0
    ratio = max(overall, flips, in_channel)
    limit = _limit(trials, coarsest)
    return OutputCheck(
        name=name,
        ratio=ratio,
        limit=limit,
        max_abs=max(trial.accused.largest for trial in trials),
        noise_abs=max(one.largest for trial in trials for one in (*trial.noise, *trial.own)),
        channel=worst if in_channel == ratio and ratios.size > 1 else None,
        passed=ratio <= limit,
        note=_note(flips),
    )


def _limit(trials: Sequence[Trial], coarsest: float) -> float:
    """The stricter limit holds where coarse storage, not arithmetic, makes the noise."""
    relative = min(trial.relative_noise for trial in trials)
    return STORAGE_LIMIT if coarsest > _FINE and relative > coarsest * _SHARE else LIMIT


def _ratio_overall(trial: Trial) -> float:
    size = max(trial.scale.squares.size * trial.scale.width, 1)
    rms = float(np.sqrt(trial.accused.squares.sum() / size))
    return max(rms / trial.noise_rms, trial.accused.largest / trial.noise_largest)


def _ratio_of_flips(trials: Sequence[Trial]) -> float:
    flipped = sum(trial.accused.flipped for trial in trials)
    if flipped == 0:
        return 0.0
    usual = sum(
        sum(one.flipped for one in trial.noise) / len(trial.noise)
        + sum(one.flipped for one in trial.own)
        for trial in trials
    )
    return flipped / usual if usual else float("inf")


def _ratios_by_channel(trials: Sequence[Trial]) -> Vector:
    """Pool all sets of inputs, each in units of its own noise; empty if channels differ.

    The noise of a channel is a blend of what was seen there and of what is typical, relative
    to the channel's size: few samples that happen to be small must not convict.
    """
    if len({trial.scale.squares.size for trial in trials}) != 1 or not trials[0].scale.width:
        return np.zeros(0)
    width = sum(trial.scale.width for trial in trials)
    units = [trial.noise_rms**2 for trial in trials]
    accused = _pooled([trial.accused.squares for trial in trials], units) / width
    size = _pooled([trial.scale.squares for trial in trials], units) / width
    noise = _pooled([trial.noise_squares for trial in trials], units) / width
    floor = np.asarray(trials[0].scale.floor ** 2 * size)
    samples = float(sum(trial.samples for trial in trials))
    typical = _typical(noise, size) * size
    blended = (samples * noise + _TRUST * typical) / (samples + _TRUST)
    bound = np.maximum(blended, np.maximum(floor, _least(trials)))
    return np.asarray(np.sqrt(accused / bound))


def _pooled(squares: Sequence[Vector], units: Sequence[float]) -> Vector:
    scaled = [one / unit for one, unit in zip(squares, units, strict=True)]
    return np.asarray(np.sum(scaled, axis=0))


def _typical(noise: Vector, size: Vector) -> float:
    alive = size > 0
    return float(np.median(noise[alive] / size[alive])) if alive.any() else 0.0


def _least(trials: Sequence[Trial]) -> float:
    """The smallest step of the type, in units of noise; keeps silent channels finite."""
    tiny = max(trial.scale.tiny / trial.noise_rms for trial in trials)
    return float(max(tiny, np.finfo(np.float64).tiny) ** 2)


def _note(flips: float) -> str:
    said = f"elements changed that cannot be subtracted, {flips:.3g} times as many as by noise"
    return said if flips else ""
