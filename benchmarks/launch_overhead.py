"""The Python of a training step on our kernels, beside that of torch's own BatchNorm.

    python -m benchmarks.launch_overhead [--json R.json]

No GPU is used: triton compiles for sm_90 and a driver without a device launches nothing, so
what is left is the time of Python, of the dispatcher and of allocating. On a small tensor that
is the time of the layer. torch's own layer computes meanwhile, on a tensor of 128 values.
Figures are ratios to torch's layer in the same turn, medians over turns; they compare our
commits on one machine, and say nothing about a GPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn

from benchmarks import no_device
from bnfold import train
from bnfold.train import functional

_TURNS = 30
_CALLS = 200
_SHAPES = {"one launch": (8, 16, 4, 4), "several launches": (600, 16, 8, 8)}


def steps() -> dict[str, Callable[[], Any]]:
    """Return a forward, and a forward with its backward, of torch's layer and of ours."""
    found: dict[str, Callable[[], Any]] = {}
    torchs, tiny = nn.BatchNorm2d(16), torch.randn(2, 16, 2, 2, requires_grad=True)
    ours = train.BatchNorm2d(16, activation="relu")
    found["torch forward"] = lambda: torch.relu(torchs(tiny))
    found["torch step"] = lambda: whole(lambda x: torch.relu(torchs(x)), tiny)
    for name, shape in _SHAPES.items():
        x = torch.randn(shape, requires_grad=True)
        found[f"ours forward, {name}"] = lambda x=x: ours(x)  # type: ignore[misc]  # a default
        found[f"ours step, {name}"] = lambda x=x: whole(ours, x)  # type: ignore[misc]  # a default
    return found


def whole(layer: Callable[[Any], Any], x: Any) -> None:
    """Run forward and backward, and drop the gradient."""
    layer(x).backward(x)
    x.grad = None


def measure() -> dict[str, list[float]]:
    """Return seconds per call of everything, turn by turn."""
    calls = steps()
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for turn in range(_TURNS):
        names = list(calls) if turn % 2 == 0 else list(reversed(calls))
        for name in names:
            started = time.perf_counter()
            for _ in range(_CALLS):
                calls[name]()
            samples[name].append((time.perf_counter() - started) / _CALLS)
    return samples


def main() -> None:
    """Measure, print ratios, and write every sample if asked."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    fuse = mock.patch.object(functional, "can_fuse", lambda x: x.numel() > 0)
    with no_device.compiled_only(keeps_launches=False), fuse:
        samples = measure()
    for name, ours in samples.items():
        base = samples["torch step" if " step" in name else "torch forward"]
        ratio = statistics.median(a / b for a, b in zip(ours, base, strict=True))
        print(f"{name:34} {ratio:5.2f} x torch's")
    if options.json:
        options.json.write_text(json.dumps({"seconds": samples}, indent=1) + "\n")


if __name__ == "__main__":
    main()
