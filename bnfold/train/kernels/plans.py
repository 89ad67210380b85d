"""How kernels read a tensor, and kernels ready to be launched on it.

What follows from a tensor's shape, strides, type and device is kept in its `Plan`, together
with the compiled kernels: a training step launches several hundred of them, and a layer's
time on a small tensor is the time that Python takes.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

from bnfold.errors import UsageError
from bnfold.train.kernels import tiles
from bnfold.train.kernels.layout import Layout, layout_from
from bnfold.train.kernels.tiles import Kernel, Launch, Split, Tile

INTERPRETED_CAPABILITY: Final = 90  # what the interpreter, which is no device, is taken for
INTERPRETED_PROCESSORS: Final = 1
# No multiply-add but the explicit one: forward and backward then agree on every sign.
ROUNDED: Final = {"enable_fp_fusion": False}
_MOST_PLANS: Final = 4096
_MOST_CALLS: Final = 256  # of one plan: a momentum may change from step to step
_UNKNOWN: Final = object()
_ALIGNMENT: Final = 16  # bytes; triton compiles for pointers that have it, or have not
_HERE: Final = contextlib.nullcontext()


class Call:
    """A kernel with its grid and all its arguments but the buffers, which come first."""

    __slots__ = ("_compiled", "_kernel", "_options", "_rest", "grid")

    def __init__(
        self, kernel: Any, grid: tuple[int, ...], rest: tuple[Any, ...], warps: int
    ) -> None:
        self._kernel = kernel
        self.grid = (*grid, 1, 1)[:3]
        self._rest = rest
        self._options = {"num_warps": warps, **ROUNDED}
        self._compiled: dict[tuple[torch.dtype | None, ...], Callable[..., None]] = {}

    def __call__(self, *buffers: Tensor | None) -> None:
        """Launch; what triton would find out again about the arguments is known already."""
        addresses = 0
        kinds: list[torch.dtype | None] = []
        for buffer in buffers:
            if buffer is None:
                kinds.append(None)
            else:
                kinds.append(buffer.dtype)
                addresses |= buffer.data_ptr()
        key = tuple(kinds)
        aligned = addresses % _ALIGNMENT == 0
        run = self._compiled.get(key) if aligned else None
        if run is not None:
            run(*buffers, *self._rest)
            return
        compiled = self._kernel[self.grid](*buffers, *self._rest, **self._options)
        if aligned and compiled is not None:  # the interpreter compiles nothing
            self._compiled[key] = compiled[self.grid]


@dataclass(frozen=True)
class Plan:
    """All that follows from a tensor: how it lies, tiles, device, kernels ready to launch."""

    layout: Layout
    itemsize: int
    capability: int
    processors: int
    table: tiles.Table
    calls: dict[tuple[Any, ...], Call] = field(default_factory=dict)

    def call(self, make: Callable[..., Call], *settings: Any) -> Call:
        """Return what `make(self, *settings)` makes; it is made once."""
        key = (make, *settings)
        known = self.calls.get(key)
        if known is None:
            if len(self.calls) >= _MOST_CALLS:
                self.calls.clear()
            known = self.calls[key] = make(self, *settings)
        return known

    def launch(self, kernel: Kernel) -> Launch:
        """Return the table's entry for a kernel."""
        return self.table.launch_of(kernel, self.capability, self.layout, self.itemsize)

    def tile(self, kernel: Kernel) -> Tile:
        """Return the tile of a kernel."""
        lines = tiles.lines_of(self.layout, kernel)
        return tiles.tile_of(self.launch(kernel), self.layout, self.itemsize, lines)

    def split(self, kernel: Kernel) -> Split:
        """Return how the work of a kernel that reduces is shared out."""
        wanted = self.processors * self.launch(kernel).programs
        return tiles.split_of(self.tile(kernel), self.layout, wanted)

    @functools.cached_property
    def splits(self) -> tuple[int, int]:
        """Of the statistics, and of the sums of the backward."""
        return self.split("statistics").splits, self.split("sums").splits

    @functools.cached_property
    def forward_works_alone(self) -> bool:
        """The whole forward takes one launch."""
        return self.works_alone("forward_alone")

    @functools.cached_property
    def backward_works_alone(self) -> bool:
        """The whole backward takes one launch."""
        return self.works_alone("backward_alone")

    def works_alone(self, kernel: Kernel) -> bool:
        """One program has so few tiles that it does everything for its channels."""
        return tiles.tiles_of(self.tile(kernel), self.layout) <= self.launch(kernel).steps

    def unbias(self) -> float:
        """N / (n − 1), for n values per channel."""
        count = self.layout.per_channel
        return count / max(1, count - 1)


def find_plan(x: Tensor) -> Plan | None:
    """Return how kernels read x, or None where they cannot."""
    table = tiles.table()
    key = (x.shape, x.stride(), x.dtype, x.get_device())
    known: Any = table.plans.get(key, _UNKNOWN)  # at once: another thread may clear them
    if known is not _UNKNOWN:
        found: Plan | None = known
        return found
    if len(table.plans) >= _MOST_PLANS:  # of a model whose inputs are of every size
        table.plans.clear()
    layout = layout_from(x.shape, x.stride()) if x.numel() > 0 else None
    plan = None
    if layout is not None:
        plan = Plan(layout, x.element_size(), *device_of(x), table)
    table.plans[key] = plan
    return plan


def plan_of(x: Tensor) -> Plan:
    """Return how kernels read x, or say why they cannot."""
    plan = find_plan(x)
    if plan is None:
        raise UsageError(
            "this tensor cannot be read by a kernel",
            where=f"shape {tuple(x.shape)}, strides {tuple(x.stride())}",
            why="it is empty, or neither contiguous nor channels_last",
            remedy="call bnfold.train.functional.batch_norm, which takes any tensor",
        )
    return plan


def device_of(x: Tensor) -> tuple[int, int]:
    """Return compute capability and number of multiprocessors."""
    if x.device.type != "cuda":
        return INTERPRETED_CAPABILITY, INTERPRETED_PROCESSORS
    properties = torch.cuda.get_device_properties(x.device)
    return properties.major * 10 + properties.minor, properties.multi_processor_count


def on_device_of(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Make the device of x the current one: a kernel starts on the current device."""
    if not x.is_cuda or x.get_device() == torch.cuda.current_device():
        return _HERE
    return torch.cuda.device(x.device)
