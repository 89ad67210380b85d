"""What a fold costs: time and peak memory of the whole process, as ratios to named baselines.

    python -m benchmarks.fold_cost [--rounds 7] [--json results.json]

Baselines, measured in the same run, turn about:

- ``bnfold fold --no-verify`` against a script that only loads and saves the same model with
  onnx_ir: a ResNet-50-shaped float32 network, 53 Conv + BatchNormalization, about 100 MB.
- ``bnfold --help`` against ``python -c "import click"``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import bnfold

_LOAD_AND_SAVE = "import sys, onnx_ir as ir; ir.save(ir.load(sys.argv[1]), sys.argv[2])"


class _Network:
    """Builds Conv + BatchNormalization + Relu layers with seeded weights."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, name: str, array: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def conv_bn(
        self, data: str, inputs: int, outputs: int, kernel: int, stride: int = 1
    ) -> str:
        stem = f"l{len(self.nodes)}"
        shape = (outputs, inputs, kernel, kernel)
        deviation = (2 / (inputs * kernel * kernel)) ** 0.5
        weight = self.constant(f"{stem}.w", self._rng.normal(0, deviation, shape))
        parameters = [
            self.constant(f"{stem}.scale", self._rng.uniform(0.5, 1.5, outputs)),
            self.constant(f"{stem}.B", self._rng.normal(0, 0.1, outputs)),
            self.constant(f"{stem}.mean", self._rng.normal(0, 0.1, outputs)),
            self.constant(f"{stem}.var", self._rng.uniform(0.5, 1.5, outputs)),
        ]
        pads = [kernel // 2] * 4
        self.nodes.append(
            helper.make_node(
                "Conv", [data, weight], [f"{stem}.y"], pads=pads, strides=[stride] * 2
            )
        )
        self.nodes.append(
            helper.make_node("BatchNormalization", [f"{stem}.y", *parameters], [f"{stem}.n"])
        )
        return f"{stem}.n"

    def then(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"l{len(self.nodes)}.{kind}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def bottleneck(self, data: str, inputs: int, width: int, stride: int) -> str:
        value = self.then("Relu", self.conv_bn(data, inputs, width, 1))
        value = self.then("Relu", self.conv_bn(value, width, width, 3, stride))
        value = self.conv_bn(value, width, 4 * width, 1)
        if stride != 1 or inputs != 4 * width:
            data = self.conv_bn(data, inputs, 4 * width, 1, stride)
        return self.then("Relu", self.then("Add", value, data))


def resnet50(seed: int = 0) -> onnx.ModelProto:
    """Return a network of ResNet-50's shapes (He et al. 2015), BatchNormalization kept."""
    net = _Network(seed)
    value = net.then("Relu", net.conv_bn("x", 3, 64, 7, 2))
    value = net.then("MaxPool", value, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    channels = 64
    for blocks, width in ((3, 64), (4, 128), (6, 256), (3, 512)):
        for block in range(blocks):
            value = net.bottleneck(
                value, channels, width, 2 if block == 0 and width > 64 else 1
            )
            channels = 4 * width
    value = net.then("Flatten", net.then("GlobalAveragePool", value))
    weight = net.constant("fc.w", np.random.default_rng(seed).normal(0, 0.02, (1000, 2048)))
    bias = net.constant("fc.b", np.zeros(1000))
    net.nodes.append(helper.make_node("Gemm", [value, weight, bias], ["y"], transB=1))
    graph = helper.make_graph(
        net.nodes,
        "resnet50",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 224, 224])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1000])],
        net.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def measured(command: list[str]) -> tuple[float, int]:
    """Run a command; return its wall time in seconds and its peak resident memory in bytes."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    elapsed_s = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        message = f"{command} failed with exit code {process.returncode}"
        raise SystemExit(message)
    unit = 1 if sys.platform == "darwin" else 1024
    return elapsed_s, usage.ru_maxrss * unit


def compare(ours: list[str], baseline: list[str], rounds: int) -> dict[str, object]:
    """Run both turn about and return the ratios of the medians, with every sample."""
    samples: dict[str, list[tuple[float, int]]] = {"ours": [], "baseline": []}
    measured(ours), measured(baseline)  # the first run pays for cold files
    for turn in range(rounds):
        order = (("ours", ours), ("baseline", baseline))
        for name, command in order if turn % 2 == 0 else reversed(order):
            samples[name].append(measured(command))
    time_ratios = [
        a[0] / b[0] for a, b in zip(samples["ours"], samples["baseline"], strict=True)
    ]
    memory = {name: statistics.median(s[1] for s in rows) for name, rows in samples.items()}
    return {
        "time_ratio": statistics.median(time_ratios),
        "time_ratio_range": [min(time_ratios), max(time_ratios)],
        "memory_ratio": memory["ours"] / memory["baseline"],
        "samples": samples,
    }


def environment() -> dict[str, str]:
    """Return the machine and the versions that the figures hold for."""
    packages = ("onnx", "onnx-ir", "numpy", "click", "protobuf")
    return {
        "machine": platform.machine(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "bnfold": bnfold.__version__,
        **{name: metadata.version(name) for name in packages},
    }


def main() -> None:
    """Measure both claims and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--build", type=Path, help="only write the model there")
    arguments = parser.parse_args()
    if arguments.build:
        onnx.save(resnet50(), arguments.build)
        return
    with tempfile.TemporaryDirectory() as folder:
        model, out = Path(folder) / "resnet50.onnx", Path(folder) / "out.onnx"
        # In a process of its own: a child's peak memory counts from its parent's at the fork.
        subprocess.run(
            [sys.executable, "-m", "benchmarks.fold_cost", "--build", model], check=True
        )
        size_mb = model.stat().st_size / 1e6
        command = [sys.executable, "-m", "bnfold", "fold", str(model), "-o", str(out)]
        fold = compare(
            [*command, "--no-verify"],
            [sys.executable, "-c", _LOAD_AND_SAVE, str(model), str(out)],
            arguments.rounds,
        )
    start = compare(
        [sys.executable, "-m", "bnfold", "--help"],
        [sys.executable, "-c", "import click"],
        3 * arguments.rounds,
    )
    print(
        f"fold of {size_mb:.0f} MB / load and save: time {fold['time_ratio']:.2f}×"
        f" {fold['time_ratio_range']}, peak memory {fold['memory_ratio']:.2f}×"
    )
    print(
        f"bnfold --help / import click: time {start['time_ratio']:.2f}×"
        f" {start['time_ratio_range']}"
    )
    if arguments.json:
        document = {"environment": environment(), "fold": fold, "help": start}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
