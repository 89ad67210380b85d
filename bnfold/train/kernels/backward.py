"""Backward kernels: per-channel sums by splits, their finish, and the gradient of x.

    inner = dy · activation′(pre)
    dx    = weight / √(var + eps) · (inner − mean(inner) − normal · mean(inner · normal))

Without a residual, pre is computed again from x in both passes. With one, the first pass takes
activation′ from one bit per value (or from the residual, where a bit does not decide) and
stores `inner`, which is the residual's gradient; the second pass reads it.

Of known statistics (a frozen layer) no mean is taken away: the first pass writes dx itself.

Every place of a tile adds up its own values, and threads meet once, at the end. As in the
forward, splits take turns at the tiles, and the second pass goes from back to front.
"""

from __future__ import annotations

import triton
import triton.language as tl

from bnfold.train.kernels.elementwise import (
    channel_of,
    load_or,
    preactivate,
    slope_of,
    slope_of_signs,
    unpack,
)


@triton.jit
def rows_add_up(
    dy_ptr,
    x_ptr,
    residual_ptr,
    bits_ptr,
    inner_ptr,
    dx_ptr,  # of known statistics; else absent
    mean,
    rstd,
    weight,
    bias,
    first,  # tile
    stride,  # from one tile to the next
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
    """Add up inner and inner · normal over some tiles; store what is asked for."""
    r = tl.arange(0, BLOCK_R)
    length = (channels + 7) // 8
    offsets = r[:, None] * channels + c[None, :]
    bytes_at = r[:, None] * length + b[None, :]
    inners = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    products = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    for step in range(steps):
        start = (first + step * stride) * BLOCK_R
        has_r = r < rows - start
        inside = has_r[:, None] & has_c[None, :]
        base = start * channels
        x = tl.load(x_ptr + base + offsets, mask=inside, other=0.0).to(tl.float32)
        dy = tl.load(dy_ptr + base + offsets, mask=inside, other=0.0).to(tl.float32)
        normal = (x - mean[None, :]) * rstd[None, :]
        if bits_ptr is not None:
            at = bits_ptr + start * length + bytes_at
            packed = tl.load(at, mask=has_r[:, None] & (b < length)[None, :], other=0)
            passed = unpack(packed, BLOCK_R, BLOCK_C)
            inner = dy * slope_of_signs(passed, negative_slope, ACTIVATION)
        else:
            pre = preactivate(normal, weight[None, :], bias[None, :])
            if residual_ptr is not None:
                residual = tl.load(residual_ptr + base + offsets, mask=inside, other=0.0)
                pre += residual.to(tl.float32)
            inner = dy * slope_of(pre, negative_slope, ACTIVATION)
        if inner_ptr is not None:
            stored = inner.to(inner_ptr.dtype.element_ty)
            tl.store(inner_ptr + base + offsets, stored, mask=inside)
            inner = stored.to(tl.float32)
        inners += inner  # nothing outside the tensor: dy is zero there
        products = tl.fma(inner, normal, products)
        if dx_ptr is not None:
            dx = inner * (weight * rstd)[None, :]
            tl.store(dx_ptr + base + offsets, dx.to(dx_ptr.dtype.element_ty), mask=inside)
    return tl.sum(inners, 0), tl.sum(products, 0)


@triton.jit
def rows_sums(
    dy_ptr,
    x_ptr,
    residual_ptr,
    bits_ptr,
    inner_ptr,
    dx_ptr,  # of known statistics; else absent
    parts_ptr,  # [2, splits, channels]: sums of inner, of inner · normal; absent if unwanted
    mean_ptr,
    rstd_ptr,
    weight_ptr,
    bias_ptr,
    rows,
    channels,
    steps,
    negative_slope,
    ACTIVATION: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Sums of one block of channels over one split of the rows."""
    split = tl.program_id(1)
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    b = tl.program_id(0) * (BLOCK_C // 8) + tl.arange(0, BLOCK_C // 8)
    has_c = c < channels
    mean = load_or(mean_ptr, c, has_c, 0.0)
    rstd = load_or(rstd_ptr, c, has_c, 0.0)
    weight = load_or(weight_ptr, c, has_c, 1.0)
    bias = load_or(bias_ptr, c, has_c, 0.0)
    sum_inner, sum_product = rows_add_up(
        dy_ptr, x_ptr, residual_ptr, bits_ptr, inner_ptr, dx_ptr, mean, rstd, weight, bias,
        split.to(tl.int64), tl.num_programs(1), rows, channels, steps, c, b, has_c,
        negative_slope, ACTIVATION, BLOCK_R, BLOCK_C,
    )  # fmt: skip
    if parts_ptr is not None:
        part = parts_ptr + split * channels + c
        tl.store(part, sum_inner, mask=has_c)
        tl.store(part + tl.num_programs(1) * channels, sum_product, mask=has_c)


@triton.jit
def planes_add_up(
    dy_ptr,
    x_ptr,
    residual_ptr,
    bits_ptr,
    inner_ptr,
    dx_ptr,  # of known statistics; else absent
    mean,
    rstd,
    weight,
    bias,
    c,
    first,  # tile
    stride,  # from one tile to the next
    images,
    channels,
    size,
    steps,
    blocks,  # how many blocks of BLOCK_S a plane has
    negative_slope,
    ACTIVATION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """As rows_add_up, over tiles [BLOCK_N images, BLOCK_S values] of one channel."""
    n = tl.arange(0, BLOCK_N)
    s = tl.arange(0, BLOCK_S)
    b = tl.arange(0, BLOCK_S // 8)
    length = (size + 7) // 8
    images_on = n.to(tl.int64)[:, None] * channels
    offsets = images_on * size + s[None, :]
    bytes_at = images_on * length + b[None, :]
    inners = tl.zeros((BLOCK_N, BLOCK_S), tl.float32)
    products = tl.zeros((BLOCK_N, BLOCK_S), tl.float32)
    for step in range(steps):
        tile = first + step * stride
        first_n = (tile // blocks) * BLOCK_N
        first_s = (tile % blocks + size * 0) * BLOCK_S
        has_n = n < images - first_n
        inside = has_n[:, None] & (s < size - first_s)[None, :]
        plane = first_n.to(tl.int64) * channels + c
        base = plane * size + first_s
        x = tl.load(x_ptr + base + offsets, mask=inside, other=0.0).to(tl.float32)
        dy = tl.load(dy_ptr + base + offsets, mask=inside, other=0.0).to(tl.float32)
        normal = (x - mean) * rstd
        if bits_ptr is not None:
            has_b = has_n[:, None] & (b < length - first_s // 8)[None, :]
            at = bits_ptr + (plane * length + first_s // 8)
            packed = tl.load(at + bytes_at, mask=has_b, other=0)
            passed = unpack(packed, BLOCK_N, BLOCK_S)
            inner = dy * slope_of_signs(passed, negative_slope, ACTIVATION)
        else:
            pre = preactivate(normal, weight, bias)
            if residual_ptr is not None:
                residual = tl.load(residual_ptr + base + offsets, mask=inside, other=0.0)
                pre += residual.to(tl.float32)
            inner = dy * slope_of(pre, negative_slope, ACTIVATION)
        if inner_ptr is not None:
            stored = inner.to(inner_ptr.dtype.element_ty)
            tl.store(inner_ptr + base + offsets, stored, mask=inside)
            inner = stored.to(tl.float32)
        inners += inner  # nothing outside the tensor: dy is zero there
        products = tl.fma(inner, normal, products)
        if dx_ptr is not None:
            dx = inner * (weight * rstd)
            tl.store(dx_ptr + base + offsets, dx.to(dx_ptr.dtype.element_ty), mask=inside)
    return tl.sum(tl.sum(inners, 1), 0), tl.sum(tl.sum(products, 1), 0)


@triton.jit
def planes_sums(
    dy_ptr,
    x_ptr,
    residual_ptr,
    bits_ptr,
    inner_ptr,
    dx_ptr,  # of known statistics; else absent
    parts_ptr,  # as in rows_sums
    mean_ptr,
    rstd_ptr,
    weight_ptr,
    bias_ptr,
    images,
    channels,
    size,
    steps,
    blocks,
    negative_slope,
    ACTIVATION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """Sums of one channel over one split of its tiles."""
    c = tl.program_id(0)
    split = tl.program_id(1)
    one = c + tl.zeros((1, 1), tl.int32)
    yes = one >= 0
    mean = load_or(mean_ptr, one, yes, 0.0)
    rstd = load_or(rstd_ptr, one, yes, 0.0)
    weight = load_or(weight_ptr, one, yes, 1.0)
    bias = load_or(bias_ptr, one, yes, 0.0)
    sum_inner, sum_product = planes_add_up(
        dy_ptr, x_ptr, residual_ptr, bits_ptr, inner_ptr, dx_ptr, mean, rstd, weight, bias, c,
        split, tl.num_programs(1), images, channels, size, steps, blocks, negative_slope,
        ACTIVATION, BLOCK_N, BLOCK_S,
    )  # fmt: skip
    if parts_ptr is not None:
        part = parts_ptr + split * channels + c
        tl.store(part, sum_inner)
        tl.store(part + tl.num_programs(1) * channels, sum_product)


@triton.jit
def finish_sums(
    parts_ptr,
    dweight_ptr,
    dbias_ptr,
    channels,
    splits,
    SPLITS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Add up the splits: the gradients of weight and bias."""
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    k = tl.arange(0, SPLITS)
    has_c = c < channels
    inside = (k < splits)[:, None] & has_c[None, :]
    part = parts_ptr + k[:, None] * channels + c[None, :]
    sum_inner = tl.sum(tl.load(part, mask=inside, other=0.0), 0)
    sum_product = tl.sum(tl.load(part + splits * channels, mask=inside, other=0.0), 0)
    tl.store(dbias_ptr + c, sum_inner, mask=has_c)
    tl.store(dweight_ptr + c, sum_product, mask=has_c)


@triton.jit
def rows_differentiate(
    inner_ptr,  # dy, unless the activation has been applied to it
    x_ptr,
    dx_ptr,
    mean_inner,
    mean_product,
    mean,
    rstd,
    weight,
    bias,
    first,  # row
    rows,
    channels,
    steps,
    c,
    has_c,
    negative_slope,
    ACTIVATION: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """Write the gradient of x on tiles below each other."""
    r = tl.arange(0, BLOCK_R)
    offsets = r[:, None] * channels + c[None, :]
    for step in range(steps):
        start = first + step * BLOCK_R
        inside = (r < rows - start)[:, None] & has_c[None, :]
        base = start * channels
        x = tl.load(x_ptr + base + offsets, mask=inside, other=0.0).to(tl.float32)
        inner = tl.load(inner_ptr + base + offsets, mask=inside, other=0.0).to(tl.float32)
        normal = (x - mean[None, :]) * rstd[None, :]
        pre = preactivate(normal, weight[None, :], bias[None, :])
        inner *= slope_of(pre, negative_slope, ACTIVATION)
        centred = inner - mean_inner[None, :] - normal * mean_product[None, :]
        dx = centred * (weight * rstd)[None, :]
        tl.store(dx_ptr + base + offsets, dx.to(dx_ptr.dtype.element_ty), mask=inside)


@triton.jit
def rows_gradient(
    inner_ptr,
    x_ptr,
    dx_ptr,
    dweight_ptr,
    dbias_ptr,
    mean_ptr,
    rstd_ptr,
    weight_ptr,
    bias_ptr,
    rows,
    channels,
    blocks,  # how many tiles lie side by side on a row
    steps,  # how many tiles below each other one program takes
    share,  # 1 / rows
    negative_slope,
    ACTIVATION: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The gradient of x from known sums."""
    program = tl.num_programs(0) - 1 - tl.program_id(0)
    block = program % blocks
    c = block * BLOCK_C + tl.arange(0, BLOCK_C)
    has_c = c < channels
    mean = load_or(mean_ptr, c, has_c, 0.0)
    rstd = load_or(rstd_ptr, c, has_c, 0.0)
    weight = load_or(weight_ptr, c, has_c, 1.0)
    bias = load_or(bias_ptr, c, has_c, 0.0)
    mean_product = load_or(dweight_ptr, c, has_c, 0.0) * share
    mean_inner = load_or(dbias_ptr, c, has_c, 0.0) * share
    first = (program // blocks).to(tl.int64) * steps * BLOCK_R
    rows_differentiate(
        inner_ptr, x_ptr, dx_ptr, mean_inner, mean_product, mean, rstd, weight, bias, first,
        rows, channels, steps, c, has_c, negative_slope, ACTIVATION, BLOCK_R,
    )  # fmt: skip


@triton.jit
def rows_backward_alone(
    dy_ptr,
    x_ptr,
    residual_ptr,
    bits_ptr,
    inner_ptr,
    dx_ptr,
    dweight_ptr,
    dbias_ptr,
    mean_ptr,
    rstd_ptr,
    weight_ptr,
    bias_ptr,
    rows,
    channels,
    steps,
    share,
    negative_slope,
    ACTIVATION: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The whole backward in one launch: a program has all rows of its channels."""
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    b = tl.program_id(0) * (BLOCK_C // 8) + tl.arange(0, BLOCK_C // 8)
    has_c = c < channels
    mean = load_or(mean_ptr, c, has_c, 0.0)
    rstd = load_or(rstd_ptr, c, has_c, 0.0)
    weight = load_or(weight_ptr, c, has_c, 1.0)
    bias = load_or(bias_ptr, c, has_c, 0.0)
    first = tl.program_id(0).to(tl.int64) * 0
    sum_inner, sum_product = rows_add_up(
        dy_ptr, x_ptr, residual_ptr, bits_ptr, inner_ptr, None, mean, rstd, weight, bias,
        first, 1, rows, channels, steps, c, b, has_c, negative_slope, ACTIVATION, BLOCK_R,
        BLOCK_C,
    )  # fmt: skip
    tl.store(dbias_ptr + c, sum_inner, mask=has_c)
    tl.store(dweight_ptr + c, sum_product, mask=has_c)
    if inner_ptr is not None:
        tl.debug_barrier()  # another thread may read what this one has stored
        rows_differentiate(
            inner_ptr, x_ptr, dx_ptr, sum_inner * share, sum_product * share, mean, rstd,
            weight, bias, first, rows, channels, steps, c, has_c, negative_slope, None,
            BLOCK_R,
        )  # fmt: skip
    else:
        rows_differentiate(
            dy_ptr, x_ptr, dx_ptr, sum_inner * share, sum_product * share, mean, rstd, weight,
            bias, first, rows, channels, steps, c, has_c, negative_slope, ACTIVATION, BLOCK_R,
        )  # fmt: skip


@triton.jit
def planes_gradient(
    inner_ptr,
    x_ptr,
    dx_ptr,
    dweight_ptr,
    dbias_ptr,
    mean_ptr,
    rstd_ptr,
    weight_ptr,
    bias_ptr,
    planes,
    channels,
    size,
    blocks,  # how many tiles lie side by side on a plane
    share,
    negative_slope,
    ACTIVATION: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """As rows_gradient, on a tile [BLOCK_P planes, BLOCK_S values]."""
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
    mean_product = load_or(dweight_ptr, c, has_p, 0.0) * share
    mean_inner = load_or(dbias_ptr, c, has_p, 0.0) * share
    base = first.to(tl.int64) * size + first_s
    offsets = p[:, None] * size + s[None, :]  # of one plane, or of less than a tile of values
    x = tl.load(x_ptr + base + offsets, mask=inside, other=0.0).to(tl.float32)
    inner = tl.load(inner_ptr + base + offsets, mask=inside, other=0.0).to(tl.float32)
    normal = (x - mean[:, None]) * rstd[:, None]
    pre = preactivate(normal, weight[:, None], bias[:, None])
    inner *= slope_of(pre, negative_slope, ACTIVATION)
    centred = inner - mean_inner[:, None] - normal * mean_product[:, None]
    dx = centred * (weight * rstd)[:, None]
    tl.store(dx_ptr + base + offsets, dx.to(dx_ptr.dtype.element_ty), mask=inside)


@triton.jit
def planes_backward_alone(
    dy_ptr,
    x_ptr,
    residual_ptr,
    bits_ptr,
    inner_ptr,
    dx_ptr,
    dweight_ptr,
    dbias_ptr,
    mean_ptr,
    rstd_ptr,
    weight_ptr,
    bias_ptr,
    images,
    channels,
    size,
    steps,
    blocks,
    share,
    negative_slope,
    ACTIVATION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """The whole backward in one launch: a program has all planes of its channel."""
    c = tl.program_id(0)
    one = c + tl.zeros((1, 1), tl.int32)
    yes = one >= 0
    mean = load_or(mean_ptr, one, yes, 0.0)
    rstd = load_or(rstd_ptr, one, yes, 0.0)
    weight = load_or(weight_ptr, one, yes, 1.0)
    bias = load_or(bias_ptr, one, yes, 0.0)
    sum_inner, sum_product = planes_add_up(
        dy_ptr, x_ptr, residual_ptr, bits_ptr, inner_ptr, None, mean, rstd, weight, bias, c,
        c * 0, 1, images, channels, size, steps, blocks, negative_slope, ACTIVATION, BLOCK_N,
        BLOCK_S,
    )  # fmt: skip
    tl.store(dbias_ptr + c, sum_inner)
    tl.store(dweight_ptr + c, sum_product)
    if inner_ptr is not None:
        tl.debug_barrier()  # another thread may read what this one has stored
        planes_differentiate(
            inner_ptr, x_ptr, dx_ptr, sum_inner * share, sum_product * share, mean, rstd,
            weight, bias, c, images, channels, size, steps, blocks, negative_slope, None,
            BLOCK_N, BLOCK_S,
        )  # fmt: skip
    else:
        planes_differentiate(
            dy_ptr, x_ptr, dx_ptr, sum_inner * share, sum_product * share, mean, rstd, weight,
            bias, c, images, channels, size, steps, blocks, negative_slope, ACTIVATION,
            BLOCK_N, BLOCK_S,
        )  # fmt: skip


@triton.jit
def planes_differentiate(
    inner_ptr,  # dy, unless the activation has been applied to it
    x_ptr,
    dx_ptr,
    mean_inner,
    mean_product,
    mean,
    rstd,
    weight,
    bias,
    c,
    images,
    channels,
    size,
    steps,
    blocks,
    negative_slope,
    ACTIVATION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """Write the gradient of x on all tiles of one channel."""
    n = tl.arange(0, BLOCK_N)
    s = tl.arange(0, BLOCK_S)
    offsets = n.to(tl.int64)[:, None] * channels * size + s[None, :]
    for tile in range(steps):
        first_n = (tile // blocks) * BLOCK_N
        first_s = (tile % blocks + size * 0) * BLOCK_S
        inside = (n < images - first_n)[:, None] & (s < size - first_s)[None, :]
        plane = first_n.to(tl.int64) * channels + c
        base = plane * size + first_s
        x = tl.load(x_ptr + base + offsets, mask=inside, other=0.0).to(tl.float32)
        inner = tl.load(inner_ptr + base + offsets, mask=inside, other=0.0).to(tl.float32)
        normal = (x - mean) * rstd
        pre = preactivate(normal, weight, bias)
        inner *= slope_of(pre, negative_slope, ACTIVATION)
        centred = inner - mean_inner - normal * mean_product
        dx = centred * (weight * rstd)
        tl.store(dx_ptr + base + offsets, dx.to(dx_ptr.dtype.element_ty), mask=inside)
