"""The kernels of training, one launch at a time, on tensors that no cache holds."""

from __future__ import annotations

import itertools
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import torch

from benchmarks.gpu import clocks
from bnfold.train.kernels import launch, plans, tiles
from bnfold.train.kernels.layout import Layout, Planes, Rows
from bnfold.train.kernels.tiles import Entry, Kernel, Launch, Side, Table

_TURNS: Final = 5
_CALLS: Final = 10  # in one sample
_EPS: Final = 1e-5


@dataclass(frozen=True, slots=True)
class Point:
    """A tensor to tune on."""

    images: int
    channels: int
    side_length: int
    dtype: torch.dtype
    by_rows: bool

    @property
    def side(self) -> Side:
        """Which kernels read it."""
        return "rows" if self.by_rows else "planes"

    @property
    def layout(self) -> Layout:
        """How it lies."""
        size = self.side_length**2
        if self.by_rows:
            return Rows(self.images * size, self.channels)
        return Planes(self.images, self.channels, size)

    @property
    def size_bytes(self) -> int:
        """Of the tensor."""
        return tiles.values_of(self.layout) * self.dtype.itemsize

    @property
    def key(self) -> str:
        """Its name in the results."""
        shape = f"{self.images}x{self.channels}x{self.side_length}x{self.side_length}"
        return f"{shape} {self.dtype} {self.side}".replace("torch.", "")

    def entry(self, kernel: Kernel, chosen: Launch) -> Entry:
        """Return what the table holds of it."""
        line = tiles.line_of(self.layout)
        return Entry(kernel, self.side, self.dtype.itemsize, line, self.size_bytes, chosen)


@dataclass
class Buffers:
    """Tensors for every kernel, several sets of them: more than a cache holds."""

    x: torch.Tensor
    dy: torch.Tensor
    out: torch.Tensor
    vectors: torch.Tensor  # [6, channels]: mean, rstd, weight, bias, and two to write
    parts: torch.Tensor

    @classmethod
    def of(cls, point: Point, device: str) -> Buffers:
        """Allocate for a point; statistics are those of random numbers."""
        shape: tuple[int, ...] = (point.images, point.side_length**2, point.channels)
        if not point.by_rows:
            shape = (point.images, point.channels, point.side_length**2)
        x, dy = (torch.randn(shape, device=device, dtype=point.dtype) for _ in range(2))
        vectors = torch.ones(6, point.channels, device=device)
        parts = torch.zeros(3, tiles.MAX_SPLITS, point.channels, device=device)
        return cls(x, dy, torch.empty_like(x), vectors, parts)

    def arguments(self, kernel: Kernel) -> tuple[torch.Tensor | None, ...]:
        """Return what a kernel takes, for relu without a residual."""
        mean, rstd, weight, bias, one, two = self.vectors
        affine = (mean, rstd, weight, bias)
        none = None
        match kernel:
            case "statistics":
                return self.x, self.parts
            case "normalise":
                return self.x, none, self.out, none, *affine
            case "sums":
                return self.dy, self.x, none, none, none, none, self.parts, *affine
            case "gradient":
                return self.dy, self.x, self.out, one, two, *affine
            case "forward_alone":
                # Into vectors that nobody reads: all kernels see the same numbers.
                written = (one, two, weight, bias)
                return self.x, none, self.out, none, *written, none, none, none, none
            case "backward_alone":
                return self.dy, self.x, none, none, none, self.out, one, two, *affine


@dataclass
class Bench:
    """Times kernels on a device."""

    clock: clocks.Clock
    device: str
    capability: int
    processors: int
    log: list[dict[str, Any]] = field(default_factory=list)

    def taken_log(self) -> list[dict[str, Any]]:
        """Return what was measured since the last time."""
        log, self.log = self.log, []
        return log

    def plan(self, point: Point, table: Table) -> plans.Plan:
        """Return a plan by a table of the caller's."""
        itemsize = point.dtype.itemsize
        return plans.Plan(point.layout, itemsize, self.capability, self.processors, table)

    def sets(self, point: Point) -> list[Buffers]:
        """Return buffers whose sum no cache holds."""
        enough = 2 * clocks.l2_bytes() // max(1, point.size_bytes)
        return [Buffers.of(point, self.device) for _ in range(1 + min(enough, 2 * _CALLS))]

    def work(
        self, kernel: Kernel, point: Point, candidate: Launch, sets: Sequence[Buffers]
    ) -> list[Callable[[], Any]]:
        """Return calls of one kernel with one launch, from set to set."""
        table = tiles.uniform({**dict.fromkeys(tiles.KERNELS, candidate)}, self.capability)
        call = call_of(kernel, self.plan(point, table))
        around = itertools.islice(itertools.cycle(sets), _CALLS)
        return [lambda b=b: call(*b.arguments(kernel)) for b in around]

    def times(
        self, kernel: Kernel, point: Point, sets: Sequence[Buffers]
    ) -> Callable[[Sequence[Launch]], list[float]]:
        """Return what measures launches of a kernel beside each other, in milliseconds."""

        def measure(candidates: Sequence[Launch]) -> list[float]:
            works = [self.work(kernel, point, one, sets) for one in candidates]
            samples = self.in_turns([f"{kernel} {i}" for i in range(len(works))], works)
            self.log.append(
                {
                    "kernel": kernel,
                    "point": point.key,
                    "launches": [asdict(one) for one in candidates],
                    "samples_ms": samples,
                }
            )
            return [statistics.median(one) for one in samples]

        return measure

    def in_turns(
        self, names: Sequence[str], works: Sequence[Sequence[Callable[[], Any]]]
    ) -> list[list[float]]:
        """Let all work take turns; what cannot run takes for ever."""
        samples: list[list[float]] = [[] for _ in works]
        broken = set()
        for turn in range(-1, _TURNS):  # the first one compiles
            for index, (name, calls) in enumerate(zip(names, works, strict=True)):
                if index in broken:
                    continue
                try:
                    ms = self.clock.queued(name, calls)
                except Exception as error:  # noqa: BLE001  too many resources, as the message says
                    print(f"  {name}: {type(error).__name__}: {error}"[:200], file=sys.stderr)
                    broken.add(index)
                    continue
                if turn >= 0:
                    samples[index].append(ms)
        return [one or [float("inf")] for one in samples]

    def whole_ms(
        self, point: Point, table: Table, sets: Sequence[Buffers]
    ) -> tuple[float, ...]:
        """Return forward and backward in several launches, then in one each."""
        plan = self.plan(point, table)
        finish = plan.call(launch.finish_statistics_call, _EPS, 0.1)
        finish_back = plan.call(launch.finish_sums_call)

        def forward(b: Buffers) -> None:
            _, _, _, _, one, two = b.vectors
            call_of("statistics", plan)(*b.arguments("statistics"))
            finish(b.x, b.parts, one, two, None, None, None, None)
            call_of("normalise", plan)(*b.arguments("normalise"))

        def backward(b: Buffers) -> None:
            call_of("sums", plan)(*b.arguments("sums"))
            finish_back(b.parts, b.vectors[4], b.vectors[5])
            call_of("gradient", plan)(*b.arguments("gradient"))

        def alone(b: Buffers) -> None:
            call_of("forward_alone", plan)(*b.arguments("forward_alone"))

        def backward_alone(b: Buffers) -> None:
            call_of("backward_alone", plan)(*b.arguments("backward_alone"))

        around = list(itertools.islice(itertools.cycle(sets), _CALLS))
        runs = (forward, backward, alone, backward_alone)
        works = [[lambda r=run, b=b: r(b) for b in around] for run in runs]
        names = [run.__name__ for run in runs]
        samples = self.in_turns(names, works)
        self.log.append(
            {"point": point.key, "whole_ms": dict(zip(names, samples, strict=True))}
        )
        return tuple(statistics.median(one) for one in samples)


def call_of(kernel: Kernel, plan: plans.Plan) -> plans.Call:
    """Return a kernel, ready to be launched by a plan."""
    match kernel:
        case "statistics":
            return plan.call(launch.statistics_call)
        case "normalise":
            return plan.call(launch.normalise_call, "relu", 0.0)
        case "sums":
            return plan.call(launch.sums_call, "relu", 0.0)
        case "gradient":
            return plan.call(launch.gradient_call, "relu", 0.0)
        case "forward_alone":
            return plan.call(launch.forward_alone_call, "relu", 0.0, _EPS, 0.1)
        case "backward_alone":
            return plan.call(launch.backward_alone_call, "relu", 0.0)


def bench_of(*, dry_run: bool) -> Bench:
    """Return what times kernels here."""
    if dry_run:
        return Bench(clocks.HostClock(), "cpu", 90, 132)
    probe = torch.empty(1, device="cuda")
    return Bench(clocks.DeviceClock(), "cuda", *plans.device_of(probe))
