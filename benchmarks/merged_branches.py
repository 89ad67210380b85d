"""What merged branches are worth on ONNX Runtime's CPU provider, as it optimises by default.

    python -m benchmarks.merged_branches [--rounds 60] [--threads 1]

Original and folded net run turn about in one process, the order changing every round; printed
is the median of the ratios of neighbouring runs, with an interval, beside a null run of the
original against itself.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

import bnfold
from benchmarks.fold_cost import _Network

_CHANNELS, _SIZE, _BLOCKS = 64, 56, 6


class _Branches(_Network):
    """Builds blocks of parallel branches with seeded weights."""

    def conv(self, x: str, kernel: int, groups: int = 1) -> str:
        """Conv without bias, then BatchNormalization."""
        stem = f"l{len(self.nodes)}"
        per_group = _CHANNELS // groups
        shape = (_CHANNELS, per_group, kernel, kernel)
        weight = self.constant(
            f"{stem}.w", self._rng.normal(0, (per_group * kernel * kernel) ** -0.5, shape)
        )
        pads = [kernel // 2] * 4
        self.nodes.append(
            helper.make_node("Conv", [x, weight], [stem], pads=pads, group=groups)
        )
        return self.norm(stem)

    def norm(self, x: str) -> str:
        """BatchNormalization with drawn statistics."""
        stem = f"l{len(self.nodes)}"
        held = [
            self.constant(f"{stem}.{name}", self._rng.uniform(low, high, _CHANNELS))
            for name, low, high in (
                ("scale", 0.5, 1.5),
                ("B", -0.1, 0.1),
                ("mean", -0.1, 0.1),
                ("var", 0.5, 1.5),
            )
        ]
        self.nodes.append(helper.make_node("BatchNormalization", [x, *held], [stem]))
        return stem

    def block(self, terms: list[str]) -> str:
        """Relu of the sum of branches."""
        total = terms[0]
        for term in terms[1:]:
            stem = f"l{len(self.nodes)}"
            self.nodes.append(helper.make_node("Add", [total, term], [stem]))
            total = stem
        stem = f"l{len(self.nodes)}"
        self.nodes.append(helper.make_node("Relu", [total], [stem]))
        return stem

    def close(self, y: str) -> onnx.ModelProto:
        """Return the model from ``x`` to ``y``."""
        shape = [1, _CHANNELS, _SIZE, _SIZE]
        x_info = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)
        y_info = helper.make_tensor_value_info(y, onnx.TensorProto.FLOAT, shape)
        graph = helper.make_graph(self.nodes, "net", [x_info], [y_info], self.weights)
        opset = helper.make_opsetid("", 17)
        return helper.make_model(graph, opset_imports=[opset], ir_version=8)


def rep_vgg() -> onnx.ModelProto:
    """Blocks of 3×3, 1×1 and identity."""
    net, x = _Branches(1), "x"
    for _ in range(_BLOCKS):
        x = net.block([net.conv(x, 3), net.conv(x, 1), net.norm(x)])
    return net.close(x)


def mobile_one() -> onnx.ModelProto:
    """Blocks of four depthwise branches, 1×1 and identity; then four pointwise ones."""
    net, x = _Branches(2), "x"
    for _ in range(_BLOCKS):
        deep = [net.conv(x, 3, _CHANNELS) for _ in range(4)]
        x = net.block([*deep, net.conv(x, 1, _CHANNELS), net.norm(x)])
        x = net.block([*(net.conv(x, 1) for _ in range(4)), net.norm(x)])
    return net.close(x)


def _session(model: onnx.ModelProto, threads: int) -> Callable[[], object]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (only,) = session.get_inputs()
    shape = [size if isinstance(size, int) else 1 for size in only.shape]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return lambda: session.run(None, {only.name: x})


def _timed(work: Callable[[], object]) -> int:
    start_ns = time.perf_counter_ns()
    work()
    return time.perf_counter_ns() - start_ns


def _ratios(a: Callable[[], object], b: Callable[[], object], rounds: int) -> np.ndarray:
    for _ in range(5):
        a(), b()
    found = []
    for turn in range(rounds):
        if turn % 2:
            late, early = _timed(b), _timed(a)
            found.append(early / late)
        else:
            found.append(_timed(a) / _timed(b))
    return np.array(found)


def _interval(ratios: np.ndarray) -> str:
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(ratios, (2000, ratios.size)), axis=1)
    low, high = np.quantile(medians, (0.025, 0.975))
    return f"{np.median(ratios):.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    """Print original / folded for each net, with its null run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("models", nargs="*", help="files with one image as input, instead")
    options = parser.parse_args()
    nets = {build.__name__: build for build in (rep_vgg, mobile_one)}
    files = {Path(name).stem: partial(onnx.load, name) for name in options.models}
    for name, build in (files or nets).items():
        model = build()
        folded = bnfold.fold(model, verify=False).to_proto()
        a, b, c = (_session(m, options.threads) for m in (model, folded, model))
        gain = _interval(_ratios(a, b, options.rounds))
        null = _interval(_ratios(a, c, options.rounds))
        nodes = f"{len(model.graph.node)} → {len(folded.graph.node)} nodes"
        print(f"{name}: {nodes}, original / folded {gain}, null {null}")


if __name__ == "__main__":
    main()
