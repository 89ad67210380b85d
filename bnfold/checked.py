"""Fold, then check the result against the original: what `bnfold.fold` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir

from bnfold.errors import CheckFailedError
from bnfold.folding.api import FoldResult, fold_unchecked
from bnfold.folding.carry_out import unrounded
from bnfold.folding.inference import read_as_inference
from bnfold.folding.recipes import recipes_of
from bnfold.folding.selection import Selection
from bnfold.model.io import Openable, opened
from bnfold.records import CONSTANT_INPUTS, INFERENCE, REQUANTIZED, Verdict, VerifyReport


def fold(
    model: Openable,
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    assume_constant_inputs: bool = False,
    assume_inference: bool = False,
    norms: bool = False,
    requantize_bias: bool = False,
    verify: bool | None = None,
    certificate: bool = False,
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
        verify: Run both models on ONNX Runtime and judge the difference against the
            original's own rounding noise. None checks when anything was folded and a runtime
            is installed.
        certificate: Also write down what the fold did, and prove it segment by segment in
            float64, without a runtime: `FoldResult.certificate`.
        seed: Seed of the inputs and of the noise.

    Raises:
        ModelError: If the model cannot be read or makes no sense.
        CheckFailedError: If the folded model computes another function.
        MissingDependencyError: If ``verify`` is True and no ONNX Runtime is installed.
    """
    result = fold_unchecked(
        model,
        only=only,
        skip=skip,
        assume_constant_inputs=assume_constant_inputs,
        assume_inference=assume_inference,
        norms=norms,
        requantize_bias=requantize_bias,
    )
    wanted = bool(result.report.steps) and _runtime_is_there() if verify is None else verify
    if not (wanted or certificate):
        return result
    original = opened(model)
    if assume_inference:
        read_as_inference(original, Selection(tuple(only), tuple(skip)))
    if certificate:
        words = {
            CONSTANT_INPUTS: assume_constant_inputs,
            INFERENCE: assume_inference,
            REQUANTIZED: requantize_bias,
        }
        allowed = [word for word, is_allowed in words.items() if is_allowed]
        result = _certified(original, result, allowed, seed)
    if not wanted:
        return result
    check = _check(original, result, seed)
    if check.verdict is Verdict.FAILED:
        raise _failed(check)
    return replace(result, check=check)


def _certified(
    original: ir.Model, result: FoldResult, allowed: Sequence[str], seed: int
) -> FoldResult:
    """Write down what was done; a fold that does not hold is never handed out."""
    from bnfold.evidence.proof import certify

    steps, recipes = result.report.steps, recipes_of(result.model)
    certificate, proof = certify(original, result.model, steps, recipes, allowed, seed=seed)
    if proof.verdict is Verdict.FAILED:
        first = proof.findings[0]
        raise CheckFailedError(
            "the fold cannot be proved; nothing is written",
            where=f"{first.node or 'model'}, {first.where}",
            why=first.why,
            remedy="this is a fault of bnfold: please report the model, and fold with --skip",
        )
    return replace(result, certificate=certificate)


def _runtime_is_there() -> bool:
    from bnfold.runtime import available

    return available()


def _check(original: ir.Model, result: FoldResult, seed: int) -> VerifyReport:
    from bnfold.evidence import check_fold

    return check_fold(original, unrounded(result.model), seed=seed)


def _failed(check: VerifyReport) -> CheckFailedError:
    wrong = [output for output in check.outputs if not output.passed]
    why = check.why or "; ".join(
        f"output {output.name!r} differs by {output.ratio:.3g} times the rounding noise of the"
        f" original, {output.limit:.3g} is allowed"
        for output in wrong
    )
    return CheckFailedError(
        "the folded model computes another function; nothing is written",
        why=why,
        remedy="this is a fault of bnfold: please report the model, and fold with --skip",
    )
