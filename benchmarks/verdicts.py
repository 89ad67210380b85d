"""How often `bnfold.benchmark` says what is so: pairs of models of which the answer is known.

    python -m benchmarks.verdicts [--runs 100] [--max-time 30] [--threads 0] [--out R.json]

Four pairs, each compared ``--runs`` times as original and folded model, in random order:

- ``copy``: an identical copy; any difference that is found is a false alarm;
- ``more``: with one more operator, of a cost that is a few percent of the whole;
- ``less``: the same pair the other way round;
- ``unfused``: a copy in which the runtime cannot fold BatchNormalization, because its scale is
  listed as a graph input.

Nothing is done to quiet the machine, so a busy one shows what noise makes of the verdicts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import bnfold
from bnfold.records import Speed

_CHANNELS, _SIZE, _BLOCKS = 32, 28, 6


@dataclass(frozen=True, slots=True)
class Pair:
    """Two model files, and what comparing them must say."""

    original: Path
    other: Path
    right: Speed


def net(*, more: int = 0, overridable: bool = False) -> onnx.ModelProto:
    """Blocks of Conv, BatchNormalization and Relu, then ``more`` further operators.

    Args:
        more: How many Tanh stand at the end.
        overridable: Whether scales are graph inputs too, so that nobody may fold them.
    """
    rng = np.random.default_rng(0)
    nodes, weights, inputs = [], [], []
    x = "x"
    for block in range(_BLOCKS):
        shape = (_CHANNELS, _CHANNELS, 3, 3)
        held = {
            f"w{block}": rng.normal(0, (9 * _CHANNELS) ** -0.5, shape),
            f"scale{block}": rng.uniform(0.5, 1.5, _CHANNELS),
            f"bias{block}": rng.normal(0, 0.1, _CHANNELS),
            f"mean{block}": rng.normal(0, 0.1, _CHANNELS),
            f"var{block}": rng.uniform(0.5, 1.5, _CHANNELS),
        }
        names = list(held)
        weights += [numpy_helper.from_array(a.astype(np.float32), n) for n, a in held.items()]
        if overridable:
            shape_of = [_CHANNELS]
            inputs.append(helper.make_tensor_value_info(names[1], TensorProto.FLOAT, shape_of))
        conv, normed, y = f"conv{block}", f"bn{block}", f"relu{block}"
        nodes.append(helper.make_node("Conv", [x, names[0]], [conv], pads=[1] * 4, name=conv))
        nodes.append(
            helper.make_node("BatchNormalization", [conv, *names[1:]], [normed], name=normed)
        )
        nodes.append(helper.make_node("Relu", [normed], [y], name=y))
        x = y
    for index in range(more):
        y = f"more{index}"
        nodes.append(helper.make_node("Tanh", [x], [y], name=y))
        x = y
    image = [1, _CHANNELS, _SIZE, _SIZE]
    graph = helper.make_graph(
        nodes,
        "known",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, image), *inputs],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, image)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def pairs(folder: Path) -> dict[str, Pair]:
    """Write the models; return the pairs by name."""
    made = {
        "plain": net(),
        "copy": net(),
        "more": net(more=4),
        "unfused": net(overridable=True),
    }
    for name, model in made.items():
        onnx.save(model, folder / f"{name}.onnx")
    plain, copy, more, unfused = (folder / f"{name}.onnx" for name in made)
    return {
        "copy": Pair(plain, copy, Speed.NO_DIFFERENCE),
        "more": Pair(plain, more, Speed.SLOWER),
        "less": Pair(more, plain, Speed.FASTER),
        "unfused": Pair(plain, unfused, Speed.SLOWER),
    }


def judged(pair: Pair, max_time_s: float | None, threads: int, seed: int) -> dict[str, object]:
    """Compare a pair once; return what was said, in figures."""
    begun = time.monotonic()
    report = bnfold.benchmark(
        pair.original,
        pair.other,
        arms=("original", "folded"),
        max_time_s=max_time_s,
        threads=threads,
        seed=seed,
    )
    one, null = report.comparison("folded"), report.comparison("again")
    return {
        "right": one.verdict is pair.right,
        "verdict": one.verdict,
        "ratio": one.ratio,
        "low": one.low,
        "high": one.high,
        "detectable": one.detectable,
        "null_ratio": null.ratio,
        "processes": one.processes,
        "load": report.machine.load_after,
        "stolen": report.machine.stolen,
        "seconds": time.monotonic() - begun,
    }


def line(name: str, rows: list[dict[str, object]]) -> str:
    """Return what was said of one pair, in a line."""
    verdicts = Counter(str(row["verdict"]) for row in rows)
    right = sum(bool(row["right"]) for row in rows)
    ratios = np.array([row["ratio"] for row in rows], np.float64)
    said = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
    seconds = np.mean([row["seconds"] for row in rows])
    return (
        f"{name}: right in {right} of {len(rows)} ({said}); ratio {np.median(ratios):.4f}"
        f" ({ratios.min():.4f} to {ratios.max():.4f}); {seconds:.0f} s each"
    )


def main() -> None:
    """Print a line for each pair as the runs go by."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--max-time", type=float, default=None)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--pairs", nargs="*")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = pairs(Path(name))
        chosen = options.pairs or list(found)
        rows: dict[str, list[dict[str, object]]] = {one: [] for one in chosen}
        for run in range(options.runs):
            for index in np.random.default_rng(run).permutation(len(chosen)):
                one = chosen[index]
                rows[one].append(
                    judged(found[one], options.max_time, options.threads, 1000 * run)
                )
            print(*(line(*entry) for entry in rows.items()), "", sep="\n", flush=True)
            if options.out:
                options.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
