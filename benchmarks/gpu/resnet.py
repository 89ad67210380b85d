"""ResNet-50 as its paper and torchvision have it, of torch's own modules, seeded.

He et al., "Deep Residual Learning for Image Recognition" (2015), the stride in the 3×3
convolution. Defined here so that a run depends on no package's version of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

_EXPANSION: Final = 4
_BRANCH: Final = 0.25
"""What a branch counts beside its shortcut at first.

With 1, gradients grow from block to block until rounding alone changes the losses of the first
steps by percents; with 0, as torchvision offers, nothing in a branch would change them at all.
"""
_SEED: Final = 20261125
DEPTHS: Final = {"resnet50": (3, 4, 6, 3), "tiny": (1,)}
_WIDTHS: Final = {"resnet50": 64, "tiny": 8}
SIDES: Final = {"resnet50": 224, "tiny": 16}
CLASSES: Final = {"resnet50": 1000, "tiny": 10}


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 convolution, each with BatchNorm; the input, or a projection, is added."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * _EXPANSION
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(residual branch + x)."""
        identity = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += identity
        out: Tensor = self.relu(y)
        return out


def stages(depths: Sequence[int], width: int) -> nn.Sequential:
    """Return the stages: each after the first halves the side and doubles the width."""
    found, inputs = [], width
    for stage, depth in enumerate(depths):
        wide = width * 2**stage
        blocks = []
        for index in range(depth):
            blocks.append(Bottleneck(inputs, wide, 2 if stage > 0 and index == 0 else 1))
            inputs = wide * _EXPANSION
        found.append(nn.Sequential(*blocks))
    return nn.Sequential(*found)


def build(name: str) -> nn.Module:
    """Return the network, the same weights every time."""
    width, depths = _WIDTHS[name], DEPTHS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        net = nn.Sequential(
            nn.Conv2d(3, width, 7, 2, padding=3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, padding=1),
            stages(depths, width),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(width * 2 ** (len(depths) - 1) * _EXPANSION, CLASSES[name]),
        )
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(module, Bottleneck):
                nn.init.constant_(module.bn3.weight, _BRANCH)
    return net
