"""Check a certificate against two models: are these the files, the changes, the tensors?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.evidence import clock
from bnfold.evidence.proof.certificate import Certificate, TensorChange
from bnfold.evidence.proof.changes import (
    Change,
    Kind,
    changed_nodes,
    changed_tensors,
    kept_tensors,
)
from bnfold.evidence.proof.channels import channel_of
from bnfold.evidence.proof.contents import Contents
from bnfold.evidence.proof.recipes import RecipeError
from bnfold.evidence.proof.rounding import Wide
from bnfold.evidence.proof.sides import CannotEvaluateError, Side, TooLateError
from bnfold.evidence.proof.unrounded import Unrounded, compared, stored_rows
from bnfold.records import REQUANTIZED, Charge, Finding, Step

_MULTIPLIED_AS_THEY_ARE: Final = ("float16", "float32", "float64")
_NAMED: Final = 5
"""So many nodes of a site a finding names: it may have 10⁵."""


@dataclass(frozen=True, slots=True)
class Account:
    """What the books show.

    Attributes:
        findings: What does not fit.
        wide: Unrounded tensors of the folded model, by name.
        rounded: Changed floating tensors that nothing tells the unrounded elements of.
        derived: How many tensors were derived anew.
        is_untold: Whether there are none: nothing tells what was rounded.
    """

    findings: tuple[Finding, ...]
    wide: Mapping[str, Wide]
    rounded: frozenset[str]
    derived: int
    is_untold: bool = False


@dataclass(slots=True)
class Books:
    """A certificate, and the two models as they are.

    Attributes:
        certificate: What is claimed.
        original: The model before.
        folded: The model after.
        before: What the original holds.
        after: What the folded model holds.
        derived: Tensors that were found to be what their recipes give; others are added.
    """

    certificate: Certificate
    original: Side
    folded: Side
    before: Contents
    after: Contents
    derived: Unrounded
    _rounded: set[str] = field(default_factory=set)
    _folds: _Folds | None = None

    def check(self) -> Account:
        """Compare what is claimed with what is there."""
        findings = [*self._identity()]
        if not findings:
            findings.extend(self._tensors())
            findings.extend(self._compared())
            findings.extend(self._rest(findings))
        return Account(
            tuple(findings), self.derived, frozenset(self._rounded), len(self.derived)
        )

    def _identity(self) -> Iterator[Finding]:
        certificate = self.certificate
        if not certificate.sealed:
            why = "its digest does not fit its contents: it was changed after it was written"
            yield Finding(Charge.TAMPERED, "", "certificate", why)
        if certificate.original != self.before.digest:
            why = (
                f"it is about an original with SHA-256 {certificate.original[:12]}…, "
                f"this one has {self.before.digest[:12]}…"
            )
            yield Finding(Charge.OTHER_FILES, "", "certificate", why)

    def _compared(self) -> Iterator[Finding]:
        """Hold the recorded changes against the changes there are."""
        pairs = (
            ("node", self.certificate.nodes, changed_nodes(self.before, self.after)),
            (
                "tensor",
                [entry.change for entry in self.certificate.tensors],
                [*changed_tensors(self.before, self.after), *self._kept()],
            ),
        )
        for role, recorded, found in pairs:
            yield from self._unlike(role, recorded, found)
        if self.certificate.header != (self.before.header, self.after.header):
            why = "interface, opsets, functions or metadata are not what it says"
            yield Finding(Charge.UNRECORDED, "", "model", why)

    def _kept(self) -> Sequence[Change]:
        """Return what is said to be kept, and is: what became something else was changed."""
        told = (entry.change for entry in self.certificate.tensors if entry.recipe)
        kept = [change.name for change in told if change.kind is Kind.KEPT]
        return kept_tensors(self.before, self.after, dict.fromkeys(kept))

    def _unlike(
        self, role: str, recorded: Sequence[Change], found: Sequence[Change]
    ) -> Iterator[Finding]:
        told, seen = ({change.name: change for change in part} for part in (recorded, found))
        for name in dict.fromkeys((*told, *seen)):
            claim, fact = told.get(name), seen.get(name)
            if claim == fact:
                continue
            node = name if role == "node" else self._reader_of(name)
            if claim is None and fact is not None:
                why = f"the {role} was {fact.kind}, and the certificate does not say so"
                yield Finding(Charge.UNRECORDED, node, name, why, self._moved(role, fact))
            elif fact is None and claim is not None:
                why = f"the certificate says that the {role} was {claim.kind}: it was not"
                yield Finding(Charge.NOT_DONE, node, name, why, fold=self._fold_of(name, node))
            elif claim is not None and fact is not None:
                why = f"the {role} is not the one that the certificate describes"
                fold = self._fold_of(name, node)
                yield Finding(
                    Charge.UNRECORDED, node, name, why, self._moved(role, fact), fold
                )
        if len(told) != len(recorded):
            yield Finding(Charge.TAMPERED, "", "certificate", f"it lists a {role} twice")

    def _rest(self, findings: Sequence[Finding]) -> Iterator[Finding]:
        if not findings and self.certificate.folded != self.after.digest:
            why = "the folded model is not the one that the certificate is about"
            yield Finding(Charge.OTHER_FILES, "", "certificate", why)

    def _moved(self, role: str, change: Change) -> int | None:
        """Return the channel in which a tensor is furthest from what it was."""
        if role != "tensor" or change.kind is not Kind.CHANGED:
            return None
        tensors = [part.stored[change.name].const_value for part in (self.before, self.after)]
        arrays = [None if tensor is None else tensor.numpy() for tensor in tensors]
        old, new = arrays
        if old is None or new is None or old.shape != new.shape or not old.ndim:
            return None
        off = np.abs(new.astype(np.float64) - old.astype(np.float64))
        place = [int(index) for index in np.unravel_index(int(np.argmax(off)), off.shape)]
        return self._channel(change.name, off.shape, place)

    def _channel(
        self, tensor: str, shape: tuple[int, ...], place: Sequence[int]
    ) -> int | None:
        """Return the output channel of an element of a tensor of the folded model."""
        use = next(iter(self.after.stored[tensor].uses()), None)
        node, slot = (None, 0) if use is None else (use.node, use.idx)
        return channel_of(node, slot, shape, place)

    def _tensors(self) -> Iterator[Finding]:
        """Derive every changed tensor anew; half an ulp is what storing it may cost."""
        for entry in self.certificate.tensors:
            clock.check()
            tensor = self._tensor_of(entry.change)
            if tensor is None:
                continue
            if tensor.dtype.is_floating_point():
                yield from self._tensor(entry, tensor)
            elif REQUANTIZED in self.certificate.assumptions:
                self._rounded.add(entry.change.name)

    def _tensor_of(self, change: Change) -> ir.TensorProtocol | None:
        value = self.after.stored.get(change.name)
        return None if value is None or change.kind is Kind.REMOVED else value.const_value

    def _tensor(self, entry: TensorChange, tensor: ir.TensorProtocol) -> Iterator[Finding]:
        name = entry.change.name
        node = self._reader_of(name)
        fold = self._fold_of(name, node)
        if entry.recipe is None:
            self._rounded.add(name)
            return
        if self.derived.recipes.get(name) is entry.recipe:
            return
        stored = stored_rows(tensor)
        try:
            found = compared(entry.recipe, partial(constant_named, self.original), stored)
        except TooLateError:
            raise  # nothing follows from that
        except (RecipeError, CannotEvaluateError) as error:
            yield Finding(Charge.TENSOR, node, name, f"cannot be derived: {error}", None, fold)
            return
        if stored.shape != found.shape:
            why = f"its shape is {stored.shape}, {found.shape} is derived"
            yield Finding(Charge.TENSOR, node, name, why, None, fold)
            return
        self.derived.remember(name, entry.recipe, found)
        if found.worst is not None:
            worst = found.worst
            off = f"{worst.half_ulps:.3g} half ulps apart"
            why = (
                f"element {list(worst.place)} is {worst.got:.9g},"
                f" {worst.want:.9g} is derived: {off}"
            )
            channel = self._channel(name, stored.shape, worst.place)
            yield Finding(Charge.TENSOR, node, name, why, channel, fold)

    def _reader_of(self, tensor: str) -> str:
        value = self.after.stored.get(tensor)
        readers: Iterable[ir.Node] = () if value is None else value.consumers()
        return next((self.after.keys.get(node, node.name or "") for node in readers), "")

    def _fold_of(self, name: str, node: str) -> str:
        if self._folds is None:
            self._folds = _Folds(self.certificate.folds)
        return self._folds.of(name, node)


def constant_named(side: Side, name: str) -> NDArray[np.generic] | None:
    """Return a constant of a model by its name, as it is stored where it is stored."""
    value = side.values.get(name)
    if value is None or not side.is_constant(value):
        return None
    if value.producer() is None and value.const_value is not None:
        stored = np.asarray(value.const_value.numpy())
        if stored.dtype.name in _MULTIPLIED_AS_THEY_ARE:
            return stored
    return np.asarray(side.constant(value))


def fold_of(certificate: Certificate | None, name: str, node: str) -> str:
    """Return the fold that wrote a tensor, or edited a node, in words; "" if there is none."""
    return "" if certificate is None else _Folds(certificate.folds).of(name, node)


class _Folds:
    """The folds of a certificate by what they wrote: every tensor asks for its own."""

    def __init__(self, folds: Sequence[Step]) -> None:
        self._folds = folds
        self._named: dict[str, int] = {}
        self._took: dict[str, int] = {}
        for number, step in enumerate(folds):
            for name in (*step.tensors, *step.site):
                self._named.setdefault(name, number)
            for node in step.absorbed_by:
                self._took.setdefault(node, number)

    def of(self, name: str, node: str) -> str:
        """Return the first fold that names a tensor or node, or was taken in by the node."""
        none = len(self._folds)
        number = min(self._named.get(name, none), self._took.get(node, none))
        if number == none:
            return ""
        step = self._folds[number]
        site = ", ".join(step.site[:_NAMED])
        more = len(step.site) - _NAMED
        return f"{step.rule} {site}{f' and {more} more' if more > 0 else ''} ({step.move})"
