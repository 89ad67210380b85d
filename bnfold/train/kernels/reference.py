"""The formula that every kernel computes, in plain torch operators.

    mean, var = the moments of x over all axes but the channel's     (var is biased)
    pre       = (x − mean) / √(var + eps) · weight + bias + residual
    y         = activation(pre)

Everything here can be differentiated, any number of times: it is what a gradient of a gradient
goes through, and what the kernels are tested against.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from bnfold.train.kernels.layout import Rows, layout_of

ACTIVATIONS: Final = ("relu", "leaky_relu", "silu", "gelu")
# Their slope depends on the sign of what goes in alone: one bit per value is enough.
SIGN_DECIDES: Final = ("relu", "leaky_relu")


@dataclass(frozen=True, slots=True)
class Activation:
    """Which function follows the normalisation; name None is the identity."""

    name: str | None = None
    negative_slope: float = 0.01

    def __call__(self, pre: Tensor) -> Tensor:
        """Return activation(pre)."""
        match self.name:
            case "relu":
                return nn.functional.relu(pre)
            case "leaky_relu":
                return nn.functional.leaky_relu(pre, self.negative_slope)
            case "silu":
                return nn.functional.silu(pre)
            case "gelu":
                return nn.functional.gelu(pre)
            case _:
                return pre

    @property
    def sign_decides(self) -> bool:
        """The slope depends on nothing but the sign of what goes in."""
        return self.name in SIGN_DECIDES

    def slope(self, pre: Tensor) -> Tensor:
        """Return activation′(pre)."""
        match self.name:
            case "silu":
                gate = torch.sigmoid(pre)
                return gate * (1 + pre * (1 - gate))
            case "gelu":
                density = torch.exp(-0.5 * pre * pre) / math.sqrt(2 * math.pi)
                return 0.5 * (1 + torch.erf(pre / math.sqrt(2))) + pre * density
            case None:
                return torch.ones_like(pre)
            case _:
                return self.slope_of_signs(~(pre <= 0), pre)

    def slope_of_signs(self, positive: Tensor, like: Tensor) -> Tensor:
        """Return activation′ from the signs of what goes in, in the dtype of `like`."""
        left = self.negative_slope if self.name == "leaky_relu" else 0.0
        return torch.where(positive, 1.0, left).to(like.dtype)


def per_channel(vector: Tensor, x: Tensor) -> Tensor:
    """Return a vector of one value per channel so that it broadcasts over x."""
    return vector.reshape(1, -1, *([1] * (x.dim() - 2)))


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance per channel, in two passes."""
    axes = [axis for axis in range(x.dim()) if axis != 1]
    mean = x.mean(axes)
    return mean, (x - per_channel(mean, x)).square().mean(axes)


def unpack_signs(bits: Tensor, x: Tensor) -> Tensor:
    """Return the mask that a forward kernel packed, as booleans of the shape of x."""
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
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight, bias and residual; statistics are computed again.

    `bits` are the signs that a forward kernel kept, in place of the residual.
    """
    wide = widened(x)
    axes = [axis for axis in range(x.dim()) if axis != 1]
    mean, var = moments(wide)
    rstd = (var + eps).rsqrt()
    normal = (wide - per_channel(mean, x)) * per_channel(rstd, x)
    gain = torch.ones_like(rstd) if weight is None else weight.to(wide.dtype)
    if bits is not None:
        slope = activation.slope_of_signs(unpack_signs(bits, x), wide)
    else:
        pre = normal * per_channel(gain, x)
        pre = pre if bias is None else pre + per_channel(bias.to(wide.dtype), x)
        slope = activation.slope(pre if residual is None else pre + residual)
    inner = dy.to(wide.dtype) * slope
    sum_inner, sum_product = inner.sum(axes), (inner * normal).sum(axes)
    count = x.numel() // x.shape[1]
    centred = inner - per_channel(sum_inner, x) / count
    centred = centred - normal * per_channel(sum_product, x) / count
    dx = centred * per_channel(gain * rstd, x)
    return dx.to(x.dtype), sum_product, sum_inner, inner.to(x.dtype)
