"""Launch the kernels: choose each one's grid and numbers, allocate what goes out."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
from torch import Tensor

from bnfold.train.kernels import backward as backward_kernels
from bnfold.train.kernels import forward as forward_kernels
from bnfold.train.kernels import tiles
from bnfold.train.kernels.layout import Planes, Rows, laid_out_like
from bnfold.train.kernels.plans import Call, Plan, find_plan, on_device_of, plan_of
from bnfold.train.kernels.tiles import Kernel

if TYPE_CHECKING:
    from bnfold.train.kernels.reference import Activation, Running

_VECTOR: Final = 1024  # channels that a program takes which only reads one value of each


class Affine(NamedTuple):
    """What one channel is normalised with, in the order in which every kernel takes it."""

    mean: Tensor
    rstd: Tensor
    weight: Tensor | None
    bias: Tensor | None


def readable(x: Tensor) -> Tensor:
    """Return x itself where a kernel can read it, or a contiguous copy."""
    return x if find_plan(x) is not None else x.contiguous()


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
