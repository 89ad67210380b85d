"""Forward kernels: statistics by splits, their finish, and normalise + affine + activation.

Statistics are taken of x − pivot, where the pivot is the channel's first value: a mean far
from zero costs no digits. Inside a tile the mean comes first and the squared deviations from
it second; tiles are merged by Chan's formula. Where a tile starts is a 64-bit number, what is
added to it inside the tile a 32-bit one.

The splits take turns at the tiles, so that together they read a tensor from front to back. The
kernel that normalises goes from back to front: what was read last is still in the cache.
"""

from __future__ import annotations

import triton
import triton.language as tl

from bnfold.train.kernels.elementwise import (
    activate,
    channel_of,
    count_batch,
    load_or,
    merge,
    pack,
    passes,
    preactivate,
    rstd_of,
    update_channels,
)


@triton.jit
def rows_moments(
    x_ptr,
    pivot,
    first,  # tile
    stride,  # from one tile to the next
    rows,
    channels,
    c,
    has_c,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Count, mean − pivot and squared deviations of every `stride`-th tile.

    Every place of a tile follows its own values from tile to tile (Welford), so that threads
    meet only once, at the end, where the places are merged. Reading two bytes for a value
    leaves time for seventeen instructions: only the last tile of all asks which rows it has.
    """
    r = tl.arange(0, BLOCK_R)
    offsets = r[:, None] * channels + c[None, :]
    inside = (r >= 0)[:, None] & has_c[None, :]
    means = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    m2s = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    full = (tl.maximum(rows // BLOCK_R - first + stride - 1, 0) // stride).to(tl.int32)
    seen = 0.0
    for step in range(full):
        start = (first + step * stride) * BLOCK_R
        x = tl.load(x_ptr + start * channels + offsets, mask=inside, other=0.0)
        shifted = x.to(tl.float32) - pivot[None, :]
        before = shifted - means
        seen += 1.0
        means = tl.fma(before, 1.0 / seen, means)
        m2s = tl.fma(before, shifted - means, m2s)
    counts = tl.zeros((BLOCK_R,), tl.float32) + seen
    start = (first + full * stride) * BLOCK_R
    if start < rows:
        has_r = r < rows - start
        last = has_r[:, None] & has_c[None, :]
        x = tl.load(x_ptr + start * channels + offsets, mask=last, other=0.0)
        shifted = x.to(tl.float32) - pivot[None, :]
        before = tl.where(last, shifted - means, 0.0)
        counts += has_r.to(tl.float32)
        means = tl.fma(before, 1.0 / (seen + 1.0), means)
        m2s = tl.where(last, tl.fma(before, shifted - means, m2s), m2s)
    count = tl.sum(counts, 0)
    mean = tl.sum(means * counts[:, None], 0) / tl.maximum(count, 1.0)
    apart = means - mean[None, :]
    m2 = tl.sum(m2s + apart * apart * counts[:, None], 0)
    return count, mean, m2


@triton.jit
def rows_statistics(
    x_ptr,
    parts_ptr,  # [3, splits, channels]: count, mean − pivot, squared deviations
    rows,
    channels,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Moments of one block of channels over one split of the rows."""
    split = tl.program_id(1)
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    has_c = c < channels
    pivot = tl.load(x_ptr + c, mask=has_c, other=0.0).to(tl.float32)
    count, mean, m2 = rows_moments(
        x_ptr, pivot, split.to(tl.int64), tl.num_programs(1), rows, channels, c, has_c,
        BLOCK_R, BLOCK_C,
    )  # fmt: skip
    part = parts_ptr + split * channels + c
    stride = tl.num_programs(1) * channels
    tl.store(part, tl.zeros((BLOCK_C,), tl.float32) + count, mask=has_c)
    tl.store(part + stride, mean, mask=has_c)
    tl.store(part + 2 * stride, m2, mask=has_c)


@triton.jit
def planes_moments(
    x_ptr,
    pivot,
    c,
    first,  # tile
    stride,  # from one tile to the next
    images,
    channels,
    size,
    steps,
    blocks,  # how many blocks of BLOCK_S a plane has
    BLOCK_N: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """Count, mean − pivot and squared deviations of `steps` tiles [BLOCK_N, BLOCK_S]."""
    n = tl.arange(0, BLOCK_N)
    s = tl.arange(0, BLOCK_S)
    plane = x_ptr + c.to(tl.int64) * size
    offsets = n.to(tl.int64)[:, None] * channels * size + s[None, :]
    count = 0.0
    mean = 0.0
    m2 = 0.0
    for step in range(steps):
        tile = first + step * stride
        first_n = (tile // blocks) * BLOCK_N
        first_s = (tile % blocks + size * 0) * BLOCK_S
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
    return count, mean, m2


@triton.jit
def planes_statistics(
    x_ptr,
    parts_ptr,  # as in rows_statistics
    images,
    channels,
    size,
    steps,
    blocks,
    BLOCK_N: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """Moments of one channel over one split of its tiles."""
    c = tl.program_id(0)
    split = tl.program_id(1)
    pivot = tl.load(x_ptr + c.to(tl.int64) * size).to(tl.float32)
    count, mean, m2 = planes_moments(
        x_ptr, pivot, c, split, tl.num_programs(1), images, channels, size, steps, blocks,
        BLOCK_N, BLOCK_S,
    )  # fmt: skip
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
    var_ptr,  # absent where nobody asks for it
    running_mean_ptr,  # these three may be absent
    running_var_ptr,
    counter_ptr,
    channels,
    pivot_stride,  # from one channel's first value to the next channel's
    splits,
    eps,
    momentum,
    unbias,  # n / (n − 1)
    SPLITS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Merge the splits: mean, 1 / √(var + eps), biased variance; update what is running."""
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
    centre += pivot.to(tl.float32)
    tl.store(mean_ptr + c, centre, mask=has_c)
    tl.store(rstd_ptr + c, rstd_of(var, eps), mask=has_c)
    if var_ptr is not None:
        tl.store(var_ptr + c, var, mask=has_c)
    if running_mean_ptr is not None:
        update_channels(
            running_mean_ptr, running_var_ptr, c, has_c, centre, var, momentum, unbias
        )
    count_batch(counter_ptr)


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
    """Write activation(pre), and where its slope is one, on tiles below each other."""
    r = tl.arange(0, BLOCK_R)
    length = (channels + 7) // 8
    offsets = r[:, None] * channels + c[None, :]
    bytes_at = r[:, None] * length + b[None, :]
    for step in range(steps):
        start = first + step * BLOCK_R
        has_r = r < rows - start
        inside = has_r[:, None] & has_c[None, :]
        base = start * channels
        x = tl.load(x_ptr + base + offsets, mask=inside, other=0.0).to(tl.float32)
        normal = (x - mean[None, :]) * rstd[None, :]
        pre = preactivate(normal, weight[None, :], bias[None, :])
        if residual_ptr is not None:
            residual = tl.load(residual_ptr + base + offsets, mask=inside, other=0.0)
            pre += residual.to(tl.float32)
        y = activate(pre, negative_slope, ACTIVATION)
        tl.store(y_ptr + base + offsets, y.to(y_ptr.dtype.element_ty), mask=inside)
        if bits_ptr is not None:
            at = bits_ptr + start * length + bytes_at
            packed = pack(passes(pre, ACTIVATION), BLOCK_R, BLOCK_C)
            tl.store(at, packed, mask=has_r[:, None] & (b < length)[None, :])


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
    blocks,  # how many tiles lie side by side on a row
    steps,  # how many tiles below each other one program takes
    negative_slope,
    ACTIVATION: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Normalise with known statistics."""
    program = tl.num_programs(0) - 1 - tl.program_id(0)
    block = program % blocks
    c = block * BLOCK_C + tl.arange(0, BLOCK_C)
    b = block * (BLOCK_C // 8) + tl.arange(0, BLOCK_C // 8)
    has_c = c < channels
    mean = load_or(mean_ptr, c, has_c, 0.0)
    rstd = load_or(rstd_ptr, c, has_c, 0.0)
    weight = load_or(weight_ptr, c, has_c, 1.0)
    bias = load_or(bias_ptr, c, has_c, 0.0)
    first = (program // blocks).to(tl.int64) * steps * BLOCK_R
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
    running_mean_ptr,  # these three may be absent
    running_var_ptr,
    counter_ptr,
    rows,
    channels,
    steps,
    negative_slope,
    eps,
    momentum,
    unbias,
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
        x_ptr, pivot, first, 1, rows, channels, c, has_c, BLOCK_R, BLOCK_C
    )
    var = m2 / tl.maximum(count, 1.0)
    rstd = rstd_of(var, eps)
    mean += pivot
    tl.store(mean_ptr + c, mean, mask=has_c)
    tl.store(rstd_ptr + c, rstd, mask=has_c)
    if var_ptr is not None:
        tl.store(var_ptr + c, var, mask=has_c)
    if running_mean_ptr is not None:
        update_channels(
            running_mean_ptr, running_var_ptr, c, has_c, mean, var, momentum, unbias
        )
    count_batch(counter_ptr)
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
    blocks,  # how many tiles lie side by side on a plane
    negative_slope,
    ACTIVATION: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """As rows_normalise, on a tile [BLOCK_P planes, BLOCK_S values]."""
    program = tl.num_programs(0) - 1 - tl.program_id(0)
    first = (program // blocks + planes * 0) * BLOCK_P
    first_s = (program % blocks + size * 0) * BLOCK_S
    p = tl.arange(0, BLOCK_P)
    s = tl.arange(0, BLOCK_S)
    has_p = p < planes - first
    inside = has_p[:, None] & (s < size - first_s)[None, :]
    c = channel_of(first, p, channels)
    mean = load_or(mean_ptr, c, has_p, 0.0)
    rstd = load_or(rstd_ptr, c, has_p, 0.0)
    weight = load_or(weight_ptr, c, has_p, 1.0)
    bias = load_or(bias_ptr, c, has_p, 0.0)
    base = first.to(tl.int64) * size + first_s
    offsets = p[:, None] * size + s[None, :]  # of one plane, or of less than a tile of values
    x = tl.load(x_ptr + base + offsets, mask=inside, other=0.0).to(tl.float32)
    normal = (x - mean[:, None]) * rstd[:, None]
    pre = preactivate(normal, weight[:, None], bias[:, None])
    if residual_ptr is not None:
        residual = tl.load(residual_ptr + base + offsets, mask=inside, other=0.0)
        pre += residual.to(tl.float32)
    y = activate(pre, negative_slope, ACTIVATION)
    tl.store(y_ptr + base + offsets, y.to(y_ptr.dtype.element_ty), mask=inside)
    if bits_ptr is not None:
        length = (size + 7) // 8
        b = tl.arange(0, BLOCK_S // 8)
        has_b = has_p[:, None] & (b < length - first_s // 8)[None, :]
        packed = pack(passes(pre, ACTIVATION), BLOCK_P, BLOCK_S)
        at = bits_ptr + (first.to(tl.int64) * length + first_s // 8)
        tl.store(at + (p[:, None] * length + b[None, :]), packed, mask=has_b)


@triton.jit
def planes_alone(
    x_ptr,
    residual_ptr,
    y_ptr,
    bits_ptr,
    mean_ptr,
    rstd_ptr,
    weight_ptr,
    bias_ptr,
    var_ptr,
    running_mean_ptr,  # these three may be absent
    running_var_ptr,
    counter_ptr,
    images,
    channels,
    size,
    steps,
    blocks,
    negative_slope,
    eps,
    momentum,
    unbias,
    ACTIVATION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """The whole forward in one launch: a program has all planes of its channel."""
    c = tl.program_id(0)
    pivot = tl.load(x_ptr + c.to(tl.int64) * size).to(tl.float32)
    count, mean, m2 = planes_moments(
        x_ptr, pivot, c, c * 0, 1, images, channels, size, steps, blocks, BLOCK_N, BLOCK_S
    )
    one = c + tl.zeros((1,), tl.int32)
    yes = one >= 0
    mean = mean + pivot + tl.zeros((1,), tl.float32)
    var = m2 / tl.maximum(count, 1.0) + tl.zeros((1,), tl.float32)
    rstd = rstd_of(var, eps)
    tl.store(mean_ptr + one, mean, mask=yes)
    tl.store(rstd_ptr + one, rstd, mask=yes)
    if var_ptr is not None:
        tl.store(var_ptr + one, var, mask=yes)
    if running_mean_ptr is not None:
        update_channels(
            running_mean_ptr, running_var_ptr, one, yes, mean, var, momentum, unbias
        )
    count_batch(counter_ptr)
    weight = load_or(weight_ptr, one, yes, 1.0)
    bias = load_or(bias_ptr, one, yes, 0.0)
    n = tl.arange(0, BLOCK_N)
    s = tl.arange(0, BLOCK_S)
    b = tl.arange(0, BLOCK_S // 8)
    length = (size + 7) // 8
    images_on = n.to(tl.int64)[:, None] * channels
    offsets = images_on * size + s[None, :]
    bytes_at = images_on * length + b[None, :]
    for step in range(steps):
        first_n = (step // blocks) * BLOCK_N
        first_s = (step % blocks + size * 0) * BLOCK_S
        has_n = n < images - first_n
        inside = has_n[:, None] & (s < size - first_s)[None, :]
        plane = first_n.to(tl.int64) * channels + c
        base = plane * size + first_s
        x = tl.load(x_ptr + base + offsets, mask=inside, other=0.0).to(tl.float32)
        normal = (x - mean[:, None]) * rstd[:, None]
        pre = preactivate(normal, weight[:, None], bias[:, None])
        if residual_ptr is not None:
            residual = tl.load(residual_ptr + base + offsets, mask=inside, other=0.0)
            pre += residual.to(tl.float32)
        y = activate(pre, negative_slope, ACTIVATION)
        tl.store(y_ptr + base + offsets, y.to(y_ptr.dtype.element_ty), mask=inside)
        if bits_ptr is not None:
            packed = pack(passes(pre, ACTIVATION), BLOCK_N, BLOCK_S)
            has_b = has_n[:, None] & (b < length - first_s // 8)[None, :]
            at = bits_ptr + (plane * length + first_s // 8)
            tl.store(at + bytes_at, packed, mask=has_b)


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
        var = tl.load(var_ptr + c, mask=has_c)
        update_channels(running_mean_ptr, running_var_ptr, c, has_c, mean, var, share, unbias)


@triton.jit
def invert_deviation(
    var_ptr,
    rstd_ptr,
    channels,
    eps,
    BLOCK_C: tl.constexpr,
):
    """1 / √(var + eps) of stored variances."""
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    has_c = c < channels
    var = tl.load(var_ptr + c, mask=has_c, other=1.0).to(tl.float32)
    tl.store(rstd_ptr + c, rstd_of(var, eps), mask=has_c)
