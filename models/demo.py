"""Fold two networks trained on handwritten digits, and show that nothing else changed.

``make demo`` runs this; it needs neither torch nor scikit-learn. Every step is a command that
can be typed again: fold, verify on the real test images, benchmark. Folded models and reports
are written to ``build/demo/``. Ends with exit code 1 if anything that must hold does not.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

ROOT: Final = Path(__file__).resolve().parent.parent
OUT: Final = ROOT / "build" / "demo"
NETS: Final = {
    "mlp": "a fully connected network: Linear → BatchNorm → ReLU, twice",
    "cnn": "a convolutional network: Conv → BatchNorm → ReLU, three times",
}
_LARGEST_PIXEL: Final = np.float32(16)
_INTRODUCTION: Final = """\
Two networks were trained to read handwritten digits (models/train.py). Both have BatchNorm
layers, which at inference only multiply each channel by a constant and add another. bnfold
moves those constants into the weights of the layer next to them: the BatchNorm layers
disappear, and the network computes the same function. Here each network is folded, verified on
500 real images that it was not trained on, and measured against ONNX Runtime as it is.
"""


def write_digits() -> tuple[Path, Path]:
    """Write the held-out test images (8×8 pixels in 0…1) and their labels as .npy files."""
    images, labels = OUT / "images.npy", OUT / "labels.npy"
    with np.load(ROOT / "models" / "digits_test.npz") as stored:
        np.save(images, stored["images"].astype(np.float32) / _LARGEST_PIXEL)
        np.save(labels, stored["labels"].astype(np.int64))
    return images, labels


def bnfold(*arguments: object) -> dict[str, Any]:
    """Show a bnfold command, run it, and return its document; its text goes to the screen.

    Raises:
        SystemExit: With the command's own code, if that is not 0 or 1.
    """
    words = [_shown(argument) for argument in arguments]
    print(f"$ bnfold {shlex.join(words)}", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "bnfold", *words, "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    print(flush=True)
    if done.returncode not in (0, 1):
        sys.exit(done.returncode)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def _shown(argument: object) -> str:
    if isinstance(argument, Path):
        return argument.relative_to(ROOT).as_posix()
    return str(argument)


def examine(net: str, images: Path, labels: Path) -> Iterator[tuple[str, bool]]:
    """Fold, verify and measure one network; yield what must hold, and whether it does."""
    original = ROOT / "models" / f"digits_{net}.onnx"
    folded = OUT / f"digits_{net}.folded.onnx"
    certificate = OUT / f"digits_{net}.certificate.json"
    page = {command: OUT / f"digits_{net}.{command}.html" for command in ("fold", "verify")}
    fold = bnfold(
        *("fold", original, "-o", folded, "--certificate", certificate),
        *("--require", "no-batchnorm", "--report", page["fold"]),
    )
    verify = bnfold(
        *("verify", original, folded, "--certificate", certificate),
        *("--inputs", images, "--labels", labels, "--report", page["verify"]),
    )
    seen = verify["labels"]
    yield (
        "no BatchNormalization is left",
        "BatchNormalization" not in fold["operators"]["after"],
    )
    yield "the check of the fold passed", fold["check"]["verdict"] == "passed"
    yield "the certificate and 500 images say: the same function", verify["passed"]
    yield "accuracy is the same", seen["accuracy_original"] == seen["accuracy_folded"]
    yield "every answer is the same", seen["agreement"] == 1.0
    bench = bnfold(
        *("bench", original, folded, "--batch", "1,64", "--max-time", 40),
        *("--report", OUT / f"digits_{net}.bench.html"),
    )
    yield "both batch sizes were measured", all(case["latencies"] for case in bench["cases"])


def main() -> int:
    """Return 0 if everything that must hold does, else 1."""
    OUT.mkdir(parents=True, exist_ok=True)
    print(_INTRODUCTION)
    images, labels = write_digits()
    outcomes: list[tuple[str, str, bool]] = []
    for net, words in NETS.items():
        print(f"── digits_{net}.onnx: {words}\n")
        outcomes += [(net, what, holds) for what, holds in examine(net, images, labels)]
    for net, what, holds in outcomes:
        print(f"{'✓' if holds else '✗ NOT TRUE:'} {net}: {what}")
    print(f"\nReports to open in a browser: {_shown(OUT)}/*.html")
    sound = all(holds for _, _, holds in outcomes)
    print("All checks hold." if sound else "A check failed.")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
