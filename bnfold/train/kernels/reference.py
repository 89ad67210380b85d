"""The formula that every kernel computes, in plain torch operators.

    mean, var = the moments of x over all axes but the channel's     (var is biased)
    pre       = (x − mean) / √(var + eps) · weight + bias + residual
    y         = activation(pre)

Everything here can be differentiated, any number of times: it is what a gradient of a gradient
goes through, and what the kernels are tested against.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from bnfold.train.kernels.layout import Rows, layout_of

FUNCTIONS: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "relu": nn.functional.relu,
    "relu6": nn.functional.relu6,
    "leaky_relu": nn.functional.leaky_relu,
    "silu": nn.functional.silu,
    "gelu": nn.functional.gelu,
    "gelu_tanh": partial(nn.functional.gelu, approximate="tanh"),
    "hardswish": nn.functional.hardswish,
    "mish": nn.functional.mish,
}
ACTIVATIONS: Final = tuple(FUNCTIONS)
# They have two slopes: one bit per value is enough.
TWO_SLOPES: Final = ("relu", "relu6", "leaky_relu")


@dataclass(frozen=True, slots=True)
class Activation:
    """Which function follows the normalisation; name None is the identity."""

    name: str | None = None
    negative_slope: float = 0.01

    def __call__(self, pre: Tensor) -> Tensor:
        """Return activation(pre), by torch's own operator."""
        if self.name == "leaky_relu":
            return nn.functional.leaky_relu(pre, self.negative_slope)
        return pre if self.name is None else FUNCTIONS[self.name](pre)

    def onto(self, fresh: Tensor) -> Tensor:
        """Return activation(fresh) in the memory of a tensor that nobody else has or saved.

        The gradient then needs the result alone, which whatever follows keeps anyway.
        """
        if self.name == "leaky_relu" and self.negative_slope >= 0:
            return nn.functional.leaky_relu(fresh, self.negative_slope, inplace=True)
        if self.name == "relu6":
            return nn.functional.relu6(fresh, inplace=True)
        return self(fresh)

    @property
    def has_two_slopes(self) -> bool:
        """One bit per value tells the slope."""
        return self.name in TWO_SLOPES

    def passes(self, pre: Tensor) -> Tensor:
        """Return where the slope is one, of an activation with two; NaN passes."""
        stopped = pre <= 0
        return ~(stopped | (pre >= 6) if self.name == "relu6" else stopped)

    def slope(self, pre: Tensor) -> Tensor:
        """Return activation′(pre)."""
        match self.name:
            case "silu":
                gate = torch.sigmoid(pre)
                return gate * (1 + pre * (1 - gate))
            case "gelu":
                density = torch.exp(-0.5 * pre * pre) / math.sqrt(2 * math.pi)
                return 0.5 * (1 + torch.erf(pre / math.sqrt(2))) + pre * density
            case "gelu_tanh":
                root = math.sqrt(2 / math.pi)
                curve = torch.tanh(root * (pre + 0.044715 * pre**3))
                steep = root * (1 + 3 * 0.044715 * pre * pre)
                return 0.5 * (1 + curve) + 0.5 * pre * (1 - curve * curve) * steep
            case "hardswish":
                ramp = torch.where(pre >= 3, torch.ones_like(pre), pre / 3 + 0.5)
                return torch.where(pre <= -3, torch.zeros_like(pre), ramp)
            case "mish":
                curve = torch.tanh(nn.functional.softplus(pre))
                return curve + pre * (1 - curve * curve) * torch.sigmoid(pre)
            case None:
                return torch.ones_like(pre)
            case _:
                return self.slope_where(self.passes(pre), pre)

    def slope_where(self, passed: Tensor, like: Tensor) -> Tensor:
        """Return activation′ from where it is one, in the dtype of `like`."""
        left = self.negative_slope if self.name == "leaky_relu" else 0.0
        return torch.where(passed, 1.0, left).to(like.dtype)


class Running(NamedTuple):
    """What is kept from batch to batch; whatever is absent is not updated."""

    mean: Tensor | None
    var: Tensor | None
    counter: Tensor | None
    momentum: float | None  # None is the mean of all batches, which needs the counter

    @property
    def is_cumulative(self) -> bool:
        """The share of a batch depends on how many there were."""
        return self.momentum is None and self.mean is not None and self.counter is not None

    def copied(self) -> Running:
        """Return copies, which can be updated for nothing."""
        mean, var, counter = (None if b is None else b.clone() for b in self[:3])
        return Running(mean, var, counter, self.momentum)


def per_channel(vector: Tensor, x: Tensor) -> Tensor:
    """Return a vector of one value per channel so that it broadcasts over x."""
    return vector.reshape(1, -1, *([1] * (x.dim() - 2)))


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance per channel, in two passes."""
    axes = [axis for axis in range(x.dim()) if axis != 1]
    mean = x.mean(axes)
    return mean, (x - per_channel(mean, x)).square().mean(axes)


def unpack_bits(bits: Tensor, x: Tensor) -> Tensor:
    """Return what a forward kernel packed, as booleans of the shape of x."""
    shifts = torch.arange(8, dtype=torch.uint8, device=bits.device)
    layout = layout_of(x)
    if isinstance(layout, Rows):
        last_axis, shape = layout.channels, x.movedim(1, -1).shape
    else:
        last_axis, shape = x.numel() // (x.shape[0] * x.shape[1]), x.shape
    line_bytes = (last_axis + 7) // 8
    lines = (bits.reshape(-1, line_bytes, 1) >> shifts) & 1
    flat = lines.reshape(-1, line_bytes * 8)[:, :last_axis].reshape(shape).bool()
    return flat.movedim(-1, 1) if isinstance(layout, Rows) else flat


def widened(x: Tensor) -> Tensor:
    """Return x in the type that statistics are computed in."""
    return x if x.dtype == torch.float64 else x.float()


def forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    eps: float,
    activation: Activation,
) -> Tensor:
    """Return activation(bn(x) + residual), normalised by the batch itself."""
    wide = widened(x)
    mean, var = moments(wide)
    pre = (wide - per_channel(mean, x)) * per_channel((var + eps).rsqrt(), x)
    pre = pre if weight is None else pre * per_channel(weight.to(pre.dtype), x)
    pre = pre if bias is None else pre + per_channel(bias.to(pre.dtype), x)
    pre = pre if residual is None else pre + residual
    return activation(pre).to(x.dtype)


def backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    bits: Tensor | None,
    eps: float,
    activation: Activation,
    known: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight, bias and residual; statistics are computed again.

    `bits` are what a forward kernel kept in place of the residual: where the slope is one.
    `known` are mean and 1 / √(var + eps) of a frozen layer, which do not depend on x.
    """
    wide = widened(x)
    axes = [axis for axis in range(x.dim()) if axis != 1]
    if known is None:
        mean, var = moments(wide)
        rstd = (var + eps).rsqrt()
    else:
        mean, rstd = (vector.to(wide.dtype) for vector in known)
    normal = (wide - per_channel(mean, x)) * per_channel(rstd, x)
    gain = torch.ones_like(rstd) if weight is None else weight.to(wide.dtype)
    if bits is not None:
        slope = activation.slope_where(unpack_bits(bits, x), wide)
    else:
        pre = normal * per_channel(gain, x)
        pre = pre if bias is None else pre + per_channel(bias.to(wide.dtype), x)
        slope = activation.slope(pre if residual is None else pre + residual)
    inner = dy.to(wide.dtype) * slope
    sum_inner, sum_product = inner.sum(axes), (inner * normal).sum(axes)
    centred = inner
    if known is None:
        count = x.numel() // x.shape[1]
        centred = inner - per_channel(sum_inner, x) / count
        centred = centred - normal * per_channel(sum_product, x) / count
    dx = centred * per_channel(gain * rstd, x)
    return dx.to(x.dtype), sum_product, sum_inner, inner.to(x.dtype)
