"""Show that two models are the same function, with a certificate or without."""

from __future__ import annotations

import hashlib
import math
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir as ir

from bnfold.errors import BnfoldError, MissingDependencyError, UsageError
from bnfold.evidence.clock import NO_MEMORY, OutOfTimeError, until
from bnfold.evidence.proof.accounting import Account, Books, constant_named
from bnfold.evidence.proof.certificate import Certificate, Relation, TensorChange
from bnfold.evidence.proof.changes import changed_nodes, changed_tensors, kept_tensors
from bnfold.evidence.proof.comparer import Comparer
from bnfold.evidence.proof.contents import Contents, contents_of_both
from bnfold.evidence.proof.defaults import other_defaults
from bnfold.evidence.proof.lockstep import Lockstep
from bnfold.evidence.proof.outcomes import SAME
from bnfold.evidence.proof.recipes import RecipeError
from bnfold.evidence.proof.reporting import report_of
from bnfold.evidence.proof.rounding import half_ulp
from bnfold.evidence.proof.segments import SegmentJudge
from bnfold.evidence.proof.sides import TOO_LATE, CannotEvaluateError, Side, TooLateError
from bnfold.evidence.proof.stored_noise import StoredNoise
from bnfold.evidence.proof.unrounded import Unrounded, compared, stored_rows
from bnfold.evidence.reference.arrays import NoKernelError
from bnfold.inputs.signature import differences
from bnfold.inputs.sizes import Shapes
from bnfold.model.digests import Place
from bnfold.records import CONSTANT_INPUTS, Charge, Finding, ProofReport, Step, Verdict


def prove(
    original: ir.Model,
    folded: ir.Model,
    certificate: Certificate | None = None,
    *,
    seed: int = 0,
    seconds: float = math.inf,
    impulses: bool = False,
    shapes: Shapes = (),
) -> ProofReport:
    """Show that ``folded`` computes what ``original`` does, or where it does not.

    With a certificate, every changed tensor is derived anew and must be within half a unit in
    the last place of its type, every change must be recorded, and segments are compared with
    unrounded tensors. Without one, they are compared within the noise of stored tensors.

    Args:
        original: The model before the fold; not changed.
        folded: The model that claims to be the same function; not changed.
        certificate: What the fold says it did.
        seed: Of the numbers that segments are evaluated on.
        impulses: Whether affine segments of moderate size are probed by every impulse too.
        shapes: Sizes of inputs that the model leaves open; found or chosen where not given.
        seconds: How long it may take: graphs that share little have segments without end.

    Returns:
        PASSED, FAILED with findings, or NOT_JUDGED where an operator cannot be evaluated or
        the time was up.
    """
    with until(time.monotonic() + seconds) as deadline:
        try:
            return _proof(
                original,
                folded,
                certificate,
                seed,
                deadline,
                impulses=impulses,
                shapes=shapes,
            )
        except (OutOfTimeError, TooLateError):
            return _too_late(certified=certificate is not None)


def _too_late(*, certified: bool) -> ProofReport:
    return ProofReport(Verdict.NOT_JUDGED, why=TOO_LATE, certified=certified)


def _proof(
    original: ir.Model,
    folded: ir.Model,
    certificate: Certificate | None,
    seed: int,
    deadline: float,
    *,
    impulses: bool,
    shapes: Shapes,
) -> ProofReport:
    unlike = differences(original, folded)
    if unlike:
        found = Finding(Charge.INTERFACE, "", "interface", "; ".join(unlike))
        return ProofReport(Verdict.FAILED, (found,), certified=certificate is not None)
    assumptions = () if certificate is None else certificate.assumptions
    free = CONSTANT_INPUTS in assumptions
    given = () if free else tuple(other_defaults(original, folded))
    if given:
        return ProofReport(Verdict.FAILED, given, certified=certificate is not None)
    sides = [Side(model, constant_inputs=free) for model in (original, folded)]
    contents = contents_of_both(original, folded)
    account = _account(certificate, sides, contents)
    if account.findings:
        return ProofReport(
            Verdict.FAILED,
            account.findings,
            tensors=account.derived,
            certified=True,
            assumptions=assumptions,
        )
    new = Side(folded, account.wide, constant_inputs=free)
    asked = _Asked(certificate, account, seed, deadline, impulses, shapes)
    return _walked(sides[0], new, contents, asked)[1]


def proved(attempt: Callable[[], ProofReport], *, certified: bool) -> ProofReport:
    """Return what ``attempt`` shows; graphs that cannot be evaluated are not judged.

    Args:
        attempt: A call of `prove`, or of what makes a certificate.
        certified: Whether a certificate said what to expect.

    Raises:
        UsageError: If the call makes no sense: a shape of an input that there is not.
    """
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of means of nothing
            return attempt()
    except MissingDependencyError as error:
        return ProofReport(Verdict.NOT_JUDGED, why=error.what, certified=certified)
    except UsageError:
        raise
    except (OutOfTimeError, TooLateError):
        return _too_late(certified=certified)
    except MemoryError:
        return ProofReport(Verdict.NOT_JUDGED, why=NO_MEMORY, certified=certified)
    except Exception as error:  # noqa: BLE001  graphs of strangers can be wrong in any way
        why = f"the graphs cannot be compared: {_said(error)}"
        return ProofReport(Verdict.NOT_JUDGED, why=why, certified=certified)


def _said(error: Exception) -> str:
    """Return what an error of ours says; what Python says is about code, and stays behind."""
    if isinstance(error, BnfoldError):
        return "; ".join(filter(None, (error.what, error.where, error.why)))
    if isinstance(error, CannotEvaluateError | NoKernelError):
        return str(error)
    return "something in them is of a kind that the comparison does not know"


def certify(
    original: ir.Model,
    folded: ir.Model,
    steps: Sequence[Step],
    recipes: Mapping[str, Mapping[str, Any]],
    assumptions: Sequence[str] = (),
    *,
    seed: int = 0,
    seconds: float = math.inf,
    shapes: Shapes = (),
    known: Mapping[Place, str] = MappingProxyType({}),
) -> tuple[Certificate, ProofReport]:
    """Write down what a fold did, and prove it.

    Args:
        original: The model before the fold.
        folded: The model after.
        steps: What the fold says it did.
        recipes: Of tensors, what they were made of; those that do not hold are left out.
        assumptions: What the user allowed.
        seed: Of the proof.
        seconds: How long the proof may take; what was not compared by then is inconclusive.
        shapes: Sizes of inputs that the model leaves open.
        known: Digests of tensors, by where they are, of whoever has read all of them.

    What cannot be compared is written down all the same: the report then says why.

    Raises:
        OutOfTimeError: If there was no time to write it down.
        UsageError: If a shape does not fit.
    """
    with until(time.monotonic() + seconds) as deadline:
        return _certified(
            original, folded, steps, recipes, assumptions, seed, deadline, shapes, known
        )


def _certified(
    original: ir.Model,
    folded: ir.Model,
    steps: Sequence[Step],
    recipes: Mapping[str, Mapping[str, Any]],
    assumptions: Sequence[str],
    seed: int,
    deadline: float,
    shapes: Shapes,
    known: Mapping[Place, str],
) -> tuple[Certificate, ProofReport]:
    free = CONSTANT_INPUTS in assumptions
    side = Side(original, constant_inputs=free)
    before, after = contents_of_both(original, folded, known)
    derived = Unrounded(partial(constant_named, side))
    tensors = tuple(
        TensorChange(
            change, _that_holds(recipes.get(change.name), change.name, derived, after)
        )
        for change in changed_tensors(before, after)
    )
    tensors += tuple(_kept(before, after, recipes, derived))
    certificate = Certificate(
        original=before.digest,
        folded=after.digest,
        header=(before.header, after.header),
        assumptions=tuple(assumptions),
        folds=tuple(steps),
        nodes=changed_nodes(before, after),
        tensors=tensors,
    )
    account = Books(
        certificate, side, Side(folded, constant_inputs=free), before, after, derived
    ).check()
    new = Side(folded, account.wide, constant_inputs=free)
    walks: list[Lockstep] = []

    def walked() -> ProofReport:
        asked = _Asked(certificate, account, seed, deadline, shapes=shapes)
        walk, report = _walked(side, new, [before, after], asked)
        walks.append(walk)
        return report

    report = proved(walked, certified=True)
    values = tuple(relation for walk in walks for relation in _relations(walk))
    return replace(certificate, values=values), report


def _kept(
    before: Contents,
    after: Contents,
    recipes: Mapping[str, Mapping[str, Any]],
    derived: Unrounded,
) -> Iterator[TensorChange]:
    """Yield the tensors that a fold wrote anew, and whose type rounds them to what they were.

    A scale of 1/√(1 + 1e-5), of a BatchNormalization that was never trained, leaves every
    number of a float16 or bfloat16 weight as it is: the factor is in the rounding alone.
    """
    told = (name for name, recipe in recipes.items() if "value" not in recipe)
    for change in kept_tensors(before, after, told):
        recipe = _that_holds(recipes[change.name], change.name, derived, after)
        if recipe is not None:
            yield TensorChange(change, recipe)


def _that_holds(
    recipe: Mapping[str, Any] | None, name: str, derived: Unrounded, after: Contents
) -> Mapping[str, Any] | None:
    """Return a recipe if it gives the tensor that is there; a fold may not know its origin.

    What holds is noted in ``derived``: nothing is derived twice.
    """
    value = after.stored.get(name)
    tensor = None if value is None else value.const_value
    if recipe is None or tensor is None:
        return None
    stored = stored_rows(tensor)
    try:
        found = compared(recipe, derived.constants, stored)
    except (RecipeError, CannotEvaluateError):
        return None
    if stored.shape != found.shape or found.worst is not None:
        return None
    if tensor.dtype.is_floating_point():
        derived.remember(name, recipe, found)
    return recipe


def _account(
    certificate: Certificate | None, sides: Sequence[Side], contents: Sequence[Contents]
) -> Account:
    if certificate is not None:
        derived = Unrounded(partial(constant_named, sides[0]))
        return Books(
            certificate, sides[0], sides[1], contents[0], contents[1], derived
        ).check()
    changed = {change.name for change in changed_tensors(*contents)}
    return Account((), {}, _floats(contents[1], changed), 0, is_untold=True)


def _floats(contents: Contents, names: Collection[str]) -> frozenset[str]:
    """Return which of these tensors are of floats."""
    return frozenset(
        name
        for name, value in contents.stored.items()
        if name in names
        and value.const_value is not None
        and value.const_value.dtype.is_floating_point()
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """How two models are to be compared, see `prove`; and what is known of their tensors."""

    certificate: Certificate | None
    account: Account
    seed: int
    deadline: float = math.inf
    impulses: bool = False
    shapes: Shapes = ()


def _walked(
    original: Side, folded: Side, contents: Sequence[Contents], asked: _Asked
) -> tuple[Lockstep, ProofReport]:
    """Walk at the sizes that are declared; at others too if those of 0 hide what is new."""
    walk = _walk(original, folded, contents, asked)
    report = report_of(walk, asked.certificate, asked.account, contents[1])
    is_open = report.verdict is Verdict.NOT_JUDGED and not walk.judge.is_late
    if not (is_open and walk.has_empty_axis):
        return walk, report
    again = _walk(original, folded, contents, asked, elsewhere=True)
    found = report_of(again, asked.certificate, asked.account, contents[1])
    if found.passed:
        return again, found
    return walk, replace(report, why="; ".join(filter(None, (report.why, found.why))))


def _walk(
    original: Side,
    folded: Side,
    contents: Sequence[Contents],
    asked: _Asked,
    *,
    elsewhere: bool = False,
) -> Lockstep:
    seed, account, deadline = asked.seed, asked.account, asked.deadline
    before, after = contents

    def is_same(node: ir.Node) -> bool:
        return after.has_same(after.keys.get(node, ""), before)

    same = {name for name, one in after.tensors.items() if before.tensors.get(name) == one}
    same -= set(account.wide)  # of the same bytes, and rounded from other numbers
    drawn_by = _unforeseeable(seed, before, after)
    kept = _floats(after, same) if account.is_untold else frozenset()
    coarsest = _coarsest(after, account.rounded)
    noise = StoredNoise(original, folded, is_same, account.rounded, kept, coarsest, drawn_by)
    comparer = Comparer(original, folded, is_same, frozenset(same), noise, drawn_by, deadline)
    judge = SegmentJudge(comparer, deadline, asked.impulses)
    walk = Lockstep(comparer, judge, asked.shapes, elsewhere)
    walk.run()
    return walk


def _unforeseeable(seed: int, before: Contents, after: Contents) -> int:
    """Return a seed that hangs on both models.

    Whoever knew the numbers that are drawn could make a wrong model that is right for these.
    The same two models always draw the same.
    """
    mixed = hashlib.sha256(f"{seed} {before.digest} {after.digest}".encode())
    return int.from_bytes(mixed.digest()[:6], "big")


def _coarsest(after: Contents, names: Collection[str]) -> float:
    """Return half an ulp of one in the coarsest floating type of these tensors."""
    held = (after.stored[name].const_value for name in names)
    kinds = {one.dtype.numpy() for one in held if one and one.dtype.is_floating_point()}
    kinds.add(np.dtype(np.float32))  # the type of attributes
    return max(float(half_ulp(np.array(1.0), kind)) for kind in kinds)


def _relations(walk: Lockstep) -> Iterator[Relation]:
    for name, link in walk.relations.items():
        if link is not SAME:
            scale, shift = tuple(link.scale.tolist()), tuple(link.shift.tolist())
            yield Relation(name, link.axis, scale, shift)
    for name in walk.lost:
        yield Relation(name)
