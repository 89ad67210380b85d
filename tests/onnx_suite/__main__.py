"""Fold all models of the suite, as they are and wrapped; print counts and every fault.

    python -m tests.onnx_suite [--turns N] [--output LINES.jsonl]

Lines of the output say what became of each model; a run that was stopped goes on from them,
unless a file of the package or of the instrument is younger than they are.
The exit code is 1 if a part of the promise is broken, or if as many originals as were counted
(`tests.onnx_suite.counts`) are not what the runtime refuses.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from dataclasses import asdict
from pathlib import Path

from tests.laws.by_runtime import Runtime
from tests.onnx_suite.counts import unexpected, words
from tests.onnx_suite.models import all_tests
from tests.onnx_suite.trial import AS_IT_IS, WRAPPED, Line, tried

_ROOT = Path(__file__).parents[2]


def main() -> int:
    """Run what is not done yet, and count."""
    parser = argparse.ArgumentParser(prog="python -m tests.onnx_suite")
    parser.add_argument("--turns", type=int, default=1, help="other maps at every turn")
    parser.add_argument("--output", type=Path, default=Path("build/suite.jsonl"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    lines = _all_lines(options.output, options.turns)
    for line in lines.values():
        for fault in line.faults:
            print(f"FAULT {line.name}, {line.way}: {fault}")
    print(words(list(lines.values())))
    wrong = unexpected([one for (_, _, turn), one in lines.items() if turn == 0])
    for told in wrong:
        print(f"UNEXPECTED {told}")
    return int(bool(wrong) or any(line.faults for line in lines.values()))


def _all_lines(path: Path, turns: int) -> dict[tuple[str, str, int], Line]:
    done = {} if _is_outdated(path) else _read(path)
    if not done:
        path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    tasks = [
        (test, way, turn)
        for turn in range(turns)
        for test in all_tests()
        for way in ((AS_IT_IS, WRAPPED) if turn == 0 else (WRAPPED,))
    ]
    with Runtime() as runtime, path.open("a", encoding="utf-8") as file:
        for place, (test, way, turn) in enumerate(tasks):
            key = (test.name, way, turn)
            if key in done:
                continue
            done[key] = tried(test, way, runtime, turn)
            file.write(json.dumps({**asdict(done[key]), "turn": turn}) + "\n")
            file.flush()
            if place % 200 == 0:
                print(f"{place} of {len(tasks)}", file=sys.stderr, flush=True)
    return {(test.name, way, turn): done[(test.name, way, turn)] for test, way, turn in tasks}


def _is_outdated(path: Path) -> bool:
    """Whether the code was changed after the lines were written."""
    folders = ("bnfold", "benchmarks/campaign", "tests/laws", "tests/onnx_suite")
    files = [file for folder in folders for file in (_ROOT / folder).rglob("*.py")]
    youngest = max(file.stat().st_mtime for file in files)
    return path.exists() and path.stat().st_mtime < youngest


def _read(path: Path) -> dict[tuple[str, str, int], Line]:
    """Return the lines that were written completely."""
    found: dict[tuple[str, str, int], Line] = {}
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    for row in text.splitlines(keepends=True):
        if row.endswith("\n"):
            entry = json.loads(row)
            turn = entry.pop("turn")
            entry["faults"] = tuple(entry["faults"])
            found[(entry["name"], entry["way"], turn)] = Line(**entry)
    return found


if __name__ == "__main__":
    sys.exit(main())
