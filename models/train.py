"""Train two networks on scikit-learn's handwritten digits and export them as ONNX.

``python -m models.train`` takes a few minutes on two CPU cores. It writes, beside this file,
``digits_mlp.onnx`` and ``digits_cnn.onnx`` with every BatchNormalization kept,
``digits_test.npz`` with the held-out images, and ``digits.json`` with what came out.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import sklearn
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from models.exporting import export
from models.recipes import example, initial

HERE: Final = Path(__file__).parent
NETS: Final = ("mlp", "cnn")
_SPLIT_SEED: Final = 0
_TEST_IMAGES: Final = 500
_BATCH_SIZE: Final = 64
_PEAK_RATE: Final = 4e-3
_MOVED_SHARE: Final = 0.5
_LARGEST_PIXEL: Final = 16.0


@dataclass(frozen=True, slots=True)
class Digits:
    """Handwritten digits of 8×8 pixels in 0…1, split into training and test images."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


@dataclass(frozen=True, slots=True)
class Trained:
    """What is known of a trained network."""

    test_accuracy: float
    test_errors: int
    epochs: int
    seed: int
    parameters: int
    batch_norms: int
    file: str


def load() -> Digits:
    """Return the data set with a split that is the same on every machine."""
    raw = load_digits()
    images = (raw.images / _LARGEST_PIXEL).astype(np.float32)[:, None]
    parts = train_test_split(
        images,
        raw.target.astype(np.int64),
        test_size=_TEST_IMAGES,
        random_state=_SPLIT_SEED,
        stratify=raw.target,
    )
    train_images, test_images, train_labels, test_labels = map(torch.from_numpy, parts)
    return Digits(train_images, train_labels, test_images, test_labels)


def train(net: nn.Module, digits: Digits, epochs: int, seed: int) -> None:
    """Train in place with AdamW and a one-cycle learning rate, printing progress."""
    generator = torch.Generator().manual_seed(seed)
    steps = epochs * (len(digits.train_labels) // _BATCH_SIZE)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _PEAK_RATE, total_steps=steps)
    for epoch in range(epochs):
        net.train()
        losses = []
        for images, labels in _batches(digits, generator):
            optimizer.zero_grad()
            loss = cross_entropy(net(images), labels, label_smoothing=0.05)
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        if (epoch + 1) % max(1, epochs // 10) == 0:
            right = accuracy(net, digits)
            print(f"  epoch {epoch + 1:3d}  loss {np.mean(losses):.4f}  test {right:.2%}")


def _batches(digits: Digits, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield shuffled full batches; some images are moved by a pixel."""
    device = digits.train_images.device
    order = torch.randperm(len(digits.train_labels), generator=generator).to(device)
    for chosen in order.split(_BATCH_SIZE):
        if len(chosen) == _BATCH_SIZE:
            images = digits.train_images[chosen]
            yield _move(images, generator), digits.train_labels[chosen]


def _move(images: Tensor, generator: torch.Generator) -> Tensor:
    """Move about half of the images by one pixel, each its own way."""
    size = images.shape[-1]
    windows = pad(images, (1, 1, 1, 1)).unfold(2, size, 1).unfold(3, size, 1)
    offsets = torch.randint(-1, 2, (2, len(images)), generator=generator)
    moved = torch.rand(len(images), generator=generator) < _MOVED_SHARE
    down, right = (1 + offsets * moved).to(images.device)
    return windows[torch.arange(len(images), device=images.device), :, down, right]


@torch.no_grad()
def accuracy(net: nn.Module, digits: Digits) -> float:
    """Return the share of test images whose digit is recognised."""
    answers = net.eval()(digits.test_images).argmax(dim=1)
    return float((answers == digits.test_labels).double().mean())


def train_one(name: str, digits: Digits, epochs: int, seed: int) -> Trained:
    """Train the named recipe, write ``digits_<name>.onnx`` and return what came out."""
    net = initial(name, seed).to(digits.train_images.device)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    print(f"{name}: {parameters} parameters, {epochs} epochs")
    train(net, digits, epochs, seed)
    right = accuracy(net, digits)
    model = export(net.cpu(), example(name), "torchscript-preserve")
    path = HERE / f"digits_{name}.onnx"
    onnx.save(model, path)
    kept = sum(node.op_type == "BatchNormalization" for node in model.graph.node)
    print(
        f"{name}: test accuracy {right:.2%}; wrote {path.name} with {kept} BatchNormalization"
    )
    errors = round((1 - right) * _TEST_IMAGES)
    return Trained(right, errors, epochs, seed, parameters, kept, path.name)


def write_test_images(digits: Digits) -> None:
    """Write the test images, as the bytes 0…16 that they are, and their labels."""
    images = digits.test_images.cpu().numpy() * _LARGEST_PIXEL
    labels = digits.test_labels.cpu().numpy().astype(np.uint8)
    np.savez_compressed(
        HERE / "digits_test.npz", images=images.astype(np.uint8), labels=labels
    )


def write_record(results: dict[str, Trained]) -> None:
    """Write ``digits.json``; a network that was not trained this time keeps its entry."""
    path = HERE / "digits.json"
    nets: dict[str, Any] = {}
    if path.exists():
        nets = json.loads(path.read_text(encoding="utf-8"))["nets"]
    nets |= {name: asdict(result) for name, result in results.items()}
    record = {
        "data": "scikit-learn load_digits",
        "split": {"test_images": _TEST_IMAGES, "seed": _SPLIT_SEED, "stratified": True},
        "exporter": "torchscript-preserve",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "scikit-learn": sklearn.__version__,
        },
        "nets": nets,
    }
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(prog="python -m models.train", description=__doc__)
    parser.add_argument("--net", choices=(*NETS, "all"), default="all")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Train, export and record."""
    arguments = parse_arguments()
    torch.use_deterministic_algorithms(mode=True)
    digits = load()
    moved = Digits(*(getattr(digits, part).to(arguments.device) for part in Digits.__slots__))
    names = NETS if arguments.net == "all" else (arguments.net,)
    results = {
        name: train_one(name, moved, arguments.epochs, arguments.seed) for name in names
    }
    write_test_images(digits)
    write_record(results)


if __name__ == "__main__":
    main()
