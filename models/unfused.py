"""A network of `bnfold.train` as a network of torch's own modules, to compare the two.

The modules stay the same objects under the same names, with the same parameters: checkpoints
go both ways, and both train from the same beginning.
"""

from __future__ import annotations

from typing import Final, TypeVar

import torch
from torch import Tensor, nn

from bnfold import train

Model = TypeVar("Model", bound=nn.Module)


class _OneAfterAnother(nn.modules.batchnorm._BatchNorm):  # noqa: SLF001  # torch's base has no public name
    """torch's BatchNorm, then its addition, then its ReLU: three passes over memory."""

    activation: str | None

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return activation(bn(x) + residual)."""
        y = super().forward(x)
        y = y if residual is None else y + residual
        return y if self.activation is None else torch.relu(y)


class _BatchNorm1d(_OneAfterAnother, nn.BatchNorm1d):
    """torch's BatchNorm1d, then + residual, then ReLU."""


class _BatchNorm2d(_OneAfterAnother, nn.BatchNorm2d):
    """torch's BatchNorm2d, then + residual, then ReLU."""


class _BatchNorm3d(_OneAfterAnother, nn.BatchNorm3d):
    """torch's BatchNorm3d, then + residual, then ReLU."""


_OF_TORCH: Final[dict[type[nn.Module], type[nn.Module]]] = {
    train.BatchNorm1d: _BatchNorm1d,
    train.BatchNorm2d: _BatchNorm2d,
    train.BatchNorm3d: _BatchNorm3d,
}


def unfused(net: Model) -> Model:
    """Make every BatchNorm of a recipe torch's own, in place, and return the network."""
    for layer in net.modules():
        if type(layer) in _OF_TORCH:
            layer.__class__ = _OF_TORCH[type(layer)]
    return net
