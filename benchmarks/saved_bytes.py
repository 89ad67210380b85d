"""What a training step keeps for its backward: torch's layers, ours, and ours recomputed.

    python -m benchmarks.saved_bytes [--nets a,b,…] [--markdown TABLE.md]

Counts what autograd saves in a forward pass, parameters and buffers left out, on tensors of
the CPU; kernels are compiled and looked up, but nothing is launched (`benchmarks.no_device`).
What cuDNN reserves, and what is allocated for a moment, is not in it.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import torch
from torch import nn

from benchmarks import exports, no_device
from benchmarks.arms import markdown_table
from benchmarks.gpu import resnet
from bnfold import train
from bnfold.train import functional

_BATCH = 2
_NETS = ("resnet50", "mobilenetv3_large_100", "efficientnet_b0", "densenet121", "unet")


def build(name: str) -> tuple[nn.Module, torch.Tensor]:
    """Return a network in train mode, and a batch."""
    if name == "resnet50":
        return resnet.build(name).train(), torch.randn(_BATCH, 3, 224, 224)
    net, x = exports.build(name)
    return net.train(), x.repeat(_BATCH, 1, 1, 1)


def measure(name: str) -> tuple[int, int, int, dict[str, str]]:
    """Return bytes kept by torch's layers, ours and ours recomputed, and what was fused."""
    net, x = build(name)
    theirs = train.saved_bytes(net, x).total_bytes
    ours = train.convert(copy.deepcopy(net))
    fuse = mock.patch.object(functional, "can_fuse", lambda x: x.numel() > 0)
    with no_device.compiled_only(keeps_launches=False), fuse:
        kept = train.saved_bytes(ours, x).total_bytes
        with train.recompute():
            recomputed = train.saved_bytes(ours, x).total_bytes
    return theirs, kept, recomputed, train.fusions(ours)


def rows(names: list[str]) -> Iterator[tuple[str, ...]]:
    """Yield a line of the table for each network."""
    for name in names:
        theirs, kept, recomputed, fused = measure(name)
        mib = f"{theirs / _BATCH / 2**20:.0f}"
        yield name, str(len(fused)), mib, f"{kept / theirs:.2f}", f"{recomputed / theirs:.2f}"


def main() -> None:
    """Print the table, or write it."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--nets", default=",".join(_NETS))
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    head = ("network", "fused", "MiB per image, torch", "ours / torch", "recomputed / torch")
    text = markdown_table(head, list(rows(options.nets.split(","))))
    if options.markdown:
        options.markdown.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
