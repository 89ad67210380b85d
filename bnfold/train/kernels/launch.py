"""Launch the kernels: check what comes in, choose tiles and grids, allocate what goes out."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bnfold.errors import UsageError
from bnfold.train.kernels import backward as backward_kernels
from bnfold.train.kernels import forward as forward_kernels
from bnfold.train.kernels.layout import Layout, Planes, Rows, laid_out_like, layout_of
from bnfold.train.kernels.tiles import (
    Kernel,
    Launch,
    Split,
    Tile,
    launch_of,
    power_of_two,
    split_of,
    steps_of,
    tile_of,
)

if TYPE_CHECKING:
    from bnfold.train.kernels.reference import Activation

INTERPRETED_CAPABILITY = 90  # what the interpreter, which is no device, is taken for
INTERPRETED_PROCESSORS = 1
# No multiply-add but the explicit one: forward and backward then agree on every sign.
ROUNDED = {"enable_fp_fusion": False}


@dataclass(frozen=True, slots=True)
class Affine:
    """What one channel is normalised with: vectors of one value per channel."""

    mean: Tensor
    rstd: Tensor
    weight: Tensor | None
    bias: Tensor | None

    def buffers(self) -> tuple[Tensor | None, ...]:
        """The four pointers in the order in which every kernel takes them."""
        return self.mean, self.rstd, self.weight, self.bias


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything about a launch that follows from a tensor: how it lies, tiles, device."""

    layout: Layout
    itemsize: int
    capability: int
    processors: int

    def launch(self, kernel: Kernel) -> Launch:
        """Return the table's entry for a kernel."""
        return launch_of(kernel, self.capability)

    def tile(self, kernel: Kernel) -> Tile:
        """Return the tile of a kernel."""
        return tile_of(self.launch(kernel), self.layout, self.itemsize)

    def split(self, kernel: Kernel) -> Split:
        """Return how the work of a kernel that reduces is shared out."""
        wanted = self.processors * self.launch(kernel).programs
        return split_of(self.tile(kernel), self.layout, wanted)

    def tiles_alone(self, kernel: Kernel) -> int:
        """Return how many tiles a single program per block of channels takes, or 0."""
        if not isinstance(self.layout, Rows):
            return 0
        tiles = -(-self.layout.rows // self.tile(kernel).lines)
        return tiles if tiles <= self.launch(kernel).alone else 0


def plan_of(x: Tensor) -> Plan:
    """Return how kernels read x, or say why they cannot."""
    layout = layout_of(x)
    if layout is None or x.numel() == 0:
        raise UsageError(
            "this tensor cannot be read by a kernel",
            where=f"shape {tuple(x.shape)}, strides {tuple(x.stride())}",
            why="it is empty, or neither contiguous nor channels_last",
            remedy="call bnfold.train.functional.batch_norm, which takes any tensor",
        )
    if x.device.type != "cuda":
        return Plan(layout, x.element_size(), INTERPRETED_CAPABILITY, INTERPRETED_PROCESSORS)
    properties = torch.cuda.get_device_properties(x.device)
    capability = properties.major * 10 + properties.minor
    return Plan(layout, x.element_size(), capability, properties.multi_processor_count)


def on_device_of(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Make the device of x the current one: a kernel starts on the current device."""
    if x.device.type != "cuda":
        return contextlib.nullcontext()
    return torch.cuda.device(x.device)


def vectors(x: Tensor, channels: int, count: int) -> list[Tensor]:
    """Allocate float32 vectors of one value per channel, on the device of x."""
    return [torch.empty(channels, dtype=torch.float32, device=x.device) for _ in range(count)]


def finish_grid(channels: int, splits: int) -> tuple[tuple[int], dict[str, int]]:
    """Return the grid and the block sizes of a kernel that adds up splits."""
    held = power_of_two(splits)
    block = max(8, min(64, 4096 // held))
    return (-(-channels // block),), {"SPLITS": held, "BLOCK_C": block}


def statistics(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, 1 / √(var + eps) and biased variance of each channel, in float32."""
    plan = plan_of(x)
    tile, split, layout = plan.tile("statistics"), plan.split("statistics"), plan.layout
    channels = layout.channels
    parts = torch.empty((3, split.splits, channels), dtype=torch.float32, device=x.device)
    mean, rstd, var = vectors(x, channels, 3)
    grid = (split.channel_blocks, split.splits)
    held, blocks = finish_grid(channels, split.splits)
    with on_device_of(x):
        if isinstance(layout, Rows):
            forward_kernels.rows_statistics[grid](
                x, parts, layout.rows, channels, split.steps,
                BLOCK_R=tile.lines, BLOCK_C=tile.length, num_warps=tile.warps, **ROUNDED,
            )  # fmt: skip
        else:
            forward_kernels.planes_statistics[grid](
                x, parts, layout.images, channels, layout.size, split.steps,
                -(-layout.size // tile.length),
                BLOCK_N=tile.lines, BLOCK_S=tile.length, num_warps=tile.warps, **ROUNDED,
            )  # fmt: skip
        forward_kernels.finish_statistics[held](
            x, parts, mean, rstd, var, channels, pivot_stride(layout), split.splits, eps,
            **blocks, num_warps=4, **ROUNDED,
        )  # fmt: skip
    return mean, rstd, var


def pivot_stride(layout: Layout) -> int:
    """How far a channel's first value is from the next channel's."""
    return 1 if isinstance(layout, Rows) else layout.size


def normalise(
    x: Tensor,
    affine: Affine,
    residual: Tensor | None,
    activation: Activation,
    bits: Tensor | None,
) -> Tensor:
    """Return activation(bn(x) + residual) from known statistics; fill `bits` with signs."""
    plan = plan_of(x)
    tile, layout = plan.tile("normalise"), plan.layout
    residual = None if residual is None else laid_out_like(residual, x)
    y = torch.empty_like(x)
    meta = {"ACTIVATION": activation.name, "num_warps": tile.warps, **ROUNDED}
    pointers = (x, residual, y, bits, *affine.buffers())
    with on_device_of(x):
        if isinstance(layout, Rows):
            grid, steps = rows_grid(plan, layout, "normalise")
            forward_kernels.rows_normalise[grid](
                *pointers, layout.rows, layout.channels, steps, activation.negative_slope,
                BLOCK_R=tile.lines, BLOCK_C=tile.length, **meta,
            )  # fmt: skip
        else:
            forward_kernels.planes_normalise[planes_grid(layout, tile)](
                *pointers, layout.images * layout.channels, layout.channels, layout.size,
                activation.negative_slope, BLOCK_P=tile.lines, BLOCK_S=tile.length, **meta,
            )  # fmt: skip
    return y


def rows_grid(plan: Plan, layout: Rows, kernel: Kernel) -> tuple[tuple[int, int], int]:
    """Return the grid over a matrix, long axis first, and how many tiles a program takes."""
    tile = plan.tile(kernel)
    downwards, across = -(-layout.rows // tile.lines), -(-layout.channels // tile.length)
    steps = steps_of(plan.launch(kernel), downwards * across, plan.processors)
    return (-(-downwards // steps), across), steps


def planes_grid(layout: Planes, tile: Tile) -> tuple[int, int]:
    """One program for each tile of the planes."""
    planes = layout.images * layout.channels
    return -(-planes // tile.lines), -(-layout.size // tile.length)


def forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    eps: float,
    activation: Activation,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return y, mean, 1 / √(var + eps), biased variance and packed signs (or nothing)."""
    bits = empty_bits(x, residual, activation)
    if plan_of(x).tiles_alone("normalise"):
        return forward_alone(x, weight, bias, residual, eps, activation, bits)
    mean, rstd, var = statistics(x, eps)
    affine = Affine(mean, rstd, weight, bias)
    y = normalise(x, affine, residual, activation, bits if bits.numel() else None)
    return y, mean, rstd, var, bits


def forward_alone(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    eps: float,
    activation: Activation,
    bits: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As `forward`, in one launch, for a matrix of few rows."""
    plan = plan_of(x)
    tile, channels = plan.tile("normalise"), plan.layout.channels
    mean, rstd, var = vectors(x, channels, 3)
    residual = None if residual is None else laid_out_like(residual, x)
    y = torch.empty_like(x)
    pointers = (x, residual, y, bits if bits.numel() else None, mean, rstd, weight, bias, var)
    with on_device_of(x):
        forward_kernels.rows_alone[(-(-channels // tile.length),)](
            *pointers, plan.layout.per_channel, channels, plan.tiles_alone("normalise"),
            activation.negative_slope, eps, ACTIVATION=activation.name, BLOCK_R=tile.lines,
            BLOCK_C=tile.length, num_warps=tile.warps, **ROUNDED,
        )  # fmt: skip
    return y, mean, rstd, var, bits


def empty_bits(x: Tensor, residual: Tensor | None, activation: Activation) -> Tensor:
    """Allocate what the backward needs of the signs: one bit per value beside a residual."""
    layout = layout_of(x)
    needed = residual is not None and activation.sign_decides and layout is not None
    size = layout.mask_bytes if needed and layout is not None else 0
    return torch.empty(size, dtype=torch.uint8, device=x.device)


def backward(
    dy: Tensor,
    x: Tensor,
    affine: Affine,
    residual: Tensor | None,
    bits: Tensor,
    activation: Activation,
    *,
    store_inner: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight, bias and, where it is stored, of the residual."""
    dy = laid_out_like(dy, x)
    inner = torch.empty_like(x) if store_inner else None
    if plan_of(x).tiles_alone("sums"):
        return backward_alone(dy, x, affine, residual, bits, activation, inner)
    dweight, dbias = sums(dy, x, affine, residual, bits, activation, inner)
    known = dy if inner is None else inner
    left = activation.name if inner is None else None
    slope = activation.negative_slope
    dx = gradient(known, x, affine, (dweight, dbias), left, slope)
    return dx, dweight, dbias, dx.new_empty(0) if inner is None else inner


def backward_alone(
    dy: Tensor,
    x: Tensor,
    affine: Affine,
    residual: Tensor | None,
    bits: Tensor,
    activation: Activation,
    inner: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `backward`, in one launch, for a matrix of few rows."""
    plan = plan_of(x)
    tile, layout = plan.tile("sums"), plan.layout
    dx = torch.empty_like(x)
    dweight, dbias = vectors(x, layout.channels, 2)
    residual = None if residual is None else laid_out_like(residual, x)
    packed = bits if bits.numel() else None
    pointers = (dy, x, residual, packed, inner, dx, dweight, dbias, *affine.buffers())
    with on_device_of(x):
        backward_kernels.rows_backward_alone[(-(-layout.channels // tile.length),)](
            *pointers, layout.per_channel, layout.channels, plan.tiles_alone("sums"),
            1.0 / layout.per_channel, activation.negative_slope, ACTIVATION=activation.name,
            BLOCK_R=tile.lines, BLOCK_C=tile.length, num_warps=tile.warps, **ROUNDED,
        )  # fmt: skip
    return dx, dweight, dbias, dx.new_empty(0) if inner is None else inner


def sums(
    dy: Tensor,
    x: Tensor,
    affine: Affine,
    residual: Tensor | None,
    bits: Tensor,
    activation: Activation,
    inner: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of weight and bias; fill `inner` with dy · activation′."""
    plan = plan_of(x)
    tile, split, layout = plan.tile("sums"), plan.split("sums"), plan.layout
    channels = layout.channels
    residual = None if residual is None else laid_out_like(residual, x)
    parts = torch.empty((2, split.splits, channels), dtype=torch.float32, device=x.device)
    dweight, dbias = vectors(x, channels, 2)
    packed = bits if bits.numel() else None
    pointers = (dy, x, residual, packed, inner, parts, *affine.buffers())
    grid = (split.channel_blocks, split.splits)
    held, blocks = finish_grid(channels, split.splits)
    meta = {"ACTIVATION": activation.name, "num_warps": tile.warps, **ROUNDED}
    with on_device_of(x):
        if isinstance(layout, Rows):
            backward_kernels.rows_sums[grid](
                *pointers, layout.rows, channels, split.steps, activation.negative_slope,
                BLOCK_R=tile.lines, BLOCK_C=tile.length, **meta,
            )  # fmt: skip
        else:
            backward_kernels.planes_sums[grid](
                *pointers, layout.images, channels, layout.size, split.steps,
                -(-layout.size // tile.length), activation.negative_slope,
                BLOCK_N=tile.lines, BLOCK_S=tile.length, **meta,
            )  # fmt: skip
        backward_kernels.finish_sums[held](
            parts, dweight, dbias, channels, split.splits, **blocks, num_warps=4, **ROUNDED
        )
    return dweight, dbias


def gradient(
    inner: Tensor,
    x: Tensor,
    affine: Affine,
    of_affine: tuple[Tensor, Tensor],
    activation: str | None,
    negative_slope: float,
) -> Tensor:
    """Return the gradient of x; `activation` is what has not been applied to `inner` yet."""
    plan = plan_of(x)
    tile, layout = plan.tile("gradient"), plan.layout
    dx = torch.empty_like(x)
    pointers = (inner, x, dx, *of_affine, *affine.buffers())
    meta = {"ACTIVATION": activation, "num_warps": tile.warps, **ROUNDED}
    share = 1.0 / layout.per_channel
    with on_device_of(x):
        if isinstance(layout, Rows):
            grid, steps = rows_grid(plan, layout, "gradient")
            backward_kernels.rows_gradient[grid](
                *pointers, layout.rows, layout.channels, steps, share, negative_slope,
                BLOCK_R=tile.lines, BLOCK_C=tile.length, **meta,
            )  # fmt: skip
        else:
            backward_kernels.planes_gradient[planes_grid(layout, tile)](
                *pointers, layout.images * layout.channels, layout.channels, layout.size,
                share, negative_slope, BLOCK_P=tile.lines, BLOCK_S=tile.length, **meta,
            )  # fmt: skip
    return dx


def update_running(
    running_mean: Tensor,
    running_var: Tensor,
    num_batches_tracked: Tensor | None,
    mean: Tensor,
    var: Tensor,
    count: int,
    momentum: float | None,
) -> None:
    """Blend the batch into the running statistics and count it, all on the device."""
    with on_device_of(mean):
        forward_kernels.update_running[(1,)](
            running_mean, running_var, num_batches_tracked, mean, var, mean.numel(),
            0.0 if momentum is None else momentum, count / (count - 1),
            CUMULATIVE=momentum is None, BLOCK_C=1024, num_warps=4, **ROUNDED,
        )  # fmt: skip
