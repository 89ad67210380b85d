"""Small torch modules with the spellings of BatchNorm that exports meet."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class FunctionalNorm(nn.Module):
    """conv, then F.batch_norm in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.register_buffer("mean", torch.linspace(-1, 1, 4))
        self.register_buffer("var", torch.linspace(0.5, 2, 4))
        self.scale = nn.Parameter(torch.linspace(-1, 2, 4))

    def forward(self, x):
        y = self.conv(x)
        return functional.batch_norm(y, self.mean, self.var, self.scale, training=False)


class BatchNormAct(nn.BatchNorm2d):
    """A subclass with more in it, as training sides have them."""

    def forward(self, x, residual=None):
        y = super().forward(x)
        return torch.relu(y if residual is None else y + residual)


class WithActivation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3, padding=1), BatchNormAct(4)
        self.second, self.last = nn.Conv2d(4, 4, 3, padding=1, bias=False), BatchNormAct(4)

    def forward(self, x):
        y = self.norm(self.first(x))
        return self.last(self.second(y), y)


class Structured(nn.Module):
    """Nested inputs, a keyword-only one, one that is no tensor; outputs in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(6, 5), nn.BatchNorm1d(5)

    def forward(self, pair, factor=1.0, *, offset):
        left, right = pair["left"], pair["right"]
        y = self.norm(self.linear(torch.cat([left, right], dim=1)))
        return {"scaled": y * factor, "more": (y + offset, left - right)}


class Tokens(nn.Module):
    """Integers in, floats out."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.norm, self.head = (
            nn.Embedding(9, 6),
            nn.BatchNorm1d(6),
            nn.Linear(6, 3),
        )

    def forward(self, ids):
        return self.head(self.norm(self.table(ids).mean(dim=1)))


class Branches(nn.Module):
    """Two sequences that end in a BatchNorm, added."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.right = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4))

    def forward(self, x):
        return torch.relu(self.left(x) + self.right(x))


def conv_bn(norm: nn.Module | None = None) -> nn.Module:
    """conv without a bias, BatchNorm, ReLU."""
    layers = nn.Conv2d(3, 4, 3, bias=False), norm or nn.BatchNorm2d(4), nn.ReLU()
    return ready(nn.Sequential(*layers))


def ready(net: nn.Module, seed: int = 0) -> nn.Module:
    """Draw weights and statistics, and set eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
        for name, buffer in net.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return net.eval()


def image(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape or (2, 3, 8, 8), generator=generator)
