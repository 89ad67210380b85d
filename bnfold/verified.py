"""Judge two models end to end and segment by segment: what `bnfold.verify` does."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from bnfold.assumed_fold import with_assumption
from bnfold.errors import UsageError
from bnfold.evidence.proof.certificate import Certificate, read_certificate
from bnfold.evidence.proof.prove import prove, proved
from bnfold.evidence.proof.sides import TOO_LATE
from bnfold.evidence.verdict import (
    by_proof,
    is_too_large_to_run,
    one_verdict,
    within_memory,
    without_a_run,
)
from bnfold.folding.api import Document, FoldResult
from bnfold.folding.inference import read_as_inference
from bnfold.folding.selection import Selection
from bnfold.model.io import Openable, opened
from bnfold.model.validity import models_blamed
from bnfold.own_fold import own_fold
from bnfold.records import INFERENCE, Charge, ProofReport, Verdict, VerifyReport
from bnfold.refolded import with_names
from bnfold.runtime import Level, available, provider_named

if TYPE_CHECKING:
    from bnfold.evidence.verification import Inputs, Wishes
    from bnfold.evidence.verification.labels import Labels
    from bnfold.inputs.sizes import Shapes

_PROOF_SHARE = 0.6
"""Of the time for both, what the comparison of the graphs may take: it shows most."""

_LEAST_SHARE = 0.2
"""Of the time for both, what is left to the run at the least."""

_NOT_RUN = "nothing was run (--no-run)"
_ONE_GRAPH = 0.5
"""Share of value names in common from which two graphs count as one graph before and after."""


@np.errstate(all="ignore")  # what overflows is found and named, not warned of
def verify(
    original: Openable | FoldResult,
    folded: Openable | FoldResult,
    *,
    certificate: str | Path | Document | None = None,
    inputs: Inputs | Sequence[Inputs] | None = None,
    shapes: Shapes | str | None = None,
    provider: str = "cpu",
    folded_provider: str | None = None,
    level: str | None = None,
    folded_level: str | None = None,
    labels: Labels | None = None,
    search_s: float = 0.0,
    max_time: float = 60.0,
    run: bool | None = None,
    refold: bool = True,
    impulses: bool = False,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> VerifyReport:
    """Judge whether two models with the same interface compute the same function.

    Graphs that come from one another are compared segment by segment in float64, which sees
    what no input wakes. Then both run on the same inputs: where the comparison proved the
    function, only how accurately is asked; where it did not, the difference is weighed against
    the original's own rounding noise and against a float64 reference.

    Args:
        original: The model that is right: path, onnx.ModelProto, onnx_ir.Model, or what
            `bnfold.fold` returned.
        folded: The model that claims to be the same function.
        certificate: What the fold says it did, a path or `FoldResult.certificate`; the proof
            then is exact.
        inputs: The user's own inputs: paths (``.npz``, ``.npy``, ``.pb``, folders),
            ``module:callable``, arrays by name, or several of these.
        shapes: Sizes to draw inputs of: ``"x=1..8x3x224x224"``, several, or tuples by name.
        provider: What runs the original: ``cpu``, ``cuda``, ``tensorrt`` or its full name.
        folded_provider: The same for the folded model; None for the same.
        level: How much the runtime may optimise the original: ``disabled``, ``basic``,
            ``all``. None leaves it as it is; what the runtime's default does to either model
            is measured apart.
        folded_level: The same for the folded model; None for the same.
        labels: One integer for each sample of ``inputs``: adds accuracy and agreement.
        search_s: Seconds to search for the worst input, beside ``max_time``.
        max_time: Seconds for all else. What is not reached by then is said; a comparison of
            the graphs that is not done is inconclusive.
        run: Whether the models are run. None runs them unless a certificate decides, and
            nothing else asks for it (inputs, shapes, labels, a search, a provider, a level).
        refold: Whether the original is folded anew where no certificate tells all: of a
            candidate that is this fold, every tensor is derived exactly then. Nothing of the
            fold is believed. Without, the comparison knows nothing of how folds are made.
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

    begun = time.monotonic()
    wishes = Wishes(
        inputs=_listed(inputs),
        shapes=(shapes,) if isinstance(shapes, str) else shapes or (),
        provider=provider_named(provider),
        folded_provider=None if folded_provider is None else provider_named(folded_provider),
        level=_level(level),
        folded_level=_level(folded_level),
        labels=labels,
        search_s=search_s,
        max_time_s=max_time,
        seed=seed,
    )
    pair = [one.model if isinstance(one, FoldResult) else one for one in (original, folded)]
    with models_blamed(*pair):
        before, after = (opened(one, "verify") for one in pair)
        written = _read(certificate)
        asked = run or (run is None and _asks_for_a_run(wishes))
        question = _Question(
            before, after, written, wishes, run, asked, begun, impulses=impulses, refold=refold
        )
        return question.answer(progress or _silent)


@dataclass(frozen=True, slots=True)
class _Question:
    """Two models, and what is to be found out about them.

    Attributes:
        before: The model that is right.
        after: The other.
        written: What the fold says it did.
        wishes: What the user wants.
        run: Whether the models are run, as the user says.
        asked: Whether something was asked for that only a run can answer.
        begun: When it began, by the monotonic clock.
        impulses: Whether the proof probes affine segments by every impulse too.
        refold: Whether the original is folded anew where no certificate tells all.
    """

    before: ir.Model
    after: ir.Model
    written: Certificate | None
    wishes: Wishes
    run: bool | None
    asked: bool
    begun: float
    impulses: bool
    refold: bool

    def answer(self, tell: Callable[[str], None]) -> VerifyReport:
        """Compare the graphs, run both where that is needed, and say what a fold assumed."""
        report = self._judged(tell)
        if self.written is not None or not self.refold:
            return report
        return with_assumption(report, self.before, self.after)

    def _judged(self, tell: Callable[[str], None]) -> VerifyReport:
        from bnfold.evidence.verification import judge_end_to_end

        before, after, written, wishes = self.before, self.after, self.written, self.wishes
        if written is not None and INFERENCE in written.assumptions:
            read_as_inference(before, Selection())
        tell("comparing the graphs segment by segment")
        left_s = (1.0 - _PROOF_SHARE) * wishes.max_time_s
        is_large = not self.asked and is_too_large_to_run(before, left_s)
        alone = self.run is False or (written is not None and not self.asked) or is_large
        share = 1.0 if alone else _PROOF_SHARE
        proof = self._proof(share)
        decided = written is not None and proof.verdict is not Verdict.NOT_JUDGED
        if self.run is False:
            return _localised(by_proof(proof, _NOT_RUN), before, after, wishes)
        if decided and (not self.asked or not available()):
            note = "judged by the certificate alone: nothing was run (--run does both)"
            return _localised(by_proof(proof, note), before, after, wishes)
        if is_large and (proof.passed or proof.why == TOO_LATE):
            return _localised(without_a_run(proof, before), before, after, wishes)
        spent_s, most_s = time.monotonic() - self.begun, wishes.max_time_s
        left_s = max(most_s - spent_s, _LEAST_SHARE * most_s)
        proof = _that_counts(proof, before, after)
        wishes = replace(wishes, max_time_s=left_s)
        report = within_memory(
            lambda: judge_end_to_end(before, after, wishes, tell, proved=proof.passed)
        )
        return _localised(one_verdict(proof, report), before, after, wishes)

    def _proof(self, share: float) -> ProofReport:
        """Compare the graphs: exactly, where it is known what tensors were made of.

        Args:
            share: Of the time that there is for all of it.
        """
        seconds = share * self.wishes.max_time_s
        if self.written is None:
            own = own_fold(self.before, self.after) if self.refold else None
            if own is None:
                return self._compared(share)
            exact = own.proof(self.wishes.seed, seconds, self.wishes.shapes)
            return exact or own.held_against(self._compared(share))
        proof = self._compared(share)
        if not (self.refold and proof.passed and proof.untold):
            return proof
        own = own_fold(self.before, self.after)
        return proof if own is None else own.held_against(proof)

    def _compared(self, share: float) -> ProofReport:
        return _prove(
            self.before, self.after, self.written, self.wishes, share, impulses=self.impulses
        )


def _read(source: str | Path | Document | None) -> Certificate | None:
    """Read a certificate; one that is held is read as a stranger would, from its text."""
    if source is None:
        return None
    if isinstance(source, str | Path):
        return read_certificate(source)
    if not hasattr(source, "to_json"):
        raise UsageError(
            "this is no certificate",
            why=f"it is a {type(source).__name__}",
            remedy="give a path, or FoldResult.certificate of fold(…, certificate=True)",
        )
    return read_certificate(source.to_json())


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


def _prove(
    before: ir.Model,
    after: ir.Model,
    certificate: Certificate | None,
    wishes: Wishes,
    share: float,
    *,
    impulses: bool = False,
) -> ProofReport:
    """Compare the graphs; one that cannot be evaluated is not judged, never an error."""
    return proved(
        lambda: prove(
            before,
            after,
            certificate,
            seed=wishes.seed,
            seconds=share * wishes.max_time_s,
            impulses=impulses,
            shapes=wishes.shapes,
        ),
        certified=certificate is not None,
    )


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


def _that_counts(proof: ProofReport, before: ir.Model, after: ir.Model) -> ProofReport:
    """Return what a proof says of graphs that were not made of one another: nothing."""
    if proof.verdict is not Verdict.FAILED or proof.certified:
        return proof
    if any(one.charge is Charge.INTERFACE for one in proof.findings):
        why = "the interfaces are declared otherwise"
        return ProofReport(Verdict.NOT_JUDGED, why=why)
    if _share_in_common(before, after) >= _ONE_GRAPH:
        return proof
    why = "the graphs have too little in common to be compared segment by segment"
    return ProofReport(Verdict.NOT_JUDGED, why=why)


def _localised(
    report: VerifyReport, before: ir.Model, after: ir.Model, wishes: Wishes
) -> VerifyReport:
    """Add where the graphs part; a certificate that is wrong itself says nothing of that.

    Two models alone do not always tell; what bnfold would have made of the original does.
    """
    proof = report.proof
    if proof is None or {report.verdict, proof.verdict} != {Verdict.FAILED}:
        return report
    if proof.certified and not any(one.node for one in proof.findings):
        free = _prove(before, after, None, wishes, 1.0)
        proof = replace(proof, findings=(*proof.findings, *free.findings))
    return replace(report, proof=with_names(proof, before, after))


def _share_in_common(before: ir.Model, after: ir.Model) -> float:
    """How many of the folded model's computed values the original has by the same name."""
    known, found = _computed(before), _computed(after)
    return len(known & found) / max(len(found), 1)


def _computed(model: ir.Model) -> set[Any]:
    return {value.name for node in model.graph for value in node.outputs if value.name}
