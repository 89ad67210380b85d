"""Small torch networks with BatchNorm in the places where it is taught and used.

They are written with the modules of ``bnfold.train``: a BatchNorm computes the ReLU behind it,
and in a residual block the addition before that, in the same pass. ``models.unfused`` turns a
network into one of torch's own modules, with the same names, weights and numbers.

``RECIPES`` maps a name to a recipe; ``build`` turns it into a module in eval mode, its weights
and BatchNorm statistics drawn from a seed. Fresh statistics (mean 0, variance 1, scale 1,
shift 0) would make every fold trivial, so they are replaced by values such as training leaves
behind: means off zero, variances over two orders of magnitude, and a few negative scales.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from bnfold.train import BatchNorm1d, BatchNorm2d, BatchNorm3d

_BATCH_NORMS: Final = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_NEGATIVE_SHARE: Final = 0.2


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to make one network, and what to feed it.

    Attributes:
        make: Returns the network with torch's own initialisation.
        input_shape: Shape of one example, without the batch dimension.
        batch_norms: Number of BatchNorm layers in it.
    """

    make: Callable[[], nn.Module]
    input_shape: tuple[int, ...]
    batch_norms: int


def _fully_connected() -> nn.Module:
    """Linear → BatchNorm → ReLU, twice; the net that is trained on the digits."""
    return nn.Sequential(
        nn.Flatten(),
        *(nn.Linear(64, 128), BatchNorm1d(128, activation="relu")),
        *(nn.Linear(128, 64), BatchNorm1d(64, activation="relu")),
        nn.Linear(64, 10),
    )


def _bias_free() -> nn.Module:
    """Linear without bias → BatchNorm: a MatMul in ONNX, with no addend to take a shift."""
    return nn.Sequential(
        nn.Flatten(),
        *(nn.Linear(64, 32, bias=False), BatchNorm1d(32, activation="relu")),
        nn.Linear(32, 10),
    )


def _convolutional() -> nn.Module:
    """Conv → BatchNorm → ReLU, three times; the net that is trained on the digits."""
    return nn.Sequential(
        *(nn.Conv2d(1, 24, 3, padding=1, bias=False), BatchNorm2d(24, activation="relu")),
        *(nn.Conv2d(24, 48, 3, padding=1), BatchNorm2d(48, activation="relu")),
        nn.MaxPool2d(2),
        *(nn.Conv2d(48, 64, 3, padding=1, bias=False), BatchNorm2d(64, activation="relu")),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


def _convolutional_1d() -> nn.Module:
    """A small net for signals: strided and dilated 1-d convolutions."""
    return nn.Sequential(
        *(
            nn.Conv1d(4, 16, 5, stride=2, padding=2, bias=False),
            BatchNorm1d(16, activation="relu"),
        ),
        *(nn.Conv1d(16, 24, 3, dilation=2, padding=2), BatchNorm1d(24, activation="relu")),
        *(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(24, 5)),
    )


def _convolutional_3d() -> nn.Module:
    """A small net for volumes: 3-d convolutions, one of them with a stride.

    Both have a bias: without one, onnxscript 0.7.2 writes a bias of shape [channels, 2], which
    is no valid Conv.
    """
    return nn.Sequential(
        *(nn.Conv3d(1, 8, 3, padding=1), BatchNorm3d(8, activation="relu")),
        *(nn.Conv3d(8, 12, 3, stride=2, padding=1), BatchNorm3d(12, activation="relu")),
        *(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(12, 4)),
    )


class ResidualBlock(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + shortcut(x)), as in ResNet-18."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False),
            BatchNorm2d(channels_out, activation="relu"),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
        )
        self.norm = BatchNorm2d(channels_out, activation="relu")
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False),
                BatchNorm2d(channels_out),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the body, add the shortcut and activate, in one pass."""
        y: Tensor = self.norm(self.body(x), self.shortcut(x))
        return y


def _residual() -> nn.Module:
    """A stem and two residual blocks, one with a strided shortcut convolution."""
    return nn.Sequential(
        *(nn.Conv2d(3, 12, 3, padding=1, bias=False), BatchNorm2d(12, activation="relu")),
        *(ResidualBlock(12, 12, stride=1), ResidualBlock(12, 20, stride=2)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(20, 6)),
    )


def _separable(channels_in: int, channels_out: int, stride: int) -> list[nn.Module]:
    """Depthwise 3×3 and pointwise 1×1 convolution, each with BatchNorm, as in MobileNet."""
    return [
        nn.Conv2d(
            channels_in, channels_in, 3, stride, padding=1, groups=channels_in, bias=False
        ),
        *(BatchNorm2d(channels_in), nn.ReLU6()),
        *(nn.Conv2d(channels_in, channels_out, 1, bias=False), BatchNorm2d(channels_out)),
        nn.ReLU6(),
    ]


def _depthwise() -> nn.Module:
    """A stem and two depthwise-separable blocks."""
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 2, padding=1, bias=False), BatchNorm2d(8), nn.ReLU6()),
        *(*_separable(8, 16, stride=1), *_separable(16, 24, stride=2)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 6)),
    )


def _transposed() -> nn.Module:
    """An autoencoder: convolutions down, transposed convolutions up, one of them grouped."""
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, 2, padding=1, bias=False), BatchNorm2d(8, activation="relu")),
        *(nn.Conv2d(8, 16, 3, 2, padding=1), BatchNorm2d(16, activation="relu")),
        nn.ConvTranspose2d(16, 8, 4, 2, padding=1, groups=2, bias=False),
        BatchNorm2d(8, activation="relu"),
        nn.ConvTranspose2d(8, 4, 3, 2, padding=1, output_padding=1),
        BatchNorm2d(4, activation="relu"),
        *(nn.Conv2d(4, 1, 3, padding=1), nn.Sigmoid()),
    )


RECIPES: Final[dict[str, Recipe]] = {
    "mlp": Recipe(_fully_connected, (1, 8, 8), batch_norms=2),
    "cnn": Recipe(_convolutional, (1, 8, 8), batch_norms=3),
    "bias_free": Recipe(_bias_free, (1, 8, 8), batch_norms=1),
    "cnn1d": Recipe(_convolutional_1d, (4, 32), batch_norms=2),
    "cnn3d": Recipe(_convolutional_3d, (1, 8, 8, 8), batch_norms=2),
    "residual": Recipe(_residual, (3, 16, 16), batch_norms=6),
    "depthwise": Recipe(_depthwise, (3, 16, 16), batch_norms=5),
    "transposed": Recipe(_transposed, (1, 16, 16), batch_norms=4),
}


def build(name: str, seed: int = 0) -> nn.Module:
    """Return the named network in eval mode, weights and statistics drawn from ``seed``."""
    net = initial(name, seed)
    draw_statistics(net, seed)
    return net.eval()


def initial(name: str, seed: int = 0) -> nn.Module:
    """Return the named network as torch initialises it, ready for training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return RECIPES[name].make()


def example(name: str, batch: int = 2, seed: int = 0) -> Tensor:
    """Return a seeded input for the named network."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, *RECIPES[name].input_shape, generator=generator)


@torch.no_grad()
def draw_statistics(net: nn.Module, seed: int = 0) -> None:
    """Give every BatchNorm of ``net`` the parameters and statistics of a trained one."""
    generator = torch.Generator().manual_seed(seed)
    for layer in net.modules():
        if isinstance(layer, _BATCH_NORMS):
            size = layer.num_features
            sign = torch.rand(size, generator=generator).lt(_NEGATIVE_SHARE) * -2.0 + 1.0
            layer.weight.copy_(sign * (0.5 + torch.rand(size, generator=generator)))
            layer.bias.copy_(0.3 * torch.randn(size, generator=generator))
            layer.running_mean.copy_(0.5 * torch.randn(size, generator=generator))
            spread = torch.randn(size, generator=generator)
            layer.running_var.copy_(torch.exp(spread - 0.5))
