"""What forward and backward kernels compute for each value; written once, so that both agree.

`preactivate` decides on which side of zero a value lies. Forward and backward call this one
function, and its only multiply-add is explicit: nothing is left for a compiler to contract in
one kernel and not in the other.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_or(ptr, offsets, mask, otherwise: tl.constexpr):
    """Load float32 values, or `otherwise` everywhere where the buffer is absent."""
    if ptr is None:
        values = tl.full(offsets.shape, otherwise, tl.float32)
    else:
        values = tl.load(ptr + offsets, mask=mask, other=otherwise).to(tl.float32)
    return values


@triton.jit
def preactivate(normal, weight, bias):
    """Normal · weight + bias, rounded once."""
    return tl.fma(normal, weight, bias)


@triton.jit
def is_positive(pre):
    """False at and below zero; true for NaN, which an activation must let through."""
    return (pre <= 0.0) == 0


@triton.jit
def activate(pre, negative_slope, ACTIVATION: tl.constexpr):
    """Return activation(pre)."""
    if ACTIVATION == "relu":
        y = tl.where(pre <= 0.0, 0.0, pre)
    elif ACTIVATION == "leaky_relu":
        y = tl.where(pre <= 0.0, pre * negative_slope, pre)
    elif ACTIVATION == "silu":
        y = pre / (1.0 + tl.exp(-pre))
    elif ACTIVATION == "gelu":
        y = 0.5 * pre * (1.0 + tl.erf(pre * 0.7071067811865476))
    else:
        y = pre
    return y


@triton.jit
def slope_of(pre, negative_slope, ACTIVATION: tl.constexpr):
    """Return activation′(pre)."""
    if ACTIVATION == "relu":
        slope = tl.where(pre <= 0.0, 0.0, 1.0)
    elif ACTIVATION == "leaky_relu":
        slope = tl.where(pre <= 0.0, negative_slope, 1.0)
    elif ACTIVATION == "silu":
        gate = 1.0 / (1.0 + tl.exp(-pre))
        slope = gate * (1.0 + pre * (1.0 - gate))
    elif ACTIVATION == "gelu":
        density = 0.3989422804014327 * tl.exp(-0.5 * pre * pre)
        slope = 0.5 * (1.0 + tl.erf(pre * 0.7071067811865476)) + pre * density
    else:
        slope = tl.full(pre.shape, 1.0, tl.float32)
    return slope


@triton.jit
def slope_of_signs(positive, negative_slope, ACTIVATION: tl.constexpr):
    """Return activation′ where it depends on nothing but the sign of what goes in."""
    if ACTIVATION == "leaky_relu":
        slope = tl.where(positive, 1.0, negative_slope)
    else:
        slope = tl.where(positive, 1.0, 0.0)
    return slope


@triton.jit
def pack(positive, LINES: tl.constexpr, LENGTH: tl.constexpr):
    """Pack booleans [LINES, LENGTH] into bytes [LINES, LENGTH / 8], first value lowest."""
    eights = tl.reshape(positive.to(tl.int32), (LINES, LENGTH // 8, 8))
    return tl.sum(eights << tl.arange(0, 8)[None, None, :], 2).to(tl.uint8)


@triton.jit
def unpack(packed, LINES: tl.constexpr, LENGTH: tl.constexpr):
    """Inverse of `pack`."""
    eights = (packed.to(tl.int32)[:, :, None] >> tl.arange(0, 8)[None, None, :]) & 1
    return tl.reshape(eights, (LINES, LENGTH)) != 0


@triton.jit
def merge(count, mean, m2, other_count, other_mean, other_m2):
    """Chan's merge of two (count, mean, sum of squared deviations)."""
    total = count + other_count
    share = other_count / tl.maximum(total, 1.0)
    apart = other_mean - mean
    return total, mean + apart * share, m2 + other_m2 + apart * apart * (count * share)
