"""A run of `run_all` as a page in Markdown, made of its document alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks import arms
from benchmarks.gpu import inference_tables, training_tables
from benchmarks.gpu.inference_tables import short


def page(document: Mapping[str, Any]) -> str:
    """Write the whole run as a page."""
    parts = [
        *_head(document),
        *_tests(document["sections"].get("tests", {})),
        *training_tables.parts(document["sections"].get("training", {})),
        *inference_tables.parts(document["sections"].get("inference", {})),
        *_others(document["sections"]),
        *_log(document["log"]),
    ]
    return "\n\n".join(part.rstrip() for part in parts if part) + "\n"


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
    where = " ".join(part["folders"])
    yield f"{counts or 'none'} (`pytest -m gpu {where}`, exit code {part['exit_code']})."
    bad = [name for name, outcome in part["tests"].items() if outcome in ("failed", "error")]
    yield "\n".join(f"- {name}" for name in bad)


def _others(sections: Mapping[str, Any]) -> Iterator[str]:
    """Sections that bring their own page, or are not there."""
    for name, part in sections.items():
        if part.get("status") in ("missing", "failed"):
            yield f"## {name}: {part['status']}\n\n{short(part.get('why', ''))}"
        if part.get("markdown"):
            yield f"## {name}\n\n{part['markdown']}"


def _log(log: list[Mapping[str, Any]]) -> Iterator[str]:
    yield "## Steps"
    rows = [
        (one["step"], str(one["at_s"]), str(one.get("seconds", "")), short(one["outcome"]))
        for one in log
    ]
    yield arms.markdown_table(("step", "at, s", "took, s", "outcome"), rows)
