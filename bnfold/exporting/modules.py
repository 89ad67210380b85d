"""Copies of a torch module to export and to run, so that the user's own is never touched.

A copy has modules of its own and tensors that share the memory of the user's, buffers apart:
evaluation may write to those.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from bnfold.errors import ModelError, UsageError

_MOST_NAMED: Final = 5
_DIFFERENT: Final = (
    _BatchNorm,
    nn.modules.dropout._DropoutNd,  # noqa: SLF001  torch has no public name for it
    nn.modules.instancenorm._InstanceNorm,  # noqa: SLF001  torch has no public name for it
    nn.RReLU,
    nn.RNNBase,
    nn.MultiheadAttention,
)
"""Modules of torch that compute something else in train mode."""


class _PlainBatchNorm(_BatchNorm):
    """A BatchNorm of any rank: what a SyncBatchNorm is where nothing is synchronised."""

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002  torch's name
        """Take inputs of every rank, as SyncBatchNorm does."""


def module_in(model: object) -> nn.Module:
    """Return the module that was given, or the one that a wrapper of torch holds.

    Raises:
        UsageError: If it is no module.
    """
    inner = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    if isinstance(inner, wrappers):
        inner = inner.module
    if not isinstance(inner, nn.Module):
        raise UsageError(
            f"cannot export a {type(model).__name__}",
            why="export takes a torch.nn.Module",
            remedy="give the module itself, not its class, a function or a state dict",
        )
    return inner


def check_eval_mode(model: nn.Module) -> None:
    """Refuse a model of which any part that can tell is in train mode, and name the parts.

    Modules of torch that compute the same in both modes are passed over: quantisation leaves
    them in train mode.

    Raises:
        ModelError: If one is.
    """
    training = [
        (name, one)
        for name, one in model.named_modules()
        if one.training and (one is model or _can_tell(one))
    ]
    if not training:
        return
    training.sort(key=lambda pair: not isinstance(pair[1], _DIFFERENT))
    named = [f"{name or 'the model itself'} ({_kind(one)})" for name, one in training]
    more = len(named) - _MOST_NAMED
    where = ", ".join(named[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
    raise ModelError(
        "the model is in train mode",
        where=where,
        why="there BatchNorm normalises by the batch and Dropout drops: another function than"
        " the one that was trained for",
        remedy="call model.eval() before, or pass eval_mode=True (--eval)",
    )


def _can_tell(module: nn.Module) -> bool:
    return isinstance(module, _DIFFERENT) or not type(module).__module__.startswith("torch.")


def about_statistics(model: nn.Module) -> tuple[str, ...]:
    """Return a warning if normalisations use the batch's statistics even in eval mode."""
    named = [
        f"{name or 'the model itself'} ({_kind(one)})"
        for name, one in model.named_modules()
        if isinstance(one, _BatchNorm) and one.running_mean is None
    ]
    if not named:
        return ()
    more = len(named) - _MOST_NAMED
    which = ", ".join(named[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
    return (
        f"{which}: no running statistics (track_running_stats=False), so it normalises by the"
        " batch in eval mode too, and cannot be folded; train with running statistics",
    )


def _kind(module: nn.Module) -> str:
    return type(module).__name__


def to_export(model: nn.Module) -> nn.Module:
    """Return a copy in eval mode, in terms that exporters write as plain operators.

    Computed weights (weight norm and other parametrisations) are tensors in it, and every
    SyncBatchNorm is a plain BatchNorm.
    """
    made = copied(model, _alias)
    made.eval()
    for module in list(made.modules()):
        _with_plain_weights(module)
        _with_storable_epsilon(module)
        if type(module) is nn.SyncBatchNorm:
            module.__class__ = _PlainBatchNorm  # type: ignore[assignment]  # same attributes
    return made


def as_it_is(model: nn.Module) -> nn.Module:
    """Return a copy in eval mode, to run."""
    return copied(model, _alias).eval()


def _with_plain_weights(module: nn.Module) -> None:
    """Put the value of every computed weight in the place of its formula."""
    if parametrize.is_parametrized(module):
        _without_formulas(module)
    hooks = module._forward_pre_hooks  # noqa: SLF001  where the older weight norms live
    for key, hook in list(hooks.items()):
        if type(hook).__module__ in _OLD_NORMS:
            hook.remove(module)  # type: ignore[attr-defined]  # both classes have it
            del hooks[key]


def _without_formulas(module: nn.Module) -> None:
    """Undo parametrisations, keeping what they give.

    `remove_parametrizations` would take the property off the class, which the user's module
    shares.
    """
    names = list(cast("nn.ModuleDict", module.parametrizations))
    values = {name: getattr(module, name).detach().clone() for name in names}
    module.__class__ = type(module).__bases__[0]
    del module.parametrizations
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value, requires_grad=False))


def _with_storable_epsilon(module: nn.Module) -> None:
    """Let the variance of a float64 BatchNorm take what ONNX drops of its epsilon.

    An attribute of ONNX is a float32: 1e-5 is off by 2.5e-13 there.
    """
    if not isinstance(module, _BatchNorm) or module.running_var is None:
        return
    if module.running_var.dtype is torch.float64:
        stored = float(torch.tensor(module.eps, dtype=torch.float32))
        module.running_var += module.eps - stored  # a copy's own: buffers are not shared
        module.eps = stored


_OLD_NORMS: Final = ("torch.nn.utils.weight_norm", "torch.nn.utils.spectral_norm")


def _alias(tensor: Tensor) -> Tensor:
    return tensor.detach()


def copied(model: nn.Module, tensor: Callable[[Tensor], Tensor]) -> nn.Module:
    """Return a copy of a module in which every tensor is what a function makes of it.

    Raises:
        ModelError: If the module cannot be copied.
    """
    try:
        memo: dict[int, Any] = {}
        for found in _tensors(model):
            memo[id(found)] = _like(found, tensor(found))
        for module in model.modules():
            group = getattr(module, "process_group", None)
            if group is not None:
                memo[id(group)] = group
        made = copy.deepcopy(model, memo)
    except Exception as error:
        raise ModelError(
            "the model cannot be copied, and the original must not be touched",
            where=type(model).__name__,
            why=f"{type(error).__name__}: {error}".splitlines()[0],
            remedy="run a lazy module once; take out what copy.deepcopy does not copy",
        ) from error
    for module in made.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.clone())
    return made


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    """Yield parameters, buffers, and tensors that are plain attributes."""
    for module in model.modules():
        yield from module.parameters(recurse=False)
        yield from module.buffers(recurse=False)
        yield from (one for one in vars(module).values() if isinstance(one, Tensor))


def _like(old: Tensor, new: Tensor) -> Tensor:
    if not isinstance(old, nn.Parameter):
        return new
    return nn.Parameter(new, requires_grad=False)


def call(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
    """Run a module without recording gradients."""
    with torch.no_grad():
        return model(*args, **kwargs)
