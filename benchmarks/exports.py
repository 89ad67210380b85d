"""Networks of timm, a U-Net and text recognisers, exported by every exporter of torch.

    python -m benchmarks.exports --cache DIR [--exporter KIND …] [NAME …]

The weights are random but seeded: what folds depends on the graph, and only where signs decide
on the values, so each BatchNorm gets statistics as training leaves them and a few negative
scales. The pinned torchvision-free installation is enough: see `_HollowTorchvision`.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import time
import types
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from benchmarks import recognisers

EXPORTERS: Final = ("dynamo", "dynamo-plain", "torchscript")
"""The default; the same with ``optimize=False``; TorchScript with BatchNorm preserved."""
_FREE_BATCH: Final = ("dynamo-batch", "torchscript-batch")
"""Two of these with a batch size that is left open."""

_TIMM: Final = {
    "resnet50": 224,
    "densenet121": 224,
    "resnetv2_50": 224,
    "mobilenetv3_large_100": 224,
    "levit_128s": 224,
    "vit_small_patch14_dinov2": 224,
    "cait_xxs24_224": 224,
    "convnext_tiny": 224,
    "mobileone_s0": 224,
    "fastvit_t8": 256,
    "repvgg_a2": 224,
    "repvit_m1": 224,
    "efficientnet_b0": 224,
}
_TINY_TIMM: Final = {"mobilenetv3_small_050": 64}
"""For dry runs: what shows that a path works, not what it is worth."""
_SIZED: Final = frozenset({"vit_small_patch14_dinov2"})
"""Nets whose input size is an argument of their builder."""
_OPSET: Final = 18


class _Up(nn.Module):
    """Double the size, join the skip connection, convolve twice."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(inputs, outputs, 2, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.block = _conv_block(2 * outputs, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.block(torch.cat([skip, torch.relu(self.norm(self.up(x)))], dim=1))


class _UNet(nn.Module):
    """A U-Net of three levels: Conv + BN + ReLU down, ConvTranspose + BN + ReLU up."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first = _conv_block(3, width)
        self.second = _conv_block(width, 2 * width)
        self.third = _conv_block(2 * width, 4 * width)
        self.up_second = _Up(4 * width, 2 * width)
        self.up_first = _Up(2 * width, width)
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        second = self.second(nn.functional.max_pool2d(first, 2))
        third = self.third(nn.functional.max_pool2d(second, 2))
        return self.head(self.up_first(self.up_second(third, second), first))


def _conv_block(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for source in (inputs, outputs):
        layers += [nn.Conv2d(source, outputs, 3, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


_OWN: Final[dict[str, tuple[Callable[[], nn.Module], tuple[int, int]]]] = {
    "unet": (_UNet, (128, 128)),
    "ocr_svtr": (recognisers.svtr, (48, 320)),
    "ocr_crnn": (recognisers.crnn, (48, 320)),
    "tiny_unet": (partial(_UNet, 8), (32, 32)),
    "tiny_ocr": (partial(recognisers.svtr, 4), (32, 64)),
}
"""Networks made here, and the height and width of their input."""
NETS: Final = (*(name for name in _OWN if not name.startswith("tiny")), *_TIMM)


class _AnyMember(type):
    """Classes that have whatever member is asked of them: its name."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class _Hollow(types.ModuleType):
    """A module that has whatever class is asked of it."""

    __path__: Final[list[str]] = []

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return _AnyMember(name, (), {})


class _HollowTorchvision(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stand in for torchvision while timm is imported.

    timm imports it for its image transforms and one layer, none of which a network needs. The
    torchvision of the registries is built for a CUDA build of torch and does not import beside
    a CPU build; where there is a working one it is used.
    """

    def find_spec(
        self, name: str, path: object = None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        ours = name.split(".")[0] == "torchvision"
        return importlib.machinery.ModuleSpec(name, self) if ours else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> _Hollow:
        return _Hollow(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        del module


def _import_timm() -> types.ModuleType:
    if "timm" in sys.modules:
        return sys.modules["timm"]
    if importlib.util.find_spec("torchvision") is not None:
        try:
            return importlib.import_module("timm")
        except (ImportError, RuntimeError) as error:
            print(f"torchvision does not load ({error}): going on without", file=sys.stderr)
            _forget("torchvision", "timm")
    finder = _HollowTorchvision()
    sys.meta_path.insert(0, finder)
    try:
        return importlib.import_module("timm")
    finally:
        sys.meta_path.remove(finder)
        # The exporters of torch look for torchvision too, and must not find the empty one.
        _forget("torchvision")


def _forget(*packages: str) -> None:
    for name in [entry for entry in sys.modules if entry.split(".")[0] in packages]:
        del sys.modules[name]


def build(name: str, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """Return a network in eval mode with seeded weights and statistics, and an input."""
    torch.manual_seed(seed)
    if name in _OWN:
        make, size = _OWN[name]
        net = make()
    else:
        side = (_TIMM | _TINY_TIMM)[name]
        net, size = _timm_net(name, side), (side, side)
    _age(net)
    return net.eval(), torch.randn(1, 3, *size)


def _timm_net(name: str, side: int) -> nn.Module:
    timm = _import_timm()
    # Plain operators, not one fused attention node: that is what most runtimes are given.
    importlib.import_module("timm.layers").set_fused_attn(False)
    size = {"img_size": side} if name in _SIZED else {}
    return timm.create_model(name, pretrained=False, **size)


def _age(net: nn.Module) -> None:
    """Give normalisations and layer scales the values that training could have left."""
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001  torch has no public name for it
                count = module.num_features
                module.running_mean.copy_(0.3 * torch.randn(count))
                module.running_var.copy_(torch.rand(count) * 1.5 + 0.5)
                sign = torch.where(torch.rand(count) < 0.1, -1.0, 1.0)
                module.weight.copy_(sign * (torch.rand(count) + 0.5))
                module.bias.copy_(0.1 * torch.randn(count))
        for name, parameter in net.named_parameters():
            if name.split(".")[-1].startswith("gamma"):
                parameter.copy_(0.2 * torch.randn_like(parameter))
            elif (parameter == parameter.flatten()[0]).all():
                # Biases of zero would fold for nothing, and equal tensors would be shared.
                parameter.add_(0.1 * torch.randn_like(parameter))


def export(net: nn.Module, example: Tensor, exporter: str, path: Path) -> None:
    """Write a network to ``path`` by one of `EXPORTERS`."""
    kinds: dict[str, Callable[[], object]] = {
        "dynamo": lambda: _by_dynamo(net, example, path, optimize=True),
        "dynamo-plain": lambda: _by_dynamo(net, example, path, optimize=False),
        "dynamo-batch": lambda: _by_dynamo(
            net,
            example.repeat(2, 1, 1, 1),
            path,
            optimize=True,
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
        ),
        "torchscript": lambda: _by_torchscript(net, example, path),
        "torchscript-batch": lambda: _by_torchscript(
            net, example, path, input_names=["x"], dynamic_axes={"x": {0: "batch"}}
        ),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kinds[exporter]()


def _by_dynamo(
    net: nn.Module, example: Tensor, path: Path, *, optimize: bool, **options: object
) -> None:
    torch.onnx.export(
        net,
        (example,),
        str(path),
        dynamo=True,
        optimize=optimize,
        opset_version=_OPSET,
        external_data=False,
        verbose=False,
        **options,
    )


def _by_torchscript(net: nn.Module, example: Tensor, path: Path, **options: object) -> None:
    torch.onnx.export(
        net,
        (example,),
        str(path),
        dynamo=False,
        opset_version=_OPSET,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        **options,
    )


def main() -> None:
    """Export what the cache does not have; a failure is noted beside, in a text file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", default=NETS)
    parser.add_argument("--exporter", action="append", choices=(*EXPORTERS, *_FREE_BATCH))
    parser.add_argument("--cache", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name in arguments.names:
        for exporter in arguments.exporter or EXPORTERS:
            print(
                f"{name} {exporter}: {_export_once(name, exporter, arguments.cache)}",
                flush=True,
            )


def _export_once(name: str, exporter: str, cache: Path) -> str:
    path = cache / f"{name}.{exporter}.onnx"
    if path.exists():
        return "there"
    begun = time.perf_counter()
    failed, unfinished = path.with_suffix(".failed.txt"), path.with_suffix(".part")
    try:
        net, example = build(name)
        export(net, example, exporter, unfinished)
        unfinished.replace(path)
    except Exception as error:  # noqa: BLE001  whatever an exporter throws is its answer
        unfinished.unlink(missing_ok=True)
        failed.write_text(f"{type(error).__name__}: {error}\n")
        return f"failed, {failed.name}"
    failed.unlink(missing_ok=True)
    return f"written in {time.perf_counter() - begun:.0f} s"


if __name__ == "__main__":
    main()
