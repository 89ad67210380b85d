"""Measure a whole training step of a network, all arms in turns. Runs in a worker.

Every arm begins with the same weights and sees the same batch. The losses of the first steps
and the size of the first gradient must agree with torch's: a network that does not learn the
same may be as fast as it likes.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from benchmarks.gpu import clocks, resnet, rivals, turns
from benchmarks.gpu.layers import Doing, fail
from benchmarks.gpu.training_plan import PARAMETERS, Net
from bnfold import train

TURNS: Final = 16
_DRY_TURNS: Final = 1
STEPS: Final = 3
"""Steps of a sample, without a wait between them; and first steps whose losses must agree."""
LOSS_APART: Final = 0.005
GRADIENT_APART: Final = 0.02
"""How far apart the losses, and the sizes of the first gradient, may be, relatively.

Noise as large as the rounding of bfloat16 behind every BatchNorm changed them by 0.0015 and
0.005 (ResNet-50, batch 16, on a CPU); one ReLU of 49 left out by 0.006 and 0.05, one residual
of 16 by 0.04 and 1.6.
"""
_LEARNING_RATE: Final = 0.002
_FLOAT16_SCALE: Final = 1024.0


@dataclass(slots=True)
class Arm:
    """A network with its optimizer, and how a step of it is run.

    Attributes:
        net: What is called: the module, or it compiled.
        module: The module itself.
        optimizer: Of its parameters.
        batch: Images and classes.
        autocast: The type to compute in, or None for that of the parameters.
        recomputes: Whether outputs of our layers are dropped and built again.
        scale: Of the loss, so that no gradient is too small for its type.
    """

    net: Callable[[Tensor], Tensor]
    module: nn.Module
    optimizer: torch.optim.Optimizer
    batch: tuple[Tensor, Tensor]
    autocast: torch.dtype | None
    recomputes: bool
    scale: float

    @contextlib.contextmanager
    def forward(self) -> Iterator[None]:
        """What a forward pass runs in."""
        kind, dtype = self.batch[0].device.type, self.autocast or torch.bfloat16
        again = train.recompute() if self.recomputes else contextlib.nullcontext()
        with torch.autocast(kind, dtype, enabled=self.autocast is not None), again:
            yield

    def loss(self) -> Tensor:
        """Run a forward pass."""
        images, classes = self.batch
        with self.forward():
            return nn.functional.cross_entropy(self.net(images).float(), classes)

    def step(self) -> Tensor:
        """Run a training step and return the loss, without waiting for it."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss()
        (loss * self.scale).backward()
        self.optimizer.step()
        return loss.detach()

    def sample(self, clock: clocks.Clock) -> dict[str, float]:
        """Time steps as a training loop runs them: the CPU may be ahead of the device."""
        ms = clock.called(lambda: [self.step() for _ in range(STEPS)])
        return {"step": ms / STEPS}


def built(name: str, net: Net, batch: tuple[Tensor, Tensor]) -> Arm:
    """Return an arm."""
    device = batch[0].device
    module = resnet.build(net.name).to(device, memory_format=torch.channels_last).train()
    if "ours" in name:
        module = train.convert(module)
    if net.mode == PARAMETERS:
        _narrow(module)
    kind = None if net.mode == PARAMETERS else getattr(torch, net.mode.split()[0])
    called = rivals.compiled(module, device.type) if "compiled" in name else module
    scale = _FLOAT16_SCALE if kind == torch.float16 else 1.0
    rate = _LEARNING_RATE / scale  # gradients are as many times too large
    optimizer = torch.optim.SGD(module.parameters(), lr=rate, momentum=0.9)
    return Arm(called, module, optimizer, batch, kind, "recompute" in name, scale)


def _narrow(module: nn.Module) -> None:
    """Make everything bfloat16 but the vectors of BatchNorm, which add up small changes."""
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            part.to(torch.bfloat16)


def drawn(net: Net, device: str) -> tuple[Tensor, Tensor]:
    """Return a batch: noise, and classes that it has nothing to do with."""
    rng = torch.Generator().manual_seed(0)
    side = resnet.SIDES[net.name]
    images = torch.randn(net.batch, 3, side, side, generator=rng)
    classes = torch.randint(resnet.CLASSES[net.name], (net.batch,), generator=rng)
    dtype = torch.bfloat16 if net.mode == PARAMETERS else torch.float32
    images = images.to(device, dtype, memory_format=torch.channels_last)
    return images, classes.to(device)


def measure(net: Net, device: str, lacking: dict[str, str], doing: Doing) -> dict[str, Any]:
    """Return what was measured of a network; arguments as of a layer's measure."""
    torch.backends.cudnn.benchmark = device == "cuda"
    torch.compiler.reset()
    batch, failures, clock = drawn(net, device), dict(lacking), clocks.clock_of(device)
    row: dict[str, Any] = {"bytes": batch[0].nbytes, "steps": STEPS}
    row |= {name: {} for name in ("losses", "gradient", "peak_bytes", "saved_bytes")}
    row["ready_s"] = {}
    arms: dict[str, Arm] = {}
    for name in net.arms:
        if name in failures:
            continue
        doing(name)
        started = time.perf_counter()
        try:
            arms[name] = built(name, net, batch)
            _look(name, arms[name], row)
        except Exception as error:  # noqa: BLE001  one arm's failure is its own
            arms.pop(name, None)
            fail(name, error, failures)
        row["ready_s"][name] = round(time.perf_counter() - started, 1)
    if "ours" in arms:  # what was not found to be fused is as slow as torch's
        row["fusions"] = dict(Counter(train.fusions(arms["ours"].module).values()))
    doing("turns")
    samples = _sampled(arms, clock, device, failures)
    row["agrees"] = agreement(row["losses"], row["gradient"])
    return row | {"failures": failures} | summary(net, samples)


def _look(name: str, arm: Arm, row: dict[str, Any]) -> None:
    """Run the first steps: what they cost in memory, their losses and the first gradient."""
    losses = []
    for index in range(STEPS):
        losses.append(float(arm.step()))
        if index == 0:
            grads = [one.grad for one in arm.module.parameters() if one.grad is not None]
            row["gradient"][name] = float(torch.nn.utils.get_total_norm(grads)) / arm.scale
    row["losses"][name] = losses
    arm.optimizer.zero_grad(set_to_none=True)
    row["peak_bytes"][name] = clocks.peak_bytes(arm.step)
    arm.optimizer.zero_grad(set_to_none=True)
    if arm.net is arm.module:  # a compiler decides by itself, and layers are not its own
        with arm.forward():
            saved = train.saved_bytes(arm.module, arm.batch[0])
        row["saved_bytes"][name] = saved.total_bytes


def agreement(losses: dict[str, list[float]], gradient: dict[str, float]) -> dict[str, bool]:
    """Say of each arm whether it learns what torch's does; empty where that did not run."""
    if "eager" not in losses:
        return {}
    return {
        name: all(
            abs(mine - theirs) <= LOSS_APART * abs(theirs)
            for mine, theirs in zip(found, losses["eager"], strict=True)
        )
        and abs(gradient[name] - gradient["eager"]) <= GRADIENT_APART * gradient["eager"]
        for name, found in losses.items()
    }


def _sampled(
    arms: dict[str, Arm], clock: clocks.Clock, device: str, failures: dict[str, str]
) -> dict[str, turns.Samples]:
    def sampler(arm: Arm) -> Callable[[], dict[str, float]]:
        return lambda: arm.sample(clock)

    with clocks.without_collection():
        return turns.in_turns(
            {name: sampler(arm) for name, arm in arms.items()},
            TURNS if device == "cuda" else _DRY_TURNS,
            lambda name, error: fail(name, error, failures),
        )


def summary(net: Net, samples: dict[str, turns.Samples]) -> dict[str, Any]:
    """Return medians, images per second, and ratios to ours."""
    found = {name: turns.medians(one) for name, one in samples.items()}
    speeds = {name: round(net.batch / ms["step"] * 1e3, 1) for name, ms in found.items()}
    told = {"medians_ms": found, "images_per_s": speeds}
    return told | {"ratios": turns.ratios(samples), "samples_ms": samples}
