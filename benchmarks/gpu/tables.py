"""A run of `run_all` as a page in Markdown, made of its document alone."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping
from typing import Any, Final

from benchmarks import arms

COLUMNS: Final = (
    "network",
    "batch",
    "type",
    "CUDA graph",
    "nodes run",
    "affine nodes left",
    "original, ms",
    "folded / original",
    "unfused / original",
    "null run",
    "smallest detectable",
    "session creation",
)
_NOTHING: Final = "–"
_TYPES: Final = {"model": "float32", "float16": "float16"}
_LONGEST: Final = 300


def page(document: Mapping[str, Any]) -> str:
    """Write the whole run as a page."""
    parts = [
        *_head(document),
        *_tests(document["sections"].get("tests", {})),
        *_inference(document["sections"].get("inference", {})),
        *_others(document["sections"]),
        *_log(document["log"]),
    ]
    return "\n\n".join(part.rstrip() for part in parts if part) + "\n"


def inference_rows(part: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the cells of `COLUMNS` for every measurement, those that failed included."""
    for row in part.get("rows", ()):
        head = (
            row["net"],
            _NOTHING if row["batch"] is None else str(row["batch"]),
            _TYPES.get(row["dtype"], _NOTHING),
            "yes" if row["cuda_graph"] else "no",
        )
        if row["document"] and row["document"]["cases"]:
            yield (*head, *_measured(row["document"]))
        else:
            yield (*head, *[_NOTHING] * 3, "failed", *[_NOTHING] * 4)


def _measured(document: Mapping[str, Any]) -> tuple[str, ...]:
    case = document["cases"][0]
    return (
        arms.counts_cell(document, "nodes"),
        arms.counts_cell(document, "affine"),
        _median(case, "original"),
        arms.ratio_cell(case, "folded"),
        arms.ratio_cell(case, "unfused"),
        arms.ratio_cell(case, arms.null_name(document)),
        arms.detectable_cell(case),
        arms.start_cell(document, case["batch"]),
    )


def _median(case: Mapping[str, Any], arm: str) -> str:
    found = [arms.number(one["p50_ms"]) for one in case["latencies"] if one["arm"] == arm]
    return f"{found[0]:.3f}" if found else _NOTHING


def _head(document: Mapping[str, Any]) -> Iterator[str]:
    yield f"# {document['device']}, {document['date'][:10]}"
    if document["dry_run"]:
        yield "**A dry run on a CPU: it shows that the path works, and measures nothing.**"
    found = document["environment"]
    versions = ", ".join(f"{key} {value}" for key, value in found.get("versions", {}).items())
    gpu = ", ".join(f"{key} {value}" for key, value in found.get("gpu", {}).items())
    yield f"`{document['command']}`: {document['ended']} after {document['elapsed_s']} s."
    machine = f"{found.get('processor', '?')}, {found.get('cores', '?')} cores"
    machine += f", {found.get('system', '?')}, Python {found.get('python', '?')}"
    yield f"{machine}; {versions}."
    if gpu:
        yield f"GPU before the run: {gpu}."


def _tests(part: Mapping[str, Any]) -> Iterator[str]:
    if "verdict" not in part:
        return
    counts = ", ".join(f"{count} {outcome}" for outcome, count in part["counts"].items())
    yield f"## GPU tests: {part['verdict']}"
    yield f"{counts or 'none'} (`pytest -m gpu tests/gpu`, exit code {part['exit_code']})."
    bad = [name for name, outcome in part["tests"].items() if outcome in ("failed", "error")]
    yield "\n".join(f"- {name}" for name in bad)


def _inference(part: Mapping[str, Any]) -> Iterator[str]:
    if "rows" not in part:
        return
    yield "## Inference"
    yield arms.markdown_table(COLUMNS, list(inference_rows(part)))
    yield arms.NOTES + " Original: median of a call, copies to and from the device left out."
    missing = len(part["not_reached"])
    if missing:
        yield f"Not measured, for time or failure: {missing} of the plan (listed in the JSON)."
    yield "\n".join(
        f"- {row['key']}: {_short(row['why'])}" for row in part["rows"] if row["why"]
    )
    yield _warnings(part)


def _warnings(part: Mapping[str, Any]) -> str:
    """What the benchmarks warn of, each warning once with how often it came."""
    told = collections.Counter(
        warning
        for row in part["rows"]
        if row["document"]
        for warning in row["document"]["warnings"]
    )
    return "\n".join(f"- {count}×: {_short(text)}" for text, count in told.most_common())


def _others(sections: Mapping[str, Any]) -> Iterator[str]:
    """Sections that bring their own page, or are not there."""
    for name, part in sections.items():
        if part.get("status") in ("missing", "failed"):
            yield f"## {name}: {part['status']}\n\n{_short(part.get('why', ''))}"
        if part.get("markdown"):
            yield f"## {name}\n\n{part['markdown']}"


def _log(log: list[Mapping[str, Any]]) -> Iterator[str]:
    yield "## Steps"
    rows = [
        (one["step"], str(one["at_s"]), str(one.get("seconds", "")), _short(one["outcome"]))
        for one in log
    ]
    yield arms.markdown_table(("step", "at, s", "took, s", "outcome"), rows)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
