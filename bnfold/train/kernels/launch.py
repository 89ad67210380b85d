"""Launch the kernels: choose tiles and grids once per kind of tensor, allocate what goes out.

What follows from a tensor's shape, strides, type and device is kept in its `Plan`, together
with the compiled kernels: a training step launches several hundred of them, and a layer's
time on a small tensor is the time that Python takes.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
from torch import Tensor

from bnfold.errors import UsageError
from bnfold.train.kernels import backward as backward_kernels
from bnfold.train.kernels import forward as forward_kernels
from bnfold.train.kernels import tiles
from bnfold.train.kernels.layout import Layout, Planes, Rows, laid_out_like, layout_from
from bnfold.train.kernels.tiles import Kernel, Launch, Split, Tile

if TYPE_CHECKING:
    from bnfold.train.kernels.reference import Activation, Running

INTERPRETED_CAPABILITY: Final = 90  # what the interpreter, which is no device, is taken for
INTERPRETED_PROCESSORS: Final = 1
# No multiply-add but the explicit one: forward and backward then agree on every sign.
ROUNDED: Final = {"enable_fp_fusion": False}
_MOST_PLANS: Final = 4096
_MOST_CALLS: Final = 256  # of one plan: a momentum may change from step to step
_UNKNOWN: Final = object()
_VECTOR: Final = 1024  # channels that a program takes which only reads one value of each
_ALIGNMENT: Final = 16  # bytes; triton compiles for pointers that have it, or have not
_HERE: Final = contextlib.nullcontext()


class Affine(NamedTuple):
    """What one channel is normalised with, in the order in which every kernel takes it."""

    mean: Tensor
    rstd: Tensor
    weight: Tensor | None
    bias: Tensor | None


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


def readable(x: Tensor) -> Tensor:
    """Return x itself where a kernel can read it, or a contiguous copy."""
    return x if find_plan(x) is not None else x.contiguous()


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


def vector(x: Tensor, *shape: int) -> Tensor:
    """Allocate float32 values on the device of x."""
    return torch.empty(shape, dtype=torch.float32, device=x.device)


def statistics_call(plan: Plan) -> Call:
    """Moments of every split."""
    tile, split, layout = plan.tile("statistics"), plan.split("statistics"), plan.layout
    grid = (split.channel_blocks, split.splits)
    ends = (tile.lines, tile.length)
    if isinstance(layout, Rows):
        rest: tuple[Any, ...] = (layout.rows, layout.channels, *ends)
        return Call(forward_kernels.rows_statistics, grid, rest, tile.warps)
    rest = (*planes_of(layout), split.steps, tiles.blocks_of(tile, layout), *ends)
    return Call(forward_kernels.planes_statistics, grid, rest, tile.warps)


def planes_of(layout: Planes) -> tuple[int, int, int]:
    """Return the sizes that kernels on planes take."""
    return layout.images, layout.channels, layout.size


def finish_blocks(channels: int, splits: int) -> tuple[tuple[int], tuple[int, int]]:
    """Return the grid and the block sizes of a kernel that adds up splits."""
    held = tiles.power_of_two(splits)
    block = max(8, min(64, 4096 // held))
    return (-(-channels // block),), (held, block)


def finish_statistics_call(plan: Plan, eps: float, momentum: float) -> Call:
    """Merge the splits."""
    layout, splits = plan.layout, plan.splits[0]
    grid, ends = finish_blocks(layout.channels, splits)
    pivot_stride = 1 if isinstance(layout, Rows) else layout.size
    rest = (layout.channels, pivot_stride, splits, eps, momentum, plan.unbias(), *ends)
    return Call(forward_kernels.finish_statistics, grid, rest, warps=4)


def lines_grid(plan: Plan, kernel: Kernel) -> tuple[tuple[int], tuple[int, ...]]:
    """Return the grid of a kernel that treats every value alike, and the sizes it takes."""
    tile, layout = plan.tile(kernel), plan.layout
    if isinstance(layout, Planes):
        planes = layout.images * layout.channels
        blocks = tiles.blocks_of(tile, layout)
        grid = (-(-planes // tile.lines) * blocks,)
        return grid, (planes, layout.channels, layout.size, blocks)
    downwards, across = -(-layout.rows // tile.lines), -(-layout.channels // tile.length)
    steps = tiles.steps_of(plan.launch(kernel), downwards * across, plan.processors)
    grid = (-(-downwards // steps) * across,)
    return grid, (layout.rows, layout.channels, across, steps)


def normalise_call(plan: Plan, activation: str | None, negative_slope: float) -> Call:
    """Activation(bn(x) + residual) from known statistics."""
    tile = plan.tile("normalise")
    grid, sizes = lines_grid(plan, "normalise")
    by_rows = isinstance(plan.layout, Rows)
    kernel = forward_kernels.rows_normalise if by_rows else forward_kernels.planes_normalise
    rest = (*sizes, negative_slope, activation, tile.lines, tile.length)
    return Call(kernel, grid, rest, tile.warps)


def alone_grid(plan: Plan, kernel: Kernel) -> tuple[tuple[int], tuple[int, ...]]:
    """Return the grid of a kernel that does everything for its channels, and its sizes."""
    tile, layout = plan.tile(kernel), plan.layout
    steps = tiles.tiles_of(tile, layout)
    if isinstance(layout, Rows):
        return (-(-layout.channels // tile.length),), (layout.rows, layout.channels, steps)
    sizes = (*planes_of(layout), steps, tiles.blocks_of(tile, layout))
    return (layout.channels,), sizes


def forward_alone_call(
    plan: Plan, activation: str | None, negative_slope: float, eps: float, momentum: float
) -> Call:
    """The whole forward in one launch."""
    tile = plan.tile("forward_alone")
    grid, sizes = alone_grid(plan, "forward_alone")
    by_rows = isinstance(plan.layout, Rows)
    kernel = forward_kernels.rows_alone if by_rows else forward_kernels.planes_alone
    numbers = (negative_slope, eps, momentum, plan.unbias())
    rest = (*sizes, *numbers, activation, tile.lines, tile.length)
    return Call(kernel, grid, rest, tile.warps)


@functools.lru_cache(maxsize=1024)
def update_running_call(
    channels: int,
    momentum: float | None,
    unbias: float,
    device: int,  # noqa: ARG001  # compiled kernels belong to one
) -> Call:
    """Blend a batch into what is running, in one program."""
    share = 0.0 if momentum is None else momentum
    rest = (channels, share, unbias, momentum is None, _VECTOR)
    return Call(forward_kernels.update_running, (1,), rest, warps=4)


def invert_deviation_call(plan: Plan, eps: float) -> Call:
    """1 / √(var + eps) of known variances."""
    channels = plan.layout.channels
    rest = (channels, eps, _VECTOR)
    return Call(forward_kernels.invert_deviation, (-(-channels // _VECTOR),), rest, warps=4)


def normalise(
    x: Tensor,
    affine: Affine,
    residual: Tensor | None,
    activation: Activation,
    bits: Tensor | None,
) -> Tensor:
    """Return activation(bn(x) + residual) from known statistics; fill `bits` with signs."""
    residual = None if residual is None else laid_out_like(residual, x)
    y = torch.empty_like(x)
    call = plan_of(x).call(normalise_call, activation.name, activation.negative_slope)
    with on_device_of(x):
        call(x, residual, y, bits, *affine)
    return y


class Normalised(NamedTuple):
    """A batch, normalised, and what its backward needs."""

    y: Tensor
    mean: Tensor
    rstd: Tensor
    var: Tensor | None  # biased; only where it was asked for
    bits: Tensor | None  # where the slope is one, beside a residual


def forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    eps: float,
    activation: Activation,
    running: Running | None = None,
    *,
    keeps_var: bool = False,
) -> Normalised:
    """Normalise by the batch itself, and update what is running."""
    plan = plan_of(x)
    channels = plan.layout.channels
    if residual is not None:
        residual = laid_out_like(residual, x)
    cumulative = running is not None and running.is_cumulative
    bits = empty_bits(x, residual, activation)
    mean, rstd = vector(x, channels), vector(x, channels)
    var = vector(x, channels) if keeps_var or cumulative else None
    kept = (None, None, None) if running is None or cumulative else running[:3]
    share = 0.0 if running is None or running.momentum is None else running.momentum
    name, slope = activation.name, activation.negative_slope
    with on_device_of(x):
        if plan.forward_works_alone:
            y = torch.empty_like(x)
            call = plan.call(forward_alone_call, name, slope, eps, share)
            call(x, residual, y, bits, mean, rstd, weight, bias, var, *kept)
        else:
            parts = vector(x, 3, plan.splits[0], channels)
            plan.call(statistics_call)(x, parts)
            finish = plan.call(finish_statistics_call, eps, share)
            finish(x, parts, mean, rstd, var, *kept)
            y = torch.empty_like(x)
            call = plan.call(normalise_call, name, slope)
            call(x, residual, y, bits, mean, rstd, weight, bias)
    if running is not None and cumulative and var is not None:
        update_running(running, mean, var, plan.layout.per_channel)
    return Normalised(y, mean, rstd, var, bits)


def empty_bits(x: Tensor, residual: Tensor | None, activation: Activation) -> Tensor | None:
    """Allocate what the backward needs of the signs: one bit per value beside a residual."""
    if residual is None or not activation.has_two_slopes:
        return None
    return torch.empty(plan_of(x).layout.mask_bytes, dtype=torch.uint8, device=x.device)


def sums_call(plan: Plan, activation: str | None, negative_slope: float) -> Call:
    """The gradients of weight and bias, by splits."""
    tile, split, layout = plan.tile("sums"), plan.split("sums"), plan.layout
    grid = (split.channel_blocks, split.splits)
    ends = (negative_slope, activation, tile.lines, tile.length)
    if isinstance(layout, Rows):
        rest: tuple[Any, ...] = (layout.rows, layout.channels, split.steps, *ends)
        return Call(backward_kernels.rows_sums, grid, rest, tile.warps)
    rest = (*planes_of(layout), split.steps, tiles.blocks_of(tile, layout), *ends)
    return Call(backward_kernels.planes_sums, grid, rest, tile.warps)


def finish_sums_call(plan: Plan) -> Call:
    """Add up the splits."""
    channels, splits = plan.layout.channels, plan.splits[1]
    grid, ends = finish_blocks(channels, splits)
    return Call(backward_kernels.finish_sums, grid, (channels, splits, *ends), warps=4)


def gradient_call(plan: Plan, activation: str | None, negative_slope: float) -> Call:
    """The gradient of x; `activation` is what has not been applied to `inner` yet."""
    tile = plan.tile("gradient")
    grid, sizes = lines_grid(plan, "gradient")
    by_rows = isinstance(plan.layout, Rows)
    kernel = backward_kernels.rows_gradient if by_rows else backward_kernels.planes_gradient
    share = 1.0 / plan.layout.per_channel
    rest = (*sizes, share, negative_slope, activation, tile.lines, tile.length)
    return Call(kernel, grid, rest, tile.warps)


def backward_alone_call(plan: Plan, activation: str | None, negative_slope: float) -> Call:
    """The whole backward in one launch."""
    tile = plan.tile("backward_alone")
    grid, sizes = alone_grid(plan, "backward_alone")
    by_rows = isinstance(plan.layout, Rows)
    rows, planes = backward_kernels.rows_backward_alone, backward_kernels.planes_backward_alone
    share = 1.0 / plan.layout.per_channel
    rest = (*sizes, share, negative_slope, activation, tile.lines, tile.length)
    return Call(rows if by_rows else planes, grid, rest, tile.warps)


class Gradients(NamedTuple):
    """What a backward computes; `inner` is the residual's gradient where it was stored."""

    x: Tensor
    weight: Tensor | None
    bias: Tensor | None
    inner: Tensor | None


def backward(
    dy: Tensor,
    x: Tensor,
    affine: Affine,
    residual: Tensor | None,
    bits: Tensor | None,
    activation: Activation,
    *,
    stores_inner: bool,
) -> Gradients:
    """Differentiate a step that was normalised by the batch itself."""
    plan = plan_of(x)
    channels = plan.layout.channels
    dy = laid_out_like(dy, x)
    if residual is not None:
        residual = laid_out_like(residual, x)
    inner = torch.empty_like(x) if stores_inner else None
    dweight, dbias = vector(x, channels), vector(x, channels)
    name, slope = activation.name, activation.negative_slope
    with on_device_of(x):
        if plan.backward_works_alone:
            dx = torch.empty_like(x)
            call = plan.call(backward_alone_call, name, slope)
            call(dy, x, residual, bits, inner, dx, dweight, dbias, *affine)
        else:
            add_up(dy, x, affine, residual, bits, activation, inner, dweight, dbias)
            dx = differentiate(dy, x, affine, activation, inner, dweight, dbias)
    return Gradients(dx, dweight, dbias, inner)


def add_up(
    dy: Tensor,
    x: Tensor,
    affine: Affine,
    residual: Tensor | None,
    bits: Tensor | None,
    activation: Activation,
    inner: Tensor | None,
    dweight: Tensor,
    dbias: Tensor,
) -> None:
    """Fill the gradients of weight and bias, and `inner` where it is stored; all laid out."""
    plan = plan_of(x)
    parts = vector(x, 2, plan.splits[1], plan.layout.channels)
    call = plan.call(sums_call, activation.name, activation.negative_slope)
    call(dy, x, residual, bits, inner, None, parts, *affine)
    plan.call(finish_sums_call)(parts, dweight, dbias)


def differentiate(
    dy: Tensor,
    x: Tensor,
    affine: Affine,
    activation: Activation,
    inner: Tensor | None,
    dweight: Tensor,
    dbias: Tensor,
) -> Tensor:
    """Return the gradient of x from known sums over the batch; all laid out."""
    dx = torch.empty_like(x)
    left = activation.name if inner is None else None
    call = plan_of(x).call(gradient_call, left, activation.negative_slope)
    call(dy if inner is None else inner, x, dx, dweight, dbias, *affine)
    return dx


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance of each channel, in float32."""
    plan = plan_of(x)
    channels = plan.layout.channels
    mean, rstd, var = (vector(x, channels) for _ in range(3))
    parts = vector(x, 3, plan.splits[0], channels)
    with on_device_of(x):
        plan.call(statistics_call)(x, parts)
        finish = plan.call(finish_statistics_call, 1.0, 0.0)
        finish(x, parts, mean, rstd, var, None, None, None)
    return mean, var


def local_sums(
    dy: Tensor,
    x: Tensor,
    affine: Affine,
    residual: Tensor | None,
    bits: Tensor | None,
    activation: Activation,
    *,
    stores_inner: bool,
) -> Gradients:
    """As `backward` up to where other ranks have a say: x has no gradient yet, but dy."""
    dy = laid_out_like(dy, x)
    if residual is not None:
        residual = laid_out_like(residual, x)
    inner = torch.empty_like(x) if stores_inner else None
    channels = plan_of(x).layout.channels
    dweight, dbias = vector(x, channels), vector(x, channels)
    with on_device_of(x):
        add_up(dy, x, affine, residual, bits, activation, inner, dweight, dbias)
    return Gradients(dy, dweight, dbias, inner)


def shared_gradient(
    sums: Gradients, x: Tensor, affine: Affine, activation: Activation, share: Tensor
) -> Tensor:
    """Return the gradient of x; `share` is what this rank has of all values of a channel."""
    _, product, inner_sum, inner = sums
    if product is None or inner_sum is None:
        raise ValueError("the sums of all ranks are wanted")
    with on_device_of(x):
        # The kernel divides by this rank's values.
        along, even = product * share, inner_sum * share
        return differentiate(sums.x, x, affine, activation, inner, along, even)


def forward_known(
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    eps: float,
    activation: Activation,
) -> Normalised:
    """Normalise by statistics that are known: of a frozen layer."""
    plan = plan_of(x)
    if residual is not None:
        residual = laid_out_like(residual, x)
    bits = empty_bits(x, residual, activation)
    rstd = vector(x, plan.layout.channels)
    with on_device_of(x):
        plan.call(invert_deviation_call, eps)(var, rstd)
        affine = Affine(mean, rstd, weight, bias)
        y = normalise(x, affine, residual, activation, bits)
    return Normalised(y, mean, rstd, None, bits)


def backward_known(
    dy: Tensor,
    x: Tensor,
    affine: Affine,
    residual: Tensor | None,
    bits: Tensor | None,
    activation: Activation,
    *,
    stores_inner: bool,
    of_affine: bool,
) -> Gradients:
    """Differentiate a step that was normalised by known statistics, in one pass."""
    plan = plan_of(x)
    channels = plan.layout.channels
    dy = laid_out_like(dy, x)
    if residual is not None:
        residual = laid_out_like(residual, x)
    dx = torch.empty_like(x)
    inner = torch.empty_like(x) if stores_inner else None
    dweight = vector(x, channels) if of_affine else None
    dbias = vector(x, channels) if of_affine else None
    parts = vector(x, 2, plan.splits[1], channels) if of_affine else None
    call = plan.call(sums_call, activation.name, activation.negative_slope)
    with on_device_of(x):
        call(dy, x, residual, bits, inner, dx, parts, *affine)
        if of_affine:
            plan.call(finish_sums_call)(parts, dweight, dbias)
    return Gradients(dx, dweight, dbias, inner)


def update_running(running: Running, mean: Tensor, var: Tensor, count: int) -> None:
    """Blend the batch into the running statistics and count it, all on the device."""
    unbias = count / max(1, count - 1)
    momentum = running.momentum if running.is_cumulative else running.momentum or 0.0
    call = update_running_call(mean.numel(), momentum, unbias, mean.get_device())
    with on_device_of(mean):
        call(*running[:3], mean, var)
