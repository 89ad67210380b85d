"""BatchNorm in float64, with how far a correct float32 computation can be from it.

Every bound follows the formula: an operation in float32 errs by a few units in the last place
of what goes in, the result is rounded once to the storage type, and errors of what was
computed before pass on through the derivative. Where the sign that an activation turns on is
within the error, both sides are right.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor

from bnfold.train.kernels.reference import Activation, per_channel

FLOAT32 = 2.0**-24
# Where a slope jumps, by at most one.
CORNERS = {"relu": (0,), "leaky_relu": (0,), "relu6": (0, 6), "hardswish": (-3, 3)}
STEEPEST = 1.2  # of a slope that does not jump: GELU's changes by at most 1.13 per unit
UNITS = 24  # float32 roundings that one value sees: sums by blocks, a root, a few products


def storage_unit(dtype: torch.dtype) -> float:
    """How far rounding to a type may go, relatively: the interpreter truncates bfloat16."""
    eps = torch.finfo(dtype).eps
    return eps if os.environ.get("TRITON_INTERPRET") == "1" else eps / 2 * 1.01


@dataclass(frozen=True)
class Bounded:
    """A float64 result and the greatest distance that is still right, value by value."""

    value: Tensor
    bound: Tensor

    def assert_holds(self, actual: Tensor, name: str) -> None:
        """Compare, and say by how many bounds the worst value is off."""
        assert actual.shape == self.value.shape, name
        apart = (actual.double().cpu() - self.value).abs()
        worst = float((apart / (self.bound + 1e-300)).max()) if apart.numel() else 0.0
        assert not bool((apart > self.bound).any()), f"{name}: {worst:.3g} times the bound"
        assert not bool(actual.isnan().any()), name


@dataclass(frozen=True)
class Expected:
    """What a training step must give."""

    y: Bounded
    dx: Bounded
    dweight: Bounded
    dbias: Bounded
    dresidual: Bounded
    mean: Bounded
    unbiased_var: Bounded


def stored(value: Tensor, error: Tensor, dtype: torch.dtype) -> Bounded:
    """Add the one rounding to the storage type."""
    smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    unit = storage_unit(dtype)
    return Bounded(value, error * (1 + unit) + value.abs() * unit + smallest)


def step64(
    x: Tensor,
    gain: Tensor,
    shift: Tensor,
    other: Tensor,
    dy: Tensor,
    eps: float,
    activation: Activation,
) -> tuple[Tensor, tuple[Tensor, ...], Tensor, Tensor]:
    """Return output, gradients, mean and unbiased variance, by torch's autograd in float64."""
    inputs = [t.clone().requires_grad_() for t in (x, gain, shift, other)]
    mean, var = torch.zeros_like(gain), torch.ones_like(gain)
    plain = torch.nn.functional.batch_norm(
        inputs[0], mean, var, inputs[1], inputs[2], training=True, momentum=1.0, eps=eps
    )
    y = activation(plain + inputs[3])
    return y.detach(), torch.autograd.grad(y, inputs, dy), mean, var


@dataclass(frozen=True)
class ForwardErrors:
    """Values on the way to the output, and how far float32 may be from them."""

    normal: Tensor
    normal_error: Tensor
    pre: Tensor
    pre_error: Tensor
    mean_error: Tensor
    rstd: Tensor
    var: Tensor


def forward_errors(
    x: Tensor, gain: Tensor, shift: Tensor, other: Tensor, eps: float
) -> ForwardErrors:
    """Follow the errors of float32 from x to what goes into the activation."""
    axes, tiny = axes_of(x), UNITS * FLOAT32
    mean, var = x.mean(axes), x.var(axes, correction=0)
    rstd = (var + eps).rsqrt()
    centred = x - per_channel(mean, x)
    normal = centred * per_channel(rstd, x)
    pivot = x.reshape(x.shape[0], x.shape[1], -1)[0, :, 0]
    far = (x - per_channel(pivot, x)).abs().mean(axes)
    mean_error = FLOAT32 * mean.abs() + tiny * far
    input_error = mean_error + FLOAT32 * centred.abs().amax(axes)
    normal_error = tiny * normal.abs() + per_channel(rstd * input_error, x)
    scaled, added = normal * per_channel(gain, x), per_channel(shift, x)
    pre_error = per_channel(gain.abs(), x) * normal_error + 4 * FLOAT32 * (
        scaled.abs() + added.abs() + other.abs()
    )
    pre = scaled + added + other
    return ForwardErrors(normal, normal_error, pre, pre_error, mean_error, rstd, var)


def inner_errors(dy: Tensor, at: ForwardErrors, activation: Activation) -> Tensor:
    """How far dy · activation′ may be off."""
    tiny = UNITS * FLOAT32
    error = dy.abs() * tiny * activation.slope(at.pre).abs()
    if activation.name is None:
        return error
    for corner in CORNERS.get(activation.name, ()):
        error = error + dy.abs() * ((at.pre - corner).abs() <= at.pre_error)
    if activation.has_two_slopes:
        return error
    return error + dy.abs() * (STEEPEST * at.pre_error + tiny * (1 + at.pre.abs()))


def axes_of(x: Tensor) -> list[int]:
    """All axes but the channel's."""
    return [axis for axis in range(x.dim()) if axis != 1]


def float64_of(vector: Tensor | None, otherwise: float, like: Tensor) -> Tensor:
    """Return a tensor in float64 on the CPU, or `otherwise` everywhere where it is absent."""
    if vector is None:
        return torch.full(like.shape, otherwise, dtype=torch.float64)
    return vector.detach().double().cpu()


def expect(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    dy: Tensor,
    eps: float,
    activation: Activation,
) -> Expected:
    """Compute a step in float64, by torch's autograd, and bound it by the formula."""
    dtype, tiny, axes = x.dtype, UNITS * FLOAT32, axes_of(x)
    affine_type = torch.float32 if weight is None else weight.dtype
    count = x.numel() // x.shape[1]
    x, dy = x.double().cpu(), dy.double().cpu()
    one = x.flatten(2)[0, :, 0] if x.dim() > 2 else x[0]
    gain, shift = float64_of(weight, 1.0, one), float64_of(bias, 0.0, one)
    other = float64_of(residual, 0.0, x)
    y, grads, mean, unbiased = step64(x, gain, shift, other, dy, eps, activation)
    at = forward_errors(x, gain, shift, other, eps)
    inner = dy * activation.slope(at.pre)
    inner_error = inner_errors(dy, at, activation)
    if residual is not None and activation.name is not None:  # it is stored on the way
        inner_error = inner_error + storage_unit(dtype) * inner.abs()
    product, normal = inner * at.normal, at.normal.abs()
    dbias_error = inner_error.sum(axes) + tiny * inner.abs().sum(axes)
    product_error = inner_error * normal + inner.abs() * at.normal_error
    dweight_error = product_error.sum(axes) + tiny * product.abs().sum(axes)
    mean_inner = per_channel(inner.mean(axes).abs(), x)
    mean_product = per_channel(product.mean(axes).abs(), x)
    dx_error = (
        inner_error
        + per_channel(dbias_error / count, x)
        + normal * per_channel(dweight_error / count, x)
        + at.normal_error * mean_product
        + tiny * (inner.abs() + mean_inner + normal * mean_product)
    ) * per_channel((gain * at.rstd).abs(), x)
    var_error = tiny * at.var + at.mean_error * at.mean_error
    var_bound = (var_error + 4 * FLOAT32 * unbiased) * count / max(count - 1, 1)
    return Expected(
        y=stored(y, 1.2 * at.pre_error + tiny * y.abs(), dtype),
        dx=stored(grads[0], dx_error, dtype),
        dweight=stored(grads[1], dweight_error, affine_type),
        dbias=stored(grads[2], dbias_error, affine_type),
        dresidual=stored(grads[3], inner_error, dtype),
        mean=Bounded(mean, at.mean_error + 4 * FLOAT32 * mean.abs()),
        unbiased_var=Bounded(unbiased, var_bound),
    )
