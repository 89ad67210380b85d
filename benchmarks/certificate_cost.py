"""What checking a certificate costs, as ratios to named baselines of the same run.

    python -m benchmarks.certificate_cost [--rounds 7] [--json results.json] [MODEL.onnx ...]

Baselines, measured turn about in one process:

- *read*: onnx.load of both files, every weight touched once;
- *forward*: one float64 forward pass of the original by `bnfold.evidence.reference`.

Without MODEL it takes a network of eleven 3x3 convolutions with 512 channels, about 100 MB.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import bnfold
from bnfold.evidence.proof import prove, read_certificate
from bnfold.evidence.reference import Evaluator
from bnfold.inputs.drawing import Binding, Case, Style, draw_inputs
from bnfold.inputs.signature import inputs_of
from bnfold.model.io import load

_LAYERS = 11
_WIDTH = 512


def large_network() -> onnx.ModelProto:
    """Return Conv + BatchNormalization + Relu, eleven times."""
    rng = np.random.default_rng(0)
    nodes, stored, data = [], {}, "x"
    for layer in range(_LAYERS):
        weight = rng.standard_normal((_WIDTH, _WIDTH, 3, 3)) * 0.02
        vectors = [rng.uniform(0.5, 2.0, _WIDTH) for _ in range(4)]
        names = [f"{name}{layer}" for name in ("w", "scale", "B", "mean", "var")]
        stored.update(zip(names, (weight, *vectors), strict=True))
        outputs = [f"{name}{layer}" for name in ("conv", "bn", "relu")]
        nodes += [
            helper.make_node("Conv", [data, names[0]], outputs[:1], pads=[1] * 4),
            helper.make_node("BatchNormalization", [outputs[0], *names[1:]], outputs[1:2]),
            helper.make_node("Relu", outputs[1:2], outputs[2:]),
        ]
        data = outputs[2]
    sides = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, _WIDTH, 14, 14])
        for n in ("x", data)
    ]
    tensors = [numpy_helper.from_array(a.astype(np.float32), n) for n, a in stored.items()]
    graph = helper.make_graph(nodes, "large", sides[:1], sides[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def _read(*files: Path) -> None:
    for file in files:
        for tensor in onnx.load(file).graph.initializer:
            numpy_helper.to_array(tensor).max(initial=0)


def measure(path: Path, folder: Path, rounds: int) -> dict[str, object]:
    """Return the samples of one model, in seconds."""
    folded, record = folder / "folded.onnx", folder / "certificate.json"
    result = bnfold.fold(path, verify=False, certificate=True)
    result.save(folded)
    assert result.certificate is not None  # asked for
    record.write_text(result.certificate.to_json(), encoding="utf-8")
    original = load(path)
    feeds = draw_inputs(inputs_of(original), Case(Binding(size=224), Style.NORMAL), 0)

    def check() -> None:
        report = prove(load(path), load(folded), read_certificate(record))
        if not report.passed:
            raise SystemExit(f"{path.name}: {report}")

    work: dict[str, Callable[[], object]] = {
        "read": lambda: _read(path, folded),
        "check": check,
        "forward": lambda: Evaluator(original).run(feeds),
    }
    samples: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(rounds + 1):
        for name, job in work.items():
            start = time.perf_counter()
            job()
            if turn:
                samples[name].append(time.perf_counter() - start)
    return {"model": path.name, "size_bytes": path.stat().st_size, "seconds": samples}


def main() -> None:
    """Measure, print ratios of medians, write the samples."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = options.models
        if not models:
            models = [folder / "large.onnx"]
            onnx.save(large_network(), models[0])
        for path in models:
            row = measure(path, folder, options.rounds)
            seconds = {k: statistics.median(v) for k, v in row["seconds"].items()}  # type: ignore[attr-defined]
            print(
                f"{row['model']}: check / read {seconds['check'] / seconds['read']:.2f}, "
                f"check / forward {seconds['check'] / seconds['forward']:.2f}"
            )
            rows.append(row)
    if options.json:
        about = {"machine": platform.machine(), "python": platform.python_version()}
        options.json.write_text(json.dumps({**about, "models": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
