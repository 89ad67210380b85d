"""How far a layer is from float64, in units of what rounding alone may do.

A fast kernel that is wrong must not look good, so every timed case is checked, on all of its
values, channel by channel. One unit is half a unit in the last place of the storage type at
the exact result, plus what float32 loses on the way: eight roundings of the terms that are
added. Where the sign that an activation turns on is within that loss, both sides are right.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

LIMIT: Final = 4.0
"""More units than this are an error of the kernel, not of rounding."""
BEYOND: Final = 1e30
_CHUNK: Final = 2**25  # values in float64 at a time
_LOST: Final = 8 * 2.0**-24
_NOT_ZERO: Final = 1e-300
_AXES: Final = (0, 2, 3)
_EPS: Final = 1e-5  # of torch's BatchNorm, and of ours
_MOMENTUM: Final = 0.1  # of torch's BatchNorm, and of ours


@dataclass(frozen=True, slots=True)
class Step:
    """What went into a training step of a layer and what came out, or some channels of it."""

    x: Tensor
    residual: Tensor | None
    dy: Tensor
    weight: Tensor
    bias: Tensor
    y: Tensor
    dx: Tensor
    dresidual: Tensor | None
    dweight: Tensor
    dbias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def channels(self, part: slice) -> Step:
        """Return some of the channels in float64."""
        found: dict[str, Any] = {}
        for name in self.__slots__:
            tensor: Tensor | None = getattr(self, name)
            if tensor is not None:
                tensor = (tensor[part] if tensor.dim() == 1 else tensor[:, part]).double()
            found[name] = tensor
        return Step(**found)


def poison(like: Tensor, count: int) -> None:
    """Leave memory full of NaN to be found by who allocates next and does not write all."""
    held = [torch.full_like(like, float("nan")) for _ in range(count)]
    del held


def taken(module: nn.Module, x: Tensor, residual: Tensor | None, dy: Tensor) -> Step:
    """Run the first step of a module of ours.

    Args:
        module: The module.
        x: Input.
        residual: Added, or None.
        dy: Gradient of the output.
    """
    bn: Any = module
    inputs = [one for one in (x, residual) if one is not None]
    poison(x.detach(), 4)
    y = bn(x, residual)
    grads = torch.autograd.grad(y, [*inputs, bn.weight, bn.bias], dy)
    return Step(
        x=x.detach(),
        residual=None if residual is None else residual.detach(),
        dy=dy,
        weight=bn.weight.detach(),
        bias=bn.bias.detach(),
        y=y.detach(),
        dx=grads[0],
        dresidual=None if residual is None else grads[1],
        dweight=grads[-2],
        dbias=grads[-1],
        running_mean=bn.running_mean,
        running_var=bn.running_var,
    )


def errors(step: Step, activation: str | None) -> dict[str, float]:
    """Return the largest error of each result, in units; NaN counts as `BEYOND`."""
    worst: dict[str, float] = {}
    kind = torch.finfo(step.x.dtype)
    for part in _parts(step.x):
        exact = _exact(step.channels(part), activation)
        units = (kind.eps / 2, kind.smallest_normal * kind.eps)
        for name, found in (*_of_values(exact, *units), *_of_vectors(exact)):
            worst[name] = max(worst.get(name, 0.0), found)
    return worst


def _parts(x: Tensor) -> Iterator[slice]:
    """Cut the channels up, so that float64 fits beside everything else."""
    channels = x.shape[1]
    wide = max(1, min(channels, _CHUNK * channels // x.numel()))
    for first in range(0, channels, wide):
        yield slice(first, first + wide)


@dataclass(frozen=True, slots=True)
class _Exact:
    """A step in float64.

    Attributes:
        at: What is judged.
        mean: Of the batch.
        var: Of the batch, biased.
        rstd: 1 / √(var + eps).
        normal: (x − mean) / √(var + eps).
        off: What float32 may lose of it.
        pre: What goes into the activation.
        loss: What float32 may lose of that.
        clipped: Where the activation lets nothing through.
        inner: dy · activation′.
        unsure: Where the sign that the activation turns on is within the loss.
    """

    at: Step
    mean: Tensor
    var: Tensor
    rstd: Tensor
    normal: Tensor
    off: Tensor
    pre: Tensor
    loss: Tensor
    clipped: Tensor
    inner: Tensor
    unsure: Tensor


def _exact(at: Step, activation: str | None) -> _Exact:
    mean, var = at.x.mean(_AXES), at.x.var(_AXES, correction=0)
    rstd = (var + _EPS).rsqrt()
    normal = (at.x - _wide(mean)) * _wide(rstd)
    off = _LOST * (normal.abs() + _wide(mean.abs() * rstd))
    other = torch.zeros_like(at.x) if at.residual is None else at.residual
    pre = normal * _wide(at.weight) + _wide(at.bias) + other
    loss = off * _wide(at.weight).abs() + _LOST * (_wide(at.bias).abs() + other.abs())
    clipped = (pre <= 0) if activation == "relu" else torch.zeros_like(pre, dtype=torch.bool)
    unsure = (pre.abs() <= loss) & (activation == "relu")
    inner = at.dy.masked_fill(clipped, 0.0)
    return _Exact(at, mean, var, rstd, normal, off, pre, loss, clipped, inner, unsure)


def _of_values(exact: _Exact, unit: float, least: float) -> Iterator[tuple[str, float]]:
    """Compare the output, and the gradients that are as large as it.

    Args:
        exact: The step.
        unit: Half a unit in the last place of the storage type, relatively.
        least: The smallest number of the storage type.
    """
    at, inner = exact.at, exact.inner
    y = exact.pre.masked_fill(exact.clipped, 0.0)
    yield "y", _worst(at.y - y, unit * y.abs() + exact.loss + least)
    if at.dresidual is not None:
        away = (at.dresidual - inner).masked_fill(exact.unsure, 0.0)
        yield "dresidual", _worst(away, (unit + _LOST) * inner.abs() + least)
    gain, product = _wide(at.weight * exact.rstd), inner * exact.normal
    mean_inner, mean_product = (_wide(one.mean(_AXES)) for one in (inner, product))
    dx = (inner - mean_inner - exact.normal * mean_product) * gain
    sums, products = (_wide(one.abs().mean(_AXES)) for one in (inner, product))
    swing = _wide((at.dy.abs() * exact.unsure).mean(_AXES)) * (1 + exact.normal.abs())
    parts = inner.abs() + sums + exact.normal.abs() * products
    kept = unit * inner.abs() if at.dresidual is not None else 0.0  # it is stored on the way
    loss = (_LOST * parts + exact.off * products + kept + swing) * gain.abs()
    away = (at.dx - dx).masked_fill(exact.unsure, 0.0)
    yield "dx", _worst(away, unit * dx.abs() + loss + least)


def _of_vectors(exact: _Exact) -> Iterator[tuple[str, float]]:
    """Compare what has one value per channel; running statistics began at 0 and 1."""
    at, inner = exact.at, exact.inner
    product, swing = inner * exact.normal, at.dy.abs() * exact.unsure
    loss = (_LOST * inner.abs() + swing).sum(_AXES)
    yield "dbias", _worst(at.dbias - inner.sum(_AXES), loss)
    loss = (_LOST * product.abs() + exact.off * inner.abs() + swing * exact.normal.abs()).sum(
        _AXES
    )
    yield "dweight", _worst(at.dweight - product.sum(_AXES), loss)
    size = _MOMENTUM * at.x.abs().mean(_AXES)
    yield "running_mean", _worst(at.running_mean - _MOMENTUM * exact.mean, _LOST * size)
    count = at.x.numel() // at.x.shape[1]
    moved = (1 - _MOMENTUM) + _MOMENTUM * exact.var * count / max(count - 1, 1)
    yield "running_var", _worst(at.running_var - moved, _LOST * moved)


def _wide(vector: Tensor) -> Tensor:
    return vector.reshape(1, -1, 1, 1)


def _worst(away: Tensor, unit: Tensor) -> float:
    found = float((away.abs() / (unit + _NOT_ZERO)).max())
    return min(found, BEYOND) if not math.isnan(found) else BEYOND
