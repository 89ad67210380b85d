"""What a fold leaves of exported networks: affine operators before and after, and reasons.

    python -m benchmarks.exports --cache DIR
    python -m benchmarks.exported_models --cache DIR [--check-up-to MB] [--json R.json]
                                         [--markdown TABLE.md] [MODEL.onnx …]

Models named on the command line come after those of the cache. Each reason reads
``rule: code @ operator``: what kind of map stayed, why, and what operator stopped it.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import onnx
import onnx_ir as ir

import bnfold
from benchmarks.affine_operators import AffineCount, count_affine
from bnfold import errors
from bnfold.model.graphs import graphs_of
from bnfold.records import FoldReport, Refusal
from bnfold.rules.base import name_of

_HEAD = (
    "| model | maps | affine operators | MatMul biases | stay, by reason | fold | check |",
    "|---|--:|--:|--:|---|--:|---|",
)


@dataclass(frozen=True, slots=True)
class Row:
    """What a fold did to one model.

    Attributes:
        model: Name of the model.
        maps: How many nodes bnfold recognised as affine maps.
        before: Affine operators, counted without bnfold.
        after: The same, of the folded model.
        biases: Affine operators that are the bias of a MatMul, before and after; not in the
            two counts above.
        steps: Moves, by name.
        stays: Maps that stayed, by reason.
        patterns: The same, with every refusal met and the operators passed on the way.
        fold_s: Time of the fold without the check, in seconds.
        check: Verdict of the check.
        failed: What went wrong instead of all this.
    """

    model: str
    maps: int = 0
    before: int = 0
    after: int = 0
    biases: tuple[int, int] = (0, 0)
    steps: dict[str, int] = field(default_factory=dict)
    stays: dict[str, int] = field(default_factory=dict)
    patterns: dict[str, int] = field(default_factory=dict)
    fold_s: float = 0.0
    check: str = ""
    failed: str = ""

    def line(self) -> str:
        """Return its line of the table."""
        if self.failed:
            return f"| {self.model} | – | – | – | {self.failed} | – | – |"
        stays = ", ".join(f"{count} {reason}" for reason, count in self.stays.items())
        cells = (
            self.model,
            self.maps,
            f"{self.before} → {self.after}",
            "–" if not any(self.biases) else "{} → {}".format(*self.biases),
            stays or "none",
            f"{self.fold_s:.1f} s",
            self.check or "not asked for",
        )
        return "| " + " | ".join(str(cell) for cell in cells) + " |"


def fold_row(path: Path, check_up_to_bytes: int) -> Row:
    """Fold one model; whatever is thrown becomes its row."""
    try:
        before = count_affine(onnx.load(path))
        begun = time.perf_counter()
        result = bnfold.fold(path, verify=False)
        fold_s = time.perf_counter() - begun
        proto = result.to_proto()
        row = _row(path, before, count_affine(proto), result.report, _kinds(result.model))
        check = ""
        if path.stat().st_size <= check_up_to_bytes:
            check = _verdict(path)
    except Exception as error:  # noqa: BLE001  the table goes on
        return Row(path.stem, failed=f"{type(error).__name__}: {error}".replace("\n", " "))
    return Row(**{**asdict(row), "fold_s": round(fold_s, 2), "check": check})


def _row(
    path: Path,
    before: AffineCount,
    after: AffineCount,
    report: FoldReport,
    kinds: dict[str, str],
) -> Row:
    maps = {name for entry in (*report.steps, *report.stays) for name in entry.site}
    reasons = Counter(
        f"{stay.rule}: {_reason(stay.refusals[0], kinds)}" for stay in report.stays
    )
    patterns = Counter(
        " ".join(kinds.get(name, "?") for name in stay.site)
        + ": "
        + "; ".join(sorted({_way(refusal, kinds) for refusal in stay.refusals}))
        for stay in report.stays
    )
    return Row(
        path.stem,
        len(maps),
        before.total,
        after.total,
        (before.biases, after.biases),
        dict(Counter(step.move for step in report.steps).most_common()),
        dict(reasons.most_common()),
        dict(patterns.most_common()),
    )


def _reason(refusal: Refusal, kinds: dict[str, str]) -> str:
    return f"{refusal.code} @ {kinds.get(refusal.node, 'value')}"


def _way(refusal: Refusal, kinds: dict[str, str]) -> str:
    passed = " ".join(kinds.get(name, "?") for name in refusal.path)
    return _reason(refusal, kinds) + (f" via {passed}" if passed else "")


def _kinds(model: ir.Model) -> dict[str, str]:
    return {name_of(node): node.op_type for graph in graphs_of(model.graph) for node in graph}


def _verdict(path: Path) -> str:
    """Fold once more, and say what the check finds."""
    try:
        check = bnfold.fold(path, verify=True).check
    except errors.CheckFailedError as error:
        return f"failed: {error}".replace("\n", " ")
    if check is None:
        return "not done"
    ratio = max((output.ratio for output in check.outputs), default=None)
    said = str(check.verdict) if ratio is None else f"{check.verdict}, {ratio:.2g} × noise"
    return said if check.passed else f"{said}: {check.why}"


def found(cache: Path | None, named: list[Path]) -> Iterator[Path]:
    """Yield the models to fold, exports first."""
    if cache is not None:
        yield from sorted(cache.glob("*.onnx"))
    yield from named


def main() -> None:
    """Print the table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--check-up-to", type=int, default=60, metavar="MB")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    rows: list[Row] = []
    print(*_HEAD, sep="\n")
    for path in found(arguments.cache, arguments.models):
        rows.append(fold_row(path, arguments.check_up_to << 20))
        print(rows[-1].line(), flush=True)
        gc.collect()
        if arguments.json:
            text = json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False)
            arguments.json.write_text(text + "\n")
        if arguments.markdown:
            lines = (*_HEAD, *(row.line() for row in rows))
            arguments.markdown.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
