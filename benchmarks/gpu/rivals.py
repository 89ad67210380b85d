"""Who computes a BatchNorm with what follows it: torch, its compiler, others, and ours."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn

from benchmarks.gpu.training_plan import Layer
from bnfold import train

_SEED: Final = 20261125


class AbsentError(Exception):
    """A rival is not to be had here, or does not compute this case."""


class Eager(nn.Module):
    """torch's BatchNorm, addition and ReLU in place, as torchvision's ResNet has them."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(layer.channels)
        self.activation = layer.activation

    def forward(self, x: Tensor, residual: Tensor | None) -> Tensor:
        """Return activation(bn(x) + residual)."""
        y = self.bn(x)
        if residual is not None:
            y += residual
        return y if self.activation is None else nn.functional.relu(y, inplace=True)


class Apex(nn.Module):
    """apex.contrib.groupbn: float16, and the channels last in the shape as well."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        if layer.dtype != "float16" or not layer.channels_last:
            raise AbsentError("it computes float16 with the channels last only")
        found = _imported("apex.contrib.groupbn.batch_norm")
        self.bn = found.BatchNorm2d_NHWC(layer.channels, fuse_relu=layer.activation == "relu")

    def forward(self, x: Tensor, residual: Tensor | None) -> Tensor:
        """Return activation(bn(x) + residual)."""
        other = None if residual is None else residual.permute(0, 2, 3, 1)
        y: Tensor = self.bn(x.permute(0, 2, 3, 1), other)
        return y.permute(0, 3, 1, 2)


class InPlace(nn.Module):
    """InPlaceABN, which overwrites its input; it has a leaky ReLU where others have ReLU."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        if "add" in layer.kind:
            raise AbsentError("it has no residual")
        found = _imported("inplace_abn")
        activation = "identity" if layer.activation is None else "leaky_relu"
        self.bn = found.InPlaceABN(layer.channels, activation=activation)

    def forward(self, x: Tensor, residual: Tensor | None) -> Tensor:  # noqa: ARG002  # as all
        """Return leaky_relu(bn(x)), where x was."""
        y: Tensor = self.bn(x)
        return y


def ours(layer: Layer) -> nn.Module:
    """Return ours."""
    return train.BatchNorm2d(layer.channels, activation=layer.activation)


BUILDERS: Final[dict[str, Callable[[Layer], nn.Module]]] = {
    "eager": Eager,
    "again": Eager,
    "compiled": Eager,
    "ours": ours,
    "ours compiled": ours,
    "apex": Apex,
    "inplace_abn": InPlace,
}


def build(arm: str, layer: Layer, device: str) -> nn.Module:
    """Return the module of an arm, with the same weights as every other.

    Raises:
        AbsentError: If it cannot be had, and why.
    """
    module = BUILDERS[arm](layer).to(device).train()
    rng = torch.Generator().manual_seed(_SEED)
    weight, bias = (torch.randn(layer.channels, generator=rng) for _ in range(2))
    bn: Any = getattr(module, "bn", module)
    with torch.no_grad():
        bn.weight.copy_(weight)
        bn.bias.copy_(bias)
    return compiled(module, device) if "compiled" in arm else module


def compiled(module: nn.Module, device: str) -> nn.Module:
    """Compile for the shapes of the first call, in one graph.

    On a CPU, where there is nothing to win, only its front runs, which generates no code.
    """
    backend = "inductor" if device == "cuda" else "aot_eager"
    made: nn.Module = torch.compile(module, fullgraph=True, dynamic=False, backend=backend)
    return made


def overwrites_input(module: nn.Module) -> bool:
    """Whether it needs an input of its own for every call."""
    return isinstance(module, InPlace)


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise AbsentError(f"{name} is not installed: {error}") from error
