"""Fold, then check the result against the original: what `bnfold.fold` does."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from bnfold.errors import BnfoldError, CheckFailedError
from bnfold.folding.api import FoldResult, fold_unchecked
from bnfold.folding.carry_out import unrounded
from bnfold.folding.inference import read_as_inference
from bnfold.folding.recipes import recipes_of
from bnfold.folding.selection import Selection
from bnfold.model.graphs import initializer_bytes
from bnfold.model.io import Openable, opened
from bnfold.model.save import Begun
from bnfold.model.validity import models_blamed
from bnfold.records import (
    CONSTANT_INPUTS,
    INFERENCE,
    REQUANTIZED,
    ProofReport,
    Verdict,
    VerifyReport,
)

if TYPE_CHECKING:
    from bnfold.evidence.proof import Certificate
    from bnfold.inputs.sizes import Shapes

_TIMES: Final = 3.0
_LEAST_S: Final = 10.0
"""What a check may take: so many times what the fold took, and these seconds at the least."""

_LEAST_CERTIFIED_S: Final = 60.0
"""What the proof may take where a certificate was asked for: without it there is no result, so
it has as long as `verify` has. Most need a second; a busy machine needs more."""

_STORED_PER_S: Final = 0.5e9
"""Bytes. Weights are computed as they are written, which comes after the check: a fold takes
as long as that too."""

_PROOF_SHARE: Final = 0.85
"""Of the time for both, what the proof may take: where it passes, the run asks little."""

_NO_RUNTIME: Final = "judged by the proof alone: no ONNX Runtime is installed"


@np.errstate(all="ignore")  # what overflows is found and named, not warned of
def fold(
    model: Openable,
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    assume_constant_inputs: bool = False,
    assume_inference: bool = False,
    norms: bool = False,
    requantize_bias: bool = False,
    strict: bool = False,
    verify: bool | None = None,
    certificate: bool = False,
    shapes: Shapes | str = (),
    max_time: float | None = None,
    seed: int = 0,
) -> FoldResult:
    """Fold every affine map of a model into neighbouring weights, and check the result.

    ``model`` is left as it was; weights that did not change are shared with it.

    Args:
        model: Path of an ``.onnx`` file, an onnx.ModelProto or an onnx_ir.Model.
        only: Fold only sites whose operator kind or node name matches (shell wildcards).
        skip: Leave nodes alone whose operator kind or name matches.
        assume_constant_inputs: Treat initializers that are also graph inputs (from IR version
            4 on) as constants; overriding them afterwards gives wrong results.
        assume_inference: Read normalisations that were exported in training mode by their
            running statistics.
        norms: Move the affine tails of layer, RMS, group and instance normalisations too,
            though the normalisation stays and no operator is saved.
        requantize_bias: Allow a bias stored as integers to be rounded to new integers.
        strict: Make a variance that is negative or not finite an error. Otherwise its
            BatchNormalization stays, with a warning, and the rest is folded.
        verify: Prove segment by segment in float64 that the function is the same, then run
            both models on ONNX Runtime. None checks when anything was folded, without a run
            where no runtime is installed.
        certificate: Also write down what the fold did: `FoldResult.certificate`.
        shapes: Sizes of the inputs that are run, where the model leaves them open:
            ``"x=1x3x224x224"``, several, or tuples by name. Never used to fold.
        max_time: Seconds for the check; None allows three times what the fold took, and ten
            at the least. What is not reached by then is said.
        seed: Seed of the inputs and of the noise.

    Raises:
        ModelError: If the model cannot be read or makes no sense.
        CheckFailedError: If the folded model computes another function, or the runtime
            computes it less accurately than the original.
        UsageError: If a shape cannot be read or does not fit.
        MissingDependencyError: If ``verify`` is True and no ONNX Runtime is installed.
    """
    return fold_into(
        model,
        None,
        only=only,
        skip=skip,
        assume_constant_inputs=assume_constant_inputs,
        assume_inference=assume_inference,
        norms=norms,
        requantize_bias=requantize_bias,
        strict=strict,
        verify=verify,
        certificate=certificate,
        shapes=shapes,
        max_time=max_time,
        seed=seed,
    )


Begin = Callable[[ir.Model], Begun]
"""Begins to write a folded model, with digests, and leaves it to the caller to end that."""


@np.errstate(all="ignore")
def fold_into(
    model: Openable,
    begin: Begin | None,
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    assume_constant_inputs: bool = False,
    assume_inference: bool = False,
    norms: bool = False,
    requantize_bias: bool = False,
    strict: bool = False,
    verify: bool | None = None,
    certificate: bool = False,
    shapes: Shapes | str = (),
    max_time: float | None = None,
    seed: int = 0,
) -> FoldResult:
    """Fold as `fold`, and begin to write the result before it is proved.

    Digests are taken of the bytes as they are written, and the disk writes while the proof is
    made. What is written is put in its place by `Begun.finish`, which is the caller's to ask
    for when all is well. ``begin`` is not called if nothing is to be proved; all other
    arguments are those of `fold`.
    """
    begun_at = time.monotonic()
    result = fold_unchecked(
        model,
        only=only,
        skip=skip,
        assume_constant_inputs=assume_constant_inputs,
        assume_inference=assume_inference,
        norms=norms,
        requantize_bias=requantize_bias,
        strict=strict,
    )
    took_s = time.monotonic() - begun_at
    wanted = bool(result.report.steps) if verify is None else verify
    if not (wanted or certificate):
        return result
    words = {
        CONSTANT_INPUTS: assume_constant_inputs,
        INFERENCE: assume_inference,
        REQUANTIZED: requantize_bias,
    }
    writing = None if begin is None else begin(result.model)
    with models_blamed(model):
        original = opened(model)
        if assume_inference:
            read_as_inference(original, Selection(tuple(only), tuple(skip)))
        check = _Check(
            original,
            result,
            tuple(word for word, is_allowed in words.items() if is_allowed),
            (shapes,) if isinstance(shapes, str) else shapes,
            _seconds(took_s, result) if max_time is None else max_time,
            seed,
            _LEAST_CERTIFIED_S if certificate and max_time is None else 0.0,
        )
        written, proof = check.proof(writing)
        if certificate and written is None:
            raise CheckFailedError("the certificate cannot be written", why=proof.why)
        if certificate:
            result = replace(result, certificate=written)
        if not wanted:
            return result
        return replace(result, check=check.judged(proof, run=verify))


def _seconds(took_s: float, result: FoldResult) -> float:
    """Return what the check of a fold may take that took so long before it was written."""
    stored_s = initializer_bytes(result.model) / _STORED_PER_S
    return max(_TIMES * (took_s + stored_s), _LEAST_S)


@dataclass(frozen=True, slots=True)
class _Check:
    """One fold that is to be checked.

    Attributes:
        original: The model before.
        result: What the fold made of it.
        allowed: What the user allowed, as words of a certificate.
        shapes: Sizes to run at.
        seconds: For all of it.
        seed: Of all that is random.
        least_s: What the proof may take in any case.
    """

    original: ir.Model
    result: FoldResult
    allowed: tuple[str, ...]
    shapes: Shapes
    seconds: float
    seed: int
    least_s: float = 0.0
    begun: float = field(default_factory=time.monotonic)

    def proof(self, writing: Begun | None) -> tuple[Certificate | None, ProofReport]:
        """Write down what was done, and prove it; a fold that does not hold is an error.

        Args:
            writing: The folded model as it is written; None where it is in memory alone.
        """
        from bnfold.evidence.proof import certify, proved
        from bnfold.evidence.verdict import is_too_large_to_run

        is_alone = is_too_large_to_run(self.original, self.seconds)
        share = 1.0 if is_alone else _PROOF_SHARE
        made: list[Certificate] = []

        steps, recipes = self.result.report.steps, recipes_of(self.result.model)

        def attempt() -> ProofReport:
            written, report = certify(
                self.original,
                self.result.model,
                steps,
                recipes,
                self.allowed,
                seed=self.seed,
                seconds=max(share * self.seconds, self.least_s),
                shapes=self.shapes,
                known={} if writing is None else writing.digests,
            )
            made.append(written)
            return report

        proof = proved(attempt, certified=True)
        if proof.verdict is Verdict.FAILED:
            raise _unproved(proof)
        return (made[0] if made else None), proof

    def judged(self, proof: ProofReport, *, run: bool | None) -> VerifyReport:
        """Return the verdict of proof and run; a run that fails is an error.

        Raises:
            CheckFailedError: If it does.
            MissingDependencyError: If a run is asked for and no runtime is installed.
        """
        from bnfold.evidence import check_fold
        from bnfold.evidence.proof.sides import TOO_LATE
        from bnfold.evidence.verdict import (
            by_proof,
            is_too_large_to_run,
            one_verdict,
            within_memory,
            without_a_run,
        )
        from bnfold.runtime import available

        if run is None and not available():
            return by_proof(proof, _NO_RUNTIME)
        left_s = self.seconds - (time.monotonic() - self.begun)
        is_alone = is_too_large_to_run(self.original, self.seconds)
        if is_alone and (proof.passed or proof.why == TOO_LATE):
            return without_a_run(proof, self.original)
        ran = within_memory(
            lambda: check_fold(
                self.original,
                unrounded(self.result.model),
                seed=self.seed,
                shapes=self.shapes,
                proved=proof.passed,
                max_time=max(left_s, (1.0 - _PROOF_SHARE) * self.seconds),
            )
        )
        report = one_verdict(proof, ran)
        if report.verdict is Verdict.FAILED:
            raise _failed(report, proof)
        return report


def _unproved(proof: ProofReport) -> BnfoldError:
    first = proof.findings[0]
    return CheckFailedError(
        "the folded model computes another function; nothing is written",
        where=f"{first.node or 'model'}, {first.where}",
        why=f"the proof in float64 fails: {first.why}",
        remedy="this is a fault of bnfold: please report the model, and fold with --skip",
    )


def _failed(report: VerifyReport, proof: ProofReport) -> BnfoldError:
    """Say what a run that failed means: that hangs on what the proof showed."""
    if report.contradicts:
        return CheckFailedError(
            "the folded model computes another function; nothing is written",
            why=report.why,
            remedy="this is a fault of bnfold, of the fold and of its proof: please report the"
            " model",
        )
    if proof.passed:
        return CheckFailedError(
            "the runtime computes the folded model less accurately; nothing is written",
            why=report.why,
            remedy="fold with --skip what it names, or take the fold with --no-verify: the"
            " function is proved to be the same",
        )
    return CheckFailedError(
        "the folded model gives other numbers on the runtime; nothing is written",
        why=f"{report.why}; the proof is inconclusive: {proof.why}",
        remedy="fold with --skip, or give the sizes it runs at with --shape",
    )
