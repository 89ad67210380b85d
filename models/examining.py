"""Fold one of the trained networks and compare original and folded file on the test images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

import bnfold
from models import measuring
from models.measuring import Ratio

ROOT: Final = Path(__file__).resolve().parent.parent
OUT: Final = ROOT / "build" / "demo"
NETS: Final = {
    "mlp": "a fully connected network: Linear → BatchNorm → ReLU, twice",
    "cnn": "a convolutional network: Conv → BatchNorm → ReLU, three times",
}
FOLDED: Final = "folded"
BY_DEFAULT: Final = "original, by default"
FOLDING_OFF: Final = "original, runtime's folding off"
_LARGEST_PIXEL: Final = np.float32(16)
_ROUNDS: Final = 60
_SEED: Final = 0


@dataclass(frozen=True, slots=True)
class Digits:
    """The held-out test images, 8×8 pixels in 0…1, and the digits they show."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Answers of the original and of the folded model on the test images.

    Attributes:
        images: Number of images.
        right_before: How many of them the original recognises.
        right_after: How many the folded model recognises.
        same_answers: For how many both name the same digit.
        largest_difference: Largest absolute difference between their outputs (logits).
        closest_call: Smallest distance between the best and second best output of the
            original: a difference below half of it cannot change an answer.
    """

    images: int
    right_before: int
    right_after: int
    same_answers: int
    largest_difference: float
    closest_call: float


@dataclass(frozen=True, slots=True)
class Timing:
    """What was timed, and its time divided by that of the folded model."""

    what: str
    ratio: Ratio


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that is shown and reported about one network.

    Attributes:
        net: Its name in ``NETS``.
        original: The file that was folded.
        folded: The file that came out.
        fold: What bnfold returned.
        nodes_before: Operators of the original file.
        nodes_after: Operators of the folded file.
        nodes_run: Operators that ONNX Runtime runs after its own optimisation, per arm.
        agreement: Answers of both on the test images.
        timings: Ratios of time.
    """

    net: str
    original: Path
    folded: Path
    fold: bnfold.FoldResult
    nodes_before: Counter[str]
    nodes_after: Counter[str]
    nodes_run: dict[str, Counter[str]]
    agreement: Agreement
    timings: tuple[Timing, ...]

    @property
    def checks(self) -> dict[str, bool]:
        """What must hold, and whether it does."""
        seen = self.agreement
        check = self.fold.check
        return {
            "no BatchNormalization is left": self.nodes_after["BatchNormalization"] == 0,
            "accuracy is the same": seen.right_before == seen.right_after,
            "every answer is the same": seen.same_answers == seen.images,
            "bnfold's own check passed": check is not None and check.passed,
        }


def load_digits() -> Digits:
    """Return the test images that ``models/train.py`` held out."""
    with np.load(ROOT / "models" / "digits_test.npz") as stored:
        images = stored["images"].astype(np.float32) / _LARGEST_PIXEL
        return Digits(images, stored["labels"].astype(np.int64))


def examine(net: str, digits: Digits) -> Outcome:
    """Fold one network, write the result, and compare both files."""
    original = ROOT / "models" / f"digits_{net}.onnx"
    folded = OUT / f"digits_{net}.folded.onnx"
    result = bnfold.fold(original, verify=True, seed=_SEED)
    result.save(folded)
    return Outcome(
        net=net,
        original=original,
        folded=folded,
        fold=result,
        nodes_before=measuring.count_nodes(original),
        nodes_after=measuring.count_nodes(folded),
        nodes_run={
            BY_DEFAULT: measuring.nodes_run(original),
            FOLDING_OFF: measuring.nodes_run(original, measuring.FUSIONS),
            FOLDED: measuring.nodes_run(folded),
        },
        agreement=compare_answers(original, folded, digits),
        timings=tuple(measure(original, folded, digits)),
    )


def compare_answers(original: Path, folded: Path, digits: Digits) -> Agreement:
    """Run both files on the test images, with the runtime's own optimisation switched off."""
    before = measuring.answers_as_written(original, digits.images)
    after = measuring.answers_as_written(folded, digits.images)
    ranked = np.sort(before, axis=1)
    return Agreement(
        images=len(digits.labels),
        right_before=int(np.sum(before.argmax(axis=1) == digits.labels)),
        right_after=int(np.sum(after.argmax(axis=1) == digits.labels)),
        same_answers=int(np.sum(before.argmax(axis=1) == after.argmax(axis=1))),
        largest_difference=float(np.abs(before - after).max()),
        closest_call=float((ranked[:, -1] - ranked[:, -2]).min()),
    )


def measure(original: Path, folded: Path, digits: Digits) -> Iterator[Timing]:
    """Time both files in turns, for a single image and for a batch, and loading them."""
    for batch in (1, 64):
        images = digits.images[:batch]
        arms = {
            FOLDED: measuring.inference(folded, images),
            "folded again (null run)": measuring.inference(folded, images),
            BY_DEFAULT: measuring.inference(original, images),
            FOLDING_OFF: measuring.inference(original, images, measuring.FUSIONS),
        }
        ratios = measuring.compare_times(arms, FOLDED, _ROUNDS, _SEED)
        yield from (Timing(f"{arm}, batch {batch}", ratio) for arm, ratio in ratios.items())
    loading = {
        FOLDED: lambda: measuring.open_session(folded),
        "original, loading": lambda: measuring.open_session(original),
    }
    ratios = measuring.compare_times(loading, FOLDED, _ROUNDS, _SEED)
    yield from (Timing(arm, ratio) for arm, ratio in ratios.items())
