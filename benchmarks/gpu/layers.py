"""Measure one layer: forward, backward and both, of all arms in turns. Runs in a worker."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn

from benchmarks.gpu import clocks, correct, rivals, turns
from benchmarks.gpu.record import said
from benchmarks.gpu.rivals import AbsentError
from benchmarks.gpu.training_plan import Layer

TURNS: Final = 24
_DRY_TURNS: Final = 1
_WARM_UP: Final = 2
_FEWEST_CALLS: Final = 4
_MOST_SETS: Final = 64
_COPIED_VALUES: Final = 2**28  # of 4 bytes: far beyond any cache
_DRY_COPIED_VALUES: Final = 2**16
_LONGEST: Final = 500
_PARTS: Final = ("forward", "backward", "step")
COPY: Final = "copy"

Doing = Callable[[str], None]


class DeviceLostError(Exception):
    """The device answers nothing any more: this process is of no use.

    Args:
        arm: Who ran last.
        why: What it said.
    """

    def __init__(self, arm: str, why: str) -> None:
        super().__init__(f"the device was lost: {why}")
        self.arm = arm


@dataclass(slots=True)
class Inputs:
    """What one call reads."""

    x: Tensor
    residual: Tensor | None
    dy: Tensor

    def overwritable(self) -> Inputs:
        """Return the same with an x that may be overwritten."""
        return Inputs(self.x.clone(), self.residual, self.dy)


@dataclass(slots=True)
class Arm:
    """A module, what it is fed with, and what times it."""

    name: str
    module: nn.Module
    inputs: list[Inputs]
    calls: int
    clock: clocks.Clock
    parameters: list[nn.Parameter] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.parameters = [one for one in self.module.parameters() if one.requires_grad]

    def some(self, count: int) -> list[Inputs]:
        """Return inputs for so many calls, one after the other, from the first."""
        found = [self.inputs[i % len(self.inputs)] for i in range(count)]
        copies = rivals.overwrites_input(self.module)
        return [one.overwritable() for one in found] if copies else found

    def forward(self, at: Inputs) -> Tensor:
        """Return the output."""
        y: Tensor = self.module(at.x, at.residual)
        return y

    def backward(self, y: Tensor, at: Inputs) -> tuple[Tensor, ...]:
        """Return all gradients: of input, residual, weight and bias."""
        wanted = [one for one in (at.x, at.residual) if one is not None]
        return torch.autograd.grad(y, [*wanted, *self.parameters], at.dy)

    def step(self, at: Inputs) -> tuple[Tensor, ...]:
        """Run forward and backward."""
        return self.backward(self.forward(at), at)

    def sample(self) -> dict[str, float]:
        """Take a sample of everything; a forward pass is no part of the time of a backward."""
        found = {}
        for way, count in (("called", 1), ("queued", self.calls)):
            for part in _PARTS:
                works = list(self._works(part, self.some(count)))
                if way == "called":
                    found[f"{part} called"] = self.clock.called(works[0])
                else:
                    name = f"{self.name} {part}"
                    found[f"{part} queued"] = self.clock.queued(name, works)
        return found

    def _works(self, part: str, inputs: list[Inputs]) -> Iterator[Callable[[], Any]]:
        for at in inputs:
            if part == "backward":
                yield partial(self.backward, self.forward(at), at)
            else:
                yield partial(getattr(self, part), at)


def measure(
    layer: Layer, device: str, lacking: dict[str, str], doing: Doing
) -> dict[str, Any]:
    """Return what was measured of a layer.

    Args:
        layer: The layer.
        device: "cuda", or "cpu" for a dry run.
        lacking: Arms that are left out, and why.
        doing: Told which arm is at work, in case it never returns.

    Raises:
        DeviceLostError: If the device answers nothing any more.
    """
    failures = dict(lacking)
    clock = clocks.clock_of(device)
    inputs = made_inputs(layer, device)
    row: dict[str, Any] = {"bytes": inputs[0].x.nbytes, "sets": len(inputs)}
    row["calls"] = max(len(inputs), _FEWEST_CALLS) if device == "cuda" else len(inputs)
    if "ours" in layer.arms and "ours" not in failures:
        doing("ours")
        row |= _checked(layer, device, inputs[0], failures)
    arms, row["ready_s"], row["absent"] = [], {}, {}
    # A compiler counts the shapes that it met, and after eight of them compiles no more.
    torch.compiler.reset()
    for name in layer.arms:
        if name not in failures:
            doing(name)
            with _noting(row["ready_s"], name):
                arms += _ready(name, layer, inputs, clock, row, failures)
    clock.too_soon = 0
    doing("turns")
    samples = _sampled(arms, clock, inputs[0].x.device, failures)
    row |= {"too_soon": clock.too_soon, "peak_bytes": _peaks(arms, failures)}
    row["backend"] = backend(layer, inputs[0].x)
    return row | {"failures": failures} | summary(layer, row["bytes"], samples)


def made_inputs(layer: Layer, device: str) -> list[Inputs]:
    """Return so many inputs that together they are twice the cache: each comes from memory."""
    values = layer.batch * layer.channels * layer.side**2
    bytes_each = values * torch.finfo(getattr(torch, layer.dtype)).bits // 8
    wanted = 2 * clocks.l2_bytes() // bytes_each + (2 if device == "cuda" else 1)
    rng = torch.Generator(device).manual_seed(0)
    return [_made(layer, device, rng) for _ in range(min(wanted, _MOST_SETS))]


def _made(layer: Layer, device: str, rng: torch.Generator) -> Inputs:
    dtype = getattr(torch, layer.dtype)
    form = torch.channels_last if layer.channels_last else torch.contiguous_format
    shape = (layer.batch, layer.channels, layer.side, layer.side)

    def tensor() -> Tensor:
        drawn = torch.empty(shape, dtype=dtype, device=device, memory_format=form)
        return drawn.normal_(0.25, 1.0, generator=rng)

    residual = tensor().requires_grad_() if "add" in layer.kind else None
    return Inputs(tensor().requires_grad_(), residual, tensor())


def _checked(
    layer: Layer, device: str, at: Inputs, failures: dict[str, str]
) -> dict[str, Any]:
    """Compare ours with float64; where only the comparison fails, it is not checked."""
    unchecked: dict[str, str] = {}
    try:
        module = rivals.build("ours", layer, device)
        step = correct.taken(module, at.x, at.residual, at.dy)
    except Exception as error:  # noqa: BLE001  a failure of ours is no failure of the others
        fail("ours", error, failures)
        return {}
    try:
        found = correct.errors(step, layer.activation)
    except Exception as error:  # noqa: BLE001  as above
        fail("ours", error, unchecked)
        return {"unchecked": unchecked["ours"]}
    return {"errors": found, "correct": all(one <= correct.LIMIT for one in found.values())}


@contextmanager
def _noting(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - started, 2)


def _ready(
    name: str,
    layer: Layer,
    inputs: list[Inputs],
    clock: clocks.Clock,
    row: dict[str, Any],
    failures: dict[str, str],
) -> list[Arm]:
    """Build an arm and run it, so that nothing is left to be compiled; none if it fails.

    What is not to be had here is absent, and no failure.
    """
    try:
        module = rivals.build(name, layer, inputs[0].x.device.type)
        arm = Arm(name, module, inputs, row["calls"], clock)
        for _ in range(_WARM_UP if clock.is_devices else 1):
            arm.sample()
    except AbsentError as error:
        row["absent"][name] = str(error)
        return []
    except Exception as error:  # noqa: BLE001  one arm's failure is its own
        fail(name, error, failures)
        return []
    return [arm]


def fail(name: str, error: Exception, failures: dict[str, str]) -> None:
    """Note why an arm failed, and give its memory back.

    Raises:
        DeviceLostError: If the device answers nothing any more.
    """
    failures[name] = said(error)[:_LONGEST]
    error.__traceback__ = None  # it holds the tensors of every frame
    gc.collect()
    if torch.cuda.is_available():
        try:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
        except RuntimeError as lost:
            raise DeviceLostError(name, failures[name]) from lost


def _sampled(
    arms: list[Arm], clock: clocks.Clock, device: torch.device, failures: dict[str, str]
) -> dict[str, turns.Samples]:
    """Let the arms take turns, and a large copy with them."""
    on_gpu = device.type == "cuda"
    source = torch.ones(_COPIED_VALUES if on_gpu else _DRY_COPIED_VALUES, device=device)
    target = torch.empty_like(source)

    def copy() -> dict[str, float]:
        ms = clock.queued(COPY, [lambda: target.copy_(source)] * 2)
        return {"bytes_per_s": 2 * source.nbytes / (ms * 1e-3)}

    copy()
    work: dict[str, Callable[[], dict[str, float]]] = {arm.name: arm.sample for arm in arms}
    with clocks.without_collection():
        return turns.in_turns(
            {COPY: copy, **work},
            TURNS if on_gpu else _DRY_TURNS,
            lambda name, error: fail(name, error, failures),
        )


def _peaks(arms: list[Arm], failures: dict[str, str]) -> dict[str, int | None]:
    """Return how much memory a step of each arm takes."""
    found = {}
    for arm in arms:
        if arm.name not in failures:
            try:
                found[arm.name] = clocks.peak_bytes(partial(arm.step, arm.some(1)[0]))
            except Exception as error:  # noqa: BLE001  one arm's failure is its own
                fail(arm.name, error, failures)
    return found


def backend(layer: Layer, x: Tensor) -> str:
    """Return whose kernels torch picks for its BatchNorm here, by its own word."""
    vectors = [torch.ones(layer.channels, device=x.device) for _ in range(4)]
    choose = torch._batch_norm_impl_index  # noqa: SLF001  # what batch_norm itself calls
    try:
        with torch.no_grad():
            *_, index = choose(x, *vectors, True, 0.1, 1e-5, True)  # noqa: FBT003  # as it takes them
    except Exception as error:  # noqa: BLE001  what is not known costs no figure
        return f"unknown: {said(error)}"[:_LONGEST]
    return {0: "native", 1: "cudnn", 2: "miopen"}.get(int(index), str(index))


def summary(layer: Layer, size: int, samples: dict[str, turns.Samples]) -> dict[str, Any]:
    """Return medians, ratios, and how near each arm is to a copy's bandwidth.

    Args:
        layer: The layer.
        size: Bytes of the input.
        samples: Of every arm, and of the copy.
    """
    copied = samples.pop(COPY, {}).get("bytes_per_s", [])
    found: dict[str, Any] = {"medians_ms": {n: turns.medians(s) for n, s in samples.items()}}
    found["ratios"] = turns.ratios(samples)
    if copied:
        found["copy_bytes_per_s"] = turns.medians({"": copied})[""]
        found["of_copy"] = {
            name: {part: _of_copy(layer, size, copied, one, part) for part in _PARTS}
            for name, one in samples.items()
        }
    return found | {"samples_ms": samples, "copied": copied}


def _of_copy(
    layer: Layer, size: int, copied: list[float], samples: turns.Samples, part: str
) -> dict[str, float | None]:
    """The time of the fewest passes at a copy's bandwidth, over the time taken."""
    moved = layer.passes[part] * size
    floors_ms = [moved / bandwidth * 1e3 for bandwidth in copied]
    return turns.ratio(floors_ms, samples[f"{part} queued"])
