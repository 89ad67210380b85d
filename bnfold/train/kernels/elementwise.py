"""What kernels compute for each value or channel; written once, so that all agree.

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
def channel_of(first, p, channels):
    """The channels of the planes `first + p`: one long division, and short ones."""
    c = (first % channels).to(tl.int32) + p
    return c if p.shape[0] == 1 else c % channels


@triton.jit
def preactivate(normal, weight, bias):
    """Normal · weight + bias, rounded once."""
    return tl.fma(normal, weight, bias)


@triton.jit
def passes(pre, ACTIVATION: tl.constexpr):
    """The slope is one here, of an activation with two slopes; NaN passes."""
    stopped = pre <= 0.0
    if ACTIVATION == "relu6":
        stopped |= pre >= 6.0
    return stopped == 0


@triton.jit
def sigmoid(pre):
    """1 / (1 + exp(−pre))."""
    return 1.0 / (1.0 + tl.exp(-pre))


@triton.jit
def tanh(pre):
    """By an exponential that cannot overflow; a series where the difference would cancel."""
    size = tl.abs(pre)
    square = pre * pre
    series = 2.0 / 15.0 + square * (-17.0 / 315.0 + square * (62.0 / 2835.0))
    small = size * (1.0 + square * (-1.0 / 3.0 + square * series))
    decay = tl.exp(-2.0 * size)
    value = tl.where(size < 0.25, small, (1.0 - decay) / (1.0 + decay))
    return tl.where(pre < 0.0, -value, value)


@triton.jit
def tanh_of_softplus(pre):
    """As mish has it: with e = exp(pre), (e² + 2 e) / (e² + 2 e + 2), which is 1 above 20."""
    e = tl.exp(tl.minimum(pre, 20.0))
    product = e * (e + 2.0)
    return tl.where(pre > 20.0, 1.0, product / (product + 2.0))


@triton.jit
def normal_distribution(pre):
    """Φ(pre) to 1.2e-7, and e^(−pre²/2): Abramowitz and Stegun 7.1.26, which shares the two.

    libdevice's erf takes more instructions than memory leaves time for.
    """
    size = tl.abs(pre) * 0.7071067811865476
    decay = tl.exp(-size * size)
    t = 1.0 / tl.fma(size, 0.3275911, 1.0)
    series = tl.fma(tl.fma(t, 1.061405429, -1.453152027), t, 1.421413741)
    series = tl.fma(tl.fma(series, t, -0.284496736), t, 0.254829592)
    tail = 0.5 * series * t * decay
    return tl.where(pre < 0.0, tail, 1.0 - tail), decay


@triton.jit
def gelu_argument(pre):
    """What goes into the tanh of the approximate GELU."""
    return 0.7978845608028654 * (pre + 0.044715 * pre * pre * pre)


@triton.jit
def activate(pre, negative_slope, ACTIVATION: tl.constexpr):  # noqa: C901  # a branch for each
    """Return activation(pre)."""
    if ACTIVATION == "relu":
        y = tl.where(pre <= 0.0, 0.0, pre)
    elif ACTIVATION == "relu6":
        y = tl.where(pre <= 0.0, 0.0, tl.where(pre >= 6.0, 6.0, pre))
    elif ACTIVATION == "leaky_relu":
        y = tl.where(pre <= 0.0, pre * negative_slope, pre)
    elif ACTIVATION == "silu":
        y = pre / (1.0 + tl.exp(-pre))
    elif ACTIVATION == "gelu":
        below, _ = normal_distribution(pre)
        y = pre * below
    elif ACTIVATION == "gelu_tanh":
        y = 0.5 * pre * (1.0 + tanh(gelu_argument(pre)))
    elif ACTIVATION == "hardswish":
        gate = tl.where(pre <= -3.0, 0.0, tl.where(pre >= 3.0, 1.0, pre / 6.0 + 0.5))
        y = pre * gate
    elif ACTIVATION == "mish":
        y = pre * tanh_of_softplus(pre)
    else:
        y = pre
    return y


@triton.jit
def slope_of(pre, negative_slope, ACTIVATION: tl.constexpr):  # noqa: C901  # a branch for each
    """Return activation′(pre)."""
    if ACTIVATION == "relu":
        slope = tl.where(pre <= 0.0, 0.0, 1.0)
    elif ACTIVATION == "relu6":
        slope = tl.where(pre <= 0.0, 0.0, tl.where(pre >= 6.0, 0.0, 1.0))
    elif ACTIVATION == "leaky_relu":
        slope = tl.where(pre <= 0.0, negative_slope, 1.0)
    elif ACTIVATION == "silu":
        gate = sigmoid(pre)
        slope = gate * (1.0 + pre * (1.0 - gate))
    elif ACTIVATION == "gelu":
        below, decay = normal_distribution(pre)
        slope = tl.fma(pre * 0.3989422804014327, decay, below)
    elif ACTIVATION == "gelu_tanh":
        curve = tanh(gelu_argument(pre))
        steep = 0.7978845608028654 * (1.0 + 0.134145 * pre * pre)
        slope = 0.5 * (1.0 + curve) + 0.5 * pre * (1.0 - curve * curve) * steep
    elif ACTIVATION == "hardswish":
        slope = tl.where(pre <= -3.0, 0.0, tl.where(pre >= 3.0, 1.0, pre / 3.0 + 0.5))
    elif ACTIVATION == "mish":
        curve = tanh_of_softplus(pre)
        slope = curve + pre * (1.0 - curve * curve) * sigmoid(pre)
    else:
        slope = tl.full(pre.shape, 1.0, tl.float32)
    return slope


@triton.jit
def slope_of_signs(passed, negative_slope, ACTIVATION: tl.constexpr):
    """Return activation′ of an activation with two slopes, from where it passes."""
    if ACTIVATION == "leaky_relu":
        slope = tl.where(passed, 1.0, negative_slope)
    else:
        slope = tl.where(passed, 1.0, 0.0)
    return slope


@triton.jit
def pack(passed, LINES: tl.constexpr, LENGTH: tl.constexpr):
    """Pack booleans [LINES, LENGTH] into bytes [LINES, LENGTH / 8], first value lowest."""
    eights = tl.reshape(passed.to(tl.int32), (LINES, LENGTH // 8, 8))
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


@triton.jit
def update_channels(running_mean_ptr, running_var_ptr, c, has_c, mean, var, share, unbias):
    """Blend a batch into the running statistics of some channels."""
    element = running_mean_ptr.dtype.element_ty
    old_mean = tl.load(running_mean_ptr + c, mask=has_c, other=0.0).to(tl.float32)
    old_var = tl.load(running_var_ptr + c, mask=has_c, other=0.0).to(tl.float32)
    new_mean = (1.0 - share) * old_mean + share * mean
    new_var = (1.0 - share) * old_var + share * (var * unbias)
    tl.store(running_mean_ptr + c, new_mean.to(element), mask=has_c)
    tl.store(running_var_ptr + c, new_var.to(element), mask=has_c)


@triton.jit
def count_batch(counter_ptr):
    """Add one to the counter of batches; only one program may."""
    if counter_ptr is not None:  # noqa: SIM102  # decided when it is compiled
        if tl.program_id(0) == 0:
            tl.store(counter_ptr, tl.load(counter_ptr) + 1)


@triton.jit
def rstd_of(var, eps):
    """1 / √(var + eps), both roundings to nearest."""
    return tl.div_rn(1.0, tl.sqrt_rn(var + eps))
