"""What a fold buys on ONNX Runtime, arm by arm: a table of networks.

    python -m benchmarks.arms --cache DIR [--provider cpu] [--batch 1] [--threads 1]
        [--max-time 60] [--out results.json] [--no-samples] [--markdown table.md] [MODEL …]

A MODEL is an ``.onnx`` file or the name of a network of `benchmarks.exports`; without any, the
ten networks of `NETS` are exported into the cache (that needs torch and timm). The files grow
with every network, so what is measured is never lost; Ctrl-C ends with what there is.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import importlib
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
NETS: Final = {
    "levit_128s": "dynamo-batch",
    "vit_small_patch14_dinov2": "dynamo-batch",
    "cait_xxs24_224": "dynamo-batch",
    "convnext_tiny": "dynamo-batch",
    "ocr_svtr": "torchscript-batch",
    "resnetv2_50": "torchscript-batch",
    "densenet121": "torchscript-batch",
    "unet": "torchscript-batch",
    "mobilenetv3_large_100": "torchscript-batch",
    "resnet50": "torchscript-batch",
}
"""The ten networks and how each is exported, with an open batch size.

Both exporters can export each. TorchScript keeps BatchNormalization behind Conv in the file,
so that there is something to fold; of the transformers dynamo writes what users have.
"""

COLUMNS: Final = (
    "network",
    "batch",
    "nodes run",
    "affine nodes left",
    "folded / original",
    "unfused / original",
    "null run",
    "smallest detectable",
    "session creation",
)
NOTES: Final = (
    "Nodes run and affine nodes left: what the runtime still runs after its own optimisation,"
    " original → folded. Times are ratios with an interval: below 1 is less time, “=” is no"
    " detectable difference. “unfused” is the original without the runtime's own BatchNorm"
    " fusions; the null run is a second session of the original. Smallest detectable: the"
    " difference that four of five such runs would have found. Session creation: median of the"
    " folded model over that of the original, each in processes of its own."
)
_NOTHING: Final = "–"
_MARKS: Final = {
    "faster": "faster",
    "slower": "slower",
    "no-detectable-difference": "=",
    "not-measured": "not measured",
}
_INTERRUPTED: Final = 130


def number(entry: object) -> float:
    """Read a number of a document, where infinity and NaN are words."""
    return math.nan if entry is None else float(entry)  # type: ignore[arg-type]  # number or word


def comparison_of(case: Mapping[str, Any], arm: str) -> Mapping[str, Any] | None:
    """Return what a case says of an arm; None if nothing."""
    return next((one for one in case["comparisons"] if one["arm"] == arm), None)


def ratio_cell(case: Mapping[str, Any], arm: str) -> str:
    """Write a ratio of times with interval and verdict, or why there is none."""
    found = comparison_of(case, arm)
    if found is None:
        return "failed" if arm in case["failures"] else _NOTHING
    ratio, low, high = (number(found[key]) for key in ("ratio", "low", "high"))
    if math.isnan(ratio):
        return _NOTHING
    interval = "" if math.isnan(low) else f" [{low:.3f}, {high:.3f}]"
    return f"{ratio:.3f}{interval} {_MARKS[found['verdict']]}"


def detectable_cell(case: Mapping[str, Any], arm: str = "folded") -> str:
    """Write the smallest difference that would have been found."""
    found = comparison_of(case, arm)
    share = math.nan if found is None else number(found["detectable"])
    return _NOTHING if not math.isfinite(share) else f"{100 * share:.1f} %"


def counts_cell(document: Mapping[str, Any], key: str) -> str:
    """Write how many nodes (or affine nodes) run in the original and in the folded model."""
    counts = []
    for arm in ("original", "folded"):
        graph = next((one for one in document["graphs"] if one["arm"] == arm), None)
        counts.append(_NOTHING if graph is None else str(_count(graph[key])))
    return " → ".join(counts)


def _count(entry: Any) -> int:
    return sum(entry.values()) if isinstance(entry, Mapping) else len(entry)


def start_cell(document: Mapping[str, Any], batch: int | None) -> str:
    """Write session creation of the folded model over that of the original."""
    times: dict[str, list[float]] = {"original": [], "folded": []}
    for one in document["starts"]:
        if one["arm"] in times and one["batch"] == batch:
            times[one["arm"]].append(number(one["session_ms"]))
    if not all(times.values()):
        return _NOTHING
    return f"{statistics.median(times['folded']) / statistics.median(times['original']):.2f}"


def null_name(document: Mapping[str, Any]) -> str:
    """Return the name of the second session of the original."""
    return next((one["name"] for one in document["arms"] if one["null"]), "")


def rows_of(name: str, document: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield a row of `COLUMNS` for every batch size of a benchmark's document."""
    for case in document["cases"]:
        yield (
            name,
            _NOTHING if case["batch"] is None else str(case["batch"]),
            counts_cell(document, "nodes"),
            counts_cell(document, "affine"),
            ratio_cell(case, "folded"),
            ratio_cell(case, "unfused"),
            ratio_cell(case, null_name(document)),
            detectable_cell(case),
            start_cell(document, case["batch"]),
        )


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table in Markdown; text to the left, all else to the right."""
    ruler = ["---", *("--:" for _ in columns[1:])]
    lines = [_line(columns), _line(ruler), *(_line(row) for row in rows)]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    safe = (cell.replace("|", "\\|").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(safe)} |"


def without_samples(document: dict[str, Any]) -> dict[str, Any]:
    """Leave out what makes a document large: single calls, nodes and steps of the fold.

    What remains says how many there were. The result no longer reads as a report of
    `bnfold.report`, which promises every sample.
    """
    graphs = [{**graph, **_affine_counted(graph["affine"])} for graph in document["graphs"]]
    cases = [{**case, "series": _counted(case["series"])} for case in document["cases"]]
    fold = document.get("fold") or {}
    kept = {
        "operators": fold.get("operators"),
        "folded": len(fold.get("folded", ())),
        "stayed": len(fold.get("stayed", ())),
        "warnings": fold.get("warnings", ()),
    }
    return {**document, "cases": cases, "graphs": graphs, "fold": kept if fold else None}


def _affine_counted(nodes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Affine nodes by kind, and their share of the time of all nodes where that is known."""
    shares = [one["share"] for one in nodes if one["share"] is not None]
    return {
        "affine": dict(collections.Counter(f"{one['kind']} {one['along']}" for one in nodes)),
        "affine_share": sum(shares) if shares else None,
    }


def _counted(series: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            **{key: one[key] for key in ("arm", "process", "warm_up_calls", "settled")},
            "turns": len(one["turns"]),
            "calls": sum(len(turn["calls_ns"]) for turn in one["turns"]),
        }
        for one in series
    ]


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def exported_path(name: str, exporter: str, cache: Path) -> Path:
    """Return where `benchmarks.exports` puts a network."""
    return cache / f"{name}.{exporter}.onnx"


def exporting(name: str, exporter: str, cache: Path) -> subprocess.Popen[bytes]:
    """Start the export of one network into the cache, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.exports", "--cache", str(cache.resolve())]
    with exported_path(name, exporter, cache).with_suffix(".log").open("wb") as log:
        return subprocess.Popen(
            [*command, "--exporter", exporter, name],
            cwd=ROOT,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def export_failure(path: Path) -> str:
    """Say in a line why an export is not there."""
    for told, which in ((path.with_suffix(".failed.txt"), 0), (path.with_suffix(".log"), -1)):
        text = told.read_text(encoding="utf-8", errors="replace") if told.exists() else ""
        if text.strip():
            return text.strip().splitlines()[which]
    return "the exporter wrote nothing"


def summary(document: Mapping[str, Any]) -> str:
    """Say in lines where, when and how the documents of a results file were measured."""
    head = document["made"]
    measured = document["networks"]
    machine = next((one["document"]["machine"] for one in measured if one["document"]), {})
    versions = ", ".join(
        f"{key} {value}" for key, value in machine.get("versions", {}).items()
    )
    samples = sum(_calls(one["document"]) for one in measured if one["document"])
    where = f"{machine.get('processor', '?')}, {machine.get('cores', '?')} cores"
    return (
        f"{head['date']}, `{head['command']}`\n\n{where}, {machine.get('system', '?')}"
        f" {machine.get('device', '')}; {versions}. {samples} timed calls.\n"
    )


def _calls(document: Mapping[str, Any]) -> int:
    return sum(one["calls"] for case in document["cases"] for one in case["latencies"])


def report_text(document: Mapping[str, Any]) -> str:
    """Write a results file as a page: head, table, what went wrong, notes."""
    rows: list[tuple[str, ...]] = []
    wrong: list[str] = []
    for one in document["networks"]:
        if one["document"] is None:
            rows.append((one["network"], *[_NOTHING] * (len(COLUMNS) - 2), "failed"))
            wrong.append(f"- {one['network']}: {one['error']}")
        else:
            rows.extend(rows_of(one["network"], one["document"]))
            wrong.extend(_failures(one["network"], one["document"]))
    parts = [summary(document), markdown_table(COLUMNS, rows), NOTES]
    if wrong:
        parts.append("\n".join(wrong))
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _failures(name: str, document: Mapping[str, Any]) -> Iterator[str]:
    for case in document["cases"]:
        for arm, why in case["failures"].items():
            yield f"- {name}, batch {case['batch']}, {arm}: {why}"


def measure(path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Fold and benchmark a model; return its document."""
    bnfold = importlib.import_module("bnfold")
    to_json = importlib.import_module("bnfold.report.to_json")
    report = bnfold.benchmark(
        path,
        provider=arguments.provider,
        batch=tuple(arguments.batch) if arguments.batch else None,
        threads=arguments.threads,
        dtype=arguments.dtype,
        cuda_graph=arguments.cuda_graph,
        max_time_s=arguments.max_time,
        progress=_ProgressLine(path.stem),
    )
    document = to_json.bench_document(report)
    return document if arguments.samples else without_samples(document)


class _ProgressLine:
    """What is being done, on one line of a terminal."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, stage: Any) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{self._name}: {stage.doing}", end="", file=sys.stderr, flush=True)


def was_interrupted(document: Mapping[str, Any]) -> bool:
    """Return whether Ctrl-C ended a benchmark; then later cases are missing altogether."""
    endings = [case["ending"] for case in document["cases"]]
    return not endings or "interrupted" in endings


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", default=list(NETS))
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--batch", type=int, action="append", help="repeatable; default 1")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-time", type=float, help="seconds for each network")
    parser.add_argument("--dtype", default="model", choices=("model", "float16"))
    parser.add_argument("--cuda-graph", action="store_true")
    parser.add_argument("--out", type=Path, help="JSON with every benchmark's document")
    parser.add_argument("--markdown", type=Path, help="the table as a page")
    parser.add_argument("--no-samples", dest="samples", action="store_false")
    arguments = parser.parse_args()
    arguments.batch = arguments.batch or [1]
    return arguments


def _located(model: str, cache: Path) -> Path:
    """Find a model: a file, or a network which is exported if the cache lacks it.

    Raises:
        RuntimeError: If it cannot be exported.
    """
    if model.endswith(".onnx"):
        return Path(model)
    exporter = NETS.get(model, "torchscript-batch")
    path = exported_path(model, exporter, cache)
    if not path.exists():
        exporting(model, exporter, cache).wait()
    if not path.exists():
        message = f"not exported: {export_failure(path)}"
        raise RuntimeError(message)
    return path


def _entry(model: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure one model; whatever goes wrong with it is its entry."""
    document, error = None, ""
    try:
        document = measure(_located(model, arguments.cache), arguments)
    except Exception as caught:  # noqa: BLE001  one network's failure must not cost the others
        error = " ".join(f"{type(caught).__name__}: {caught}".split())
    return {"network": Path(model).name, "error": error, "document": document}


def main() -> int:
    """Measure every model and write what there is after each; return the exit code."""
    arguments = _parsed()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    made = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m benchmarks.arms", *sys.argv[1:]]),
    }
    results: dict[str, Any] = {"schema": "bnfold/arms/1", "made": made, "networks": []}
    try:
        for model in arguments.models:
            entry = _entry(model, arguments)
            results["networks"].append(entry)
            _write(results, arguments)
            if entry["document"] and was_interrupted(entry["document"]):
                return _INTERRUPTED
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 0


def _write(results: Mapping[str, Any], arguments: argparse.Namespace) -> None:
    if arguments.out:
        text = json.dumps(results, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        write_whole(arguments.out, text + "\n")
    if arguments.markdown:
        write_whole(arguments.markdown, report_text(results))
    last = results["networks"][-1]
    rows = list(rows_of(last["network"], last["document"])) if last["document"] else []
    if len(results["networks"]) == 1:
        print(markdown_table(COLUMNS, []), end="", flush=True)
    for row in rows or [(last["network"], last["error"])]:
        print(_line(row), flush=True)


if __name__ == "__main__":
    sys.exit(main())
