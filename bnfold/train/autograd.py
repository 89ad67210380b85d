"""The custom operators that torch sees: a pure one, its gradient, and one that mutates.

An operator that mutates its arguments cannot have an autograd formula, so the running
statistics are updated by an operator of their own. Kernels, and triton with them, are imported
on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bnfold.train.kernels import reference
from bnfold.train.kernels.layout import layout_of
from bnfold.train.kernels.reference import Activation

if TYPE_CHECKING:
    from types import ModuleType

NAMES = ("", *reference.ACTIVATIONS)


def launcher() -> ModuleType:
    """Return the module that launches kernels; it imports triton."""
    from bnfold.train.kernels import launch

    return launch


def activation_of(name: str, negative_slope: float) -> Activation:
    """Return the activation of an operator's arguments, where "" is none."""
    return Activation(name or None, negative_slope)


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
    return launcher().forward(x, weight, bias, residual, eps, kind)  # type: ignore[no-any-return]  # a module's attribute


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
    keeps = residual is not None and kind.sign_decides and layout is not None
    size = layout.mask_bytes if keeps and layout is not None else 0
    return torch.empty_like(x), mean, rstd, var, x.new_empty(size, dtype=torch.uint8)


@torch.library.custom_op("bnfold::batch_norm_again", mutates_args=())
def normalise_again(
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    negative_slope: float,
) -> Tensor:
    """The output of `normalise`, bit for bit, from the statistics that it returned."""
    launch = launcher()
    affine = launch.Affine(mean, rstd, weight, bias)
    kind = activation_of(activation, negative_slope)
    return launch.normalise(x, affine, residual, kind, None)  # type: ignore[no-any-return]  # a module's attribute


@normalise_again.register_fake
def _(x: Tensor, *_others: Any) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("bnfold::batch_norm_backward", mutates_args=())
def differentiate(
    dy: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    bits: Tensor,
    activation: str,
    negative_slope: float,
    store_inner: bool,  # noqa: FBT001  # operators take arguments by position
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, weight and bias, and dy · activation′ (empty unless stored)."""
    launch = launcher()
    affine = launch.Affine(mean, rstd, weight, bias)
    kind = activation_of(activation, negative_slope)
    return launch.backward(dy, x, affine, residual, bits, kind, store_inner=store_inner)  # type: ignore[no-any-return]  # a module's attribute


@differentiate.register_fake
def _(
    dy: Tensor,  # noqa: ARG001  # the schema's
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,  # noqa: ARG001  # the schema's
    bias: Tensor | None,  # noqa: ARG001  # the schema's
    residual: Tensor | None,  # noqa: ARG001  # the schema's
    bits: Tensor,  # noqa: ARG001  # the schema's
    activation: str,  # noqa: ARG001  # the schema's
    negative_slope: float,  # noqa: ARG001  # the schema's
    store_inner: bool,  # noqa: FBT001  # operators take arguments by position
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    inner = torch.empty_like(x) if store_inner else x.new_empty(0)
    return torch.empty_like(x), torch.empty_like(mean), torch.empty_like(rstd), inner


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, bias, residual, eps, activation, negative_slope = inputs
    _, mean, rstd, var, bits = output
    ctx.mark_non_differentiable(mean, rstd, var, bits)
    ctx.set_materialize_grads(False)  # torch takes it by position
    kind = activation_of(activation, negative_slope)
    kept = residual if kind.name is not None and not kind.sign_decides else None
    ctx.save_for_backward(x, mean, rstd, weight, bias, kept, bits)
    ctx.eps, ctx.activation, ctx.has_residual = eps, kind, residual is not None


def _differentiate(ctx: Any, dy: Tensor | None, *_others: Tensor) -> tuple[Any, ...]:
    if dy is None:
        return (None,) * 7
    x, mean, rstd, weight, bias, kept, bits = ctx.saved_tensors
    kind: Activation = ctx.activation
    if torch.is_grad_enabled():  # the gradient itself will be differentiated
        signs = bits if bits.numel() else None
        grads = reference.backward(dy, x, weight, bias, kept, signs, ctx.eps, kind)
    else:
        store = ctx.has_residual and kind.name is not None
        slope = kind.negative_slope
        name = kind.name or ""
        grads = differentiate(dy, x, mean, rstd, weight, bias, kept, bits, name, slope, store)
        grads = (*grads[:3], grads[3] if store else dy)
    dx, dweight, dbias, dresidual = grads
    return (
        dx,
        None if weight is None else dweight.to(weight.dtype),
        None if bias is None else dbias.to(bias.dtype),
        dresidual if ctx.has_residual else None,
        None,
        None,
        None,
    )


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
    launcher().update_running(
        running_mean, running_var, num_batches_tracked, mean, var, count, momentum
    )


@update_running.register_fake
def _(*_arguments: Any) -> None:
    return None
