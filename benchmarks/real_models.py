"""What a fold does to real models: maps there, maps left and why, and what the check says.

    python -m benchmarks.real_models [--markdown TABLE.md] [MODEL.onnx …]

Without arguments: the ``light_*`` models of the onnx wheel, those in the packages
``rapidocr-onnxruntime`` and ``nudenet`` where they are installed (``pip install --no-deps``),
and the two of ``models/``.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import onnx

import bnfold

_PACKAGES = ("rapidocr_onnxruntime", "nudenet")
_KINDS = ("BatchNormalization", "Mul", "Div", "Add", "Sub", "Neg")
_HEAD = "| model | folds | maps that stay, by reason | operators before → after | check |"


def found_models() -> Iterator[Path]:
    """Yield the model files that this machine has."""
    yield from sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx"))
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            yield from sorted(Path(spec.origin).parent.rglob("*.onnx"))
    yield from sorted((Path(__file__).resolve().parent.parent / "models").glob("*.onnx"))


def row(path: Path) -> str:
    """Fold and check one model; return its line of the table."""
    result = bnfold.fold(path, verify=True)
    report, check = result.report, result.check
    reasons = Counter(f"{stay.rule}: {stay.refusals[0].code}" for stay in report.stays)
    stays = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common()) or "none"
    before, after = report.counts_before, report.counts_after
    changes = ", ".join(
        f"{kind} {before[kind]} → {after.get(kind, 0)}"
        for kind in _KINDS
        if before.get(kind, 0) != after.get(kind, 0)
    )
    verdict = "not done" if check is None else str(check.verdict)
    if check is not None and check.outputs:
        verdict += f", {max(output.ratio for output in check.outputs):.2g} × noise"
    cells = (path.stem, len(report.steps), stays, changes or "–", verdict)
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def main() -> None:
    """Print the table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    lines = [_HEAD, "|---|--:|---|---|---|"]
    print(*lines, sep="\n")
    for path in arguments.models or found_models():
        lines.append(row(path))
        print(lines[-1], flush=True)
    if arguments.markdown:
        arguments.markdown.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
