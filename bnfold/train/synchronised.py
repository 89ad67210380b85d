"""BatchNorm over the batches of all ranks together, with residual and activation.

    n_r, mean_r, M2_r   of the batch on rank r, M2 being the sum of squared deviations
    n    = Σ n_r        mean = Σ n_r · mean_r / n
    M2   = Σ (M2_r + n_r · (mean_r − mean)²)                     (Chan's formula)

Ranks may have batches of any size, none too. Forward gathers one vector, backward adds one up;
the host waits for neither. Both are torch's collectives, on any backend: gloo on a CPU, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import batch_norm

from bnfold.train import autograd, functional, memory
from bnfold.train.kernels.reference import Activation, per_channel, widened
from bnfold.train.modules import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    FusedBatchNorm,
    as_leaf,
    is_stand_in,
)

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

Model = TypeVar("Model", bound=nn.Module)


class SyncBatchNorm(FusedBatchNorm):
    """As torch's SyncBatchNorm, then + residual, then activation; on a CPU, too.

    Where nothing is distributed, or one rank is alone, it is a BatchNorm like the others; in
    evaluation it always is. It is no subclass of torch's: DistributedDataParallel refuses
    those on a CPU.

    Args:
        *args: As of torch's BatchNorm.
        process_group: Who shares a batch; None is everybody.
        **kwargs: As of our BatchNorm: activation, negative_slope, frozen, ….
    """

    process_group: ProcessGroup | None = None

    def __init__(
        self, *args: Any, process_group: ProcessGroup | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.process_group = process_group

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002  # torch's name
        if input.dim() < 2:
            raise ValueError(f"expected at least 2D input (got {input.dim()}D input)")

    @classmethod
    def convert_sync_batchnorm(
        cls, module: Model, process_group: ProcessGroup | None = None
    ) -> Model:
        """As `bnfold.train.convert_sync_batchnorm`, under the name that torch has for it."""
        return convert_sync_batchnorm(module, process_group)

    def forward(
        self,
        input: Tensor,  # noqa: A002  # torch's name: some call it by that
        residual: Tensor | None = None,
        activation: str | None = None,
        negative_slope: float = 0.01,
    ) -> Tensor:
        """Return activation(bn(input) + residual), the statistics being of all ranks."""
        if is_stand_in(input):
            return as_leaf(self, input, residual, activation, negative_slope)
        frozen = self.frozen and self.running_mean is not None
        if not self.training or frozen or not is_shared(self.process_group):
            return super().forward(input, residual, activation, negative_slope)
        self._check_input_dim(input)
        if activation is None:
            activation, negative_slope = self.activation, self.negative_slope
        kind = Activation(activation, negative_slope)
        by_kernels = (
            functional.can_fuse(input)
            and functional.fit(input, self.weight, self.bias)
            and functional.is_alike(residual, input)
            and not autograd.is_traced(input)
        )
        run = self.by_kernels if by_kernels else self.by_torch
        y, mean, var, count = run(input, residual, kind)
        if self.track_running_stats and self.running_mean is not None:
            self.update(mean, var, count)
        return y

    def by_torch(
        self, x: Tensor, residual: Tensor | None, kind: Activation
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return output, mean, biased variance and count, by torch's operators."""
        y, mean, var, count = Synchronised.apply(  # type: ignore[no-untyped-call]  # torch's
            x, self.weight, self.bias, self.eps, self.process_group
        )
        return kind(y if residual is None else y + residual), mean, var, count

    def by_kernels(
        self, x: Tensor, residual: Tensor | None, kind: Activation
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As `by_torch`, in the passes over memory of a layer that shares nothing."""
        x = autograd.launcher().readable(x)
        y, mean, rstd, var, count = SynchronisedByKernels.apply(  # type: ignore[no-untyped-call]  # torch's
            x, self.weight, self.bias, residual, self.eps, kind, self.process_group
        )
        if memory.recomputing():
            functional.remember(y, x, mean, rstd, self.weight, self.bias, residual, kind)
        return y, mean, var, count

    @torch.no_grad()
    def update(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        """Blend the statistics of all ranks into the running ones."""
        counter: Any = self.num_batches_tracked
        counter.add_(1)
        share = self.momentum if self.momentum is not None else 1 / counter.to(mean.dtype)
        unbiased = var * count / (count - 1).clamp_min(1)
        for running, new in ((self.running_mean, mean), (self.running_var, unbiased)):
            if running is not None:
                now = running + share * (new - running)
                running.copy_(torch.where(count > 0, now, running))


def is_shared(group: ProcessGroup | None) -> bool:
    """There are other ranks to share a batch with."""
    ready = distributed.is_available() and distributed.is_initialized()
    return ready and distributed.get_world_size(group) > 1


class Synchronised(torch.autograd.Function):
    """Normalise by the statistics of all ranks; those have no gradient of their own."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        group: ProcessGroup | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the output, mean, biased variance, and how many values a channel has."""
        mean, var, count = merged(gathered(local_moments(x), group), x.shape[1])
        scale, shift = (None if v is None else v.to(mean.dtype) for v in (weight, bias))
        some = x.numel() > 0
        y = batch_norm(x, mean, var, scale, shift, eps=eps) if some else x.clone()
        ctx.save_for_backward(x, weight, mean, (var + eps).rsqrt(), count)
        ctx.group, ctx.types = group, [None if v is None else v.dtype for v in (weight, bias)]
        ctx.mark_non_differentiable(mean, var, count)
        return y, mean, var, count

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]  # torch's
    def backward(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients; those of weight and bias are of this rank's batch."""
        x, weight, mean, rstd, count = ctx.saved_tensors
        axes = [axis for axis in range(x.dim()) if axis != 1]
        wide = widened(dy)
        normal = (widened(x) - per_channel(mean, x)) * per_channel(rstd, x)
        sums = torch.stack([wide.sum(axes), (wide * normal).sum(axes)])
        dbias, dweight = sums.clone()
        dx = None
        if ctx.needs_input_grad[0]:
            distributed.all_reduce(sums, group=ctx.group)
            even, along = sums / count.clamp_min(1)
            gain = rstd if weight is None else rstd * weight.to(rstd.dtype)
            centred = wide - per_channel(even, x) - normal * per_channel(along, x)
            dx = (centred * per_channel(gain, x)).to(x.dtype)
        kinds: list[torch.dtype | None] = ctx.types
        return (
            dx,
            None if kinds[0] is None else dweight.to(kinds[0]),
            None if kinds[1] is None else dbias.to(kinds[1]),
            None,
            None,
        )


class SynchronisedByKernels(torch.autograd.Function):
    """activation(bn(x) + residual) by the statistics of all ranks, by the kernels.

    A rank without values takes part by `Synchronised`: both gather and add up the same.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        residual: Tensor | None,
        eps: float,
        activation: Activation,
        group: ProcessGroup | None,
    ) -> tuple[Tensor, ...]:
        """Return output, mean, 1 / √(var + eps), biased variance and count."""
        launch = autograd.launcher()
        mean, var = launch.moments(x)
        own = x.numel() // x.shape[1]
        vector = torch.cat([mean, var * own, mean.new_full((1,), own)])
        mean, var, count = merged(gathered(vector, group), x.shape[1])
        done = launch.forward_known(x, mean, var, weight, bias, residual, eps, activation)
        kept = autograd.kept_residual(residual, activation)
        ctx.save_for_backward(x, mean, done.rstd, weight, bias, kept, done.bits, own / count)
        ctx.saved = autograd.Saved(activation, eps, residual is not None)
        ctx.group = group
        ctx.mark_non_differentiable(mean, done.rstd, var, count)
        return done.y, mean, done.rstd, var, count

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]  # torch's
    def backward(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients; those of weight and bias are of this rank's batch."""
        launch = autograd.launcher()
        x, mean, rstd, weight, bias, kept, bits, share = ctx.saved_tensors
        saved: autograd.Saved = ctx.saved
        affine = launch.Affine(mean, rstd, weight, bias)
        sums = launch.local_sums(
            dy, x, affine, kept, bits, saved.activation, stores_inner=saved.stores_inner
        )
        dx = None
        if ctx.needs_input_grad[0]:
            everyone = torch.stack([sums.bias, sums.weight])
            distributed.all_reduce(everyone, group=ctx.group)
            of_all = sums._replace(bias=everyone[0], weight=everyone[1])
            dx = launch.shared_gradient(of_all, x, affine, saved.activation, share)
        grads = autograd.of_inputs(sums._replace(x=dx), dy, weight, bias, saved)
        return (*grads, None, None, None)


def local_moments(x: Tensor) -> Tensor:
    """Return [mean, sum of squared deviations, count] of this rank's batch as one vector."""
    wide, axes = widened(x), [axis for axis in range(x.dim()) if axis != 1]
    count = x.numel() // max(x.shape[1], 1)
    if count:
        var, mean = torch.var_mean(wide, axes, correction=0)
    else:  # of nothing, torch's mean is no number
        var = mean = wide.new_zeros(x.shape[1])
    return torch.cat([mean, var * count, wide.new_full((1,), count)])


def gathered(vector: Tensor, group: ProcessGroup | None) -> Tensor:
    """Return the vectors of all ranks, one in each row."""
    rows = [torch.empty_like(vector) for _ in range(distributed.get_world_size(group))]
    distributed.all_gather(rows, vector, group=group)
    return torch.stack(rows)


def merged(rows: Tensor, channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, biased variance and count of all batches together."""
    means, squares, counts = torch.split(rows, [channels, channels, 1], dim=1)
    count = counts.sum()
    some = count.clamp_min(1)
    mean = (means * (counts / some)).sum(0)
    square = (squares + counts * (means - mean).square()).sum(0)
    return mean, square / some, count


ALONE = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
OURS = (BatchNorm1d, BatchNorm2d, BatchNorm3d)


def convert_sync_batchnorm(model: Model, process_group: ProcessGroup | None = None) -> Model:
    """Make every BatchNorm of the model a `SyncBatchNorm`, in place, and return the model.

    Torch's function of this name makes torch's modules, which know no activation and no
    residual: it drops ours. Subclasses of your own are left as they are.
    """
    for module in model.modules():
        if type(module) in (*ALONE, *OURS):
            module.__class__ = SyncBatchNorm
            module.process_group = process_group  # type: ignore[assignment]  # nn.Module's stub knows tensors and modules only
    return model
