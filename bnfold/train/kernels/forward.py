"""Forward kernels: statistics by splits, their finish, and normalise + affine + activation.

Statistics are taken of x − pivot, where the pivot is the channel's first value: a mean far
from zero costs no digits. Inside a tile the mean comes first and the squared deviations from
it second; tiles are merged by Chan's formula. Where a tile starts is a 64-bit number, what is
added to it inside the tile a 32-bit one.
"""

from __future__ import annotations

import triton
import triton.language as tl

from bnfold.train.kernels.elementwise import (
    activate,
    is_positive,
    load_or,
    merge,
    pack,
    preactivate,
)


@triton.jit
def rows_moments(
    x_ptr,
    pivot,
    first,  # row
    rows,
    channels,
    steps,
    c,
    has_c,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Count, mean − pivot and squared deviations of `steps` tiles below each other."""
    r = tl.arange(0, BLOCK_R)
    offsets = r[:, None] * channels + c[None, :]
    count = 0.0
    mean = tl.zeros((BLOCK_C,), tl.float32)
    m2 = tl.zeros((BLOCK_C,), tl.float32)
    for step in range(steps):
        start = first + step * BLOCK_R
        left = tl.minimum(tl.maximum(rows - start, 0), BLOCK_R).to(tl.int32)
        inside = (r < left)[:, None] & has_c[None, :]
        x = tl.load(x_ptr + start * channels + offsets, mask=inside, other=0.0)
        shifted = tl.where(inside, x.to(tl.float32) - pivot[None, :], 0.0)
        tile_count = left.to(tl.float32)
        tile_mean = tl.sum(shifted, 0) / tl.maximum(tile_count, 1.0)
        apart = tl.where(inside, shifted - tile_mean[None, :], 0.0)
        tile_m2 = tl.sum(apart * apart, 0)
        count, mean, m2 = merge(count, mean, m2, tile_count, tile_mean, tile_m2)
    return count, mean, m2


@triton.jit
def rows_statistics(
    x_ptr,
    parts_ptr,  # [3, splits, channels]: count, mean − pivot, squared deviations
    rows,
    channels,
    steps,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Moments of one block of channels over one split of the rows."""
    split = tl.program_id(1)
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    has_c = c < channels
    pivot = tl.load(x_ptr + c, mask=has_c, other=0.0).to(tl.float32)
    first = split.to(tl.int64) * steps * BLOCK_R
    count, mean, m2 = rows_moments(
        x_ptr, pivot, first, rows, channels, steps, c, has_c, BLOCK_R, BLOCK_C
    )
    part = parts_ptr + split * channels + c
    stride = tl.num_programs(1) * channels
    tl.store(part, tl.zeros((BLOCK_C,), tl.float32) + count, mask=has_c)
    tl.store(part + stride, mean, mask=has_c)
    tl.store(part + 2 * stride, m2, mask=has_c)


@triton.jit
def planes_statistics(
    x_ptr,
    parts_ptr,  # as in rows_statistics
    images,
    channels,
    size,
    steps,
    blocks,  # how many blocks of BLOCK_S a plane has
    BLOCK_N: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """Moments of one channel over one split of its tiles [BLOCK_N images, BLOCK_S values]."""
    c = tl.program_id(0)
    split = tl.program_id(1)
    n = tl.arange(0, BLOCK_N)
    s = tl.arange(0, BLOCK_S)
    plane = x_ptr + c.to(tl.int64) * size
    pivot = tl.load(plane).to(tl.float32)
    offsets = n.to(tl.int64)[:, None] * channels * size + s[None, :]
    count = 0.0
    mean = 0.0
    m2 = 0.0
    for step in range(steps):
        tile = split * steps + step
        first_n = (tile // blocks) * BLOCK_N
        first_s = (tile % blocks) * BLOCK_S
        left_n = tl.minimum(tl.maximum(images - first_n, 0), BLOCK_N)
        left_s = tl.minimum(size - first_s, BLOCK_S)
        inside = (n < left_n)[:, None] & (s < left_s)[None, :]
        base = plane + first_n.to(tl.int64) * channels * size + first_s
        x = tl.load(base + offsets, mask=inside, other=0.0)
        shifted = tl.where(inside, x.to(tl.float32) - pivot, 0.0)
        tile_count = (left_n * left_s).to(tl.float32)
        tile_mean = tl.sum(tl.sum(shifted, 1), 0) / tl.maximum(tile_count, 1.0)
        apart = tl.where(inside, shifted - tile_mean, 0.0)
        tile_m2 = tl.sum(tl.sum(apart * apart, 1), 0)
        count, mean, m2 = merge(count, mean, m2, tile_count, tile_mean, tile_m2)
    part = parts_ptr + split * channels + c
    parts = tl.num_programs(1) * channels
    tl.store(part, count)
    tl.store(part + parts, mean)
    tl.store(part + 2 * parts, m2)


@triton.jit
def finish_statistics(
    x_ptr,
    parts_ptr,
    mean_ptr,
    rstd_ptr,
    var_ptr,
    channels,
    pivot_stride,  # from one channel's first value to the next channel's
    splits,
    eps,
    SPLITS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Merge the splits: mean, 1 / √(var + eps) and the biased variance of each channel."""
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    k = tl.arange(0, SPLITS)
    has_c = c < channels
    inside = (k < splits)[:, None] & has_c[None, :]
    part = parts_ptr + k[:, None] * channels + c[None, :]
    stride = splits * channels
    count = tl.load(part, mask=inside, other=0.0)
    mean = tl.load(part + stride, mask=inside, other=0.0)
    m2 = tl.load(part + 2 * stride, mask=inside, other=0.0)
    total = tl.maximum(tl.sum(count, 0), 1.0)
    centre = tl.sum(count * mean, 0) / total
    apart = mean - centre[None, :]
    var = tl.sum(m2 + count * apart * apart, 0) / total
    pivot = tl.load(x_ptr + c.to(tl.int64) * pivot_stride, mask=has_c, other=0.0)
    rstd = tl.div_rn(1.0, tl.sqrt_rn(var + eps))
    tl.store(mean_ptr + c, pivot.to(tl.float32) + centre, mask=has_c)
    tl.store(rstd_ptr + c, rstd, mask=has_c)
    tl.store(var_ptr + c, var, mask=has_c)


@triton.jit
def rows_write(
    x_ptr,
    residual_ptr,
    y_ptr,
    bits_ptr,
    mean,
    rstd,
    weight,
    bias,
    first,  # row
    rows,
    channels,
    steps,
    c,
    b,  # bytes of packed signs
    has_c,
    negative_slope,
    ACTIVATION: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Write activation(pre), and on which side of zero pre lies, on tiles below each other."""
    r = tl.arange(0, BLOCK_R)
    length = (channels + 7) // 8
    for step in range(steps):
        start = first + step * BLOCK_R
        has_r = r < rows - start
        inside = has_r[:, None] & has_c[None, :]
        offsets = start * channels + (r[:, None] * channels + c[None, :])
        x = tl.load(x_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
        normal = (x - mean[None, :]) * rstd[None, :]
        pre = preactivate(normal, weight[None, :], bias[None, :])
        if residual_ptr is not None:
            pre += tl.load(residual_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
        y = activate(pre, negative_slope, ACTIVATION)
        tl.store(y_ptr + offsets, y.to(y_ptr.dtype.element_ty), mask=inside)
        if bits_ptr is not None:
            at = start * length + (r[:, None] * length + b[None, :])
            packed = pack(is_positive(pre), BLOCK_R, BLOCK_C)
            tl.store(bits_ptr + at, packed, mask=has_r[:, None] & (b < length)[None, :])


@triton.jit
def rows_normalise(
    x_ptr,
    residual_ptr,
    y_ptr,
    bits_ptr,
    mean_ptr,
    rstd_ptr,
    weight_ptr,
    bias_ptr,
    rows,
    channels,
    steps,  # how many tiles below each other one program takes
    negative_slope,
    ACTIVATION: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Normalise with known statistics."""
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    b = tl.program_id(1) * (BLOCK_C // 8) + tl.arange(0, BLOCK_C // 8)
    has_c = c < channels
    mean = load_or(mean_ptr, c, has_c, 0.0)
    rstd = load_or(rstd_ptr, c, has_c, 0.0)
    weight = load_or(weight_ptr, c, has_c, 1.0)
    bias = load_or(bias_ptr, c, has_c, 0.0)
    first = tl.program_id(0).to(tl.int64) * steps * BLOCK_R
    rows_write(
        x_ptr, residual_ptr, y_ptr, bits_ptr, mean, rstd, weight, bias, first, rows, channels,
        steps, c, b, has_c, negative_slope, ACTIVATION, BLOCK_R, BLOCK_C,
    )  # fmt: skip


@triton.jit
def rows_alone(
    x_ptr,
    residual_ptr,
    y_ptr,
    bits_ptr,
    mean_ptr,
    rstd_ptr,
    weight_ptr,
    bias_ptr,
    var_ptr,
    rows,
    channels,
    steps,
    negative_slope,
    eps,
    ACTIVATION: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The whole forward in one launch: a program has all rows of its channels."""
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    b = tl.program_id(0) * (BLOCK_C // 8) + tl.arange(0, BLOCK_C // 8)
    has_c = c < channels
    pivot = tl.load(x_ptr + c, mask=has_c, other=0.0).to(tl.float32)
    first = tl.program_id(0).to(tl.int64) * 0
    count, mean, m2 = rows_moments(
        x_ptr, pivot, first, rows, channels, steps, c, has_c, BLOCK_R, BLOCK_C
    )
    var = m2 / tl.maximum(count, 1.0)
    rstd = tl.div_rn(1.0, tl.sqrt_rn(var + eps))
    mean += pivot
    tl.store(mean_ptr + c, mean, mask=has_c)
    tl.store(rstd_ptr + c, rstd, mask=has_c)
    tl.store(var_ptr + c, var, mask=has_c)
    weight = load_or(weight_ptr, c, has_c, 1.0)
    bias = load_or(bias_ptr, c, has_c, 0.0)
    rows_write(
        x_ptr, residual_ptr, y_ptr, bits_ptr, mean, rstd, weight, bias, first, rows, channels,
        steps, c, b, has_c, negative_slope, ACTIVATION, BLOCK_R, BLOCK_C,
    )  # fmt: skip


@triton.jit
def planes_normalise(
    x_ptr,
    residual_ptr,
    y_ptr,
    bits_ptr,
    mean_ptr,
    rstd_ptr,
    weight_ptr,
    bias_ptr,
    planes,  # images · channels
    channels,
    size,
    negative_slope,
    ACTIVATION: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """As rows_normalise, on a tile [BLOCK_P planes, BLOCK_S values]."""
    first = tl.program_id(0).to(tl.int64) * BLOCK_P
    s = tl.program_id(1) * BLOCK_S + tl.arange(0, BLOCK_S)
    p = tl.arange(0, BLOCK_P)
    has_p = p < planes - first
    inside = has_p[:, None] & (s < size)[None, :]
    c = ((first + p) % channels).to(tl.int32)
    mean = load_or(mean_ptr, c, has_p, 0.0)
    rstd = load_or(rstd_ptr, c, has_p, 0.0)
    weight = load_or(weight_ptr, c, has_p, 1.0)
    bias = load_or(bias_ptr, c, has_p, 0.0)
    offsets = first * size + (p.to(tl.int64)[:, None] * size + s[None, :])
    x = tl.load(x_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    normal = (x - mean[:, None]) * rstd[:, None]
    pre = preactivate(normal, weight[:, None], bias[:, None])
    if residual_ptr is not None:
        pre += tl.load(residual_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    y = activate(pre, negative_slope, ACTIVATION)
    tl.store(y_ptr + offsets, y.to(y_ptr.dtype.element_ty), mask=inside)
    if bits_ptr is not None:
        length = (size + 7) // 8
        b = tl.program_id(1) * (BLOCK_S // 8) + tl.arange(0, BLOCK_S // 8)
        at = first * length + (p.to(tl.int64)[:, None] * length + b[None, :])
        packed = pack(is_positive(pre), BLOCK_P, BLOCK_S)
        tl.store(bits_ptr + at, packed, mask=has_p[:, None] & (b < length)[None, :])


@triton.jit
def update_running(
    running_mean_ptr,
    running_var_ptr,
    counter_ptr,
    mean_ptr,
    var_ptr,
    channels,
    momentum,
    unbias,  # n / (n − 1)
    CUMULATIVE: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Blend the batch into the running statistics; one program, so the counter has no race."""
    share = momentum
    if counter_ptr is not None:
        count = tl.load(counter_ptr) + 1
        if CUMULATIVE:
            share = 1.0 / count.to(tl.float32)
        tl.store(counter_ptr, count)
    for start in range(0, channels, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)
        has_c = c < channels
        mean = tl.load(mean_ptr + c, mask=has_c)
        var = tl.load(var_ptr + c, mask=has_c) * unbias
        old_mean = tl.load(running_mean_ptr + c, mask=has_c).to(tl.float32)
        old_var = tl.load(running_var_ptr + c, mask=has_c).to(tl.float32)
        new_mean = (1.0 - share) * old_mean + share * mean
        new_var = (1.0 - share) * old_var + share * var
        element = running_mean_ptr.dtype.element_ty
        tl.store(running_mean_ptr + c, new_mean.to(element), mask=has_c)
        tl.store(running_var_ptr + c, new_var.to(element), mask=has_c)
