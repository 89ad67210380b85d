"""How many affine operators other tools leave of the same models.

    python -m benchmarks.peers.compare [--json R.json] [--markdown TABLE.md] MODEL.onnx …

Peers are those that are installed: ONNX Runtime's own offline optimisation (all levels, and
without its layouts), onnxsim, onnxslim, onnxoptimizer and the optimizer of onnxscript. Each
runs in a process of its own, for some take the interpreter with them. What is counted is what
`benchmarks.affine_operators` counts; an operator hidden in a fused node is gone. So is a
BatchNormalization that the runtime turns into a convolution of its own layout: the fair
comparison with the runtime is the folded model after the runtime, in a column of its own. The
last column counts all operators that the runtime then runs: a fold must not cost it a fusion.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import onnx

from benchmarks.affine_operators import AffineCount, count_affine

_LIMIT_S: Final = 180.0
_BOTH: Final = "bnfold, then runtime"


def _runtime(source: Path, target: Path, *, layouts: bool) -> None:
    import onnxruntime as ort

    options = ort.SessionOptions()
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = (
        levels.ORT_ENABLE_ALL if layouts else levels.ORT_ENABLE_EXTENDED
    )
    options.optimized_model_filepath = str(target)
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _runtime_all(source: Path, target: Path) -> None:
    _runtime(source, target, layouts=True)


def _runtime_extended(source: Path, target: Path) -> None:
    _runtime(source, target, layouts=False)


def _onnxsim(source: Path, target: Path) -> None:
    import onnxsim

    model, _ = onnxsim.simplify(onnx.load(source))
    onnx.save(model, target)


def _onnxslim(source: Path, target: Path) -> None:
    import onnxslim

    onnx.save(onnxslim.slim(onnx.load(source)), target)


def _onnxoptimizer(source: Path, target: Path) -> None:
    import onnxoptimizer

    passes = onnxoptimizer.get_fuse_and_elimination_passes()
    onnx.save(onnxoptimizer.optimize(onnx.load(source), passes, fixed_point=True), target)


def _onnxscript(source: Path, target: Path) -> None:
    import onnxscript.optimizer

    onnx.save(onnxscript.optimizer.optimize(onnx.load(source)), target)


def _bnfold(source: Path, target: Path) -> None:
    import bnfold

    bnfold.fold(source, verify=False).save(target)


def _bnfold_runtime(source: Path, target: Path) -> None:
    folded = target.with_name("folded.onnx")
    _bnfold(source, folded)
    _runtime_all(folded, target)


TOOLS: Final[dict[str, Callable[[Path, Path], None]]] = {
    "bnfold": _bnfold,
    _BOTH: _bnfold_runtime,
    "runtime, all": _runtime_all,
    "runtime, extended": _runtime_extended,
    "onnxsim": _onnxsim,
    "onnxslim": _onnxslim,
    "onnxoptimizer": _onnxoptimizer,
    "onnxscript": _onnxscript,
}


@dataclass(frozen=True, slots=True)
class Row:
    """What is left of one model by each tool; a text says why there is no count."""

    model: str
    before: AffineCount | str
    left: dict[str, AffineCount | str]

    def line(self) -> str:
        """Return its line of the table; a peer that leaves less than bnfold is in bold."""
        cells = [self.model, _cell(self.before)]
        for tool, count in self.left.items():
            rival = _BOTH if tool.startswith("runtime") else "bnfold"
            better = tool != _BOTH and _is_less(count, self.left[rival])
            cells.append(f"**{_cell(count)}**" if better else _cell(count))
        cells.append(_kernels(self.left["runtime, all"], self.left[_BOTH]))
        return "| " + " | ".join(cells) + " |"


def _cell(count: AffineCount | str) -> str:
    if isinstance(count, str):
        return count
    return f"{count.total} + {count.biases}" if count.biases else str(count.total)


def _is_less(count: AffineCount | str, ours: AffineCount | str) -> bool:
    if isinstance(count, str) or isinstance(ours, str):
        return False
    return (count.total, count.biases) < (ours.total, ours.biases)


def _kernels(alone: AffineCount | str, folded: AffineCount | str) -> str:
    """Say how many operators the runtime runs; more than without a fold is a fault."""
    if isinstance(alone, str) or isinstance(folded, str):
        return "–"
    text = f"{alone.operators} → {folded.operators}"
    return f"**{text}**" if folded.operators > alone.operators else text


def _child(tool: str, source: Path, target: Path) -> None:
    TOOLS[tool](source, target)


def left_by(tool: str, source: Path) -> AffineCount | str:
    """Run one tool on one model in a process of its own and count what it leaves."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "model.onnx"
        context = multiprocessing.get_context("fork")
        child = context.Process(target=_child, args=(tool, source, target), daemon=True)
        child.start()
        child.join(_LIMIT_S)
        if child.is_alive():
            child.terminate()
            child.join()
            return "too slow"
        if child.exitcode or not target.exists():
            return "failed"
        return count_affine(onnx.load(target))


def main() -> None:
    """Print the table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    lines = [
        "| model | as it is | " + " | ".join(TOOLS) + " | kernels, runtime → after a fold |",
        "|---|--:|" + "--:|" * (len(TOOLS) + 1),
    ]
    print(*lines, sep="\n")
    rows: list[Row] = []
    for path in arguments.models:
        left = {tool: left_by(tool, path) for tool in TOOLS}
        rows.append(Row(path.stem, count_affine(onnx.load(path)), left))
        lines.append(rows[-1].line())
        print(lines[-1], flush=True)
        if arguments.json:
            text = json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False)
            arguments.json.write_text(text + "\n")
        if arguments.markdown:
            arguments.markdown.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
