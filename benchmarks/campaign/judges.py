"""Bring folds before bnfold, by its public calls, and write down what it says."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx

import bnfold
from bnfold.errors import BnfoldError, CheckFailedError

PASSED, REFUSED, OPEN, CRASHED = "passed", "refused", "inconclusive", "crashed"


@dataclass(frozen=True, slots=True)
class Said:
    """What one judge said of one pair of models.

    Attributes:
        word: ``passed``, ``refused``, ``inconclusive``, or ``crashed``: an error that is none
            of bnfold's own.
        why: Its reason.
        node: The node it names, empty if none.
        seconds: How long it took.
    """

    word: str
    why: str = ""
    node: str = ""
    seconds: float = 0.0

    def as_data(self) -> dict[str, Any]:
        """Return it for a line of JSON."""
        return asdict(self)


_WORDS = {"passed": PASSED, "failed": REFUSED, "not-judged": OPEN}


def verified(
    original: onnx.ModelProto | Path,
    folded: onnx.ModelProto | Path,
    certificate: str | Path | None = None,
    *,
    run: bool = False,
    refold: bool = True,
) -> Said:
    """Ask ``bnfold.verify``: with a certificate or without, with a run or without.

    Without a certificate and without ``refold``, it is asked as of a fold made by others.
    """
    start = time.perf_counter()
    try:
        report = bnfold.verify(
            original, folded, certificate=certificate, run=run, refold=refold
        )
    except BnfoldError as error:
        return Said(REFUSED, _line(error), "", time.perf_counter() - start)
    except Exception as error:  # noqa: BLE001 — a traceback is what is looked for
        return Said(CRASHED, repr(error)[:200], "", time.perf_counter() - start)
    findings = () if report.proof is None else report.proof.findings
    node = next((one.node for one in findings if one.node), "")
    why = report.why or next((one.why for one in findings), "")
    took = time.perf_counter() - start
    return Said(_WORDS[str(report.verdict)], why[:300], node, took)


def from_files(original: onnx.ModelProto, folded: onnx.ModelProto, certificate: str) -> Said:
    """Ask ``bnfold.verify`` with everything read from files."""
    with tempfile.TemporaryDirectory(prefix="bnfold-campaign-") as folder:
        paths = [Path(folder) / name for name in ("a.onnx", "b.onnx", "c.json")]
        paths[0].write_bytes(original.SerializeToString())
        paths[1].write_bytes(folded.SerializeToString())
        paths[2].write_text(certificate, encoding="utf-8")
        return verified(*paths)


@dataclass(frozen=True, slots=True)
class Folded:
    """What ``bnfold.fold`` gave.

    Attributes:
        said: What it said of its own fold.
        result: The fold; None where it gave none.
        certificate: Its certificate; None where it could not be proved.
    """

    said: Said
    result: bnfold.FoldResult | None = None
    certificate: str | None = None


def certified(model: onnx.ModelProto, options: Mapping[str, bool]) -> Folded:
    """Fold with a certificate; one that is refused is folded again without."""
    start = time.perf_counter()
    try:
        result = bnfold.fold(model, certificate=True, verify=False, **options)
    except CheckFailedError as error:
        said = Said(REFUSED, _line(error), "", time.perf_counter() - start)
        return _uncertified(model, options, said)
    except BnfoldError as error:
        return Folded(Said(OPEN, _line(error), "", time.perf_counter() - start))
    except Exception as error:  # noqa: BLE001 — a traceback is what is looked for
        said = Said(CRASHED, repr(error)[:200], "", time.perf_counter() - start)
        return _uncertified(model, options, said)
    took = time.perf_counter() - start
    written = result.certificate
    text = None if written is None else written.to_json()
    return Folded(Said(PASSED, "", "", took), result, text)


def _uncertified(model: onnx.ModelProto, options: Mapping[str, bool], said: Said) -> Folded:
    try:
        return Folded(said, bnfold.fold(model, verify=False, **options))
    except Exception:  # noqa: BLE001 — the first error tells it
        return Folded(said)


def checked(model: onnx.ModelProto, options: Mapping[str, bool]) -> Said:
    """Ask the check that ``bnfold.fold`` does by default."""
    start = time.perf_counter()
    try:
        result = bnfold.fold(model, **options)
    except BnfoldError as error:
        return Said(REFUSED, _line(error), "", time.perf_counter() - start)
    except Exception as error:  # noqa: BLE001 — a traceback is what is looked for
        return Said(CRASHED, repr(error)[:200], "", time.perf_counter() - start)
    took = time.perf_counter() - start
    if result.check is None:
        return Said(OPEN, "nothing was checked", "", took)
    return Said(_WORDS[str(result.check.verdict)], result.check.why[:300], "", took)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
