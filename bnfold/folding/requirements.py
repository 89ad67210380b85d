"""What a pipeline may require of a fold: words such as ``no-batchnorm``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import onnx

from bnfold.errors import RequirementError, UsageError
from bnfold.records import FoldReport, Stay, VerifyReport

NO_STAYS: Final = "no-stays"
VERIFIED: Final = "verified"
_NONE_OF: Final = "no-"
_OPERATORS: Final = {"batchnorm": "batchnormalization"}
_NAMED: Final = 5


def check_words(words: Sequence[str]) -> None:
    """Find out before the work whether every word can be understood.

    Raises:
        UsageError: If one cannot.
    """
    for word in words:
        if word != VERIFIED and (not word.startswith(_NONE_OF) or word == _NONE_OF):
            raise UsageError(
                f"there is no requirement {word!r}",
                remedy="choose of no-batchnorm, no-stays, verified, or no-OPERATOR (no-Mul)",
            )


def check_met(words: Sequence[str], report: FoldReport, check: VerifyReport | None) -> None:
    """Make sure that a fold is what was required.

    Args:
        words: ``no-batchnorm``, ``no-stays`` (no map is left), ``verified``, or ``no-`` and an
            operator.
        report: What the fold did.
        check: What the check of it said; None if there was none.

    Raises:
        RequirementError: If a requirement is not met; it names the nodes and their reasons.
    """
    for word in words:
        if word == VERIFIED:
            _check_verified(check)
        elif word == NO_STAYS:
            _check_none(word, len(report.stays), report.stays)
        else:
            _check_operator(word, report)


def _check_operator(word: str, report: FoldReport) -> None:
    """None is left, in functions of the model neither: those count by what stays there."""
    asked = word.removeprefix(_NONE_OF).lower()
    kind = _OPERATORS.get(asked, asked)
    known = {one.name for one in onnx.defs.get_all_schemas()}
    if kind not in {one.lower() for one in (*known, *report.counts_before)}:
        raise UsageError(
            f"there is no operator {word.removeprefix(_NONE_OF)!r}",
            where=f"--require {word}",
            why="neither ONNX nor this model has one of that name, so it would always hold",
            remedy="check the spelling: bnfold inspect lists the operators",
        )
    stays = [stay for stay in report.stays if stay.rule.lower() == kind]
    counted = sum(n for name, n in report.counts_after.items() if name.lower() == kind)
    _check_none(word, max(counted, len(stays)), stays)


def _check_verified(check: VerifyReport | None) -> None:
    if check is None or not check.passed:
        why = "the check was not done" if check is None else f"{check.verdict}: {check.why}"
        raise RequirementError(
            "the fold is not verified; the model is not written",
            why=why,
            remedy="install ONNX Runtime, and leave --no-verify and --dry-run out",
        )


def _check_none(word: str, left: int, stays: Sequence[Stay]) -> None:
    if left == 0:
        return
    reasons = [
        f"{', '.join(stay.site)}: {refusal.why}"
        for stay in stays
        for refusal in stay.refusals[:1]
    ]
    more = len(reasons) - _NAMED
    told = reasons[:_NAMED] + ([f"and {more} more"] if more > 0 else [])
    raise RequirementError(
        f"{word} is required, and {left} {'is' if left == 1 else 'are'} left;"
        " the model is not written",
        why="; ".join(told) or "they are not maps that a fold could move",
        remedy="bnfold inspect shows every reason and its remedy",
    )
