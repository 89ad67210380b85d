"""Make a user's own subclass of BatchNorm ours, where it computes what torch's does.

Many only set other defaults. timm's BatchNormAct2d also calls a dropout and an activation
that it holds: those become part of the BatchNorm when they can.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from torch import nn

from bnfold.train import modules
from bnfold.train.kernels.reference import Activation
from bnfold.train.patterns import activation_of_module, has_hooks
from bnfold.train.rewriting import can_be_derived, finish, subclass

if TYPE_CHECKING:
    from torch import Tensor

OURS: Final[dict[type[nn.Module], type[nn.Module]]] = {
    nn.BatchNorm1d: modules.BatchNorm1d,
    nn.BatchNorm2d: modules.BatchNorm2d,
    nn.BatchNorm3d: modules.BatchNorm3d,
}
TORCHS: Final = {ours: torchs for torchs, ours in OURS.items()}
ACTING: Final = ("timm.layers.norm_act", "BatchNormAct2d")

_classes: dict[type[nn.Module], type[nn.Module]] = {}


def our_class(kind: type[nn.Module]) -> type[nn.Module] | None:
    """Return our class that computes what a class of BatchNorm computes, or None."""
    if kind in OURS:
        return OURS[kind]
    if not issubclass(kind, tuple(OURS)) or issubclass(kind, modules.FusedBatchNorm):
        return None
    acts = (kind.__module__, kind.__name__) == ACTING
    plain = kind.forward is nn.BatchNorm2d.forward and kind.__call__ is nn.Module.__call__
    if not (plain or acts) or not can_be_derived(kind):
        return None
    return derived(kind)


def derived(kind: type[nn.Module]) -> type[nn.Module]:
    """Return a class between ours and a user's; the same class each time."""
    if kind not in _classes:
        content: dict[str, Any] = {"__reduce_ex__": reduce_derived}
        if (kind.__module__, kind.__name__) == ACTING:
            content["forward"] = act
        ours = next(OURS[base] for base in kind.__mro__ if base in OURS)
        _classes[kind] = subclass(kind, content, ours)
    return _classes[kind]


def act(
    self: Any,
    x: Tensor,  # timm's name
    residual: Tensor | None = None,
    activation: str | None = None,
    negative_slope: float = 0.01,
) -> Tensor:
    """As BatchNormAct2d, its own activation in the same pass where that can be."""
    if modules.is_stand_in(x):
        return modules.as_leaf(self, x, residual, activation, negative_slope)
    forward = modules.FusedBatchNorm.forward
    own = own_activation(self)
    if own is None:
        y = self.act(self.drop(forward(self, x)))
    elif own.name is None:
        return forward(self, x, residual, activation, negative_slope)
    else:
        y = forward(self, x, None, own.name, own.negative_slope)
    return finish(y, residual, activation, negative_slope)


def own_activation(bn: nn.Module) -> Activation | None:
    """Return what a BatchNormAct2d does at its end, or None if it cannot be fused."""
    drop: Any = bn.drop
    following: Any = bn.act
    if type(drop) is not nn.Identity or has_hooks(drop) or has_hooks(following):
        return None
    return Activation() if type(following) is nn.Identity else activation_of_module(following)


def takes_more(bn: nn.Module) -> bool:
    """Nothing follows the normalisation inside of a converted BatchNorm itself."""
    if type(bn).forward is not act:
        return True
    own = own_activation(bn)
    return own is not None and own.name is None


def reduce_derived(module: nn.Module, protocol: Any) -> Any:
    """Pickle a module by the user's class: ours has no address."""
    described: Any = object.__reduce_ex__(module, protocol)
    cls: Any = type(module)
    return (new_derived, (cls.fused_from,), *described[2:])


def new_derived(kind: type[nn.Module]) -> nn.Module:
    """Return an empty module: unpickling fills it."""
    cls = derived(kind)
    return cls.__new__(cls)
