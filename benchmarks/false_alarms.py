"""How often the run calls a right fold wrong, and how small a fault it sees: by simulation.

    python -m benchmarks.false_alarms [--reports 40000] [--seed 0] [--write FOLDER]

A *report* is one model judged on several sets of inputs: noise is drawn four times and, if
anything is suspect, twelve times more, exactly as the check does. The differences of a right
fold are drawn from the distribution that its noise is drawn from, or at `--true` times its
size; elements have sizes of their own that differ as lognormal numbers do, they move together
by channel or all at once, and behind a ReLU most of them do not move at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bnfold.evidence.compare import Deviation, Scale
from bnfold.evidence.judge import Trial, is_suspect, judge
from bnfold.evidence.noise import first_draws, further_draws
from bnfold.evidence.quantiles import beta_share

_FINE: Final = 2.0**-24
_NOISE: Final = 1e-6
_FIRST: Final = tuple(draw.pattern for draw in first_draws(0))
_ALL: Final = _FIRST + tuple(draw.pattern for draw in further_draws(0))
_CONFIDENCE: Final = 0.95

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scene:
    """What one kind of output looks like.

    Attributes:
        name: For the table.
        channels: Of axis 1.
        width: Elements in a channel, on one set of inputs.
        sets: Sets of inputs.
        spread: Standard deviation of the logarithm of an element's size.
        channel_spread: The same of a channel's size.
        together: Share of the variance that all elements have in common.
        by_channel: Share of the variance that a channel's elements have in common.
        dead: Share of the elements that do not move, as behind a ReLU.
        heavy: Degrees of freedom of Student's t that errors are drawn from; 0 for a Gaussian.
        fault: Size of an error in one channel, in units of its noise; 0 for a right fold.
        true: How large the error of the right fold is in units of the noise.
    """

    name: str
    channels: int
    width: int
    sets: int = 5
    spread: float = 1.0
    channel_spread: float = 0.3
    together: float = 0.0
    by_channel: float = 0.0
    dead: float = 0.0
    heavy: int = 0
    fault: float = 0.0
    true: float = 1.0


def scenes() -> Iterator[Scene]:
    """Every kind of output that is looked at."""
    for channels in (16, 256, 1024, 4096):
        for width in (1, 3, 9):
            yield Scene(f"{channels} channels of {width}", channels, width)
    yield Scene("one set of inputs", 1024, 1, sets=1)
    yield Scene("one set, heavy tails", 1024, 1, sets=1, heavy=3)
    yield Scene("heavy tails", 256, 3, heavy=3)
    yield Scene("very unequal elements", 1024, 1, spread=2.0)
    yield Scene("very unequal channels", 1024, 9, channel_spread=2.0)
    yield Scene("channels move together", 256, 9, together=0.9)
    yield Scene("all is one number", 16, 9, together=1.0)
    yield Scene("each channel is one number", 256, 64, by_channel=1.0)
    yield Scene("behind a ReLU", 1024, 1, dead=0.5)
    yield Scene("sparse behind a ReLU", 2048, 9, dead=0.95)
    yield Scene("sparse, one set", 2048, 1, sets=1, dead=0.95)
    yield Scene("a single number", 1, 1, sets=1)
    yield Scene("a few numbers", 10, 1, sets=2, together=0.5)


@dataclass(slots=True)
class Count:
    """How many reports of one scene were made, suspected and failed."""

    scene: Scene
    reports: int = 0
    suspects: int = 0
    failed: int = 0

    @property
    def upper(self) -> float:
        """Upper confidence bound on the rate (C. Clopper and E. Pearson, 1934)."""
        return upper_bound(self.failed, self.reports)


def upper_bound(failed: int, reports: int) -> float:
    """The rate that would give so few or fewer with probability 5 %, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        few = 1 - beta_share(middle, failed + 1, reports - failed) if failed < reports else 1.0
        low, high = (middle, high) if few > 1 - _CONFIDENCE else (low, middle)
    return high


def count(scene: Scene, reports: int, seed: int) -> Count:
    """Judge so many reports of one scene."""
    found = Count(scene)
    rng = np.random.default_rng((seed, scene.channels, scene.width))
    for _ in range(reports):
        suspect, failed = _judged(scene, rng)
        found.reports += 1
        found.suspects += suspect
        found.failed += failed
    return found


def _judged(scene: Scene, rng: np.random.Generator) -> tuple[bool, bool]:
    """Whether a report was suspect, and whether it failed in the end."""
    shapes = [_sizes(scene, rng) for _ in range(scene.sets)]
    errors = _errors(scene, len(_FIRST) + 1, shapes, rng)
    few = [_trial(one, sizes, _FIRST) for one, sizes in zip(errors, shapes, strict=True)]
    if not is_suspect(few, _FINE):
        return False, not judge("", few, _FINE).passed
    more = _errors(scene, len(_ALL) - len(_FIRST), shapes, rng)
    every = [
        _trial(np.concatenate([one, other]), sizes, _ALL)
        for one, other, sizes in zip(errors, more, shapes, strict=True)
    ]
    return True, not judge("", every, _FINE).passed


def _sizes(scene: Scene, rng: np.random.Generator) -> Vector:
    """How far each element moves, by itself."""
    shape = (scene.channels, scene.width)
    log = scene.spread * rng.standard_normal(shape)
    log += scene.channel_spread * rng.standard_normal((scene.channels, 1))
    return np.where(rng.random(shape) < scene.dead, 0.0, _NOISE * np.exp(log))


def _errors(
    scene: Scene, runs: int, shapes: Sequence[Vector], rng: np.random.Generator
) -> list[Vector]:
    """Errors of so many runs, on every set: what is common is common to all sets too.

    The first run is the accused, where there is one more than draws.
    """
    one = _drawn(scene, (runs, 1, 1), rng)
    rows = _drawn(scene, (runs, scene.channels, 1), rng)
    alone = max(1 - scene.together - scene.by_channel, 0.0)
    found = []
    for sizes in shapes:
        each = _drawn(scene, (runs, *sizes.shape), rng) * math.sqrt(alone)
        common = one * math.sqrt(scene.together) + rows * math.sqrt(scene.by_channel)
        found.append((each + common) * sizes)
    return found


def _drawn(scene: Scene, shape: tuple[int, ...], rng: np.random.Generator) -> Vector:
    if scene.heavy:
        return rng.standard_t(scene.heavy, shape)
    return rng.standard_normal(shape)


def _trial(errors: Vector, sizes: Vector, kinds: tuple[object, ...]) -> Trial:
    """The first of the errors is the accused's, the others are the noise."""
    values = sizes / _NOISE
    squares = np.sum(values**2, axis=1)
    scale = Scale(squares, float(values.max()), values.shape[1], _FINE, 1e-38)
    noise = tuple(_deviation(one) for one in errors[1:])
    return Trial(scale, noise, (), _deviation(errors[0]), kinds)


def _deviation(errors: Vector) -> Deviation:
    sizes = np.abs(errors)
    return Deviation(np.sum(errors**2, axis=1), float(sizes.max()), 0)
