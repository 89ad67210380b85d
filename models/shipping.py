"""From a trained network to a folded ONNX file: export, fold, verify, by the public calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from torch import nn

import bnfold
from bnfold.errors import CheckFailedError, RequirementError
from models.digits import Digits

_OPERATOR: Final = "BatchNormalization"


@dataclass(frozen=True, slots=True)
class Shipped:
    """Two files with one function, and what is known of them.

    Attributes:
        original: The export, with every BatchNormalization.
        folded: The same function without.
        before: BatchNormalization nodes of the original.
        after: And of the folded model.
        report: What `bnfold.verify` found; it has accuracy and agreement on the test images.
    """

    original: Path
    folded: Path
    before: int
    after: int
    report: bnfold.VerifyReport


def ship(
    net: nn.Module, name: str, digits: Digits, folder: Path, tell: Callable[[str], None]
) -> Shipped:
    """Write ``digits_<name>.onnx`` and ``digits_<name>.folded.onnx``, and verify them.

    Raises:
        CheckFailedError: If a file computes another function than the one before it.
        RequirementError: If a BatchNormalization is left.
    """
    original, folded = folder / f"digits_{name}.onnx", folder / f"digits_{name}.folded.onnx"
    bnfold.export(
        net.cpu().eval(),
        digits.test_images[:2],
        original,
        fold=False,
        exporter="torchscript",  # it names nodes by modules: pages and tables can be read
        dynamic_batch=True,
        input_names=["input"],
        output_names=["output"],
        progress=tell,
    )
    tell("folding")
    result = bnfold.fold(original)
    result.save(folded)
    tell("verifying on the test images")
    report = bnfold.verify(
        original,
        folded,
        inputs={"input": digits.test_images.numpy()},
        labels=digits.test_labels.numpy(),
    )
    if not report.passed:
        raise CheckFailedError(
            "the folded model is not shown to compute the same function",
            where=str(folded),
            why=f"{report.verdict}: {report.why}",
            remedy=f"bnfold verify {original} {folded} says more; please report it",
        )
    before = result.report.counts_before.get(_OPERATOR, 0)
    after = result.report.counts_after.get(_OPERATOR, 0)
    if after:
        raise RequirementError(
            f"{after} {_OPERATOR} left in the folded model",
            where=str(folded),
            remedy=f"bnfold inspect {original} says what stops them",
        )
    return Shipped(original, folded, before, after, report)
