"""Drawn training steps: shapes, types, layouts, activations, and numbers that are hard."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from bnfold.train.kernels import tiles
from bnfold.train.kernels.reference import ACTIVATIONS, Activation

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Step:
    """One training step, described so that a failure can be read and repeated."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    channels_last: bool
    activation: str | None
    has_residual: bool
    affine: str  # "both", "weight" or "none"
    offset: float  # mean / std
    momentum: float | None
    seed: int
    tile_elements: int
    programs: int
    alone: int

    @property
    def kind(self) -> Activation:
        return Activation(self.activation, 0.125)

    def make(self, device: str) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
        """Return x, weight, bias and residual; one factor is zero, one channel constant."""
        rng = torch.Generator().manual_seed(self.seed)
        channels = self.shape[1]
        x = torch.randn(self.shape, generator=rng) + self.offset
        if self.seed % 3 == 0:
            x[:, 0] = x.flatten()[0]
        weight = torch.randn(channels, generator=rng)
        weight[-1] = 0.0 if self.seed % 2 else weight[-1]
        bias = torch.randn(channels, generator=rng)
        residual = torch.randn(self.shape, generator=rng)
        x, residual = (self.lay_out(t.to(self.dtype).to(device)) for t in (x, residual))
        return (
            x,
            None if self.affine == "none" else weight.to(device),
            bias.to(device) if self.affine == "both" else None,
            residual if self.has_residual else None,
        )

    def gradient(self, device: str) -> Tensor:
        """Return the gradient of the output."""
        rng = torch.Generator().manual_seed(self.seed + 1)
        return self.lay_out(torch.randn(self.shape, generator=rng).to(self.dtype).to(device))

    def lay_out(self, tensor: Tensor) -> Tensor:
        if not self.channels_last:
            return tensor
        return tensor.movedim(1, -1).contiguous().movedim(-1, 1)


def small_tiles(step: Step) -> AbstractContextManager[None]:
    """Let a tiny tensor need many tiles and many splits, as a large one does."""

    def launch(steps: int) -> tiles.Launch:
        return tiles.Launch(step.tile_elements, 64, 4, step.programs, steps)

    several: dict[tiles.Kernel, tiles.Launch] = dict.fromkeys(tiles.KERNELS, launch(2))
    alone = dict.fromkeys(("forward_alone", "backward_alone"), launch(step.alone))
    return tiles.using(tiles.uniform(several | alone))


@st.composite
def steps(draw: st.DrawFn) -> Step:
    """Draw a step that has at least two values per channel."""
    spatial = draw(st.lists(st.integers(1, 4), max_size=3))
    shape = (draw(st.integers(1, 5)), draw(st.integers(1, 20)), *spatial)
    if torch.Size(shape).numel() == shape[1]:
        shape = (shape[0] + 1, *shape[1:])
    return Step(
        shape=shape,
        dtype=draw(st.sampled_from(DTYPES)),
        channels_last=draw(st.booleans()),
        activation=draw(st.sampled_from((None, *ACTIVATIONS))),
        has_residual=draw(st.booleans()),
        affine=draw(st.sampled_from(("both", "weight", "none"))),
        offset=draw(st.sampled_from((0.0, -3.0, 100.0, 1e4))),
        momentum=draw(st.sampled_from((0.1, 1.0, None))),
        seed=draw(st.integers(0, 999)),
        tile_elements=draw(st.sampled_from((64, 256, 2048))),
        programs=draw(st.sampled_from((1, 16))),
        alone=draw(st.sampled_from((0, 99))),
    )
