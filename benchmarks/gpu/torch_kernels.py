"""Which kernels torch runs for a plain BatchNorm, by the profiler.

A profiler that was on once makes later launches dearer, so this runs in a worker of its own,
where nothing is timed.
"""

from __future__ import annotations

from typing import Any, Final

import torch

from benchmarks.gpu import layers, rivals
from benchmarks.gpu.record import said
from benchmarks.gpu.training_plan import Kernels, Layer

_LONGEST: Final = 160  # of a name: what follows is arguments of templates


def measure(task: Kernels, device: str) -> dict[str, Any]:
    """Return the names of the kernels of forward and backward, layer by layer."""
    found, failures = {}, {}
    for layer in task.layers:
        try:
            found[layer.key] = names(layer, device)
        except Exception as error:  # noqa: BLE001  where a profiler may not look the rest goes on
            failures[layer.key] = said(error)[:500]
    return {"kernels": found, "failures": failures}


def names(layer: Layer, device: str) -> list[str]:
    """Return the names of the kernels that one step runs; on a CPU, of the operators."""
    at = layers.made_inputs(layer, device)[0]
    module = rivals.build("eager", layer, device)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        torch.autograd.grad(module(at.x, at.residual), [at.x, *module.parameters()], at.dy)
        if device == "cuda":
            torch.cuda.synchronize()
    kind = getattr(torch.autograd.DeviceType, device.upper())
    found = {event.name for event in profiler.events() if event.device_type == kind}
    return sorted(name[:_LONGEST] for name in found)
