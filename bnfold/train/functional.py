"""BatchNorm with residual and activation as one function, on whatever device its input is.

    y = activation(batch_norm(x) + residual)

In training, on a CUDA device, in float32, float16 or bfloat16, Triton kernels compute it;
everywhere else plain torch operators do. Evaluation is always plain: an exporter then writes
BatchNormalization, which folds.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
from functools import partial
from typing import TYPE_CHECKING, Final

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from bnfold.train import autograd, memory
from bnfold.train.kernels.layout import laid_out
from bnfold.train.kernels.reference import ACTIVATIONS, Activation

if TYPE_CHECKING:
    from torch import Tensor

FUSED_DTYPES: Final = (torch.float32, torch.float16, torch.bfloat16)
HAS_TRITON: Final = importlib.util.find_spec("triton") is not None
# Triton's interpreter runs kernels on a CPU; it must be on before they are imported.
INTERPRETED: Final = HAS_TRITON and os.environ.get("TRITON_INTERPRET") == "1"


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    residual: Tensor | None = None,
    activation: str | None = None,
    negative_slope: float = 0.01,
    num_batches_tracked: Tensor | None = None,
) -> Tensor:
    """Return activation(batch_norm(x) + residual).

    Args:
        x: Values [N, C, …], of 2 to 5 dimensions.
        running_mean: Used in evaluation, updated in training; None updates nothing.
        running_var: As running_mean.
        weight: One factor per channel, or None.
        bias: One summand per channel, or None.
        training: Normalise by the batch instead of the running statistics.
        momentum: The share of the batch in the running statistics; None takes the mean of all
            batches so far, which needs `num_batches_tracked`.
        eps: Added to the variance.
        residual: Added before the activation.
        activation: One of None, "relu", "leaky_relu", "silu" and "gelu".
        negative_slope: Of "leaky_relu".
        num_batches_tracked: A counter, incremented in training.
    """
    kind = Activation(checked_activation(activation), negative_slope)
    if not training:
        y = nn.functional.batch_norm(x, running_mean, running_var, weight, bias, eps=eps)
        return kind(y if residual is None else y + residual)
    _refuse_single_values(x)
    run = fused if _can_fuse(x) else plain_recomputed if memory.recomputing() else plain
    return run(
        x, running_mean, running_var, num_batches_tracked, weight, bias, residual, momentum,
        eps, kind,
    )  # fmt: skip


def checked_activation(name: str | None) -> str | None:
    """Return the name of an activation as it is, or say which ones there are."""
    if name is not None and name not in ACTIVATIONS:
        raise ValueError(f"activation must be None or one of {ACTIVATIONS}: {name!r}")
    return name


def _refuse_single_values(x: Tensor) -> None:
    if x.numel() == x.shape[1] != 0:
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {x.shape}"
        )


def _can_fuse(x: Tensor) -> bool:
    here = x.device.type == "cuda" if not INTERPRETED else x.device.type in ("cuda", "cpu")
    return here and HAS_TRITON and x.dtype in FUSED_DTYPES and x.numel() > 0


def _can_be_read(counter: Tensor) -> bool:
    """Reading it waits for no device, and stops no compiler."""
    plain_tensor = type(counter) is torch.Tensor and counter.device.type == "cpu"
    return plain_tensor and not torch.compiler.is_compiling()


def plain(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    num_batches_tracked: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    momentum: float | None,
    eps: float,
    activation: Activation,
) -> Tensor:
    """Train with torch's own operators: what runs without kernels."""
    normalise = partial(
        nn.functional.batch_norm, x, weight=weight, bias=bias, training=True, eps=eps
    )
    if num_batches_tracked is not None:
        num_batches_tracked.add_(1)
        if momentum is None and _can_be_read(num_batches_tracked):
            momentum = 1.0 / float(num_batches_tracked)  # as torch: the same bits
    if running_mean is None or running_var is None or momentum is not None:
        share = 0.0 if momentum is None else momentum
        y = normalise(running_mean, running_var, momentum=share)
    else:
        # With a momentum of one these become the batch's own, so the share can stay a tensor:
        # reading the counter would stop a compiler.
        mean, var = torch.zeros_like(running_mean), torch.zeros_like(running_var)
        y = normalise(mean, var, momentum=1.0)
        if num_batches_tracked is not None and x.numel() > 0:
            share_now = num_batches_tracked.to(running_mean.dtype).reciprocal()
            running_mean.copy_((1 - share_now) * running_mean + share_now * mean)
            running_var.copy_((1 - share_now) * running_var + share_now * var)
    return activation(y if residual is None else y + residual)


def plain_recomputed(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    num_batches_tracked: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    momentum: float | None,
    eps: float,
    activation: Activation,
) -> Tensor:
    """As `plain`, but save x alone, and let the output be rebuilt."""
    buffers = (running_mean, running_var, num_batches_tracked)
    turns = itertools.count()

    def normalise(x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor) -> Tensor:
        # A batch counts once: whoever computes it again updates copies.
        repeated = next(turns) > 0
        mean, var, counter = (b.clone() if repeated and b is not None else b for b in buffers)
        return plain(x, mean, var, counter, weight, bias, residual, momentum, eps, activation)

    y: Tensor = checkpoint(normalise, x, weight, bias, residual, use_reentrant=False)
    build = partial(normalise, x.detach(), weight, bias, residual)  # type: ignore[arg-type]  # absent ones pass through
    return memory.remember(y, build, x, residual, weight, bias)


def fused(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    num_batches_tracked: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    momentum: float | None,
    eps: float,
    activation: Activation,
) -> Tensor:
    """Train with the kernels; x must be one that they can read."""
    x = laid_out(x)
    inside = residual is None or (
        torch.is_tensor(residual)  # torch adds numbers, too
        and (residual.shape, residual.dtype) == (x.shape, x.dtype)
    )
    name = activation.name or ""
    y, mean, rstd, var, _ = autograd.normalise(
        x, weight, bias, residual if inside else None, eps, name if inside else "",
        activation.negative_slope,
    )  # fmt: skip
    if memory.recomputing() and inside:
        build = partial(
            autograd.normalise_again, x.detach(), mean, rstd, weight, bias, residual, name,
            activation.negative_slope,
        )  # fmt: skip
        memory.remember(y, build, x, residual, weight, bias, mean, rstd)
    count = x.numel() // x.shape[1]
    if running_mean is not None and running_var is not None:
        keeps_nothing = momentum is None and num_batches_tracked is None
        autograd.update_running(
            running_mean, running_var, num_batches_tracked, mean, var, count,
            0.0 if keeps_nothing else momentum,
        )  # fmt: skip
    elif num_batches_tracked is not None:
        num_batches_tracked.add_(1)
    # A residual of another shape or type: torch's own addition promotes and broadcasts.
    return y if inside or residual is None else activation(y + residual)
