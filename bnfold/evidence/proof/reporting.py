"""What a walk through two graphs found, as a report: verdict, findings, what was not seen."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from bnfold.evidence.proof.accounting import Account, fold_of
from bnfold.evidence.proof.blame import blame, origin
from bnfold.evidence.proof.certificate import Certificate
from bnfold.evidence.proof.contents import Contents
from bnfold.evidence.proof.links import Gap, Link
from bnfold.evidence.proof.lockstep import Lockstep
from bnfold.evidence.proof.outcomes import SAME, Lost
from bnfold.evidence.proof.shares import Share, share_of
from bnfold.evidence.proof.sides import TOO_LATE
from bnfold.records import Charge, Finding, ProofReport, Verdict

_QUIET = 1e-3
_LOUDEST = 1e5
"""Shares of the worst gap below which a value is not named; gaps beyond count as this."""

_ELSEWHERE = "at other sizes than the declared 0 the models differ, and at 0 nothing is seen"
_WITHIN_STORAGE = "1 is what rounding of the stored tensors explains"
_WITHIN_FLOAT64 = "relative to its slice, in float64"


def report_of(
    walk: Lockstep, certificate: Certificate | None, account: Account, after: Contents
) -> ProofReport:
    """Return the verdict on a walk that is done, and what supports it.

    Outputs decide: a value on the way that has no relation may be one of a right fold.

    Args:
        walk: Of both graphs.
        certificate: What the fold says it did; None for a comparison of the files alone.
        account: What the certificate's books show.
        after: What the folded model holds.
    """
    outcomes = {
        value.name or "": walk.settle(value.name or "")
        for value in walk.folded.model.graph.outputs
    }
    open_ones = {name: one for name, one in outcomes.items() if one is not SAME}
    findings = tuple(_findings(walk, open_ones, certificate, after))
    unknown = [
        one.why for one in open_ones.values() if isinstance(one, Lost) and one.gap is None
    ]
    share = share_of(walk)
    verdict = Verdict.PASSED
    if open_ones:
        # A value without a relation may be one on the way of a right fold: outputs decide.
        wrong = len(unknown) < len(open_ones)
        verdict = Verdict.FAILED if wrong and not walk.judge.is_late else Verdict.NOT_JUDGED
    elif share.unshown:
        verdict = Verdict.NOT_JUDGED
        unknown = [_unshown(share)]
    if walk.elsewhere:
        verdict, unknown = _as_declared(walk, verdict, unknown)
    return ProofReport(
        verdict,
        findings if verdict is Verdict.FAILED else (),
        tensors=account.derived,
        same_nodes=walk.same_nodes,
        windows=walk.judge.windows,
        impulses=walk.judge.probed,
        certified=certificate is not None,
        untold=tuple(sorted(account.rounded)) if certificate is not None else (),
        assumptions=() if certificate is None else certificate.assumptions,
        why=_why(walk, unknown) if verdict is Verdict.NOT_JUDGED else "",
        channels=share.channels,
        shown=share.shown,
        elements=walk.judge.elements,
        unshown=share.unshown,
    )


def _as_declared(
    walk: Lockstep, verdict: Verdict, unknown: list[str]
) -> tuple[Verdict, list[str]]:
    """Return what follows for sizes of 0 from a walk at others, and why nothing does."""
    if verdict is Verdict.FAILED:
        return Verdict.NOT_JUDGED, [_ELSEWHERE]
    why = walk.why_not_as_declared() if verdict is Verdict.PASSED else ""
    return (Verdict.NOT_JUDGED, [why]) if why else (verdict, unknown)


def _unshown(share: Share) -> str:
    first, others = share.unshown[0], len(share.unshown) - 1
    more = f" (and {others} more)" if others else ""
    return f"no difference was found, but not all could be seen: {first}{more}"


def _why(walk: Lockstep, unknown: Sequence[str]) -> str:
    """Why nothing was shown; what was given up late says nothing of the models."""
    return TOO_LATE if walk.judge.is_late else "; ".join(dict.fromkeys(unknown))


def _findings(
    walk: Lockstep,
    outputs: Mapping[str, Link | Lost | None],
    certificate: Certificate | None,
    after: Contents,
) -> Iterator[Finding]:
    if not outputs:
        return
    expected = set() if certificate is None else {entry.name for entry in certificate.values}
    behind = _behind(walk, outputs)
    lost_ones = (lost for name, lost in walk.lost.items() if name in behind)
    off = [(lost, lost.gap) for lost in lost_ones if lost.gap is not None]
    surprises = [pair for pair in off if pair[0].name not in expected]
    if not surprises and any(_off_by(outcome) for outcome in outputs.values()):
        surprises = off  # the certificate may have been written to hide one of them
    for lost, far in _loud(surprises)[:1]:
        yield _value_finding(walk, lost, far, certificate, after)
    for name, outcome in outputs.items():
        by = _off_by(outcome)
        if by is not None:
            why = f"it differs by {by.size:.3g}"
            culprit = origin(walk, name, by.channel)[1] if isinstance(outcome, Link) else None
            node = "" if culprit is None else after.keys.get(culprit, "")
            yield Finding(Charge.OUTPUT, node, name, why, by.channel)


def _loud(lost: Sequence[tuple[Lost, Gap]]) -> Sequence[tuple[Lost, Gap]]:
    """Return the values that are off by more than a thousandth of the worst.

    Beside a fault, a value that rounding moved a little further than usual is no finding.
    """
    worst = max((far.size for _, far in lost), default=0.0)
    limit = _QUIET * min(worst, _LOUDEST)
    return [pair for pair in lost if pair[1].size >= limit] or lost


def _behind(walk: Lockstep, outputs: Collection[str]) -> set[str]:
    """Return the lost values that wrong outputs hang on without a related one between.

    A fold may leave values on its way that are no map of their counterparts; where what
    follows is related again, they are not to blame.
    """
    found: set[str] = set()
    pending = [walk.folded.values[name] for name in outputs]
    while pending:
        value = pending.pop()
        name = value.name or ""
        if name in found or (name in walk.relations and name not in outputs):
            continue
        found.add(name)
        node = value.producer()
        pending.extend(walk.folded.reads(node) if node is not None else ())
    return found


def _off_by(outcome: Link | Lost | None) -> Gap | None:
    """Return how far an output is off; None if it is not, or nobody knows."""
    if isinstance(outcome, Link):
        return outcome.gap
    return outcome.gap if isinstance(outcome, Lost) else None


def _value_finding(
    walk: Lockstep,
    lost: Lost,
    far: Gap,
    certificate: Certificate | None,
    after: Contents,
) -> Finding:
    """Name the node: the one that computes the value, or the one that a stray map is from."""
    name, culprit, channel = blame(walk, lost, far.channel)
    node = "" if culprit is None else after.keys.get(culprit, "")
    why = f"it differs by {far.size:.3g} ({_WITHIN_FLOAT64})"
    if walk.comparer.noise.rounded:
        why = f"it differs by {far.size:.3g} ({_WITHIN_STORAGE})"
    return Finding(Charge.VALUE, node, name, why, channel, fold_of(certificate, name, node))
