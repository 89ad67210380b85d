"""How often the run calls a right fold wrong, and how small a fault it sees: by simulation.

    python -m benchmarks.false_alarms [--seconds 60] [--reports 40000] [--write FOLDER]

A *report* is one model judged on several sets of inputs: noise is drawn four times and, if
anything is suspect, twelve times more, exactly as the check does. The differences of a right
fold are drawn from the distribution that its noise is drawn from, or at a multiple of its
size; elements have sizes of their own that differ as lognormal numbers do, they move together
by channel or all at once, and behind a ReLU most of them do not move at all.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bnfold.evidence.compare import Deviation, Scale
from bnfold.evidence.judge import Trial, is_suspect, judge
from bnfold.evidence.limits import ALPHA
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
        unit: Roundoff of the type that numbers are stored in.
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
    unit: float = _FINE


def scenes() -> Iterator[Scene]:
    """Every kind of output that is looked at."""
    for channels in (16, 256, 1024, 4096):
        for width in (1, 3, 9):
            yield Scene(f"{channels} channels of {width}", channels, width)
    yield Scene("one set of inputs", 1024, 1, sets=1)
    yield Scene("one set, heavy tails", 1024, 1, sets=1, heavy=5)
    yield Scene("heavy tails", 256, 3, heavy=5)
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
    yield Scene("half precision", 256, 9, unit=2.0**-11, true=0.5)


def faults() -> Iterator[Scene]:
    """One channel wrong by so many times its noise: what share is seen.

    In float32, 1 % of one channel is 50 to 40,000 times its noise, in float16 0.3 to 5 times.
    """
    for channels, width in ((16, 9), (256, 9), (1024, 1), (4096, 9)):
        for fault in (5.0, 10.0, 20.0, 50.0, 1000.0):
            yield Scene(f"{channels} channels of {width}", channels, width, fault=fault)
    yield Scene("one set of inputs", 1024, 1, sets=1, fault=50.0)
    yield Scene("one set of inputs", 1024, 1, sets=1, fault=1000.0)


def stress() -> Iterator[Scene]:
    """Beyond what is claimed: heavier tails, and a right fold three times as bad."""
    yield Scene("Student's t with 3 degrees", 256, 3, heavy=3)
    yield Scene("three times the noise", 256, 9, true=3.0)


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
    rng = np.random.default_rng((seed, scene.channels, scene.width, scene.sets))
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
    for one, sizes in zip(errors, shapes, strict=True):
        one[0] *= scene.true
        one[0][0] += scene.fault * np.sqrt(np.mean(sizes[0] ** 2))
    few = [_trial(scene, *pair, _FIRST) for pair in zip(errors, shapes, strict=True)]
    failed = not judge("", few, scene.unit).passed
    if failed or not is_suspect(few, scene.unit):
        return False, failed
    more = _errors(scene, len(_ALL) - len(_FIRST), shapes, rng)
    both = [np.concatenate(pair) for pair in zip(errors, more, strict=True)]
    every = [_trial(scene, *pair, _ALL) for pair in zip(both, shapes, strict=True)]
    return True, not judge("", every, scene.unit).passed


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


def _trial(scene: Scene, errors: Vector, sizes: Vector, kinds: tuple[object, ...]) -> Trial:
    """The first of the errors is the accused's, the others are the noise."""
    values = sizes / _NOISE * scene.unit / _FINE
    squares = np.sum(values**2, axis=1)
    moved = errors * (scene.unit / _FINE)
    scale = Scale(squares, float(values.max()), values.shape[1], _FINE, 1e-38)
    noise = tuple(_deviation(one) for one in moved[1:])
    return Trial(scale, noise, (), _deviation(moved[0]), kinds)


def _deviation(errors: Vector) -> Deviation:
    sizes = np.abs(errors)
    return Deviation(np.sum(errors**2, axis=1), float(sizes.max()), 0)


def table(title: str, counts: Sequence[Count]) -> str:
    """The counts of some scenes as a table."""
    lines = [
        f"### {title}",
        "",
        "| output | fault | reports | doubted | failed | rate below |",
    ]
    lines.append("|---|---|---|---|---|---|")
    for one in counts:
        fault = f"{one.scene.fault:g}" if one.scene.fault else ""
        lines.append(
            f"| {one.scene.name} | {fault} | {one.reports:,} | {one.suspects:,} |"
            f" {one.failed:,} | {one.upper:.2g} |"
        )
    return "\n".join(lines) + "\n"


def _counts(
    kinds: Callable[[], Iterator[Scene]], seconds: float, most: int, seed: int
) -> list[Count]:
    """Judge every scene for so long, or so often."""
    found = []
    for scene in kinds():
        total, start, batch = Count(scene), time.monotonic(), 0
        while time.monotonic() < start + seconds and total.reports < most:
            one = count(scene, 50, seed + 1000 * batch)
            total.reports += one.reports
            total.suspects += one.suspects
            total.failed += one.failed
            batch += 1
        print(f"{scene.name} {scene.fault:g}: {total.failed} of {total.reports}", flush=True)
        found.append(total)
    return found


def pooled(counts: Sequence[Count]) -> Count:
    """All scenes together."""
    whole = Count(Scene("all together", 0, 0))
    for one in counts:
        whole.reports += one.reports
        whole.suspects += one.suspects
        whole.failed += one.failed
    return whole


def added(counts: Sequence[Count], rows: Sequence[dict[str, Any]]) -> list[Count]:
    """These counts of right folds together with those of an earlier result."""
    before = {json.dumps(row["scene"], sort_keys=True): row for row in rows}
    found = []
    for one in counts:
        row = before[json.dumps(asdict(one.scene), sort_keys=True)]
        total = Count(one.scene, one.reports, one.suspects, one.failed)
        total.reports += row["reports"]
        total.suspects += row["suspects"]
        total.failed += row["failed"]
        found.append(total)
    return found


def main() -> None:
    """Simulate, print, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each kind of output")
    parser.add_argument("--reports", type=int, default=40_000, help="of each kind at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, help="folder for the result")
    parser.add_argument("--add", type=Path, help="result of another seed, to be added up")
    given = parser.parse_args()
    right = _counts(scenes, given.seconds, given.reports, given.seed)
    if given.add:
        right = added(right, json.loads(given.add.read_text(encoding="utf-8")))
    right.append(pooled(right))
    wrong = _counts(faults, given.seconds / 10, 200, given.seed)
    beyond = _counts(stress, given.seconds, given.reports, given.seed)
    text = [
        f"# False alarms of the run, by simulation ({datetime.now(UTC):%Y-%m-%d})",
        f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__};"
        f" last seed {given.seed}, {given.seconds:g} s a seed for each kind of output. The"
        f" stated rate is {ALPHA:g} at most; bounds are those of 95 % confidence.\n",
        table("Right folds", right),
        table("One channel wrong, by so many times its noise", wrong),
        table("Beyond what is claimed", beyond),
    ]
    print("\n".join(text))
    if given.write:
        stem = given.write / f"{datetime.now(UTC):%Y-%m-%d}-false-alarms"
        stem.with_suffix(".md").write_text("\n".join(text), encoding="utf-8")
        rows = [asdict(one) | {"upper": one.upper} for one in (*right, *wrong, *beyond)]
        text_of = json.dumps(rows, indent=1) + "\n"
        stem.with_suffix(".json").write_text(text_of, encoding="utf-8")


if __name__ == "__main__":
    main()
