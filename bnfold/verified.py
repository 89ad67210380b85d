"""Judge two models end to end and segment by segment: what `bnfold.verify` does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from bnfold.errors import BnfoldError, MissingDependencyError, UsageError
from bnfold.evidence.proof.certificate import Certificate, read_certificate
from bnfold.evidence.proof.prove import prove
from bnfold.folding.inference import read_as_inference
from bnfold.folding.selection import Selection
from bnfold.model.io import Openable, opened
from bnfold.records import INFERENCE, Charge, ProofReport, Verdict, VerifyReport
from bnfold.runtime import Level, available, provider_named

if TYPE_CHECKING:
    from bnfold.evidence.verification import Inputs, Wishes
    from bnfold.evidence.verification.labels import Labels
    from bnfold.inputs.sizes import Shapes

_ONE_GRAPH = 0.5
"""Share of value names in common from which two graphs count as one graph before and after."""


def verify(
    original: Openable,
    folded: Openable,
    *,
    certificate: str | Path | None = None,
    inputs: Inputs | Sequence[Inputs] | None = None,
    shapes: Shapes | str | None = None,
    provider: str = "cpu",
    folded_provider: str | None = None,
    level: str | None = None,
    folded_level: str | None = None,
    labels: Labels | None = None,
    search_s: float = 0.0,
    reference_s: float = 60.0,
    run: bool | None = None,
    impulses: bool = False,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> VerifyReport:
    """Judge whether two models with the same interface compute the same function.

    Both run on the same inputs. The difference is weighed against the original's own rounding
    noise and, where a float64 reference can run, both errors against each other. Where both
    come from one graph, it is compared segment by segment too, which sees what no input wakes.

    Args:
        original: The model that is right: path, onnx.ModelProto or onnx_ir.Model.
        folded: The model that claims to be the same function.
        certificate: What the fold says it did; the proof then is exact.
        inputs: The user's own inputs: paths (``.npz``, ``.npy``, ``.pb``, folders),
            ``module:callable``, arrays by name, or several of these.
        shapes: Sizes to draw inputs of: ``"x=1..8x3x224x224"``, several, or tuples by name.
        provider: What runs the original: ``cpu``, ``cuda``, ``tensorrt`` or its full name.
        folded_provider: The same for the folded model; None for the same.
        level: How much the runtime may optimise the original: ``disabled``, ``basic``,
            ``all``. None leaves it as it is, and runs the folded model both as it is and by
            the runtime's default.
        folded_level: The same for the folded model; None for the same.
        labels: One integer for each sample of ``inputs``: adds accuracy and agreement.
        search_s: Seconds to search for the worst input.
        reference_s: Seconds that the float64 reference may take, and, without a certificate,
            the comparison segment by segment.
        run: Whether the models are run. None runs them unless a certificate decides, and
            nothing else asks for it (inputs, shapes, labels, a search, a provider, a level).
        impulses: Whether the proof probes affine segments by every impulse too.
        seed: Of inputs, noise and search.
        progress: Told in words what is being done.

    Returns:
        PASSED, FAILED with reasons and the first node that differs, or NOT_JUDGED.

    Raises:
        ModelError: If a model or the certificate cannot be read.
        DataError: If inputs or labels cannot be read or do not fit.
        UsageError: If a shape, a level or their combination makes no sense.
        MissingDependencyError: If no runtime is installed, or not the provider, and no
            certificate proves the fold without one.
    """
    from bnfold.evidence.verification import Wishes

    tell = progress or _silent
    before, after = opened(original, "verify"), opened(folded, "verify")
    written = None if certificate is None else read_certificate(certificate)
    wishes = Wishes(
        inputs=_listed(inputs),
        shapes=(shapes,) if isinstance(shapes, str) else shapes or (),
        provider=provider_named(provider),
        folded_provider=None if folded_provider is None else provider_named(folded_provider),
        level=_level(level),
        folded_level=_level(folded_level),
        labels=labels,
        search_s=search_s,
        max_time_s=reference_s,
        seed=seed,
    )
    if written is not None and INFERENCE in written.assumptions:
        read_as_inference(before, Selection())
    tell("comparing the graphs segment by segment")
    proof = _prove(before, after, written, wishes, impulses=impulses)
    decided = written is not None and proof.verdict is not Verdict.NOT_JUDGED
    asked = run or (run is None and _asks_for_a_run(wishes))
    if decided and (not asked or not available()):
        return _by_proof_alone(proof, before, after, wishes)
    if run is False:
        return VerifyReport(proof.verdict, why=_findings(proof), proof=proof)
    return _joined(_judged(before, after, wishes, tell), proof, before, after, wishes)


def _silent(_: str) -> None:
    """Tell nobody."""


def _listed(inputs: Inputs | Sequence[Inputs] | None) -> Sequence[Inputs]:
    if inputs is None:
        return ()
    if isinstance(inputs, str | Path | Mapping | np.ndarray) or callable(inputs):
        return (inputs,)
    return tuple(inputs)


def _level(word: str | None) -> Level | None:
    if word is None:
        return None
    try:
        return Level(word)
    except ValueError as error:
        words = ", ".join(Level)
        raise UsageError(f"there is no level {word!r}", remedy=f"choose of {words}") from error


def _judged(
    before: ir.Model, after: ir.Model, wishes: Wishes, tell: Callable[[str], None]
) -> VerifyReport:
    from bnfold.evidence.verification import judge_end_to_end

    return judge_end_to_end(before, after, wishes, tell)


def _prove(
    before: ir.Model,
    after: ir.Model,
    certificate: Certificate | None,
    wishes: Wishes,
    *,
    impulses: bool = False,
) -> ProofReport:
    """Compare the graphs; one that cannot be evaluated is not judged, never an error."""
    seconds = wishes.max_time_s if certificate is None else math.inf
    try:
        with np.errstate(all="ignore"):
            return prove(
                before,
                after,
                certificate,
                seed=wishes.seed,
                seconds=seconds,
                impulses=impulses,
            )
    except MissingDependencyError as error:
        return ProofReport(Verdict.NOT_JUDGED, why=error.what)
    except (BnfoldError, ValueError, TypeError, KeyError, IndexError, RuntimeError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        why = f"the graphs cannot be compared: {said}"
        return ProofReport(Verdict.NOT_JUDGED, why=why, certified=certificate is not None)


def _asks_for_a_run(wishes: Wishes) -> bool:
    """Return whether something was asked for that only a run can answer."""
    chosen = (wishes.folded_provider, wishes.level, wishes.folded_level, wishes.labels)
    return bool(
        wishes.inputs
        or wishes.shapes
        or wishes.search_s
        or any(one is not None for one in chosen)
        or wishes.provider != provider_named("cpu")
    )


def _by_proof_alone(
    proof: ProofReport, before: ir.Model, after: ir.Model, wishes: Wishes
) -> VerifyReport:
    note = "judged by the certificate alone: nothing was run (--run does both)"
    report = VerifyReport(proof.verdict, warnings=(note,))
    if proof.verdict is Verdict.FAILED:
        return _localised(report, proof, before, after, wishes)
    return replace(report, proof=proof)


def _joined(
    report: VerifyReport, proof: ProofReport, before: ir.Model, after: ir.Model, wishes: Wishes
) -> VerifyReport:
    """One verdict of both: either can convict, only what was run acquits by itself."""
    report = replace(report, proof=proof)
    if report.verdict is Verdict.FAILED:
        return _localised(report, proof, before, after, wishes)
    declared = [one for one in proof.findings if one.charge is Charge.INTERFACE]
    if declared and not proof.certified:
        return report
    counts = proof.certified or _share_in_common(before, after) >= _ONE_GRAPH
    if proof.verdict is Verdict.FAILED and counts:
        why = "; ".join(filter(None, (report.why, _findings(proof))))
        return replace(report, verdict=Verdict.FAILED, why=why)
    if proof.verdict is Verdict.FAILED:
        warning = "the graphs have too little in common to be compared segment by segment"
        return replace(report, warnings=(*report.warnings, warning))
    if report.verdict is Verdict.NOT_JUDGED and proof.certified and proof.passed:
        warning = f"judged by the certificate alone: {report.why}"
        warnings = (*report.warnings, warning)
        return replace(report, verdict=Verdict.PASSED, why="", warnings=warnings)
    return report


def _localised(
    report: VerifyReport, proof: ProofReport, before: ir.Model, after: ir.Model, wishes: Wishes
) -> VerifyReport:
    """Add where the graphs part; a certificate that is wrong itself says nothing of that."""
    if proof.certified and not any(finding.node for finding in proof.findings):
        free = _prove(before, after, None, wishes)
        proof = replace(proof, findings=(*proof.findings, *free.findings))
    parted = _findings(proof) if proof.verdict is Verdict.FAILED or proof.findings else ""
    why = "; ".join(filter(None, (report.why, parted)))
    return replace(report, why=why, proof=proof)


def _findings(proof: ProofReport) -> str:
    """The first finding, in a sentence."""
    if not proof.findings:
        return proof.why if proof.verdict is not Verdict.PASSED else ""
    first = proof.findings[0]
    node = f" at node {first.node!r}" if first.node else ""
    channel = "" if first.channel is None else f", channel {first.channel}"
    return f"the graphs part{node}, {first.where!r}{channel}: {first.why}"


def _share_in_common(before: ir.Model, after: ir.Model) -> float:
    """How many of the folded model's computed values the original has by the same name."""
    known, found = _computed(before), _computed(after)
    return len(known & found) / max(len(found), 1)


def _computed(model: ir.Model) -> set[Any]:
    return {value.name for node in model.graph for value in node.outputs if value.name}
