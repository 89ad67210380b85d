"""What torch sees: autograd functions, and the same as custom operators for its compilers.

Called from Python, a step is one `torch.autograd.Function`: the dispatcher of a custom
operator costs more than the kernels of a small tensor. Whatever traces instead of running (a
compiler, an exporter, fake tensors, other modes of dispatch) meets custom operators: a pure
one, its gradient, and one that mutates, because an operator that mutates its arguments cannot
have an autograd formula. Kernels, and triton with them, are imported on first use.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from bnfold.train.kernels import reference
from bnfold.train.kernels.layout import layout_of
from bnfold.train.kernels.reference import Activation, Running

if TYPE_CHECKING:
    from types import ModuleType


@functools.cache
def launcher() -> ModuleType:
    """Return the module that launches kernels; it imports triton."""
    from bnfold.train.kernels import launch

    return launch


def activation_of(name: str | None, negative_slope: float) -> Activation:
    """Return an activation by its name, where "" is none."""
    return Activation(name or None, negative_slope)


def is_traced(x: Tensor) -> bool:
    """Something other than autograd looks at what is done to x, or does it later."""
    return (
        torch.compiler.is_compiling()
        or type(x) not in (Tensor, torch.nn.Parameter)
        or torch._C._len_torch_dispatch_stack() > 0  # noqa: SLF001  # torch has no public name for it
        or torch._C._is_tracing()  # noqa: SLF001  # torch.jit.is_tracing, without its cost
    )


def is_transformed() -> bool:
    """A transform of torch.func, or forward-mode differentiation, is at work.

    Custom operators have no rule for these: torch.func.jvp would take their tangent for zero.
    """
    if torch.compiler.is_compiling():
        return False
    transforms: Any = torch._C._functorch.peek_interpreter_stack()  # noqa: SLF001  # no public name
    return transforms is not None or forward_ad._current_level >= 0  # noqa: SLF001  # nor here


class Saved(NamedTuple):
    """What the forward keeps, besides tensors, for a gradient."""

    activation: Activation
    eps: float
    has_residual: bool

    @property
    def stores_inner(self) -> bool:
        """The residual's gradient is not simply that of the output."""
        return self.has_residual and self.activation.name is not None


def kept_residual(residual: Tensor | None, activation: Activation) -> Tensor | None:
    """Return the residual where the backward must see it: where a bit does not decide."""
    return residual if activation.name is not None and not activation.has_two_slopes else None


class BatchNorm(torch.autograd.Function):
    """activation(bn(x) + residual) by the statistics of the batch.

    Returns y, and mean and 1 / √(var + eps) in float32, which have no gradient. Updates what
    is running on the way.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        residual: Tensor | None,
        running: Running,
        eps: float,
        activation: Activation,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Normalise, and keep what the backward needs."""
        done = launcher().forward(x, weight, bias, residual, eps, activation, running)
        torch.autograd.graph.increment_version([b for b in running[:3] if b is not None])
        kept = kept_residual(residual, activation)
        ctx.save_for_backward(x, done.mean, done.rstd, weight, bias, kept, done.bits)
        ctx.mark_non_differentiable(done.mean, done.rstd)
        ctx.set_materialize_grads(False)  # torch takes it by position
        ctx.saved = Saved(activation, eps, residual is not None)
        return done.y, done.mean, done.rstd

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *_others: Tensor) -> tuple[Any, ...]:
        """Return the gradients of x, weight, bias and residual."""
        if dy is None:
            return (None,) * 7
        x, mean, rstd, weight, bias, kept, bits = ctx.saved_tensors
        saved: Saved = ctx.saved
        if torch.is_grad_enabled():  # the gradient itself will be differentiated
            grads = reference.backward(
                dy, x, weight, bias, kept, bits, saved.eps, saved.activation
            )
        else:
            launch = launcher()
            grads = launch.backward(
                dy, x, launch.Affine(mean, rstd, weight, bias), kept, bits, saved.activation,
                stores_inner=saved.stores_inner,
            )  # fmt: skip
        return (*of_inputs(grads, dy, weight, bias, saved), None, None, None)


class FrozenBatchNorm(torch.autograd.Function):
    """activation(bn(x) + residual) by known statistics.

    Returns y, and 1 / √(var + eps) in float32, which has no gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        mean: Tensor,
        var: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        residual: Tensor | None,
        eps: float,
        activation: Activation,
    ) -> tuple[Tensor, Tensor]:
        """Normalise, and keep what the backward needs."""
        done = launcher().forward_known(x, mean, var, weight, bias, residual, eps, activation)
        kept = kept_residual(residual, activation)
        ctx.save_for_backward(x, mean, done.rstd, weight, bias, kept, done.bits)
        ctx.mark_non_differentiable(done.rstd)
        ctx.set_materialize_grads(False)  # torch takes it by position
        ctx.saved = Saved(activation, eps, residual is not None)
        return done.y, done.rstd

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *_others: Tensor) -> tuple[Any, ...]:
        """Return the gradients of x, weight, bias and residual."""
        if dy is None:
            return (None,) * 8
        x, mean, rstd, weight, bias, kept, bits = ctx.saved_tensors
        saved: Saved = ctx.saved
        if torch.is_grad_enabled():  # the gradient itself will be differentiated
            grads = reference.backward(
                dy, x, weight, bias, kept, bits, saved.eps, saved.activation, (mean, rstd)
            )
        else:
            launch = launcher()
            grads = launch.backward_known(
                dy, x, launch.Affine(mean, rstd, weight, bias), kept, bits, saved.activation,
                stores_inner=saved.stores_inner,
                of_affine=ctx.needs_input_grad[3] or ctx.needs_input_grad[4],
            )  # fmt: skip
        dx, dweight, dbias, dresidual = of_inputs(grads, dy, weight, bias, saved)
        return dx, None, None, dweight, dbias, dresidual, None, None


def of_inputs(
    grads: tuple[Tensor | None, ...],
    dy: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    saved: Saved,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of x, weight, bias and residual, each in its own type."""
    dx, dweight, dbias, inner = grads
    return (
        dx,
        None if weight is None or dweight is None else dweight.to(weight.dtype),
        None if bias is None or dbias is None else dbias.to(bias.dtype),
        (dy if inner is None else inner) if saved.has_residual else None,
    )


@torch.library.custom_op("bnfold::batch_norm", mutates_args=())
def normalise(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    eps: float,
    activation: str,
    negative_slope: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """activation(bn(x) + residual), mean, 1 / √(var + eps), var, packed signs."""
    kind = activation_of(activation, negative_slope)
    done = launcher().forward(x, weight, bias, residual, eps, kind, keeps_var=True)
    bits = x.new_empty(0, dtype=torch.uint8) if done.bits is None else done.bits
    return done.y, done.mean, done.rstd, done.var, bits


@normalise.register_fake
def _(
    x: Tensor,
    weight: Tensor | None,  # noqa: ARG001  # the schema's
    bias: Tensor | None,  # noqa: ARG001  # the schema's
    residual: Tensor | None,
    eps: float,  # noqa: ARG001  # the schema's
    activation: str,
    negative_slope: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    kind = activation_of(activation, negative_slope)
    mean, rstd, var = (x.new_empty(x.shape[1], dtype=torch.float32) for _ in range(3))
    layout = layout_of(x)
    keeps = residual is not None and kind.has_two_slopes and layout is not None
    size = layout.mask_bytes if keeps and layout is not None else 0
    return torch.empty_like(x), mean, rstd, var, x.new_empty(size, dtype=torch.uint8)


@torch.library.custom_op("bnfold::batch_norm_backward", mutates_args=())
def differentiate(
    dy: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    bits: Tensor | None,
    activation: str,
    negative_slope: float,
    stores_inner: bool,  # noqa: FBT001  # operators take arguments by position
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, weight and bias, and dy · activation′ (empty unless stored)."""
    launch = launcher()
    affine = launch.Affine(mean, rstd, weight, bias)
    kind = activation_of(activation, negative_slope)
    dx, dweight, dbias, inner = launch.backward(
        dy, x, affine, residual, bits, kind, stores_inner=stores_inner
    )
    return dx, dweight, dbias, x.new_empty(0) if inner is None else inner


@differentiate.register_fake
def _(
    dy: Tensor,  # noqa: ARG001  # the schema's
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,  # noqa: ARG001  # the schema's
    bias: Tensor | None,  # noqa: ARG001  # the schema's
    residual: Tensor | None,  # noqa: ARG001  # the schema's
    bits: Tensor | None,  # noqa: ARG001  # the schema's
    activation: str,  # noqa: ARG001  # the schema's
    negative_slope: float,  # noqa: ARG001  # the schema's
    stores_inner: bool,  # noqa: FBT001  # operators take arguments by position
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    inner = torch.empty_like(x) if stores_inner else x.new_empty(0)
    return torch.empty_like(x), torch.empty_like(mean), torch.empty_like(rstd), inner


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, bias, residual, eps, activation, negative_slope = inputs
    _, mean, rstd, var, bits = output
    ctx.mark_non_differentiable(mean, rstd, var, bits)
    ctx.set_materialize_grads(False)  # torch takes it by position
    kind = activation_of(activation, negative_slope)
    has_bits = residual is not None and kind.has_two_slopes
    kept = kept_residual(residual, kind)
    ctx.save_for_backward(x, mean, rstd, weight, bias, kept, bits if has_bits else None)
    ctx.saved = Saved(kind, eps, residual is not None)


def _differentiate(ctx: Any, dy: Tensor | None, *_others: Tensor) -> tuple[Any, ...]:
    if dy is None:
        return (None,) * 7
    x, mean, rstd, weight, bias, kept, bits = ctx.saved_tensors
    saved: Saved = ctx.saved
    kind = saved.activation
    grads: tuple[Tensor | None, ...]
    if torch.is_grad_enabled():  # the gradient itself will be differentiated
        grads = reference.backward(dy, x, weight, bias, kept, bits, saved.eps, kind)
    else:
        grads = differentiate(
            dy, x, mean, rstd, weight, bias, kept, bits, kind.name or "", kind.negative_slope,
            saved.stores_inner,
        )  # fmt: skip
        grads = (*grads[:3], grads[3] if saved.stores_inner else None)
    return (*of_inputs(grads, dy, weight, bias, saved), None, None, None)


normalise.register_autograd(_differentiate, setup_context=_keep)


@torch.library.custom_op(
    "bnfold::update_running_statistics",
    mutates_args=("running_mean", "running_var", "num_batches_tracked"),
)
def update_running(
    running_mean: Tensor,
    running_var: Tensor,
    num_batches_tracked: Tensor | None,
    mean: Tensor,
    var: Tensor,
    count: int,
    momentum: float | None,
) -> None:
    """Blend mean and variance of a batch of `count` values into the running statistics."""
    running = Running(running_mean, running_var, num_batches_tracked, momentum)
    launcher().update_running(running, mean, var, count)


@update_running.register_fake
def _(*_arguments: Any) -> None:
    return None
