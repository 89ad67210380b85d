"""A process that measures training, task by task: a line of JSON in, lines of JSON out.

    python -m benchmarks.gpu.worker {cuda,cpu}

Each line out is an object with one of ``ready`` (versions), ``doing`` (the arm at work),
``row`` (the answer), or ``lost`` and ``arm`` (the device answers nothing any more, and this
process ends).
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import torch

from benchmarks.gpu import clocks, layers, torch_kernels, whole_step
from benchmarks.gpu.record import said
from benchmarks.gpu.training_plan import Kernels, Layer, task_of


def main(device: str) -> int:
    """Answer until there are no more tasks, or the device is lost."""
    tasks = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # What a library prints is no answer, and what it starts reads no tasks.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)

    def tell(**answer: Any) -> None:
        answers.write(json.dumps(answer, default=str) + "\n")
        answers.flush()

    if device == "cpu":
        torch.set_num_threads(1)  # tiny tensors: more would only wait for one another
    tell(ready=described(device))
    for line in tasks:
        asked = json.loads(line)
        try:
            row = answer(asked, device, lambda arm: tell(doing=arm))
        except layers.DeviceLostError as error:
            tell(lost=str(error), arm=error.arm)
            return 1
        except Exception as error:  # noqa: BLE001  a task's failure is its row
            row = {"error": said(error)[:500], "failures": asked["lacking"]}
        tell(row=row)
    return 0


def described(device: str) -> dict[str, Any]:
    """Say what measures."""
    found: dict[str, Any] = {"torch": torch.__version__, "device": device}
    found["cudnn"] = torch.backends.cudnn.version() if device == "cuda" else None
    return found | {"l2_bytes": clocks.l2_bytes()}


def answer(asked: dict[str, Any], device: str, doing: layers.Doing) -> dict[str, Any]:
    """Do a task, with all of the device's memory."""
    task = task_of(asked["task"])
    if device == "cuda":
        torch.cuda.empty_cache()
    if isinstance(task, Kernels):
        return torch_kernels.measure(task, device)
    if isinstance(task, Layer):
        return layers.measure(task, device, asked["lacking"], doing)
    return whole_step.measure(task, device, asked["lacking"], doing)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
