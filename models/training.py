"""Train a network of `models.recipes` on the digits: the part to copy for a network of yours.

`Training` is a network with everything that its next epoch depends on. What it depends on can
be taken out as a dict and put back in, so that a run that was interrupted ends with the same
weights, bit for bit (on one kind of CPU), as one that was not.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from bnfold.errors import BnfoldError
from bnfold.train import recompute
from models.digits import Digits
from models.recipes import initial
from models.unfused import unfused

_MOVED_SHARE: Final = 0.5
_LABEL_SMOOTHING: Final = 0.05
_WEIGHT_DECAY: Final = 0.01


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides the numbers of a training, besides the device.

    Attributes:
        net: Name of a recipe.
        batch_norm: "bnfold", or "torch" for torch's own modules.
        epochs: How often every training image is seen.
        seed: Of the first weights, the order of the images and how they are moved.
        batch_size: Images in a step; what is left over at the end of an epoch waits.
        lr: The highest learning rate of the one-cycle schedule.
        bfloat16: Compute under autocast; weights stay float32.
        channels_last: Keep channels next to each other in memory.
        recompute: Drop the outputs of BatchNorm and build them again in backward.
        threads: Of a CPU; another number adds up in another order.
    """

    net: str
    batch_norm: str = "bnfold"
    epochs: int = 80
    seed: int = 0
    batch_size: int = 64
    lr: float = 4e-3
    bfloat16: bool = False
    channels_last: bool = False
    recompute: bool = False
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch gave; `lr` is that of its first step."""

    epoch: int
    loss: float
    train_accuracy: float
    test_accuracy: float
    lr: float
    seconds: float


class Training:
    """A network on its way, and all that its next epoch depends on.

    Args:
        settings: What decides the numbers.
        digits: The data.
        device: "cpu" or "cuda".
    """

    def __init__(self, settings: Settings, digits: Digits, device: str = "cpu") -> None:
        self.settings = settings
        self.device = device
        self.digits = digits.to(device)
        self.history: list[Epoch] = []
        torch.manual_seed(settings.seed)
        self.generator = torch.Generator().manual_seed(settings.seed)
        net = initial(settings.net, settings.seed).to(device)
        if settings.channels_last:
            net = net.to(memory_format=torch.channels_last)
        self.net = unfused(net) if settings.batch_norm == "torch" else net
        steps = settings.epochs * (len(digits.train_labels) // settings.batch_size)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), weight_decay=_WEIGHT_DECAY)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, settings.lr, total_steps=steps
        )

    @property
    def done(self) -> bool:
        """Whether there is no epoch left."""
        return len(self.history) >= self.settings.epochs

    def run_epoch(self) -> Epoch:
        """Train on every image once, and return what came out.

        Raises:
            BnfoldError: If the loss is no number any more.
        """
        begun, number = time.perf_counter(), len(self.history) + 1
        lr = self.optimizer.param_groups[0]["lr"]
        self.net.train()
        losses = [self.step(images, labels) for images, labels in self.batches()]
        loss = float(torch.stack(losses).double().mean())
        if not math.isfinite(loss):
            raise BnfoldError(
                "the training diverged",
                where=f"{self.settings.net}, epoch {number}",
                why=f"the loss is {loss}",
                remedy=f"choose a lower learning rate than {self.settings.lr:g}",
            )
        digits = self.digits
        epoch = Epoch(
            epoch=number,
            loss=loss,
            train_accuracy=self.accuracy(digits.train_images, digits.train_labels),
            test_accuracy=self.accuracy(digits.test_images, digits.test_labels),
            lr=lr,
            seconds=round(time.perf_counter() - begun, 3),
        )
        self.history.append(epoch)
        return epoch

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Train on one batch and return the loss, which stays on the device."""
        self.optimizer.zero_grad()
        with self.forward_pass():
            loss = cross_entropy(self.net(images), labels, label_smoothing=_LABEL_SMOOTHING)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return loss.detach()

    @contextmanager
    def forward_pass(self) -> Iterator[None]:
        """Compute in bfloat16 and save less, where the settings say so."""
        with ExitStack() as stack:
            if self.settings.bfloat16:
                kind = torch.device(self.device).type
                stack.enter_context(torch.autocast(kind, dtype=torch.bfloat16))
            if self.settings.recompute:
                stack.enter_context(recompute())
            yield

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield shuffled full batches; some images are moved by a pixel."""
        size, digits = self.settings.batch_size, self.digits
        order = torch.randperm(len(digits.train_labels), generator=self.generator)
        for chosen in order.to(self.device).split(size):
            if len(chosen) == size:
                images = digits.train_images[chosen]
                yield moved(images, self.generator), digits.train_labels[chosen]

    @torch.no_grad()
    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """Return the share of images whose digit is recognised."""
        answers = self.net.eval()(images).argmax(dim=1)
        return float((answers == labels).double().mean())

    def state(self) -> dict[str, Any]:
        """Return all that the next epoch depends on, as tensors and plain values."""
        on_gpu = torch.device(self.device).type == "cuda"
        return {
            "history": [asdict(epoch) for epoch in self.history],
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if on_gpu else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken; its tensors may come from another device."""
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch_rng"])
        if state["cuda_rng"] is not None and torch.device(self.device).type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)


def moved(images: Tensor, generator: torch.Generator) -> Tensor:
    """Move about half of the images by one pixel, each its own way."""
    size = images.shape[-1]
    windows = pad(images, (1, 1, 1, 1)).unfold(2, size, 1).unfold(3, size, 1)
    offsets = torch.randint(-1, 2, (2, len(images)), generator=generator)
    chosen = torch.rand(len(images), generator=generator) < _MOVED_SHARE
    down, right = (1 + offsets * chosen).to(images.device)
    return windows[torch.arange(len(images), device=images.device), :, down, right]


@contextmanager
def reproducible(device: str, threads: int) -> Iterator[None]:
    """Have torch compute the same twice; on a GPU where it can, with a warning where not."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.get_deterministic_debug_mode(), torch.get_num_threads()
    torch.use_deterministic_algorithms(mode=True, warn_only=device != "cpu")
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before[0])
        torch.set_num_threads(before[1])
