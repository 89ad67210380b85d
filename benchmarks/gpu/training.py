"""BatchNorm in training on ResNet-50 shapes: torch's, torch.compile's and ours, in turns.

A row is one shape, type and layout; its arms take turns, so that drift falls on all alike, and
keep every sample. `floor_ms` is what the fewest passes over memory would take at the bandwidth
that a copy reached in the same run: forward 3 passes, 4 with a residual; backward 5, or 6.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.gpu.record import Context, said

SECTION: Final = "training"
_LEAST_S: Final = 5.0  # a row that has less is left out, and said to be
_ROUNDS: Final = 20
_LAYERS: Final = ((64, 112), (256, 56), (512, 28), (2048, 7))
_BATCHES: Final = (256, 64, 16)
_DRY_LAYERS: Final = ((8, 6),)
_KINDS: Final = ("bn", "bn+relu", "bn+add+relu")


@dataclass(frozen=True, slots=True)
class Case:
    """One layer of a training step."""

    batch: int
    channels: int
    side: int
    dtype: str
    channels_last: bool
    kind: str

    @property
    def key(self) -> str:
        """Its name in the results."""
        layout = "channels_last" if self.channels_last else "contiguous"
        shape = f"{self.batch}x{self.channels}x{self.side}x{self.side}"
        return f"{self.kind} {shape} {self.dtype} {layout}"

    @property
    def passes(self) -> tuple[int, int]:
        """The fewest passes over memory, forward and backward."""
        return (4, 6) if "add" in self.kind else (3, 5)


def cases(*, dry_run: bool) -> Iterator[Case]:
    """Yield what matters most first: time may end before the list does."""
    dtypes = ("float32",) if dry_run else ("bfloat16", "float16", "float32")
    batches = (2,) if dry_run else _BATCHES
    layers = _DRY_LAYERS if dry_run else _LAYERS
    for batch, layout, dtype, layer, kind in itertools.product(
        batches, (True, False), dtypes, layers, reversed(_KINDS)
    ):
        yield Case(batch, *layer, dtype, layout, kind)


def run(context: Context) -> None:
    """Measure every case that there is time for."""
    part = context.results(SECTION)
    try:
        import torch
    except ImportError as error:
        part["why"] = said(error)
        return
    device = "cpu" if context.options.dry_run else "cuda"
    part.update(torch=torch.__version__, rows=[], left_out=[])
    part["copy_bytes_per_s"] = copy_bytes_per_s(device)
    for case in cases(dry_run=context.options.dry_run):
        if context.left_s < _LEAST_S and not (context.options.dry_run and not part["rows"]):
            part["left_out"].append(case.key)
            continue
        with context.record.step(f"train {case.key}"):
            part["rows"].append(measure(case, device, part["copy_bytes_per_s"]))
        context.record.save()


def copy_bytes_per_s(device: str) -> float:
    """Return the bandwidth of a device-to-device copy, read and write counted."""
    import torch

    source = torch.empty(2**28 if device == "cuda" else 2**16, device=device)
    target = torch.empty_like(source)
    samples = [milliseconds(lambda: target.copy_(source), device) for _ in range(_ROUNDS)]
    return 2 * source.nbytes / (statistics.median(samples) * 1e-3)


def milliseconds(work: Callable[[], Any], device: str) -> float:
    """Time one call, by the device's own clock where it has one."""
    import torch

    if device != "cuda":
        started = time.perf_counter()
        work()
        return (time.perf_counter() - started) * 1e3
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record()
    work()
    after.record()
    after.synchronize()
    return float(before.elapsed_time(after))


def arms(case: Case, device: str) -> dict[str, Callable[..., Any]]:
    """Return the layer as torch runs it, as torch compiles it, and as ours."""
    import torch

    from bnfold import train

    activation = "relu" if "relu" in case.kind else None
    theirs = torch.nn.BatchNorm2d(case.channels).to(device)
    ours = train.BatchNorm2d(case.channels, activation=activation).to(device)

    def eager(x: Any, residual: Any) -> Any:
        y = theirs(x)
        y = y if residual is None else y + residual
        return torch.relu(y) if activation else y

    found = {"eager": eager, "ours": ours}
    return found | ({"compiled": torch.compile(eager)} if device == "cuda" else {})


def measure(case: Case, device: str, bandwidth: float) -> dict[str, Any]:
    """Time forward and a whole step of every arm, in turns."""
    import torch

    dtype = getattr(torch, case.dtype)
    form = torch.channels_last if case.channels_last else torch.contiguous_format
    shape = (case.batch, case.channels, case.side, case.side)

    def tensor() -> Any:
        return torch.randn(shape, device=device).to(dtype).to(memory_format=form)

    x, dy = tensor().requires_grad_(), tensor()
    residual = tensor().requires_grad_() if "add" in case.kind else None
    work: dict[tuple[str, str], Callable[[], Any]] = {}
    for name, layer in arms(case, device).items():
        work[name, "forward"] = lambda f=layer: f(x, residual)
        work[name, "step"] = lambda f=layer: step(f, x, residual, dy)
    for call in work.values():
        for _ in range(3):
            call()
    samples: dict[tuple[str, str], list[float]] = {key: [] for key in work}
    for turn in range(_ROUNDS if device == "cuda" else 2):
        for key in list(work) if turn % 2 == 0 else reversed(list(work)):
            samples[key].append(milliseconds(work[key], device))
    forward, backward = case.passes
    pass_ms = x.nbytes / bandwidth * 1e3
    row: dict[str, Any] = {"key": case.key, "bytes": x.nbytes}
    row["floor_ms"] = {"forward": forward * pass_ms, "step": (forward + backward) * pass_ms}
    row["samples_ms"] = {f"{name} {what}": times for (name, what), times in samples.items()}
    row["median_ms"] = {key: statistics.median(t) for key, t in row["samples_ms"].items()}
    if device == "cuda":
        row["peak_bytes"] = {
            name: peak_bytes(call) for (name, what), call in work.items() if what == "step"
        }
    return row


def step(layer: Callable[..., Any], x: Any, residual: Any, dy: Any) -> None:
    """Run forward and backward, and drop the gradients."""
    layer(x, residual).backward(dy)
    x.grad = None
    if residual is not None:
        residual.grad = None


def peak_bytes(call: Callable[[], Any]) -> int:
    """Return the most device memory that a call holds beyond what was held before."""
    import torch

    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return int(torch.cuda.max_memory_allocated() - before)
