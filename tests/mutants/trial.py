"""Bring folds before the judge: honest ones, and spoiled ones, with four kinds of papers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir

from bnfold.evidence.proof.certificate import Certificate, read_certificate
from bnfold.evidence.proof.prove import certify, prove
from bnfold.folding.api import FoldResult, fold_unchecked, opened
from bnfold.folding.recipes import recipes_of
from bnfold.records import Finding, ProofReport, Verdict
from bnfold.refolded import with_names
from tests.mutants.mutants import Nursery
from tests.mutants.originals import original_of
from tests.mutants.subject import Mutant, Subject, floats_of

Recipes = Mapping[str, Mapping[str, Any]]


@dataclass(slots=True)
class Fold:
    """An original, its honest fold, and the certificate of that fold as read from its text."""

    proto: onnx.ModelProto
    result: FoldResult
    original: ir.Model
    recipes: Recipes
    certificate: Certificate
    certified: ProofReport

    @property
    def folded(self) -> onnx.ModelProto:
        """The honest fold."""
        return self.result.to_proto()


@dataclass(frozen=True, slots=True)
class Sentence:
    """What a judge said of one fold.

    Attributes:
        verdict: The verdict.
        finding: The first finding.
        seconds: How long it took.
    """

    verdict: Verdict
    finding: Finding | None
    seconds: float

    @property
    def convicted(self) -> bool:
        """Whether the fold was called wrong."""
        return self.verdict is Verdict.FAILED

    def names_node(self, mutant: Mutant) -> bool:
        """Return whether the first finding names the node that is wrong."""
        return self.finding is not None and self.finding.node in mutant.nodes

    def names_channel(self, mutant: Mutant) -> bool:
        """Return whether the first finding names the channel that is wrong."""
        return self.finding is not None and self.finding.channel == mutant.channel


def fold_for(proto: onnx.ModelProto) -> Fold:
    """Fold a model, certify it, and read the certificate as a stranger would."""
    result, original = fold_unchecked(proto), opened(proto)
    recipes = recipes_of(result.model)
    certificate, report = certify(original, result.model, result.report.steps, recipes)
    read = read_certificate(certificate.to_json())
    return Fold(proto, result, original, recipes, read, report)


def fold_of_seed(seed: int, precision: str) -> Fold:
    """Return the fold that belongs to a seed."""
    return fold_for(original_of(seed, precision))


def nursery_of(fold: Fold, seed: int) -> Nursery:
    """Return where the mutants of the fold of a seed come from."""
    return Nursery(Subject(fold.proto, fold.folded), np.random.default_rng((seed, 23)))


def by_certificate(fold: Fold, accused: onnx.ModelProto, _: tuple[str, ...]) -> ProofReport:
    """Judge with the certificate of the honest fold."""
    return prove(fold.original, opened(accused), fold.certificate)


def by_models_alone(fold: Fold, accused: onnx.ModelProto, _: tuple[str, ...]) -> ProofReport:
    """Judge without a certificate, and name the node as `bnfold.verify` does."""
    model = opened(accused)
    return with_names(prove(fold.original, model), fold.original, model)


def by_forgery(fold: Fold, accused: onnx.ModelProto, wrong: tuple[str, ...]) -> ProofReport:
    """Judge with a certificate of the accused itself, which states the wrong numbers."""
    stored = dict(floats_of(accused))
    lies = {name: {"numbers": stored[name].astype(np.float64)} for name in wrong}
    return _forged(fold, accused, {**fold.recipes, **lies})


def by_silence(fold: Fold, accused: onnx.ModelProto, wrong: tuple[str, ...]) -> ProofReport:
    """Judge with a certificate of the accused itself, which is silent on wrong tensors."""
    told = {name: recipe for name, recipe in fold.recipes.items() if name not in wrong}
    return _forged(fold, accused, told)


def _forged(fold: Fold, accused: onnx.ModelProto, recipes: Recipes) -> ProofReport:
    """Prove with what a dishonest folder would hand out: consistent, sealed, and wrong."""
    steps = fold.result.report.steps
    claim, _ = certify(fold.original, opened(accused), steps, recipes)
    return prove(fold.original, opened(accused), read_certificate(claim.to_json()))


Judge = Callable[[Fold, onnx.ModelProto, tuple[str, ...]], ProofReport]

JUDGES: Final[Mapping[str, Judge]] = {
    "certificate": by_certificate,
    "no certificate": by_models_alone,
    "forged": by_forgery,
    "silent": by_silence,
}


def sentence(
    judge: str, fold: Fold, accused: onnx.ModelProto, wrong: tuple[str, ...] = ()
) -> Sentence:
    """Return what a judge says, and how long it took."""
    start = time.perf_counter()
    report = JUDGES[judge](fold, accused, wrong)
    seconds = time.perf_counter() - start
    return Sentence(report.verdict, next(iter(report.findings), None), seconds)
