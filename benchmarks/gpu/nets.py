"""The networks of a run, exported on the machine itself from recipes that are committed."""

from __future__ import annotations

import importlib.util
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks import arms
from benchmarks.gpu import machine

FREE: Final = "tiny_free"
"""A network that needs no torch: there is always something to measure."""
TINY: Final = {
    FREE: "",
    "tiny_ocr": "torchscript-batch",
    "mobilenetv3_small_050": "torchscript-batch",
}
_NEEDS: Final = {"tiny_ocr": ("torch",), "mobilenetv3_small_050": ("torch", "timm")}
_EXPORTERS: Final = {**arms.NETS, **TINY}
_EXPORTER: Final = "torchscript-batch"
_PAUSE_S: Final = 0.1


def dry_nets() -> tuple[str, ...]:
    """Return the networks of a dry run: those that this machine can make."""
    return tuple(
        name
        for name in TINY
        if all(importlib.util.find_spec(one) is not None for one in _NEEDS.get(name, ()))
    )


def path_of(net: str, cache: Path) -> Path:
    """Return where a network lies: the file that it names, or a place in the cache."""
    if net.endswith(".onnx"):
        return Path(net)
    return arms.exported_path(net, exporter_of(net) or "onnx-helper", cache)


def exporter_of(net: str) -> str:
    """Return how a network is exported; empty for a file, or what needs no exporter."""
    return "" if net.endswith(".onnx") else _EXPORTERS.get(net, _EXPORTER)


@dataclass(slots=True)
class Exports:
    """Exports under way, in as many processes as there are cores for.

    Attributes:
        cache: Where they go.
        waiting: Networks to come.
        running: Processes, by network.
        begun_s: When each began.
        seconds: How long each took.
    """

    cache: Path
    waiting: list[str]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    begun_s: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def advance(self) -> bool:
        """Take note of what has ended and start what can be; return whether all is done."""
        for net, process in list(self.running.items()):
            if process.poll() is not None:
                self.seconds[net] = round(time.monotonic() - self.begun_s[net], 1)
                del self.running[net]
        while self.waiting and len(self.running) < max(machine.cores() - 1, 1):
            net = self.waiting.pop(0)
            self.begun_s[net] = time.monotonic()
            self.running[net] = arms.exporting(net, exporter_of(net), self.cache)
        return not self.running

    def finish(self, limit_s: float) -> None:
        """Wait for all of them; those that take longer are ended, and are missing."""
        until = time.monotonic() + limit_s
        try:
            while not self.advance() and time.monotonic() < until:
                time.sleep(_PAUSE_S)
        finally:
            self.waiting.clear()
            for process in self.running.values():
                process.kill()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(5)

    def why_missing(self, net: str) -> str:
        """Say why a network is not there; empty if it is."""
        path = path_of(net, self.cache)
        if path.exists():
            return ""
        if net in self.running:
            return "its export was ended: it took too long"
        return f"not exported: {arms.export_failure(path)}"


def start_exports(nets: Sequence[str], cache: Path) -> Exports:
    """Start to export what the cache lacks."""
    cache.mkdir(parents=True, exist_ok=True)
    if FREE in nets:
        write_free(path_of(FREE, cache))
    absent = [net for net in nets if exporter_of(net) and not path_of(net, cache).exists()]
    exports = Exports(cache, absent)
    exports.advance()
    return exports


def write_free(path: Path) -> None:
    """Write the network that needs no torch: Conv, BatchNormalization, Mul, Add, Gemm."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    sizes: Mapping[str, tuple[int, ...]] = {"w1": (8, 3, 3, 3), "w2": (8, 8, 3, 3)}
    arrays = {name: rng.normal(0, 0.2, size) for name, size in sizes.items()}
    arrays |= {name: rng.uniform(0.5, 1.5, 8) for name in ("scale", "bias", "mean", "var")}
    arrays |= {"m": np.array(1.25), "a": np.array(0.5), "wide": rng.uniform(0.5, 2, (8, 1, 1))}
    arrays |= {"g": rng.normal(0, 0.3, (8, 10)), "t": rng.normal(size=10)}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], pads=[1] * 4),
        helper.make_node("BatchNormalization", ["c1", "scale", "bias", "mean", "var"], ["n1"]),
        helper.make_node("Relu", ["n1"], ["r1"]),
        helper.make_node("Mul", ["r1", "wide"], ["s1"]),
        helper.make_node("Conv", ["s1", "w2"], ["c2"], pads=[1] * 4),
        helper.make_node("Mul", ["m", "c2"], ["s2"]),
        helper.make_node("Add", ["a", "s2"], ["a2"]),
        helper.make_node("Relu", ["a2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "g"], ["l"]),
        helper.make_node("Add", ["l", "t"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 32, 32])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])
    held = [numpy_helper.from_array(a.astype(np.float32), name) for name, a in arrays.items()]
    graph = helper.make_graph(nodes, FREE, [x], [y], held)
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
