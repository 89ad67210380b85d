"""What was measured of inference, as parts of a page in Markdown."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from benchmarks import arms
from benchmarks.gpu import rows

TIMES: Final = (
    "network",
    "batch",
    "original, ms",
    "folded / original",
    "unfused / original",
    "null run",
    "smallest detectable",
)
RUNS: Final = (
    "network",
    "type",
    "nodes run",
    "affine nodes left",
    "their share of the time",
    "session creation",
)
_NOTHING: Final = "–"
_TYPES: Final = {"model": "float32", "float16": "float16"}
_WAYS: Final = (("model", False), ("float16", False), ("model", True), ("float16", True))
_VERDICTS: Final = {
    "faster": "faster",
    "slower": "slower",
    "no-detectable-difference": "without a detectable difference",
    "not-measured": "without an interval",
    "failed": "failed",
}
_NOTES: Final = (
    "Times are ratios with an interval: below 1 is less time, “=” is no detectable difference,"
    " “not measured” had too few processes for an interval. Original: median of a call, copies"
    " to and from the device left out. Unfused: the original without the runtime's own"
    " BatchNorm fusions. Null run: a second session of the original, which must be “=”."
    " Smallest detectable: the difference that four of five such runs would have found."
)
_RUNS_NOTES: Final = (
    "Nodes run and affine nodes left: what the runtime still runs after its own optimisation,"
    " original → folded; the share of the time is by its profiler, in the original. Session"
    " creation: time of the folded model over that of the original, each in processes of its"
    " own; of few samples, a hint."
)
_WARNED: Final = (
    "### What the benchmarks warn of\n\n"
    "By number of tasks; `--max-time` of a task is its share of `--minutes`."
)
_LONGEST: Final = 300
_PARTICULARS: Final = re.compile(r"^batch [\d, ]+: | \([^()]*\)")


def parts(part: Mapping[str, Any]) -> Iterator[str]:
    """Yield the parts of the page, from the section's results."""
    if "rows" not in part:
        return
    yield "## Inference"
    planned, missing = part.get("planned", 0), len(part["not_reached"])
    if planned:
        yield (
            f"Of {planned} planned measurements (a network at a batch size, in one way)"
            f" {planned - missing} are there"
            + ("; the JSON lists the others, and `--resume` gets them." if missing else ".")
        )
    tables = [table for way in _WAYS for table in _times(part, *way)]
    yield from tables
    yield _NOTES if tables else "Nothing was measured."
    yield from _runs(part)
    yield from _said("### What went wrong", _wrong(part["rows"]))
    yield from _said(_WARNED, _warnings(part["rows"]))


def _times(part: Mapping[str, Any], dtype: str, cuda_graph: bool) -> Iterator[str]:  # noqa: FBT001  a key, no choice
    """A table of the cases measured in one way, and what they come to."""
    cells, verdicts = [], collections.Counter[str]()
    for row, batch in _cases(part, dtype, cuda_graph):
        case = rows.case_of(row, batch)
        cells.append((row["net"], str(batch), *time_cells(row, case)))
        verdicts[_verdict(case)] += 1
    if cells:
        yield f"### {_TYPES[dtype]}{', CUDA graphs' if cuda_graph else ''}"
        counts = [
            f"{verdicts[key]} {said}" for key, said in _VERDICTS.items() if verdicts[key]
        ]
        yield f"Folded against original, of {len(cells)}: {', '.join(counts)}."
        yield arms.markdown_table(TIMES, cells)


def _cases(
    part: Mapping[str, Any],
    dtype: str,
    cuda_graph: bool,  # noqa: FBT001  a key, no choice
) -> list[tuple[rows.Row, int]]:
    """Rows and batch sizes in one way, sorted by network and size."""
    order = {net: index for index, net in enumerate(part.get("nets", {}))}
    found = [
        (row, batch)
        for row in part["rows"]
        if (row["dtype"], row["cuda_graph"]) == (dtype, cuda_graph)
        for batch in row["batches"]
    ]
    return sorted(found, key=lambda one: (order.get(one[0]["net"], len(order)), one[1]))


def time_cells(row: rows.Row, case: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Write the cells of `TIMES` behind network and batch size."""
    if case is None or not case["latencies"]:
        return (_NOTHING, "failed", *[_NOTHING] * 3)
    return (
        _median(case, "original"),
        arms.ratio_cell(case, "folded"),
        arms.ratio_cell(case, "unfused"),
        arms.ratio_cell(case, arms.null_name(row["document"])),
        arms.detectable_cell(case),
    )


def _median(case: Mapping[str, Any], arm: str) -> str:
    found = [arms.number(one["p50_ms"]) for one in case["latencies"] if one["arm"] == arm]
    return f"{found[0]:.3f}" if found else _NOTHING


def _verdict(case: Mapping[str, Any] | None) -> str:
    found = arms.comparison_of(case, "folded") if case else None
    return found["verdict"] if found else "failed"


def _runs(part: Mapping[str, Any]) -> Iterator[str]:
    """A table of what the runtime runs of each network, where that was looked at."""
    order = list(part.get("nets", {}))
    found = {(row["net"], row["dtype"]): row for row in part["rows"] if _has_graphs(row)}
    cells = [
        (net, _TYPES[dtype], *run_cells(found[net, dtype]["document"]))
        for net in dict.fromkeys((*order, *(net for net, _ in found)))
        for dtype in _TYPES
        if (net, dtype) in found
    ]
    if cells:
        yield "### What runs"
        yield arms.markdown_table(RUNS, cells)
        yield _RUNS_NOTES


def _has_graphs(row: rows.Row) -> bool:
    return bool(row["document"] and row["document"]["graphs"])


def run_cells(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Write the cells of `RUNS` behind network and type."""
    batch = next((one["batch"] for one in document["starts"]), None)
    return (
        arms.counts_cell(document, "nodes"),
        arms.counts_cell(document, "affine"),
        _share(document),
        arms.start_cell(document, batch),
    )


def _share(document: Mapping[str, Any]) -> str:
    """The share of the time that affine nodes take in the original."""
    for graph in document["graphs"]:
        share = graph.get("affine_share")
        if graph["arm"] == "original" and share is not None:
            return f"{100 * arms.number(share):.1f} %"
    return _NOTHING


def _wrong(found: Sequence[rows.Row]) -> Iterator[str]:
    """What went wrong, each reason once with all that it befell."""
    told: dict[str, list[str]] = collections.defaultdict(list)
    for row in found:
        if row["why"]:
            told[row["why"]].append(row["key"])
    for why, keys in told.items():
        yield f"- {short('; '.join(keys))}: {short(why)}"


def _warnings(found: Sequence[rows.Row]) -> Iterator[str]:
    """What the benchmarks warn of, each warning once with how often it came.

    Batch sizes, and figures in parentheses, are left to the JSON.
    """
    told = collections.Counter(
        _PARTICULARS.sub("", warning)
        for row in found
        if row["document"]
        for warning in row["document"]["warnings"]
    )
    for text, count in told.most_common():
        yield f"- {count}×: {short(text)}"


def _said(title: str, lines: Iterator[str]) -> Iterator[str]:
    told = list(lines)
    if told:
        yield title
        yield "\n".join(told)


def short(text: str) -> str:
    """Write a text in one line, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
