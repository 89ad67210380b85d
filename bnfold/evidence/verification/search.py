"""Search for the input on which two models differ most, without gradients.

The figure is the difference over the original's noise on the same input. Any search finds
inputs that suit the one rounding it looks at, so the same search is made for the original with
half-ulp changes: what it finds there is what rounding alone can do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.evidence.bench import Bench, Variant, nudged, plain, run_variants
from bnfold.evidence.compare import is_float
from bnfold.evidence.judge import LIMIT
from bnfold.evidence.noise import Draw, Pattern
from bnfold.evidence.readings import by_place
from bnfold.records import SearchReport
from bnfold.runtime import Arrays, Run, Setting

_PARENTS: Final = 4
_CHILDREN: Final = 12
_BYTES: Final = 64_000_000
_STEPS: Final = (0.03, 0.3, 1.0)
_DRAWS: Final = (Pattern.EACH, Pattern.ROWS, Pattern.EACH)

Accuse = Callable[[Sequence[Arrays]], Variant]
"""From sets of inputs to what is run on them in place of the original."""


@dataclass(frozen=True, slots=True)
class Hunt:
    """Both models and what to search from.

    Attributes:
        bench: How the original runs.
        original: The model whose noise is the measure.
        folded: The model that is judged.
        setting: How the folded model runs.
        sets: Inputs to begin with.
        seed: Of all that is random.
    """

    bench: Bench
    original: ir.Model
    folded: ir.Model
    setting: Setting
    sets: tuple[Arrays, ...]
    seed: int


@dataclass(slots=True)
class _Found:
    tried: int
    start: float
    worst: float


def search(hunt: Hunt, seconds: float) -> SearchReport:
    """Spend half of the time on the folded model, half on rounding alone."""

    def folded(sets: Sequence[Arrays]) -> Variant:
        return plain(hunt.bench.at(hunt.setting), hunt.folded, sets)

    def rounded(sets: Sequence[Arrays]) -> Variant:
        draw = Draw(hunt.seed + 77, Pattern.EACH)
        return nudged(hunt.bench, hunt.original, sets, draw)

    found = _climb(hunt, folded, seconds / 2)
    control = _climb(hunt, rounded, seconds / 2)
    return SearchReport(
        found.tried + control.tried, found.start, found.worst, control.worst, LIMIT
    )


def _climb(hunt: Hunt, accuse: Accuse, seconds: float) -> _Found:
    """Keep the worst few, change them, and keep the worst few again."""
    rng = np.random.default_rng(hunt.seed)
    deadline = time.monotonic() + seconds
    scores = _scores(hunt, accuse, hunt.sets)
    kept = sorted(zip(scores, hunt.sets, strict=True), key=lambda one: -one[0])[:_PARENTS]
    found = _Found(len(scores), kept[0][0], kept[0][0])
    while time.monotonic() < deadline:
        parents = [arrays for _, arrays in kept]
        children = [_child(parents, rng) for _ in range(_how_many(parents[0]))]
        scores = _scores(hunt, accuse, children)
        family = [*kept, *zip(scores, children, strict=True)]
        kept = sorted(family, key=lambda one: -one[0])[:_PARENTS]
        found = _Found(found.tried + len(scores), found.start, kept[0][0])
    return found


def _how_many(arrays: Arrays) -> int:
    size = max(sum(array.nbytes for array in arrays.values()), 1)
    return max(2, min(_CHILDREN, _BYTES // size))


def _scores(hunt: Hunt, accuse: Accuse, sets: Sequence[Arrays]) -> list[float]:
    draws = [
        nudged(hunt.bench, hunt.original, sets, Draw(hunt.seed + index, pattern))
        for index, pattern in enumerate(_DRAWS)
    ]
    jobs = [plain(hunt.bench, hunt.original, sets), accuse(sets), *draws]
    runs = run_variants(jobs)
    models = [job.model for job in jobs]
    return [_score(models, [job[index] for job in runs]) for index in range(len(sets))]


def _score(models: Sequence[ir.Model], runs: Sequence[Run]) -> float:
    """Difference over noise on one input, the largest of all outputs; 0 if one fails."""
    if not all(run.ran for run in runs):
        return 0.0
    known, *found = (by_place(*pair) for pair in zip(models, runs, strict=True))
    worst = 0.0
    for place, array in known.items():
        others = [one.get(place) for one in found]
        if not is_float(array) or any(o is None or o.shape != array.shape for o in others):
            continue
        far, *usual = (_rms(array, other) for other in others)
        least = float(np.finfo(np.float32).eps) / 2 * _rms(array, None)
        floor = max(least, float(np.finfo(np.float32).smallest_normal))
        worst = max(worst, far / max(float(np.sqrt(np.mean(np.square(usual)))), floor))
    return worst


def _rms(array: NDArray[Any], other: NDArray[Any] | None) -> float:
    far = array.astype(np.float64)
    if other is not None:
        far = far - other.astype(np.float64)
    far = far[np.isfinite(far)]
    return float(np.sqrt(np.mean(far * far))) if far.size else 0.0


def _child(parents: Sequence[Arrays], rng: np.random.Generator) -> Arrays:
    """Change one of the parents; numbers that are no floats stay as they are."""
    parent = parents[int(rng.integers(len(parents)))]
    other = parents[int(rng.integers(len(parents)))]
    return {
        name: _changed(array, other.get(name, array), rng) if is_float(array) else array
        for name, array in parent.items()
    }


def _changed(
    array: NDArray[Any], other: NDArray[Any], rng: np.random.Generator
) -> NDArray[Any]:
    wide = array.astype(np.float64)
    size = float(np.sqrt(np.mean(wide * wide))) if wide.size else 1.0
    match int(rng.integers(4)):
        case 0:
            wide = wide + rng.standard_normal(wide.shape) * size * rng.choice(_STEPS)
        case 1:
            wide = wide * rng.choice([0.5, 2.0, -1.0])
        case 2:
            some = rng.random(wide.shape) < rng.choice([0.01, 0.1, 0.5])
            wide = np.where(some, rng.standard_normal(wide.shape) * size * 4, wide)
        case _ if other.shape == array.shape:
            wide = np.where(rng.random(wide.shape) < 0.5, wide, other.astype(np.float64))
        case _:
            wide = -wide
    most = 1e4
    return np.clip(wide, -most, most).astype(array.dtype)
