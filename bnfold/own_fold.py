"""What bnfold itself makes of an original, as evidence where no certificate tells how.

Without a certificate, tensors are known no better than they are stored, and a wrong number
among thousands is hidden by the rounding of the others. But a fold that bnfold made can be
made again. Where the candidate is that fold, what its tensors were made of is known: as with a
certificate, the checker derives each anew from the original and believes nothing. Where the
candidate is that fold but for one number, that number is wrong.

A candidate that was folded by other means is another graph, or other in whole tensors. Nothing
of this says anything of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np
import onnx_ir as ir

from bnfold.evidence.proof import certify, proved
from bnfold.evidence.proof.channels import channel_of
from bnfold.evidence.proof.contents import Contents, contents_of
from bnfold.evidence.proof.defaults import other_defaults
from bnfold.evidence.proof.rounding import half_ulps_apart
from bnfold.folding.api import FoldResult, fold_unchecked
from bnfold.folding.recipes import recipes_of
from bnfold.inputs.signature import differences
from bnfold.inputs.sizes import Shapes
from bnfold.model.graphs import initializer_bytes
from bnfold.records import (
    CONSTANT_INPUTS,
    INFERENCE,
    REQUANTIZED,
    Charge,
    Finding,
    ProofReport,
    Verdict,
)

_LARGEST_BYTES: Final = 1 << 29
_MOST_NODES: Final = 1 << 14
"""Beyond, the fold takes too much of the time that the comparison has."""

_SHARE: Final = 0.5
"""Of the time: what is inconclusive by this way is compared by the other one."""

_ROUNDINGS: Final = 2.0
"""Two roundings of one number to its neighbours are so many half ulps apart."""

_ARITHMETIC: Final = 8.0
"""Half ulps that folding in the type of the weights, in a few operations, may be off by."""

_ALONE: Final = 0.9
"""Where so much of a tensor is the same to the bit, it was computed in the same way, and what
is off by more than a rounding is no arithmetic of somebody else's."""


class _Apart(NamedTuple):
    """Numbers of the candidate that are not those of the fold that bnfold makes.

    Attributes:
        name: Of the tensor or attribute.
        node: Key of the node that holds or reads them.
        channel: Output channel of the furthest; None if it has none.
        half_ulps: How far that is off.
        is_clear: Whether no other arithmetic explains it.
        is_alone: Whether nearly all beside them are the same to the bit.
        is_tap: Whether they are one factor of many in a channel: nothing else makes up for it.
            A number of a whole channel may not matter, in front of a normalisation.
    """

    name: str
    node: str
    channel: int | None
    half_ulps: float
    is_clear: bool
    is_alone: bool
    is_tap: bool


@dataclass(frozen=True, slots=True)
class OwnFold:
    """The fold that bnfold makes of an original, where a candidate is one of the same graph.

    Attributes:
        result: The fold.
        before: The original.
        after: The candidate.
        apart: The numbers in which they differ.
    """

    result: FoldResult
    before: ir.Model
    after: ir.Model
    apart: tuple[_Apart, ...]

    @property
    def is_rounded(self) -> bool:
        """Whether the candidate is this fold but for the roundings of its numbers."""
        return all(one.half_ulps <= _ROUNDINGS for one in self.apart)

    def proof(self, seed: int, seconds: float, shapes: Shapes) -> ProofReport | None:
        """Compare by what the tensors were made of; None where that decides nothing.

        Args:
            seed: Of the numbers that segments are evaluated on.
            seconds: How long it may take.
            shapes: Sizes of inputs that the model leaves open.
        """
        if any(one.is_clear for one in self.apart):
            return None
        steps, recipes = self.result.report.steps, recipes_of(self.result.model)
        report = proved(
            lambda: certify(
                self.before,
                self.after,
                steps,
                recipes,
                seed=seed,
                seconds=_SHARE * seconds,
                shapes=shapes,
            )[1],
            certified=True,
        )
        if report.verdict is Verdict.NOT_JUDGED:
            return None
        return replace(report, certified=False, refolded=True)

    def held_against(self, proof: ProofReport) -> ProofReport:
        """Return a proof that passed within rounding, unless single numbers are wrong.

        Where single weights of one tensor alone are others than those of the fold, nothing
        makes up for them: the candidate is another function. Where several tensors are, or
        numbers of whole channels, something might: that is inconclusive. Whole tensors say
        nothing: there are several right folds of one graph.
        """
        clear = [one for one in self.apart if one.is_clear and one.is_alone]
        if not proof.passed or not clear:
            return proof
        worst = max(clear, key=lambda one: one.half_ulps)
        why = (
            f"{worst.name!r} is {worst.half_ulps:.3g} half ulps from what a fold of the"
            " original makes of it"
        )
        if len(self.apart) == 1 and worst.is_tap:
            why += ", and nothing else in the model is"
            finding = Finding(Charge.TENSOR, worst.node, worst.name, why, worst.channel)
            return replace(proof, verdict=Verdict.FAILED, findings=(finding,))
        why += ", which rounding would hide"
        return replace(proof, verdict=Verdict.NOT_JUDGED, why=why)


def own_fold(
    before: ir.Model, after: ir.Model, assumptions: Collection[str] = ()
) -> OwnFold | None:
    """Fold an original, and return the fold if a candidate is the same graph.

    Args:
        before: The original; not changed.
        after: The candidate.
        assumptions: What the fold may take for granted, as words of a certificate.
    """
    if initializer_bytes(after) > _LARGEST_BYTES or len(before.graph) > _MOST_NODES:
        return None
    is_free = CONSTANT_INPUTS in assumptions  # a fold may give such an input another default
    if differences(before, after) or (not is_free and any(other_defaults(before, after))):
        return None  # with other inputs or outputs, it is no fold of this
    found, folds = contents_of(after), []
    for norms in (False, True):
        try:
            result = fold_unchecked(
                before,
                norms=norms,
                assume_constant_inputs=CONSTANT_INPUTS in assumptions,
                assume_inference=INFERENCE in assumptions,
                requantize_bias=REQUANTIZED in assumptions,
            )
        except Exception:  # noqa: BLE001  whatever cannot be folded is compared without
            continue
        own = contents_of(result.model)
        if _are_one_graph(own, found):
            apart = tuple(_apart(own, found))
            folds.append(OwnFold(result, before, after, apart))
            if not apart:
                break
    # Of two that are the same graph, the one that is nearer is meant.
    return min(folds, key=lambda one: len(one.apart), default=None)


def _are_one_graph(own: Contents, found: Contents) -> bool:
    """Return whether two models differ in numbers at the most."""
    if own.meanings != found.meanings or own.tensors.keys() != found.tensors.keys():
        return False
    theirs = {key: node for node, key in found.keys.items()}
    return own.nodes.keys() == found.nodes.keys() and all(
        own.nodes[key] == found.nodes[key] or _bare(node) == _bare(theirs[key])
        for node, key in own.keys.items()
    )


def _bare(node: ir.Node) -> tuple[Any, ...]:
    """Return what a node is, without the numbers among its attributes."""
    floats = {ir.AttributeType.FLOAT, ir.AttributeType.FLOATS}
    rest = {
        name: None if one.type in floats else repr(one.value)
        for name, one in node.attributes.items()
        if name != "momentum"  # of training alone (BatchNormalization-15)
    }
    values = [None if value is None else value.name for value in (*node.inputs, *node.outputs)]
    return node.op_identifier(), values, rest


def _apart(own: Contents, found: Contents) -> Iterator[_Apart]:
    """Yield the tensors and attributes that are not the same, with how far they are off."""
    theirs = {key: node for node, key in found.keys.items()}
    for name, value in found.stored.items():
        mine = own.stored[name]
        if own.tensors[name] != found.tensors[name]:
            far = _far(mine.const_value, value.const_value)
            for node, slot in tuple(value.uses())[:1]:
                channel = None
                if far.place is not None:
                    channel = channel_of(node, slot, far.shape, list(far.place))
                key = found.keys.get(node, "")
                yield _Apart(name, key, channel, *far[2:])
    for node, key in own.keys.items():
        other = theirs[key]
        for name, number in _floats(node).items():
            if not np.array_equal(number, _floats(other).get(name, number)):
                far = _far(ir.tensor(number), ir.tensor(_floats(other)[name]))
                yield _Apart(name, key, None, *far[2:])


def _floats(node: ir.Node) -> Mapping[str, np.ndarray[Any, np.dtype[np.float32]]]:
    floats = {ir.AttributeType.FLOAT, ir.AttributeType.FLOATS}
    return {
        name: np.asarray(one.value, np.float32)
        for name, one in node.attributes.items()
        if one.type in floats and name != "momentum"
    }


class _Far(NamedTuple):
    """Where two tensors are furthest apart, and what that may come from."""

    place: tuple[int, ...] | None
    shape: tuple[int, ...]
    half_ulps: float
    is_clear: bool = False
    is_alone: bool = False
    is_tap: bool = False


def _far(own: ir.TensorProtocol | None, found: ir.TensorProtocol | None) -> _Far:
    if own is None or found is None or own.dtype != found.dtype or own.shape != found.shape:
        return _Far(None, (), float("inf"))
    if not own.dtype.is_floating_point():
        return _Far(None, (), float("inf"))
    mine, theirs = np.asarray(own.numpy()), np.asarray(found.numpy())
    off = half_ulps_apart(mine, theirs)
    worst = int(np.argmax(off)) if off.size else 0
    most = float(off.reshape(-1)[worst]) if off.size else 0.0
    is_alone = bool((off == 0).mean() >= _ALONE) if off.size else False
    is_clear = most > (_ROUNDINGS if is_alone else _ARITHMETIC)
    place = tuple(int(one) for one in np.unravel_index(worst, off.shape)) if off.ndim else ()
    is_tap = sum(size > 1 for size in off.shape) > 1
    return _Far(place, off.shape, most, is_clear, is_alone, is_tap)
