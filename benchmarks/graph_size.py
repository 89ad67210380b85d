"""What a fold costs for one node, in graphs of 10³ to 10⁶ nodes: CPU time and peak memory.

    python -m benchmarks.graph_size [--million] [--kinds "mul chain,relu chain"] [--all]
                                    [--rounds 2] [--file] [--json results.json]

Each size of each kind of graph (`benchmarks.long_graphs`) is folded in a process of its own,
``--rounds`` times, and the least CPU time counts. Memory is how far the peak resident memory
of that process grew from before the fold to behind it. What is promised is the ratio of the
time for one node between the largest graph and that of 10⁴ nodes: 1.5 at most.

``--file`` goes the whole way of ``bnfold fold --no-verify``: it reads the model from a file,
folds it and writes it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import onnx

import bnfold
from benchmarks.fold_cost import environment
from benchmarks.long_graphs import KINDS, PROMISED, long_graph

_SIZES: Final = (1_000, 10_000, 100_000)
_MILLION: Final = 1_000_000
_BASE: Final = 10_000


def measured_here(kind: str, nodes: int, *, file: bool) -> dict[str, float]:
    """Fold one graph in this process; return CPU time in seconds and growth in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        source: Path | onnx.ModelProto = long_graph(kind, nodes)
        if file:
            path = Path(folder) / "model.onnx"
            onnx.save(source, path)
            source = path
        before, start = _peak_bytes(), time.process_time()
        result = bnfold.fold(source, verify=False)
        if file:
            result.save(Path(folder) / "folded.onnx")
        elapsed_s = time.process_time() - start
        return {"cpu_s": elapsed_s, "bytes": _peak_bytes() - before}


def _peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measured(kind: str, nodes: int, rounds: int, *, file: bool) -> dict[str, float]:
    """Fold one graph in processes of their own; return the least time and memory."""
    command = [sys.executable, "-m", "benchmarks.graph_size", "--one", kind, str(nodes)]
    rows = [
        json.loads(
            subprocess.run(
                [*command, *(["--file"] if file else [])],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
        for _ in range(rounds)
    ]
    return {name: min(row[name] for row in rows) for name in ("cpu_s", "bytes")}


def table(kinds: list[str], sizes: list[int], rounds: int, *, file: bool) -> list[dict]:
    """Measure every kind at every size, and print each row as soon as it is there."""
    print(f"| graph | {' | '.join(f'{n:,}: s, ms/node' for n in sizes)} | ratio | B/node |")
    print("|---|" + "---|" * (len(sizes) + 2))
    rows = []
    for kind in kinds:
        found = {n: measured(kind, n, rounds, file=file) for n in sizes}
        per_node_ms = {n: 1e3 * found[n]["cpu_s"] / n for n in sizes}
        base, largest = min(_BASE, max(sizes)), max(sizes)
        row = {
            "kind": kind,
            "cpu_s": {n: found[n]["cpu_s"] for n in sizes},
            "ms_per_node": per_node_ms,
            "ratio": per_node_ms[largest] / per_node_ms[base],
            "bytes_per_node": {n: found[n]["bytes"] / n for n in sizes},
        }
        rows.append(row)
        cells = " | ".join(f"{found[n]['cpu_s']:.2f}, {per_node_ms[n]:.3f}" for n in sizes)
        bytes_per_node = found[largest]["bytes"] / largest
        print(f"| {kind} | {cells} | {row['ratio']:.2f} | {bytes_per_node:.0f} |", flush=True)
    return rows


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--million", action="store_true", help="10⁶ nodes too: minutes each")
    parser.add_argument("--all", action="store_true", help="every kind, not the promised four")
    parser.add_argument("--kinds", help="names of kinds, with commas between")
    parser.add_argument("--sizes", help="other numbers of nodes, with commas between")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--file", action="store_true", help="from a file to a file")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=2, metavar=("KIND", "NODES"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        kind, nodes = arguments.one
        print(json.dumps(measured_here(kind, int(nodes), file=arguments.file)))
        return
    kinds = list(KINDS if arguments.all else PROMISED)
    if arguments.kinds:
        kinds = [kind.strip() for kind in arguments.kinds.split(",")]
    sizes = [*_SIZES, *([_MILLION] if arguments.million else [])]
    if arguments.sizes:
        sizes = [int(size) for size in arguments.sizes.split(",")]
    rows = table(kinds, sizes, arguments.rounds, file=arguments.file)
    if arguments.json:
        document = {"environment": environment(), "file": arguments.file, "rows": rows}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
