"""Recognisers of text lines, as OCR pipelines run them: convolutions, then a sequence.

The kinds of layers are those of the PP-OCRv4 recogniser (PP-LCNetV3 with SVTR's mixer, see
https://arxiv.org/abs/2206.03001 and PaddleOCR's ``rec_lcnetv3.py``) and of its elder, the CRNN
(https://arxiv.org/abs/1507.05717); the sizes are smaller. Behind every convolution stand a
BatchNorm and a learnable affine of two numbers, and another one behind the activation: chains
that exporters write as scalar Mul and Add.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

_CLASSES: Final = 97
_STAGES: Final = ((32, (1, 1)), (64, (2, 1)), (64, (1, 1)), (128, (2, 1)), (192, (2, 2)))
"""Output channels and strides: the height goes first, the width is what is read."""


class LearnableAffine(nn.Module):
    """y = scale · x + bias, with one number each for all channels."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return scale · x + bias."""
        return self.scale * x + self.bias


class _Layer(nn.Sequential):
    """Conv, BatchNorm, affine, HardSwish, affine."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: object = 1, groups: int = 1
    ) -> None:
        conv = nn.Conv2d(
            inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False
        )
        tail = (LearnableAffine(), nn.Hardswish(), LearnableAffine())
        super().__init__(conv, nn.BatchNorm2d(outputs), *tail)


class _Squeeze(nn.Module):
    """Weigh channels by what their means say."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, channels // 4, 1)
        self.up = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3), keepdim=True)
        return x * nn.functional.hardsigmoid(self.up(torch.relu(self.down(means))))


class _Mixer(nn.Module):
    """A transformer block over the positions of a line, normalised in front."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.three, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._attend(self.before(x))
        return x + self.mlp(self.between(x))

    def _attend(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        each = width // self.heads
        three = self.three(x).reshape(n, length, 3, self.heads, each)
        q, k, v = three.permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1) * each**-0.5).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).reshape(n, length, width))


class _ByAttention(nn.Module):
    """Positions look at each other: two blocks between two projections."""

    def __init__(self, channels: int, width: int = 120) -> None:
        super().__init__()
        self.enter = nn.Linear(channels, width)
        self.blocks = nn.Sequential(_Mixer(width, 8), _Mixer(width, 8))
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.norm(self.blocks(self.enter(x))))


class _ByMemory(nn.Module):
    """Positions hear of each other from left and right: two layers of LSTM."""

    def __init__(self, channels: int, width: int = 64) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, width, 2, batch_first=True, bidirectional=True)
        self.leave = nn.Linear(2 * width, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.lstm(x)[0])


class _Recogniser(nn.Module):
    """Convolutions down to one row, a sequence, and a class for every position."""

    def __init__(self, sequence: type[nn.Module], thin: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [_Layer(3, 16 // thin, 3, 2)]
        width = 16 // thin
        for stage, (outputs, stride) in enumerate(_STAGES):
            layers += [_Layer(width, width, 3, stride, groups=width)]
            layers += [_Squeeze(width)] if stage >= len(_STAGES) - 2 else []
            layers += [_Layer(width, outputs // thin, 1)]
            width = outputs // thin
        self.look = nn.Sequential(*layers)
        self.read = sequence(width)
        self.head = nn.Linear(width, _CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        positions = self.look(x).mean(2).transpose(1, 2)
        return self.head(positions + self.read(positions)).softmax(-1)


def svtr(thin: int = 1) -> nn.Module:
    """Return a recogniser whose positions attend to each other.

    Args:
        thin: Divisor of all numbers of channels.
    """
    return _Recogniser(_ByAttention, thin)


def crnn(thin: int = 1) -> nn.Module:
    """Return a recogniser with a bidirectional LSTM.

    Args:
        thin: Divisor of all numbers of channels.
    """
    return _Recogniser(_ByMemory, thin)
