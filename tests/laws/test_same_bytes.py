"""The same model gives the same bytes on every run, whatever the order of hashes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import bnfold
from benchmarks.campaign import drawn

DRAWN = 27


def digest() -> str:
    """Fold drawn graphs of all families; return a digest of all that came out."""
    found = hashlib.sha256()
    families = sorted(drawn.FAMILIES)
    for seed in range(DRAWN):
        case = drawn.case_of(families[seed % len(families)], 7_000 + seed)
        result = bnfold.fold(case.model, verify=False, **case.options)
        found.update(result.to_proto().SerializeToString())
        found.update(repr((result.report.steps, result.report.stays)).encode())
    return found.hexdigest()


def _in_a_process(seed: str) -> str:
    code = "from tests.laws.test_same_bytes import digest; print(digest())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_the_order_of_hashes_changes_nothing():
    assert _in_a_process("0") == _in_a_process("4242")
