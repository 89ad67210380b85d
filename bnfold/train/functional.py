"""BatchNorm with residual and activation as one function, on whatever device its input is.

    y = activation(batch_norm(x) + residual)

On a CUDA device, in float32, float16 or bfloat16, Triton kernels compute it in training, and
also with running statistics where a gradient goes through. Everywhere else plain torch
operators do; an exporter always sees those, and writes BatchNormalization, which folds.
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
from bnfold.train.kernels.reference import ACTIVATIONS, Activation, Running

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
        activation: None, or one of "relu", "relu6", "leaky_relu", "silu", "gelu", "gelu_tanh"
            (the approximation), "hardswish" and "mish".
        negative_slope: Of "leaky_relu".
        num_batches_tracked: A counter, incremented in training.
    """
    kind = autograd.activation_of(checked_activation(activation), negative_slope)
    if residual is not None and not autograd.is_traced(x):
        _check_residual(residual, x)
    if not training:
        if (
            running_mean is not None
            and running_var is not None
            and can_fuse(x)
            and _is_differentiated(x, weight, bias, residual)
        ):
            return frozen(x, running_mean, running_var, weight, bias, residual, eps, kind)
        y = nn.functional.batch_norm(x, running_mean, running_var, weight, bias, eps=eps)
        return kind(y if residual is None else y + residual)
    _refuse_single_values(x)
    run = fused if can_fuse(x) else plain
    if run is plain and memory.recomputing() and memory.is_worth_it(x, residual):
        run = plain_recomputed
    if running_mean is None or running_var is None:
        running_mean = running_var = None
    running = Running(running_mean, running_var, num_batches_tracked, momentum)
    return run(x, running, weight, bias, residual, eps, kind)


def checked_activation(name: str | None) -> str | None:
    """Return the name of an activation as it is, or say which ones there are."""
    if name is not None and name not in ACTIVATIONS:
        raise ValueError(f"activation must be None or one of {ACTIVATIONS}: {name!r}")
    return name


def _check_residual(residual: object, x: Tensor) -> None:
    """Refuse what cannot be added before the running statistics have taken the batch.

    Raises:
        TypeError: If it is the name of an activation.
        ValueError: If shapes or devices do not fit; torch adds all else.
    """
    if isinstance(residual, str):
        raise TypeError(
            f"the residual is the text {residual!r}: an activation is passed by its name, "
            f"activation={residual!r}"
        )
    if not isinstance(residual, torch.Tensor):
        return
    if residual.device != x.device and residual.dim() > 0:
        raise ValueError(
            f"the residual is on {residual.device}, the input of the BatchNorm on {x.device}: "
            "move one of them"
        )
    if residual.shape != x.shape and not _broadcast(residual.shape, x.shape):
        raise ValueError(
            f"the residual cannot be added: its shape is {tuple(residual.shape)}, that of the "
            f"BatchNorm's input {tuple(x.shape)}; sizes must be the same, or one"
        )


def _broadcast(one: torch.Size, other: torch.Size) -> bool:
    """Return whether torch adds tensors of these shapes."""
    pairs = zip(reversed(one), reversed(other), strict=False)
    return all(left == right or 1 in (left, right) for left, right in pairs)


def _refuse_single_values(x: Tensor) -> None:
    if x.numel() == x.shape[1] != 0:
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {x.shape}"
        )


def can_fuse(x: Tensor) -> bool:
    """Return whether kernels take this tensor, where it is, as it is, and as it is used."""
    here = x.is_cuda or (INTERPRETED and x.is_cpu)
    kernels_do = here and HAS_TRITON and x.dtype in FUSED_DTYPES and x.numel() > 0
    return kernels_do and not autograd.is_transformed()


def fit(x: Tensor, *vectors: Tensor | None) -> bool:
    """Return whether kernels can take the vectors as they are."""
    channels, device = x.shape[1], x.get_device()
    for vector in vectors:
        if vector is not None and not (
            vector.numel() == channels
            and vector.get_device() == device
            and vector.is_contiguous()
        ):
            return False
    return True


def _refuse_other_channels(x: Tensor, **vectors: Tensor | None) -> None:
    """As torch does; a kernel would read, and write, what lies behind a vector."""
    channels, device = x.shape[1], x.get_device()
    for name, vector in vectors.items():
        if vector is None:
            continue
        if vector.numel() != channels:
            raise RuntimeError(
                f"{name} should contain {channels} elements not {vector.numel()}"
            )
        if vector.get_device() != device:
            raise RuntimeError(
                "Expected all tensors to be on the same device: "
                f"{name} is on {vector.device}, the input on {x.device}"
            )


def _dense(vector: Tensor | None) -> Tensor | None:
    """Return a vector whose values follow each other: kernels know no strides of vectors."""
    return vector if vector is None or vector.is_contiguous() else vector.contiguous()


def _write_back(running: Running, used: Running) -> None:
    """Update what is running from the copies that were used in its place."""
    for kept, copy in zip(running[:3], used[:3], strict=True):
        if kept is not None and copy is not None and kept is not copy:
            kept.detach().copy_(copy)


def _is_differentiated(x: Tensor, *others: Tensor | None) -> bool:
    """A gradient goes through, now, and nobody traces: exporters are to see BatchNorm."""
    wanted = (torch.is_tensor(t) and t.requires_grad for t in (x, *others))
    return torch.is_grad_enabled() and any(wanted) and not autograd.is_traced(x)


def is_alike(residual: Tensor | None, x: Tensor) -> bool:
    """Return whether a kernel can add it; torch adds numbers, too, and other shapes."""
    return residual is None or (
        torch.is_tensor(residual)
        and residual.shape == x.shape
        and residual.dtype == x.dtype
        and residual.get_device() == x.get_device()
    )


def _can_be_read(counter: Tensor) -> bool:
    """Reading it waits for no device, and stops no compiler."""
    plain_tensor = type(counter) is torch.Tensor and counter.device.type == "cpu"
    return plain_tensor and not torch.compiler.is_compiling()


def plain(
    x: Tensor,
    running: Running,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    eps: float,
    activation: Activation,
) -> Tensor:
    """Train with torch's own operators: what runs without kernels."""
    normalise = partial(
        nn.functional.batch_norm, x, weight=weight, bias=bias, training=True, eps=eps
    )
    momentum = running.momentum
    if running.counter is not None:
        running.counter.add_(1)
        if momentum is None and _can_be_read(running.counter):
            momentum = 1.0 / float(running.counter)  # as torch: the same bits
    if running.mean is None or running.var is None or momentum is not None:
        share = 0.0 if momentum is None else momentum
        y = normalise(running.mean, running.var, momentum=share)
    else:
        # With a momentum of one these become the batch's own, so the share can stay a tensor:
        # reading the counter would stop a compiler.
        mean, var = torch.zeros_like(running.mean), torch.zeros_like(running.var)
        y = normalise(mean, var, momentum=1.0)
        if running.counter is not None and x.numel() > 0:
            share_now = running.counter.to(running.mean.dtype).reciprocal()
            running.mean.copy_((1 - share_now) * running.mean + share_now * mean)
            running.var.copy_((1 - share_now) * running.var + share_now * var)
    y = y if residual is None else y + residual
    return activation(y) if autograd.is_traced(x) else activation.onto(y)


def plain_recomputed(
    x: Tensor,
    running: Running,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    eps: float,
    activation: Activation,
) -> Tensor:
    """As `plain`, but save x alone, and let the output be rebuilt."""
    turns = itertools.count()

    def normalise(x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor) -> Tensor:
        # A batch counts once: whoever computes it again updates copies.
        repeated = next(turns) > 0
        kept = running.copied() if repeated else running
        return plain(x, kept, weight, bias, residual, eps, activation)

    y: Tensor = checkpoint(normalise, x, weight, bias, residual, use_reentrant=False)
    build = partial(normalise, x.detach(), weight, bias, residual)  # type: ignore[arg-type]  # absent ones pass through
    memory.hold(x)
    memory.remember(y, build, x, residual, weight, bias)
    return y


def fused(
    x: Tensor,
    running: Running,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    eps: float,
    activation: Activation,
) -> Tensor:
    """Train with the kernels; x must be one that they can read."""
    y: Tensor
    used, (mean, var, counter, _) = running, running
    if not fit(x, mean, var, weight, bias):
        _refuse_other_channels(x, running_mean=mean, running_var=var, weight=weight, bias=bias)
        weight, bias = _dense(weight), _dense(bias)
        used = Running(_dense(mean), _dense(var), counter, running.momentum)
    if counter is not None and counter.get_device() != x.get_device():
        used = used._replace(counter=counter.to(x.device))
    traced = autograd.is_traced(x)
    x = laid_out(x) if traced else autograd.launcher().readable(x)
    inside = is_alike(residual, x)
    added, kind = (residual, activation) if inside else (None, Activation())
    if traced:
        y = fused_by_operators(x, used, weight, bias, added, eps, kind)
    else:
        y, mean, rstd = autograd.BatchNorm.apply(x, weight, bias, added, used, eps, kind)  # type: ignore[no-untyped-call]  # torch's
        if inside and memory.recomputing():
            remember(y, x, mean, rstd, weight, bias, residual, kind)
    if used is not running:
        _write_back(running, used)
    # A residual of another shape or type: torch's own addition promotes and broadcasts.
    return y if inside or residual is None else activation(y + residual)


def remember(
    y: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: Activation,
) -> None:
    """Let an output of the kernels be built again, from what its layer keeps."""
    launch = autograd.launcher()
    affine = launch.Affine(mean, rstd, weight, bias)
    build = partial(launch.normalise, x.detach(), affine, residual, activation, None)
    memory.remember(y, build, x, residual, weight, bias, mean, rstd)


def fused_by_operators(
    x: Tensor,
    running: Running,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    eps: float,
    activation: Activation,
) -> Tensor:
    """As `fused`, through operators that a compiler can see."""
    y: Tensor
    name, slope = activation.name or "", activation.negative_slope
    y, mean, _, var, _ = autograd.normalise(x, weight, bias, residual, eps, name, slope)
    if running.mean is not None and running.var is not None:
        autograd.update_running(
            running.mean, running.var, running.counter, mean, var, x.numel() // x.shape[1],
            running.momentum,
        )  # fmt: skip
    elif running.counter is not None:
        running.counter.add_(1)
    return y


def frozen(
    x: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    eps: float,
    activation: Activation,
) -> Tensor:
    """Normalise by known statistics, with the kernels, where a gradient goes through."""
    y: Tensor
    if not fit(x, running_mean, running_var, weight, bias):
        _refuse_other_channels(
            x, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias
        )
        weight, bias = _dense(weight), _dense(bias)
        running_mean, running_var = running_mean.contiguous(), running_var.contiguous()
    x = autograd.launcher().readable(x)
    inside = is_alike(residual, x)
    added, kind = (residual, activation) if inside else (None, Activation())
    y, rstd = autograd.FrozenBatchNorm.apply(
        x, running_mean, running_var, weight, bias, added, eps, kind
    )  # type: ignore[no-untyped-call]  # torch's
    if inside and memory.recomputing():
        remember(y, x, running_mean, rstd, weight, bias, residual, kind)
    return y if inside or residual is None else activation(y + residual)
