"""Reports as JSON, with a versioned schema."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Final

from bnfold.records import FoldReport, Step, VerifyReport

SCHEMA: Final = "bnfold/fold-report/2"
VERIFY_SCHEMA: Final = "bnfold/verify-report/1"


def fold_to_json(report: FoldReport, check: VerifyReport | None) -> str:
    """Return a fold report, and its check if there was one, as indented JSON."""
    document = {
        "schema": SCHEMA,
        "folded": [_step(step) for step in report.steps],
        "normalisations": [dataclasses.asdict(norm) for norm in report.normalisations],
        "stayed": [dataclasses.asdict(stay) for stay in report.stays],
        "operators": {
            "before": dict(report.counts_before),
            "after": dict(report.counts_after),
        },
        "cloned_bytes": report.cloned_bytes,
        "warnings": list(report.warnings),
        "check": None if check is None else _finite(dataclasses.asdict(check)),
    }
    return json.dumps(document, indent=2, sort_keys=False, ensure_ascii=False)


def verify_to_json(report: VerifyReport) -> str:
    """Return a comparison of two models as indented JSON."""
    found = dataclasses.asdict(report)
    document = {"schema": VERIFY_SCHEMA, "passed": report.passed, **found}
    return json.dumps(_finite(document), indent=2, ensure_ascii=False)


def _step(step: Step) -> dict[str, object]:
    """Return a step without the numbers of its map, which a certificate holds."""
    fields = dataclasses.asdict(dataclasses.replace(step, map=None))
    del fields["map"]
    return fields


def _finite(entry: object) -> object:
    """Replace what JSON has no number for: infinity and NaN become words."""
    if isinstance(entry, dict):
        return {str(key): _finite(value) for key, value in entry.items()}
    if isinstance(entry, list | tuple):
        return [_finite(value) for value in entry]
    if isinstance(entry, float) and not math.isfinite(entry):
        return str(entry)
    return entry
