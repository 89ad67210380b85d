"""The handwritten digits that the networks of the demo learn: 8×8 pixels, split once for all.

The split lies beside this file, so that training needs no other package and no network.
``python -m models.digits`` makes it again from scikit-learn's ``load_digits``.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

HERE: Final = Path(__file__).parent
TEST_IMAGES: Final = 500
SPLIT_SEED: Final = 0
_LARGEST_PIXEL: Final = np.float32(16)


@dataclass(frozen=True, slots=True)
class Digits:
    """Images [N, 1, 8, 8] in 0…1 and their labels; the test images are never trained on."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    def to(self, device: str) -> Digits:
        """Return the same on a device: all of it is half a megabyte."""
        return Digits(*(getattr(self, field.name).to(device) for field in fields(self)))


def load() -> Digits:
    """Return the data set, the same on every machine."""
    return Digits(*_stored("train"), *_stored("test"))


def _stored(part: str) -> tuple[Tensor, Tensor]:
    with np.load(HERE / f"digits_{part}.npz") as stored:
        images = stored["images"].astype(np.float32) / _LARGEST_PIXEL
        labels = stored["labels"].astype(np.int64)
    return torch.from_numpy(images), torch.from_numpy(labels)


def split() -> dict[str, dict[str, np.ndarray]]:
    """Return scikit-learn's data, split; images are the bytes 0…16 that they are there."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    raw = load_digits()
    images, labels = raw.images.astype(np.uint8)[:, None], raw.target.astype(np.uint8)
    parts = train_test_split(
        images, labels, test_size=TEST_IMAGES, random_state=SPLIT_SEED, stratify=labels
    )
    train_images, test_images, train_labels, test_labels = parts
    return {
        "train": {"images": train_images, "labels": train_labels},
        "test": {"images": test_images, "labels": test_labels},
    }


def main() -> None:
    """Write both parts beside this file."""
    if importlib.util.find_spec("sklearn") is None:
        sys.exit("error: scikit-learn is not installed\n  next:  pip install scikit-learn")
    for part, arrays in split().items():
        np.savez_compressed(HERE / f"digits_{part}.npz", **arrays)


if __name__ == "__main__":
    main()
