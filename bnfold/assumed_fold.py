"""Whether a candidate is a fold that bnfold makes only if it may take something for granted.

`bnfold fold --assume-inference` makes another function, which its certificate says. Without
the certificate the two models are what they are: not the same function. But a reader who finds
that out is told where it comes from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import onnx_ir as ir

from bnfold.own_fold import own_fold
from bnfold.records import CONSTANT_INPUTS, INFERENCE, REQUANTIZED, Verdict, VerifyReport

_OPTIONS: Final = {
    INFERENCE: "--assume-inference",
    CONSTANT_INPUTS: "--assume-constant-inputs",
    REQUANTIZED: "--requantize-bias",
}
"""The option of `bnfold fold` that allows each assumption."""

_ANOTHER: Final = frozenset({INFERENCE, CONSTANT_INPUTS})
"""What makes another function for certain, whatever numbers were run; the third rounds."""

_TRAINED: Final = frozenset({"BatchNormalization", "Dropout"})


def with_assumption(report: VerifyReport, before: ir.Model, after: ir.Model) -> VerifyReport:
    """Return a report that says under which assumption the candidate is bnfold's own fold.

    No such fold passes: what a run alone found to be alike becomes NOT_JUDGED.

    Args:
        report: On a candidate without a certificate.
        before: The original; not changed.
        after: The candidate.
    """
    if report.passed and report.proof is not None and report.proof.passed:
        return report
    assumed = _assumed(before, after)
    if not assumed:
        return report
    said = _said(assumed)
    if report.passed and not _ANOTHER.intersection(assumed):
        return replace(report, warnings=(*report.warnings, said))
    verdict = Verdict.NOT_JUDGED if report.passed else report.verdict
    why = "; ".join(filter(None, (report.why, said)))
    return replace(report, verdict=verdict, why=why)


def _assumed(before: ir.Model, after: ir.Model) -> tuple[str, ...]:
    """Return what a fold has to assume to give the candidate; nothing if none gives it."""
    applicable = tuple(_applicable(before))
    if not applicable or _is_fold(before, after, ()):
        return ()
    tried = [*((one,) for one in applicable), applicable]
    return next((some for some in dict.fromkeys(tried) if _is_fold(before, after, some)), ())


def _is_fold(before: ir.Model, after: ir.Model, assumptions: tuple[str, ...]) -> bool:
    own = own_fold(before, after, assumptions)
    return own is not None and own.is_rounded


def _applicable(model: ir.Model) -> Iterator[str]:
    """Yield what a fold of this model may do otherwise under an assumption."""
    kinds = {node.op_type for node in model.graph.all_nodes()}
    if _TRAINED & kinds:
        yield INFERENCE
    if any(value.name in model.graph.initializers for value in model.graph.inputs):
        yield CONSTANT_INPUTS
    if any("Linear" in kind for kind in kinds):  # QuantizeLinear, QLinearConv and their kin
        yield REQUANTIZED


def _said(assumed: tuple[str, ...]) -> str:
    options = " ".join(_OPTIONS[one] for one in assumed)
    return (
        f"it is the fold that {options} allows, which is another function unless"
        f" {' and '.join(assumed)}: the certificate of that fold says so (--certificate)"
    )
